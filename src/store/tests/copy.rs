//! Guards: a copy of a store that lacks a row, a copy of two moments, and lines that were damaged on the way and passed
//! for a store all the same.

use std::collections::BTreeMap;
use std::path::PathBuf;

use onelane_actors::testing::sample;
use onelane_core::model::Pause;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::*;

/// A store with jobs of every kind, some rows of which only the journal has, on which one goes on.
fn worked_on() -> (TempDir, RedbStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("onelane.redb"));
    for n in 1..=6 {
        store
            .commit(&[sample::insert(n), sample::start(n)])
            .unwrap();
    }
    store.commit(&[sample::complete(1, 1)]).unwrap();
    store.commit(&[sample::fail(2, 1)]).unwrap();
    store.commit(&[sample::parked(3, 1)]).unwrap();
    store
        .commit(&[sample::retry(4, 1, None), sample::insert_after(7, &[4])])
        .unwrap();
    store
        .commit(&[Transition::Config(r#"{"model":"glm-5"}"#.to_owned())])
        .unwrap();
    (directory, store)
}

fn lines_of(store: &RedbStore) -> Vec<u8> {
    let parts: Result<Vec<Vec<u8>>, StoreError> = store.lines().unwrap().collect();
    parts.unwrap().concat()
}

fn begin(path: &Path) -> NewStore {
    NewStore::begin(path, Existing::Refused, Rigour::Readable).unwrap()
}

/// Makes a store of lines that come in pieces of so many bytes.
fn made(path: &Path, lines: &[u8], piece: usize) -> Result<Placed, BuildError> {
    let mut new = begin(path);
    for piece in lines.chunks(piece) {
        new.take(piece)?;
    }
    let whole = new.finish()?;
    assert_eq!(whole.findings(), &Findings::default());
    Ok(whole.place()?)
}

fn place_for(directory: &TempDir) -> PathBuf {
    directory.path().join("copy.redb")
}

fn names_in(directory: &TempDir) -> Vec<String> {
    let names = std::fs::read_dir(directory.path()).unwrap();
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// With a digest that is right, whatever was done to the lines.
fn signed(lines: &str) -> Vec<u8> {
    let (rows, end) = lines.trim_end().rsplit_once('\n').unwrap();
    let rows = format!("{rows}\n");
    let digest: String = Sha256::digest(&rows)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let at = end.find("\"sha256\":\"").unwrap() + 10;
    let (before, after) = (&end[..at], &end[at + 64..]);
    format!("{rows}{before}{digest}{after}\n").into_bytes()
}

#[test]
fn a_store_comes_back_from_its_lines_row_by_row() {
    let (directory, store) = worked_on();
    let lines = lines_of(&store);
    let path = place_for(&directory);
    for piece in [1, 1_000, usize::MAX] {
        let placed = made(&path, &lines, piece).unwrap();
        assert_eq!(placed.bytes, std::fs::metadata(&path).unwrap().len());
        let copy = open(&path);
        assert_consistent(&copy);
        assert!(lines_of(&copy) == lines, "the copy tells other rows");
        assert_eq!(copy.counts().unwrap(), store.counts().unwrap());
        drop(copy);
        std::fs::remove_file(&path).unwrap();
    }
    // What the journal holds stands in the tables of the copy, and one can go on from there.
    made(&path, &lines, 100).unwrap();
    let copy = open(&path);
    copy.commit(&[sample::insert(8), sample::complete(5, 1)])
        .unwrap();
    assert_consistent(&copy);
}

#[test]
fn the_lines_of_a_store_are_of_one_moment_whatever_is_committed_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("onelane.redb"));
    // More than one part.
    let long = "x".repeat(20_000);
    for n in 1..=40 {
        let insert = sample::insert_with(n, |new| {
            new.request = Request::Prompt(format!("{long}{n}"));
        });
        store.commit(&[insert]).unwrap();
    }
    let before = lines_of(&store);
    let mut told = Vec::new();
    let mut n = 40;
    for part in store.lines().unwrap() {
        let part = part.unwrap();
        told.extend(part);
        // Ends of those that are not told yet, and new ones.
        for _ in 0..7 {
            n += 1;
            store
                .commit(&[
                    sample::insert(n),
                    sample::start(n - 40),
                    sample::complete(n - 40, 1),
                ])
                .unwrap();
        }
    }
    assert!(n > 50, "it was one part");
    assert!(told == before, "the lines are of several moments");
    let path = place_for(&directory);
    made(&path, &told, 4_096).unwrap();
    assert_eq!(open(&path).counts().unwrap().pending, 40);
    assert_consistent(&store);
}

#[test]
fn lines_that_were_cut_off_or_changed_make_no_store() {
    let (directory, store) = worked_on();
    drop(store.commit(&[sample::insert(9)]));
    let lines = lines_of(&store);
    drop(store);
    let before = names_in(&directory);
    let path = place_for(&directory);
    let check = |lines: &[u8]| {
        let error = made(&path, lines, 500).unwrap_err();
        assert!(matches!(error, BuildError::Line(_)), "{error}");
        assert_eq!(names_in(&directory), before, "something is left of it");
    };
    for cut in (0..lines.len()).step_by(lines.len() / 40) {
        check(&lines[..cut]);
    }
    check(&lines[..lines.len() - 1]);
    for at in (0..lines.len()).step_by(lines.len() / 60) {
        let mut changed = lines.clone();
        changed[at] ^= 1;
        check(&changed);
    }
    // A line that is missing, twice, or behind another, although the digest is right.
    let text = String::from_utf8(lines.clone()).unwrap();
    let all: Vec<&str> = text.lines().collect();
    let mut without = all.clone();
    without.remove(5);
    let mut twice = all.clone();
    twice.insert(5, all[5]);
    let mut behind = all.clone();
    behind.swap(5, 6);
    for changed in [without, twice, behind] {
        check(&signed(&changed.join("\n")));
    }
    let mut longer = lines;
    longer.extend_from_slice(b"{\"kind\":\"end\"}\n");
    check(&longer);
}

#[test]
fn a_line_that_is_wrong_is_told_by_its_number_and_nothing_of_its_content() {
    let (directory, store) = worked_on();
    let text = String::from_utf8(lines_of(&store)).unwrap();
    let path = place_for(&directory);
    let check = |from: &str, to: &str, want: &str| {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let number = changed
            .lines()
            .zip(text.lines())
            .position(|(a, b)| a != b)
            .unwrap()
            + 1;
        let error = made(&path, &signed(&changed), 4_096)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(&format!("line {number}: ")),
            "{from}: {error}"
        );
        assert!(error.contains(want), "{from}: {error}");
        assert!(!error.contains("ada"), "{error}");
    };
    let version = format!("\"storeVersion\":{}", schema::STORE_VERSION);
    let newer = format!("\"storeVersion\":{}", schema::STORE_VERSION + 1);
    check("\"kind\":\"head\"", "\"kind\":\"heap\"", "no head");
    check(&version, &newer, "this onelane reads version");
    check(
        &version,
        "\"storeVersion\":7",
        "with the onelane that wrote it",
    );
    check(
        "\"formatVersion\":1",
        "\"formatVersion\":2",
        "version 2 of the format",
    );
    check("\"onelane-store\"", "\"other\"", "format");
    check(
        "\"kind\":\"row\",\"table\":\"jobs\"",
        "\"kind\":\"row\",\"table\":\"cats\"",
        "which a store has not",
    );
    check(
        "\"table\":\"jobs\",\"key\":\"",
        "\"table\":\"jobs\",\"key\":\"0",
        "a key that none of table jobs is",
    );
    check(
        "\"table\":\"jobs\",\"key\":\"0",
        "\"table\":\"jobs\",\"key\":\"G",
        "a key that none of table jobs is",
    );
    check(
        ",\"json\":[1,[1,",
        ",\"json\":[1,[\"1\",",
        "a row is not what it should be",
    );
    check(
        ",\"json\":[1,[1,",
        ",\"json\":[7,[1,",
        "a newer onelane wrote it",
    );
    check(",\"json\":", ",\"yaml\":", "is not what it should be");
    check(",\"hex\":\"\"", "", "none of json, text and hex");
    check(",\"hex\":\"\"", ",\"hex\":\"00\"", "too long or too short");
    check("{\"kind\":\"row\"", "\"kind\":\"row\"", "is not");
    assert!(!path.exists());
}

#[test]
fn rows_that_do_not_fit_together_are_found_before_a_store_is_in_its_place() {
    let (directory, store) = worked_on();
    let text = String::from_utf8(lines_of(&store)).unwrap();
    let path = place_for(&directory);
    // One job loses its place in line: every row can be read.
    let places = text
        .lines()
        .filter(|line| line.contains("\"table\":\"line\""));
    let place = places.clone().next().unwrap();
    let count = places.count();
    let (head, fewer) = (
        format!("\"line\":{count}"),
        format!("\"line\":{}", count - 1),
    );
    let rows = text
        .lines()
        .filter(|line| line.contains("\"kind\":\"row\""))
        .count();
    let changed = text
        .replacen(&head, &fewer, 1)
        .replacen(&format!("{place}\n"), "", 1)
        .replacen(
            &format!("\"rows\":{rows},"),
            &format!("\"rows\":{},", rows - 1),
            1,
        );
    let mut new = begin(&path);
    new.take(&signed(&changed)).unwrap();
    let whole = new.finish().unwrap();
    assert!(whole.findings().total > 0);
    drop(whole);
    assert_eq!(names_in(&directory), ["onelane.redb"]);
}

#[test]
fn what_is_in_the_place_of_a_new_store_is_refused_replaced_or_kept_and_never_one_in_use() {
    let (directory, store) = worked_on();
    let lines = lines_of(&store);
    let path = place_for(&directory);
    let make = |existing: Existing| {
        let mut new = NewStore::begin(&path, existing, Rigour::AsTheyAre)?;
        new.take(&lines).unwrap();
        new.finish().unwrap().place()
    };
    make(Existing::Refused).unwrap();
    let refused = make(Existing::Refused).unwrap_err();
    assert!(
        refused.to_string().contains("is there already"),
        "{refused}"
    );
    let owner = open(&path);
    for existing in [Existing::Replaced, Existing::KeptAside] {
        let refused = make(existing).unwrap_err();
        assert!(matches!(refused, StoreError::Locked { .. }), "{refused}");
    }
    drop(owner);
    for name in ["copy.redb.before-restore", "copy.redb.before-restore-2"] {
        let placed = make(Existing::KeptAside).unwrap();
        let kept = placed.kept.unwrap();
        assert_eq!(kept, directory.path().join(name));
        assert_consistent(&open(&kept));
    }
    assert_eq!(make(Existing::Replaced).unwrap().kept, None);
    // Somebody else makes one for the same place.
    let first = NewStore::begin(&path, Existing::Replaced, Rigour::AsTheyAre).unwrap();
    let refused = NewStore::begin(&path, Existing::Replaced, Rigour::AsTheyAre).unwrap_err();
    assert!(matches!(refused, StoreError::Locked { .. }), "{refused}");
    drop(first);
    // What a killed process left is in nobody's way.
    std::fs::write(directory.path().join("copy.redb.partial"), &lines).unwrap();
    make(Existing::Replaced).unwrap();
    assert_consistent(&open(&path));
}

#[test]
fn a_store_that_is_made_to_be_paused_is_and_has_all_else() {
    let (directory, store) = worked_on();
    let path = place_for(&directory);
    let mut new = begin(&path);
    new.take(&lines_of(&store)).unwrap();
    let whole = new.finish().unwrap();
    let pause = Pause {
        since: sample::START,
        reason: Some("noon".to_owned()),
    };
    whole.pause(pause.clone()).unwrap();
    whole.place().unwrap();
    let copy = open(&path);
    assert_eq!(copy.recover().unwrap().lane.paused, Some(pause));
    assert_consistent(&copy);
}

#[test]
fn a_copy_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let (directory, store) = worked_on();
    let path = place_for(&directory);
    made(&path, &lines_of(&store), 4_096).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn lines_that_are_read_no_further_keep_no_store_from_closing() {
    let (directory, store) = worked_on();
    let whole = lines_of(&store);
    let lines = store.lines().unwrap();
    drop(store);
    let again = open(&directory.path().join("onelane.redb"));
    again.commit(&[sample::insert(20)]).unwrap();
    // What they still tell is of their moment, or they end with an error.
    let told: Result<Vec<Vec<u8>>, StoreError> = lines.collect();
    assert!(told.is_err() || told.unwrap().concat() == whole);
    assert_consistent(&again);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_row_of_any_bytes_comes_back_from_its_line(
        bodies in prop::collection::btree_map(any::<[u8; 16]>(), row(), 1..6),
        keys in prop::collection::btree_set(any::<u64>(), 0..6),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("onelane.redb");
        drop(open(&path));
        for (id, row) in &bodies {
            write_row(&path, schema::RESPONSES, id, row);
        }
        for key in keys {
            write_row(&path, schema::CALLS, key, b"[1,{}]");
        }
        let lines = lines_of(&open(&path));
        let copy = place_for(&directory);
        let mut new = NewStore::begin(&copy, Existing::Refused, Rigour::AsTheyAre).unwrap();
        new.take(&lines).unwrap();
        new.finish().unwrap().place().unwrap();
        let copy = open(&copy);
        let rows: BTreeMap<[u8; 16], Vec<u8>> = copy.read(|state| {
            let rows = state.open_table(schema::RESPONSES)?.iter()?;
            rows.map(|item| item.map(|(key, row)| (*key.value(), row.value().to_vec()))).collect()
        }).unwrap();
        prop_assert_eq!(rows, bodies);
        prop_assert_eq!(lines_of(&copy), lines);
    }
}

fn row() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        ".{0,20}".prop_map(String::into_bytes),
        prop::sample::select(vec![
            "[1,{\"a\":\n1}]",
            "[1,{}] ",
            " [1]",
            "[1,\"\\ud800\"]",
            "1e999",
            "\"\u{2028}\"",
            "[1,{\"a\":1,\"a\":2}]",
            "null",
            "",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ]
}
