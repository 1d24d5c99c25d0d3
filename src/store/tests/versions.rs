//! A file of another version is refused in words, whoever opens it, and left as it is.

use std::path::PathBuf;

use onelane_actors::testing::sample;
use tempfile::TempDir;

use super::disk::Disk;
use super::*;

const KEPT: &str = r#"{"model":"glm-5"}"#;

fn config_of(model: &str) -> Transition {
    Transition::Config(format!(r#"{{"model":"{model}"}}"#))
}

/// A closed store with a configuration in it, in a directory of its own.
fn closed_store() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("onelane.redb");
    let batch = [config_of("glm-5"), sample::insert(1)];
    open(&path).commit(&batch).unwrap();
    (directory, path)
}

fn set_version(path: &Path, version: u64) {
    let row = version.to_string();
    write_row(path, schema::META, schema::meta::VERSION, row.as_bytes());
}

#[test]
fn a_store_of_another_version_is_refused_in_words_and_left_alone() {
    const KNOWN: u64 = schema::STORE_VERSION;
    let older = "no release of onelane wrote it; move the file away and start a new store";
    let newer =
        "a newer onelane wrote it; use that one, or move the file away and start a new store";
    let (_directory, path) = closed_store();
    let check = |found: u64, remedy: &str| {
        set_version(&path, found);
        let before = std::fs::read(&path).unwrap();
        let want = StoreError::Version {
            path: path.display().to_string(),
            found,
            known: KNOWN,
        };
        let words = format!(
            "{} is a onelane store of version {found}, and this onelane reads version {KNOWN} alone: {remedy}",
            path.display()
        );
        assert_eq!(want.to_string(), words);
        let looks = [
            RedbStore::open_to_look(&path, options()).map(drop),
            stored_config(&path).map(drop),
        ];
        for look in looks {
            assert_eq!(look.unwrap_err(), want);
            assert!(std::fs::read(&path).unwrap() == before, "it was written to");
        }
        for open in [RedbStore::open, RedbStore::open_existing] {
            let opened: Result<RedbStore, StoreError> = open(&path, options());
            assert_eq!(opened.unwrap_err(), want);
        }
    };
    for found in 0..KNOWN {
        check(found, older);
    }
    for found in [KNOWN + 1, u64::MAX] {
        check(found, newer);
    }
    set_version(&path, KNOWN);
    let store = open(&path);
    assert_eq!(store.config().unwrap().as_deref(), Some(KEPT));
    assert!(store.job(job_id(1)).unwrap().is_some());
    assert_consistent(&store);
}

#[test]
fn a_row_of_a_newer_program_is_refused_by_its_version() {
    let (_directory, path) = closed_store();
    let newer = br#"[2,{"all":"new"}]"#;
    write_row(&path, schema::META, schema::meta::COUNTERS, newer);
    let store = open(&path);
    let refused = [
        store.counts().map(drop),
        store.commit(&[sample::insert(2)]).map(drop),
    ];
    for error in refused.map(Result::unwrap_err) {
        let newer = matches!(error, StoreError::RowVersion { found: 2, .. });
        assert!(newer, "{error}");
        assert!(error.to_string().contains("use that one"), "{error}");
    }
}

#[test]
fn a_look_at_the_configuration_leaves_every_file_as_it_is() {
    let (_directory, path) = closed_store();
    let check = |bytes: Vec<u8>, want: Option<&str>| {
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(stored_config(&path).unwrap().as_deref(), want);
        assert!(std::fs::read(&path).unwrap() == bytes, "it was written to");
    };
    let good = std::fs::read(&path).unwrap();
    check(good.clone(), Some(KEPT));
    check(Vec::new(), None);
    // As after a crash: redb has to mend it before it reads.
    let disk = Disk::holding(good);
    let store = disk.open().unwrap();
    store.commit(&[config_of("x")]).unwrap();
    let crashed = disk.after_power_cut();
    drop(store);
    check(crashed.bytes(), Some(r#"{"model":"x"}"#));
    let store = open(&path);
    assert!(matches!(
        stored_config(&path),
        Err(StoreError::Locked { .. })
    ));
    drop(store);
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(
        stored_config(&path),
        Err(StoreError::Access { .. })
    ));
    assert!(!path.exists());
}
