//! Guards: one process owns a store, and a store that can't be used is said to be so, by name, with code 3.

use std::process::Command;

use super::{run_prompts, serve, simulator, with_prompts};
use crate::common::{Place, Running, Tmpfs, prompts, run};

/// `run` and `serve` on this store.
fn both(place: &Place, store: &str) -> [Command; 2] {
    let simulator = simulator(0);
    let with = |mut command: Command| {
        command.args(["--store", store]);
        command
    };
    [
        with(run_prompts(place, &simulator)),
        with(serve(place, &simulator)),
    ]
}

#[track_caller]
fn refused(place: &Place, store: &str, says: &[&str]) {
    for mut command in both(place, store) {
        let ended = run(&mut command).with(3).noting(says).noting(&["help: "]);
        assert!(
            ended.stderr.starts_with(&format!("error: {store}")),
            "{ended}"
        );
        assert_eq!(ended.stdout, "", "{ended}");
    }
}

#[test]
fn a_store_in_use_is_refused_by_name() {
    let (place, simulator) = with_prompts(1);
    let owner = Running::start(serve(&place, &simulator).args(["--store", "jobs.redb"]));
    owner.url();
    // One that says where it listens would be asked.
    std::fs::remove_file(place.path("jobs.redb.daemon")).unwrap();
    refused(
        &place,
        "jobs.redb",
        &["jobs.redb is in use by another process", "--store"],
    );
    // The owner did not notice.
    owner.signal("TERM");
    owner.end().with(0);
    assert!(!place.has("prompts.results.jsonl"));
}

#[test]
fn a_damaged_store_is_refused_and_left_as_it_is() {
    let (place, simulator) = with_prompts(30);
    run(&mut run_prompts(&place, &simulator)).with(0);
    let whole = std::fs::read(place.path("onelane.redb")).unwrap();
    let noise: Vec<u8> = (0..100_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let damaged: [(&str, Vec<u8>); 3] = [
        ("noise.redb", noise),
        ("text.redb", b"not a store at all".to_vec()),
        ("cut.redb", whole[..whole.len() / 3].to_vec()),
    ];
    for (name, bytes) in damaged {
        place.write(name, &bytes);
        refused(
            &place,
            name,
            &["is damaged or not a onelane store", "backup"],
        );
        assert_eq!(std::fs::read(place.path(name)).unwrap(), bytes, "{name}");
    }
}

#[test]
fn a_place_where_no_file_can_be_made_is_refused() {
    let place = Place::new();
    place.write("prompts.jsonl", prompts(1));
    std::fs::create_dir(place.path("dir")).unwrap();
    refused(
        &place,
        "prompts.jsonl/jobs.redb",
        &["can't be opened", "permissions"],
    );
    refused(
        &place,
        "none/jobs.redb",
        &["can't be opened", "No such file"],
    );
    refused(&place, "/proc/jobs.redb", &["can't be opened"]);
    refused(&place, "dir", &["can't be opened", "s a directory"]);
}

#[test]
fn a_read_only_directory_is_refused() {
    let place = Place::new();
    place.write("prompts.jsonl", prompts(1));
    let Some(disk) = Tmpfs::mount(&place.path("disk"), 4_096) else {
        return;
    };
    disk.remount("ro");
    refused(
        &place,
        "disk/jobs.redb",
        &["can't be opened: Read-only file system"],
    );
}
