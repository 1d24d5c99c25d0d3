//! The shell's look into a store: `onelane stats` and `onelane db`. Guards against verbs that harm what they
//! look at, or pass damage over in silence.

use std::path::{Path, PathBuf};

use crate::support::shows;
use crate::support::tables::tables_of;
use assert_cmd::Command;
use onelane::ports::Store as _;
use onelane::store::{RedbStore, StoreOptions};
use onelane_actors::testing::sample;
use onelane_core::model::{Prune, Retention, Transition};
use serde_json::Value;
use tempfile::TempDir;

struct Place {
    dir: TempDir,
}

struct Output {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Output {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// Says all of this on standard error.
    #[track_caller]
    fn says(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.stderr.contains(part), "{part} in {}", self.stderr);
        }
    }
}

impl Place {
    /// With a store in which some jobs are done, one has failed and one waits.
    fn new() -> Self {
        let place = Self::empty();
        let store = RedbStore::open(place.store(), StoreOptions::default()).unwrap();
        for n in 1..=3 {
            let mut done = sample::complete(n, 1);
            if let Transition::Settle(settlement) = &mut done {
                settlement.call.ended_at = sample::START.plus_ms(n * 86_400_000);
                settlement.call.session = (n < 3).then(|| "chat".parse().unwrap());
            }
            let life = [sample::insert(n), sample::start(n), done];
            store.commit(&life).unwrap();
        }
        let failed = [sample::insert(4), sample::start(4), sample::fail(4, 1)];
        store.commit(&failed).unwrap();
        store.commit(&[sample::insert(5)]).unwrap();
        place
    }

    fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("onelane.redb")
    }

    fn run(&self, line: &str) -> Output {
        let output = Command::new(assert_cmd::cargo::cargo_bin!("onelane"))
            .current_dir(self.dir.path())
            .env_clear()
            .args(line.split_whitespace())
            .output()
            .unwrap();
        Output {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs it; it must end with this code.
    #[track_caller]
    fn ends(&self, line: &str, code: i32) -> Output {
        let output = self.run(line);
        let Output { stdout, stderr, .. } = &output;
        assert_eq!(output.code, Some(code), "{line}: {stdout} {stderr}");
        output
    }

    #[track_caller]
    fn json(&self, line: &str) -> Value {
        self.ends(line, 0).json()
    }
}

/// Changes a table behind the store's back.
fn meddle<K: redb::Key + 'static>(
    path: &Path,
    table: redb::TableDefinition<'_, K, &'static [u8]>,
    change: impl FnOnce(&mut redb::Table<'_, K, &'static [u8]>),
) {
    let database = tables_of(path).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&mut transaction.open_table(table).unwrap());
    transaction.commit().unwrap();
}

/// The table of this name, by job.
const fn by_job(name: &str) -> redb::TableDefinition<'_, &'static [u8; 16], &'static [u8]> {
    redb::TableDefinition::new(name)
}

/// Puts something that is no row in the place of one.
fn garble(path: &Path, table: &str, n: u64) {
    meddle(path, by_job(table), |rows| {
        let garbled = b"garbled".as_slice();
        rows.insert(sample::job_id(n).as_bytes(), garbled).unwrap();
    });
}

/// Takes a row away.
fn damage(path: &Path, table: &str) {
    meddle(path, by_job(table), |rows| {
        rows.remove(sample::job_id(2).as_bytes()).unwrap();
    });
}

/// Makes the store one of another version.
pub(crate) fn set_version(path: &Path, version: u64) {
    let meta = redb::TableDefinition::<&str, &[u8]>::new("meta");
    meddle(path, meta, |rows| {
        let version = version.to_string();
        rows.insert("version", version.as_bytes()).unwrap();
    });
}

const ALL: [&str; 7] = [
    "stats",
    "db stats",
    "db check",
    "db export --what jobs",
    "db export",
    "db backup copy.redb",
    "db compact",
];

#[test]
fn stats_tells_the_sums_as_table_json_and_csv() {
    let place = Place::new();
    let days = "stats --start 2026-11-23 --end 2026-11-30";
    let table = place.ends(days, 0);
    let lines: Vec<_> = table.stdout.lines().collect();
    assert_eq!(lines.len(), 5, "{}", table.stdout);
    assert!(lines[0].starts_with("DATE"), "{}", lines[0]);
    assert!(lines[2].starts_with("2026-11-24  glm-4.7"), "{}", lines[2]);

    let json = place.json(&format!("{days} --group-by month,user --json"));
    let rows = json["statistics"].as_array().unwrap();
    assert_eq!(rows.len(), 1);
    shows!(rows[0], {"id": "2026-11:ada", "totalCalls": 4});
    assert_eq!(rows[0]["failuresByClass"]["server_transient"], 1);
    let text = place
        .run(&format!("{days} --format json --group-by none"))
        .stdout;
    assert!(
        text.contains(r#""totalCost":0.000003003,"currency":"CNY""#),
        "{text}"
    );

    let csv = place.run(&format!("{days} --group-by none --format csv"));
    let row = csv.stdout.lines().nth(1).unwrap();
    assert!(row.starts_with(",,,,,4,3,1,"), "{row}");
    assert!(row.contains(",0.000003003,"), "exact: {row}");

    let json = place.json(&format!("{days} --group-by session --json"));
    shows!(json["statistics"][0], {"id": "all", "totalCalls": 2});
    shows!(json["statistics"][1], {"id": "chat", "session": "chat", "totalCalls": 2});
    assert_eq!(json["callsNotInLog"], 0);
    assert!(json["statistics"][1]["cachedShare"].is_number());
    let table = place.ends(&format!("{days} --session chat --group-by user"), 0);
    let row = table.stdout.lines().nth(1).unwrap();
    assert!(row.contains("ada") && row.contains("chat"), "{row}");

    let one = place.run(&format!("{days} --user nobody"));
    assert_eq!((one.code, one.stdout.as_str()), (Some(0), ""));
    assert!(one.stderr.contains("no calls"), "{}", one.stderr);
}

#[test]
fn wrong_questions_end_with_2() {
    let place = Place::new();
    for line in [
        "stats --start 2026-02-30",
        "stats --start 2026-12-01 --end 2026-11-01",
        "stats --group-by week",
        "stats --session \u{e9}",
        "stats --format xml",
        "db",
        "db backup",
        "db export --what keys",
        "db export --what jobs --out none/jobs.jsonl",
    ] {
        let output = place.ends(line, 2);
        assert!(
            !output.stderr.is_empty() && output.stdout.is_empty(),
            "{line}"
        );
    }
}

#[test]
fn db_stats_shows_tables_jobs_ages_and_what_retention_would_remove() {
    let place = Place::new();
    let config = "[store.retention]\njobs_max = 1\nbodies_days = 1\n";
    std::fs::write(place.dir.path().join("onelane.toml"), config).unwrap();
    let json = place.json("db stats --json");
    shows!(json["jobs"], {"completed": 3, "failed": 1});
    assert_eq!(json["version"], 10);
    let tables = json["tables"].as_array().unwrap();
    let jobs = tables.iter().find(|t| t["name"] == "jobs").unwrap();
    assert_eq!(jobs["rows"], 5);
    assert!(jobs["bytes"].as_u64().unwrap() > 0);
    assert_eq!(json["jobsAccepted"]["oldest"], "2026-11-23T00:00:00.000Z");
    // The last of the log is the oldest: the clock was set back.
    assert_eq!(json["callsEnded"]["oldest"], "2026-11-23T00:00:01.000Z");
    assert_eq!(json["callsEnded"]["newest"], "2026-11-26T00:00:00.000Z");
    // What the machine's clock calls old depends on the day on which this runs.
    assert!(json["prunable"]["jobs"].is_u64());
    let text = place.run("db stats").stdout;
    for part in ["TABLE", "responses", "3 completed", "would remove"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    std::fs::remove_file(place.dir.path().join("onelane.toml")).unwrap();
    assert_eq!(place.json("db stats --json")["prunable"], Value::Null);
}

#[test]
fn db_check_finds_what_does_not_fit() {
    let place = Place::new();
    let good = place.ends("db check", 0);
    assert!(good.stdout.contains("is in order"), "{}", good.stdout);
    damage(&place.store(), "responses");
    let bad = place.ends("db check", 3);
    for part in ["table responses: ", "not in order", "backup"] {
        assert!(bad.stdout.contains(part), "{part} in {}", bad.stdout);
    }
    let json = place.ends("db check --json", 3).json();
    assert_eq!(json["ok"], false);
    assert_eq!(json["mended"], false);
    assert_eq!(json["findings"][0]["table"], "responses");
}

#[test]
fn db_export_writes_all_rows_and_overwrites_nothing() {
    let place = Place::new();
    let lines = place.run("db export --what jobs").stdout;
    let jobs: Vec<Value> = lines
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(jobs.len(), 5);
    assert_eq!(
        jobs[4]["result"]["choices"][0]["message"]["content"],
        "answer 1"
    );
    let line = "db export --what calls --format csv --out calls.csv";
    let told = place.json(&format!("{line} --json"));
    assert_eq!(told["rows"], 4);
    let table = std::fs::read_to_string(place.dir.path().join("calls.csv")).unwrap();
    assert_eq!(table.lines().count(), 5);
    let again = place.ends(line, 2);
    again.says(&["calls.csv is there already", "overwrites"]);
    let usage = place.run("db export --what usage --format csv").stdout;
    assert_eq!(usage.lines().count(), 5, "{usage}");
}

#[test]
fn db_export_leaves_out_what_can_t_be_read_and_says_so() {
    let place = Place::new();
    garble(&place.store(), "jobs", 3);
    garble(&place.store(), "responses", 1);
    for format in ["jsonl", "csv"] {
        let line = format!("db export --what jobs --format {format}");
        let output = place.ends(&line, 3);
        let rows = output.stdout.lines().count() - usize::from(format == "csv");
        assert_eq!(rows, 3, "{}", output.stdout);
        for n in [1, 3] {
            let job = format!("job {}: table ", sample::job_id(n));
            assert!(output.stderr.contains(&job), "{}", output.stderr);
        }
        let sum = "2 places can't be read and were left out with their rows, 3 rows were written";
        assert!(output.stderr.contains(sum), "{}", output.stderr);
    }
    let told = place
        .ends("db export --what jobs --out jobs.jsonl --json", 3)
        .json();
    assert_eq!((&told["rows"], &told["unreadable"]), (&3.into(), &2.into()));
    let written = std::fs::read_to_string(place.dir.path().join("jobs.jsonl")).unwrap();
    assert_eq!(written.lines().count(), 3);
}

#[test]
fn an_export_that_fails_is_in_the_way_of_none_after_it() {
    let place = Place::new();
    let partial = place.dir.path().join("jobs.jsonl.partial");
    // As a process leaves it that was killed.
    std::fs::write(&partial, "half a li").unwrap();
    let line = "db export --what jobs --out jobs.jsonl";
    place.ends(line, 0);
    assert!(!partial.exists());
    let whole = std::fs::read(place.dir.path().join("jobs.jsonl")).unwrap();
    place.ends(line, 2);
    let is = std::fs::read(place.dir.path().join("jobs.jsonl")).unwrap();
    assert_eq!(is, whole, "nothing is overwritten");
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_that_is_full_is_not_passed_over() {
    let place = Place::new();
    let full = || {
        std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    for line in [
        "stats --start 2026-11-23 --end 2026-11-30",
        "db stats",
        "db check",
        "db export --what jobs",
        "policy",
        "prices",
        "config show",
        "--help",
    ] {
        let output = std::process::Command::new(assert_cmd::cargo::cargo_bin!("onelane"))
            .current_dir(place.dir.path())
            .env_clear()
            .args(line.split_whitespace())
            .stdout(full())
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{line}: {told}");
        let part = "standard output can't be written: No space left";
        assert!(told.contains(part), "{line}: {told}");
    }
}

/// A byte of a page that holds rows is another, as after a fault of the drive.
fn flip_a_byte(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let text = b"prompt 4";
    let at = bytes.windows(text.len()).rposition(|w| w == text).unwrap();
    bytes[at] = b'q';
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn db_check_tells_of_damaged_pages_and_of_rows_and_mends_only_when_asked() {
    let place = Place::new();
    damage(&place.store(), "responses");
    flip_a_byte(&place.store());
    let before = std::fs::read(place.store()).unwrap();
    let found = place.ends("db check", 3);
    for part in [
        "is damaged beyond mending",
        "db export",
        "table responses: ",
    ] {
        assert!(found.stdout.contains(part), "{part} in {}", found.stdout);
    }
    assert!(!found.stdout.contains("--repair"), "{}", found.stdout);
    let json: Value = serde_json::from_str(&place.run("db check --json").stdout).unwrap();
    assert_eq!(json["ok"], false);
    assert!(json["damagedPages"].is_string());
    assert_eq!(json["mendable"], false);
    assert_eq!(std::fs::read(place.store()).unwrap(), before, "untouched");
    let repair = place.ends("db check --repair", 3);
    assert!(repair.stderr.contains("db export"), "{}", repair.stderr);
}

#[test]
fn whoever_only_looks_leaves_the_file_as_it_is() {
    let place = Place::new();
    // As if it had not been closed: opening it for work would write.
    let store = RedbStore::open(place.store(), StoreOptions::default()).unwrap();
    store.commit(&[sample::insert(6)]).unwrap();
    let crashed = std::fs::read(place.store()).unwrap();
    drop(store);
    std::fs::write(place.store(), &crashed).unwrap();
    for line in "stats|db stats|db check|db export --what jobs|db export --what usage|db export|db backup copy.redb".split('|') {
        place.ends(line, 0);
        let is = std::fs::read(place.store()).unwrap();
        assert!(is == crashed, "{line} wrote to it");
    }
    assert_eq!(place.run("db export --what jobs").stdout.lines().count(), 6);
}

#[test]
fn a_store_of_another_version_is_refused_by_every_verb_in_words() {
    let place = Place::new();
    std::fs::write(place.dir.path().join("in.jsonl"), "{\"prompt\":\"hi\"}\n").unwrap();
    let older = "move the file away, or name another store";
    let newer = "use the newer onelane that wrote it, or name another store";
    for (version, help) in [(1, older), (9, older), (11, newer), (99, newer)] {
        set_version(&place.store(), version);
        let alone = ["config show", "db check --json", "db check --repair"];
        let work = [
            "run in.jsonl --simulate --store onelane.redb",
            "serve --simulate --once --store onelane.redb",
        ];
        for line in ALL.iter().chain(&alone).chain(&work) {
            let before = std::fs::read(place.store()).unwrap();
            let output = place.run(line);
            let told = &output.stderr;
            assert_eq!(output.code, Some(3), "{line}: {told}");
            let found = format!("is a onelane store of version {version}, and this onelane reads");
            assert!(told.contains(&found), "{line}: {told}");
            assert!(told.contains(help), "{line}: {told}");
            assert_eq!(output.stdout, "", "{line}");
            let opens = work.contains(line) || line.contains("compact") || line.contains("repair");
            let same = std::fs::read(place.store()).unwrap() == before;
            assert!(same || opens, "{line} wrote to it");
        }
    }
    assert!(!place.dir.path().join("in.results.jsonl").exists());
}

#[test]
fn db_compact_gives_space_back_and_loses_nothing() {
    let place = Place::new();
    let store = RedbStore::open(place.store(), StoreOptions::default()).unwrap();
    for n in 9..17 {
        let big = onelane::model::Request::Prompt("long ".repeat(400_000));
        let insert = sample::insert_with(n, |new| new.request = big);
        store.commit(&[insert]).unwrap();
    }
    // The space of what was pruned is free.
    let later = sample::START.plus_ms(3 * 86_400_000);
    let a_day = Retention {
        jobs_days: 1,
        ..Retention::default()
    };
    let life = [
        sample::cancel(9, sample::START),
        Transition::Prune(Box::new(Prune::of(&a_day, later).unwrap())),
    ];
    for change in life {
        store.commit(&[change]).unwrap();
    }
    drop(store);
    let before = place.run("db export --what jobs").stdout;
    let told = place.json("db compact --json");
    let (was, is) = (told["bytesBefore"].as_u64(), told["bytesAfter"].as_u64());
    assert!(is.unwrap() < was.unwrap(), "{told}");
    let bytes = std::fs::metadata(place.store()).unwrap().len();
    assert_eq!(is, Some(bytes), "what the file takes once it is closed");
    place.ends("db check", 0);
    assert_eq!(place.run("db export --what jobs").stdout, before);
}

#[test]
fn a_store_in_use_is_refused_by_every_verb() {
    let place = Place::new();
    let store = RedbStore::open(place.store(), StoreOptions::default()).unwrap();
    for line in ALL {
        let output = place.ends(line, 3);
        output.says(&["in use by another process", "help: "]);
        assert_eq!(output.stdout, "", "{line}");
    }
    drop(store);
}

#[test]
fn a_store_that_is_not_there_or_no_store_is_refused_and_none_is_made() {
    for line in ALL {
        let place = Place::empty();
        let output = place.ends(line, 3);
        output.says(&["onelane.redb can't be opened"]);
        assert!(!place.store().exists(), "{line} makes no store");
        for (bytes, what) in [(&b""[..], "it is empty"), (b"something else", "damaged")] {
            std::fs::write(place.store(), bytes).unwrap();
            let output = place.ends(&format!("{line} --json"), 3);
            let error: Value = serde_json::from_str(&output.stderr).unwrap();
            let message = error["error"]["message"].as_str().unwrap();
            assert!(message.contains(what), "{message}");
            assert_eq!(std::fs::read(place.store()).unwrap(), bytes, "{line}");
        }
    }
}
