//! Guards: a backup that is not whole, or of two moments, and passes for one; a restore that leaves half a store or does
//! work twice without a word; lines of a store that say less than the store.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onelane::model::JobStatus;
use onelane::simulator::{Simulator, SimulatorConfig, Span};
use onelane::store::Findings;
use serde_json::{Value, json};

use super::beside::without_its_daemon;
use super::{TOKEN, World};
use crate::common::{Http, Place, Running, Tmpfs, run, until};

/// A daemon on the store of this place, and what it says as it starts.
fn serve(place: &Place, simulator: &Simulator) -> Running {
    let base_url = simulator.base_url();
    let mut serve = place.onelane(&["serve", "--base-url", &base_url, "--listen", "127.0.0.1:0"]);
    Running::start(serve.env("ONELANE_ADMIN_TOKEN", TOKEN))
}

#[test]
fn a_backup_of_a_running_lane_is_a_whole_store_of_one_moment() {
    let world = World::with_latency(5);
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let http = Http::bearing(TOKEN);
            let url = format!("{}/api/glm/jobs", world.url);
            while !ends.load(Ordering::Relaxed) {
                let jobs: Vec<Value> = (0..3)
                    .map(|n| json!({"prompt": format!("river {n}")}))
                    .collect();
                http.post(&url, &json!(jobs)).unwrap();
                std::thread::sleep(Duration::from_millis(30));
            }
        });
        until("some are done", || world.counted("completed") >= 3);
        let mut before = 0;
        for n in 0..4 {
            let name = format!("copy-{n}.redb");
            let done = world.counted("completed");
            let told = world.told(&format!("db backup {name}"));
            assert!(told.contains(&name), "{told}");
            let after = world.counted("completed");
            run(&mut world.place.bare(&["db", "check", "--store", &name])).with(0);
            let copy = world.place.store(&name);
            assert_eq!(copy.0.check(10).unwrap(), Findings::default());
            // All that was done when it was asked for, and nothing of later.
            let completed = copy.count(JobStatus::Completed);
            assert!(
                (done..=after).contains(&completed),
                "{completed}: {done} to {after}"
            );
            assert!(copy.jobs().iter().all(|job| job.request.is_some()));
            assert!(completed >= before);
            before = completed;
        }
        ends.store(true, Ordering::Relaxed);
    });
    // As a program asks for it, and on record.
    let json = world.json("db backup copy.redb");
    let bytes = std::fs::metadata(world.place.path("copy.redb"))
        .unwrap()
        .len();
    assert_eq!(json["bytes"], bytes, "{json}");
    assert_eq!(json["path"], "copy.redb");
    assert_eq!(json["jobs"], world.place.store("copy.redb").jobs().len());
    let audit = world.get("/api/admin/glm/audit");
    assert_eq!(
        audit["audit"][0]["what"], "POST /api/admin/glm/store/backup",
        "{audit}"
    );
    assert_eq!(audit["audit"][0]["outcome"], "done");
}

/// A server that answers one request with these bytes, and then is gone.
fn answering(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        let mut piece = [0; 1_024];
        while !asked.windows(4).any(|four| four == b"\r\n\r\n") {
            let read = client.read(&mut piece).unwrap();
            asked.extend_from_slice(&piece[..read]);
        }
        client.write_all(&answer).unwrap();
    });
    url
}

#[test]
fn what_does_not_arrive_whole_is_no_backup() {
    let world = World::start();
    world.done(&["one", "two"]);
    world.told("db export --out lines.jsonl");
    let lines = std::fs::read(world.place.path("lines.jsonl")).unwrap();
    let last_but_one = lines[..lines.len() - 1]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .unwrap()
        + 1;
    let head = |length: usize| {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/jsonl\r\ncontent-length: {length}\r\n\r\n"
        )
        .into_bytes()
    };
    for cut in [0, lines.len() / 2, last_but_one, lines.len() - 1] {
        for promised in [cut, lines.len()] {
            let url = answering([head(promised).as_slice(), &lines[..cut]].concat());
            for verb in ["db backup copy.redb", "db export --out copy.redb"] {
                let url = match verb.contains("export") {
                    true => answering([head(promised).as_slice(), &lines[..cut]].concat()),
                    false => url.clone(),
                };
                run(&mut world.bare(&format!("{verb} --url {url}")))
                    .with(5)
                    .noting(&[&url, "help: "]);
                assert!(!world.place.has("copy.redb") && !world.place.has("copy.redb.partial"));
            }
        }
    }
    let url = answering([head(lines.len()).as_slice(), &lines].concat());
    run(&mut world.bare(&format!("db backup copy.redb --url {url}"))).with(0);
    assert_eq!(world.place.store("copy.redb").jobs().len(), 2);
    // A daemon that dies in the middle of it.
    let mut changed = lines;
    let at = changed.len() / 2;
    changed[at] = if changed[at] == b'7' { b'8' } else { b'7' };
    let url = answering([head(changed.len()).as_slice(), &changed].concat());
    run(&mut world.bare(&format!("db backup other.redb --url {url}")))
        .with(5)
        .noting(&["line "]);
    assert!(!world.place.has("other.redb"));
}

#[test]
fn a_backup_that_can_not_be_written_is_said_so_in_words_and_leaves_nothing() {
    let world = World::start();
    world.done(&["one"]);
    std::fs::create_dir(world.place.path("dir")).unwrap();
    world
        .ask("db backup dir")
        .with(2)
        .noting(&["dir is a directory", "help: "]);
    world
        .ask("db backup none/copy.redb")
        .with(2)
        .noting(&["none/copy.redb can't be opened", "help: "]);
    world.told("db backup copy.redb");
    world
        .ask("db backup copy.redb")
        .with(2)
        .noting(&["copy.redb is there already", "--force"]);
    world.told("db backup copy.redb --force");
    // Over the store itself, while its lane runs.
    world
        .ask("db backup onelane.redb --force")
        .with(3)
        .noting(&["onelane.redb is in use"]);
    let error = world.ask("db backup copy.redb --json").with(2);
    let error: Value = serde_json::from_str(&error.stderr).unwrap();
    assert_eq!(error["error"]["exitCode"], 2);
    if let Some(_disk) = Tmpfs::mount(&world.place.path("disk"), 64) {
        world
            .ask("db backup disk/copy.redb")
            .with(1)
            .noting(&["no space left for disk/copy.redb", "help: "]);
        assert_eq!(
            std::fs::read_dir(world.place.path("disk")).unwrap().count(),
            0
        );
    }
    assert_eq!(world.done(&["two"]).len(), 1);
}

#[test]
fn a_viewer_gets_no_backup() {
    let place = Place::new();
    place.write(
        "onelane.toml",
        "[server]\nviewer_token = \"3c59dc048e8850243be8079a5c74d079\"\n",
    );
    let simulator = Simulator::start(SimulatorConfig::default()).unwrap();
    let running = serve(&place, &simulator);
    let url = format!("{}/api/admin/glm/store/backup", running.url());
    let viewer = Http::bearing("3c59dc048e8850243be8079a5c74d079");
    assert_eq!(viewer.post(&url, &json!({})).unwrap().status, 403);
}

#[test]
fn a_restored_store_is_paused_and_goes_on_where_the_backup_was_when_it_is_let() {
    let simulator = Simulator::start(SimulatorConfig {
        latency_ms: Span::Fixed(0),
        ..SimulatorConfig::default()
    })
    .unwrap();
    let world = World::on(Place::new(), simulator);
    world.done(&["one", "two"]);
    world.pause();
    for n in 0..3 {
        world.submit(&format!("later {n}"));
    }
    world.told("db backup copy.redb");
    world.ask("lane resume").with(0);
    world.until_counted("completed", 5);
    // Not beside the daemon.
    world
        .ask("db restore copy.redb")
        .with(3)
        .noting(&["stop the daemon"]);
    let mut beside = world.bare("db restore copy.redb --force");
    run(beside.env("ONELANE_ADMIN_TOKEN", TOKEN))
        .with(3)
        .noting(&["has the store open", "stop the daemon"]);
    let (place, simulator) = without_its_daemon(world);

    run(&mut place.bare(&["db", "restore", "copy.redb"]))
        .with(2)
        .noting(&["is there already", "--force"]);
    let ended = run(&mut place.bare(&["db", "restore", "copy.redb", "--force"])).with(0);
    assert!(
        ended.stdout.lines().all(|line| line.chars().count() <= 80),
        "{ended}"
    );
    for words in [
        "5 jobs",
        "3 jobs were not done",
        "again",
        "paused",
        "onelane lane resume",
        "onelane.redb.before-restore",
    ] {
        assert!(ended.stdout.contains(words), "no {words:?}: {ended}");
    }
    assert_eq!(
        place
            .store("onelane.redb.before-restore")
            .count(JobStatus::Completed),
        5
    );
    assert_eq!(place.store("onelane.redb").count(JobStatus::Pending), 3);
    let calls = simulator.stats().calls;
    let running = serve(&place, &simulator);
    let (url, http) = (running.url(), Http::bearing(TOKEN));
    let lane = || http.get(&format!("{url}/api/admin/glm/queue")).unwrap();
    assert!(
        lane().text.contains("restored from copy.redb"),
        "{:?}",
        lane()
    );
    assert_eq!(simulator.stats().calls, calls);
    http.post(&format!("{url}/api/admin/glm/resume"), &json!({}))
        .unwrap();
    until("the rest is done", || simulator.stats().calls == calls + 3);
    running.signal("TERM");
    running.end().with(0);
    assert_eq!(place.store("onelane.redb").count(JobStatus::Completed), 5);

    // Whoever wants so gets the lane as it was, which was paused by an operator then.
    let ended = run(&mut place.bare(&[
        "db",
        "restore",
        "copy.redb",
        "--no-pause",
        "--store",
        "other.redb",
        "--json",
    ]));
    let json = ended.with(0).json();
    assert_eq!(
        (&json["open"], &json["paused"], &json["kept"]),
        (&json!(3), &json!(true), &Value::Null)
    );
    let mut once = place.onelane(&[
        "serve",
        "--once",
        "--store",
        "other.redb",
        "--listen",
        "127.0.0.1:0",
    ]);
    run(once.args(["--base-url", &simulator.base_url()]))
        .with(4)
        .noting(&["noon"]);
}

/// A store with some jobs that are done, and no lane on it.
fn closed_store(place: &Place, jobs: usize) {
    let simulator = Simulator::start(SimulatorConfig {
        latency_ms: Span::Fixed(0),
        ..SimulatorConfig::default()
    })
    .unwrap();
    place.write("prompts.jsonl", crate::common::prompts(jobs));
    let mut lane = place.onelane(&["run", "prompts.jsonl", "--base-url", &simulator.base_url()]);
    run(&mut lane).with(0);
}

#[test]
fn a_backup_that_is_damaged_or_of_another_version_is_restored_by_nobody() {
    let place = Place::new();
    closed_store(&place, 40);
    run(&mut place.bare(&["db", "backup", "copy.redb"])).with(0);
    let whole = std::fs::read(place.path("copy.redb")).unwrap();
    let store = std::fs::read(place.path("onelane.redb")).unwrap();
    let restored = |name: &str| run(&mut place.bare(&["db", "restore", name, "--force"]));
    place.write("cut.redb", &whole[..whole.len() / 2]);
    place.write("noise.redb", vec![7; 100_000]);
    let mut damaged = whole.clone();
    let answer = damaged
        .windows(9)
        .position(|nine| nine == b"\"choices\"")
        .unwrap();
    damaged[answer] ^= 1;
    place.write("flipped.redb", damaged);
    for name in ["cut.redb", "noise.redb", "flipped.redb"] {
        restored(name).with(3).noting(&[name, "help: "]);
    }
    restored("none.redb")
        .with(3)
        .noting(&["none.redb can't be opened", "onelane db backup"]);
    crate::books::set_version(&place.path("copy.redb"), 4_711);
    restored("copy.redb")
        .with(3)
        .noting(&["version 4711", "newer onelane"]);
    assert!(
        std::fs::read(place.path("onelane.redb")).unwrap() == store,
        "it was written to"
    );
    assert!(!place.has("onelane.redb.partial") && !place.has("onelane.redb.before-restore"));
}

#[test]
fn an_export_becomes_a_store_and_that_the_same_export() {
    let place = Place::new();
    closed_store(&place, 10);
    let ended = run(&mut place.bare(&["db", "export", "--out", "a.jsonl"])).with(0);
    assert!(
        ended.stdout.lines().all(|line| line.chars().count() <= 80),
        "{ended}"
    );
    let ended = run(&mut place.bare(&["db", "import", "a.jsonl", "--store", "b.redb"])).with(0);
    assert!(ended.stdout.starts_with("b.redb: 10 jobs, "), "{ended}");
    assert!(
        ended.stdout.lines().all(|line| line.chars().count() <= 80),
        "{ended}"
    );
    let again = run(&mut place.bare(&["db", "export", "--store", "b.redb"])).with(0);
    assert!(
        again.stdout == place.read("a.jsonl"),
        "the second export is another"
    );
    let piped = Running::fed(
        &mut place.bare(&["db", "import", "-", "--store", "c.redb", "--json"]),
        again.stdout.as_bytes(),
    );
    assert_eq!(piped.end().with(0).json()["jobs"], 10);
    for name in ["a.jsonl", "b.redb", "c.redb"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(place.path(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    run(&mut place.bare(&["db", "check", "--store", "b.redb"])).with(0);
    // A run on it finds all done.
    let mut rest = place.onelane(&[
        "run",
        "prompts.jsonl",
        "--store",
        "c.redb",
        "--base-url",
        "http://127.0.0.1:9/",
    ]);
    run(&mut rest).with(0);
    run(&mut place.bare(&["db", "import", "a.jsonl"]))
        .with(2)
        .noting(&["onelane.redb is there already"]);
    run(&mut place.bare(&["db", "import", "none.jsonl", "--store", "d.redb"]))
        .with(2)
        .noting(&["none.jsonl can't be read"]);
    run(&mut place.bare(&["db", "export", "--format", "csv"]))
        .with(2)
        .noting(&["--what"]);
}

#[test]
fn damaged_lines_are_told_by_number_and_make_no_store() {
    let place = Place::new();
    closed_store(&place, 5);
    run(&mut place.bare(&["db", "export", "--out", "a.jsonl"])).with(0);
    let lines = place.read("a.jsonl");
    let count = lines.lines().count();
    let import = |lines: &str| {
        place.write("damaged.jsonl", lines);
        let ended =
            run(&mut place.bare(&["db", "import", "damaged.jsonl", "--store", "b.redb"])).with(3);
        assert!(
            !place.has("b.redb") && !place.has("b.redb.partial"),
            "{ended}"
        );
        ended.noting(&["damaged.jsonl: line ", "help: "])
    };
    import(&lines[..lines.len() / 2]);
    import("").noting(&["line 1: "]);
    import("{\"prompt\": \"a\"}\n").noting(&["line 1: "]);
    import(&lines.replacen("prompt 3.", "prompt 4.", 1))
        .noting(&[&format!("line {count}: "), "digest"]);
    let cut: Vec<&str> = lines.lines().take(count - 1).collect();
    import(&(cut.join("\n") + "\n")).noting(&[&format!("line {count}: "), "missing"]);
    let broken = lines.replacen("{\"kind\":\"row\"", "{\"kind\":row", 1);
    import(&broken).noting(&["line 2: ", "is not JSON"]);
}

/// Whether nothing or a whole store is there.
fn nothing_or_whole(place: &Place, path: &Path) {
    if path.exists() {
        let store = path.to_str().unwrap();
        run(&mut place.bare(&["db", "check", "--store", store])).with(0);
    }
}

#[test]
fn a_restore_or_an_import_that_is_killed_leaves_no_half_store() {
    let place = Place::new();
    closed_store(&place, 60);
    run(&mut place.bare(&["db", "backup", "copy.redb"])).with(0);
    run(&mut place.bare(&["db", "export", "--out", "a.jsonl"])).with(0);
    let lines = place.read("a.jsonl");
    // In the middle of its lines, for certain.
    let mut begun = place.bare(&["db", "import", "/dev/stdin", "--store", "b.redb"]);
    let mut child = begun.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(&lines.as_bytes()[..lines.len() / 2])
        .unwrap();
    until("it has begun", || place.has("b.redb.partial"));
    child.kill().unwrap();
    child.wait().unwrap();
    drop(stdin);
    assert!(!place.has("b.redb"));
    run(&mut place.bare(&["db", "import", "a.jsonl", "--store", "b.redb"])).with(0);
    assert!(!place.has("b.redb.partial"));
    // Wherever it happens to be.
    for n in 0..12 {
        for (verb, from) in [("restore", "copy.redb"), ("import", "a.jsonl")] {
            let to = format!("{verb}-{n}.redb");
            let mut command = place.bare(&["db", verb, from, "--store", &to]);
            let running = Running::start(&mut command);
            std::thread::sleep(Duration::from_millis(8 * n));
            running.kill();
            nothing_or_whole(&place, &place.path(&to));
        }
    }
    // Over a store that is there: it, or the other, whole.
    for n in 0..8 {
        let mut command =
            place.bare(&["db", "restore", "copy.redb", "--store", "b.redb", "--force"]);
        let running = Running::start(&mut command);
        std::thread::sleep(Duration::from_millis(15 * n));
        running.kill();
        assert!(place.has("b.redb"));
        nothing_or_whole(&place, &place.path("b.redb"));
    }
}
