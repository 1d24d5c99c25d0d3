//! One process owns a store; when it dies, however, another takes over.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use onelane_actors::testing::sample;

use super::*;

/// Tells the child of [`another_process_is_refused_until_the_owner_dies`] which store to hold.
const HOLD: &str = "ONELANE_TEST_HOLD";

#[test]
fn a_second_owner_in_the_same_process_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("onelane.redb");
    let store = open(&path);
    let error = RedbStore::open(&path, options()).unwrap_err();
    let path_name = path.display().to_string();
    assert_eq!(error, StoreError::Locked { path: path_name });
    store.commit(&[sample::insert(1)]).unwrap();
    drop(store);
    assert!(open(&path).job(job_id(1)).unwrap().is_some());
}

/// The child's side: holds the store until it is killed. Does nothing in an ordinary run.
#[test]
fn hold_the_store() {
    let Some(path) = std::env::var_os(HOLD) else {
        return;
    };
    let store = open(Path::new(&path));
    store.commit(&[sample::insert(1)]).unwrap();
    // Straight to the pipe: the test harness captures println.
    let mut out = std::io::stderr();
    out.write_all(b"held\n").unwrap();
    let _ = std::io::stdin().read(&mut [0]);
    drop(store);
}

#[test]
fn another_process_is_refused_until_the_owner_dies() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("onelane.redb");
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::tests::owner::hold_the_store",
            "--nocapture",
        ])
        .env(HOLD, &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "held"));
    let error = RedbStore::open(&path, options()).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    owner.kill().unwrap();
    owner.wait().unwrap();
    let store = open(&path);
    assert!(store.job(job_id(1)).unwrap().is_some());
}
