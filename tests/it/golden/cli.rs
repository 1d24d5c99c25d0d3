//! The command line: what it says, and the code that it ends with. Moments, ids and ports are masked.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use onelane::simulator::{Fault, Rule, Simulator, SimulatorConfig, Span};

use super::{Golden, check, pretty, table};
use crate::common::{Ended, Place, Running, prompts, run};

/// What is never twice the same; `d` is a digit, `h` a hexadecimal one. The first that fits counts.
const MASKS: [(&str, &str); 5] = [
    ("hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh", "UUID"),
    ("dddd-dd-ddTdd:dd:dd.ddddddZ", "TIME"),
    ("dddd-dd-ddTdd:dd:dd.dddZ", "TIME"),
    ("dddd-dd-ddTdd:dd:ddZ", "TIME"),
    ("127.0.0.1:ddddd", "127.0.0.1:PORT"),
];
/// Digits so many in a row are an id or a moment.
const ID_DIGITS: usize = 10;

fn fits(text: &str, mask: &str) -> bool {
    text.len() >= mask.len()
        && text
            .bytes()
            .zip(mask.bytes())
            .all(|(byte, wanted)| match wanted {
                b'd' => byte.is_ascii_digit(),
                b'h' => byte.is_ascii_hexdigit(),
                _ => byte == wanted,
            })
}

/// The text without how long things took.
fn timeless(text: &str) -> String {
    let mut out = text.to_owned();
    for lead in [
        "lines done, ",
        "not done, ",
        "before, ",
        "failed, ",
        "bad, ",
        "spent, ",
        "billed, ",
    ] {
        let lead = format!("{lead}in ");
        if let Some(at) = out.find(&lead) {
            let from = at + lead.len();
            let length = out[from..].find([';', '\n']).unwrap_or(out.len() - from);
            out.replace_range(from..from + length, "SPAN");
        }
    }
    let lead = "\"elapsedMs\":";
    if let Some(at) = out.find(lead) {
        let from = at + lead.len();
        let length = out[from..].find(',').unwrap_or(0);
        out.replace_range(from..from + length, "MS");
    }
    out
}

fn masked(text: &str) -> String {
    let mut out = String::new();
    let text = timeless(text);
    let mut rest = text.as_str();
    while let Some(next) = rest.chars().next() {
        let mask = MASKS.iter().find(|(mask, _)| fits(rest, mask));
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        let (taken, name) = match mask {
            Some((mask, name)) => (mask.len(), *name),
            None if digits >= ID_DIGITS => (digits, "ID"),
            None => (next.len_utf8(), &rest[..next.len_utf8()]),
        };
        out.push_str(name);
        rest = &rest[taken..];
    }
    out
}

/// A command and how it ended, as one would see it in a terminal.
fn session(shown: &str, ended: &Ended) -> String {
    let code = ended
        .code
        .map_or("a signal".to_owned(), |code| code.to_string());
    let mut text = format!("$ onelane {shown}\n");
    for (stream, said) in [("stdout", &ended.stdout), ("stderr", &ended.stderr)] {
        if !said.is_empty() {
            text.push_str(&format!(
                "--- {stream}\n{}\n",
                logs_first(&masked(said)).trim_end()
            ));
        }
    }
    text + &format!("--- exit code {code}\n")
}

/// The log's lines in front, in the order of the alphabet, since several threads write them, and without the modules
/// that they come from.
fn logs_first(said: &str) -> String {
    let (logs, rest): (Vec<&str>, Vec<&str>) =
        said.lines().partition(|line| line.starts_with("TIME "));
    let of_nobody = |line: &str| {
        let (head, told) = line.split_once(": ").unwrap();
        let level = head.split_whitespace().nth(1).unwrap();
        format!("TIME {level} {told}")
    };
    let mut lines: Vec<String> = logs.into_iter().map(of_nobody).collect();
    lines.sort_unstable();
    lines.extend(rest.into_iter().map(str::to_owned));
    lines.join("\n")
}

/// A command of the table: words that no shell would take apart.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// What is asked.
const COMMANDS: &str = include_str!("../../golden/commands.txt");

fn place() -> Place {
    let place = Place::new();
    place.write("prompts.jsonl", prompts(2));
    place.write("whole.toml", include_str!("../../golden/world.toml"));
    place.write("torn.toml", "[lane\n");
    place.write(
        "wrong.toml",
        "[lane]\nmax_concurrency = \"many\"\n[glm]\nmodle = \"x\"\n[retry]\njitter = 2.0\n",
    );
    place.write("noise.redb", "no store");
    std::fs::create_dir(place.path("dir")).unwrap();
    place
}

#[test]
fn help_tables_and_refusals_are_as_the_golden_files_say() {
    let place = place();
    let mut golden = Golden::of("cli");
    let say = |line: &str| session(line, &run(&mut place.bare(&words(line))));
    let mut refusals = Vec::new();
    for line in table(COMMANDS) {
        let (name, line) = line.split_once(' ').unwrap_or((line, ""));
        match name {
            "refusals" => refusals.push(say(line.trim_start())),
            _ => golden.put(&format!("{name}.txt"), say(line.trim_start())),
        }
    }

    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let line = format!("serve --simulate --listen {address}");
    let ended = run(&mut place.bare(&words(&line)));
    refusals.push(session("serve --simulate --listen BUSY", &ended));
    let mut serve = place.bare(&words("serve --simulate --listen 127.0.0.1:0"));
    let serving = Running::start(&mut serve);
    serving.url();
    refusals.push(say("run prompts.jsonl --simulate"));
    drop(serving);
    golden.put("refusals.txt", refusals.join("\n"));
    check([golden]);
}

#[test]
fn runs_and_their_results_are_as_the_golden_files_say() {
    let place = place();
    let mut golden = Golden::of("run");
    let simulator = Simulator::start(SimulatorConfig {
        // Long enough for a file to be read before the first answer holds the lane.
        latency_ms: Span::Fixed(300),
        ..SimulatorConfig::default()
    })
    .unwrap();
    simulator.add_rule(Rule::for_prompt("refused", Fault::error("1301")));
    place.write(
        "mixed.jsonl",
        "{\"prompt\": \"one\", \"id\": \"a\"}\nnot json\n{\"prompt\": \"two\", \"id\": \"a\"}\n{\"prompt\": \"refused\"}\n",
    );
    let url = simulator.base_url();
    let mut say = |name: &str, line: &str| {
        let mut command = place.onelane(&words(line));
        let ended = run(command.env("ONELANE_BASE_URL", &url));
        golden.put(&format!("{name}.txt"), session(line, &ended));
    };
    say("done", "run prompts.jsonl");
    say("again", "run prompts.jsonl");
    say("mixed", "run mixed.jsonl");
    say("mixed_json", "run mixed.jsonl --json");
    place.write("held.jsonl", prompts(3));
    place.write("held_too.jsonl", prompts(3));
    simulator.add_rule(Rule::always(Fault::error("1113")));
    say("held", "run held.jsonl --store held.redb");
    say(
        "held_json",
        "run held_too.jsonl --store held_too.redb --json",
    );
    say(
        "held_once",
        "serve --once --listen 127.0.0.1:0 --store held.redb",
    );
    for name in ["prompts", "mixed"] {
        let file = format!("{name}.results.jsonl");
        let lines = place.read(&file);
        let lines = lines.lines().map(|line| masked(&pretty(line)));
        let mut lines: Vec<String> = lines.collect();
        lines.sort_unstable();
        golden.put(&format!("results_of_{name}.json"), lines.join("\n"));
    }
    let mut serve = place.onelane(&words("serve --listen 127.0.0.1:0 --store empty.redb"));
    let serving = Running::start(serve.env("ONELANE_BASE_URL", &url));
    serving.url();
    serving.signal("TERM");
    golden.put(
        "serve.txt",
        session("serve (until SIGTERM)", &serving.end()),
    );
    check([golden]);
}

/// What the command line says of the store that a day of a lane has left.
pub(super) fn looks_into(directory: &Path) -> Golden {
    let mut golden = Golden::of("db");
    for (name, line) in [
        ("check", "db check"),
        ("check_json", "db check --json"),
        ("stats", "stats --start 2026-11-23 --end 2026-11-25"),
        (
            "stats_of_users",
            "stats --start 2026-11-23 --end 2026-11-25 --group-by month,user --format csv",
        ),
        ("export_jobs", "db export --what jobs --format csv"),
        ("export_usage", "db export --what usage"),
        ("figures", "db stats"),
        ("figures_json", "db stats --json"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onelane"));
        let command = command.current_dir(directory).env_clear().args(words(line));
        let ended = run(command.env("ONELANE_STORE", "lane.redb"));
        let mut text = session(line, &ended);
        if name.starts_with("figures") {
            text = without_sizes(&text);
        }
        golden.put(&format!("{name}.txt"), text);
    }
    golden
}

/// Sizes depend on which changes came to the disk together.
fn without_sizes(text: &str) -> String {
    let mut out = String::new();
    for part in text.split_inclusive(|c: char| !c.is_ascii_digit()) {
        let digits = part.trim_end_matches(|c: char| !c.is_ascii_digit());
        match digits.len() {
            0..4 => out.push_str(part),
            _ => out.push_str(&part.replace(digits, "SIZE")),
        }
    }
    out
}
