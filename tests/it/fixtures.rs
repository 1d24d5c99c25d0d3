//! Guards: a store that a release has written and a later program misreads. `tests/fixtures/` has one of each version of
//! the store that was released, as the file was while its lane ran (`store-10.redb.gz`), and all that this onelane reads
//! in it as lines (`store-10.jsonl.gz`). They are never written anew: what a release has written stays as it is.
//!
//! A release whose `STORE_VERSION` has no fixture yet gets one, made by the story that the golden files tell:
//!
//! ```text
//! ONELANE_FIXTURE=1 cargo nextest run --test it -E 'test(what_goes_over_the_wire)'
//! ```
//!
//! It is written where none is; both files are committed with the release. When a version is read no more, its fixture
//! stays, and the list `READ` below loses it: that it is refused in words is what the tests see then.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use onelane::model::{Retention, Timestamp};
use onelane::ports::{CallFilter, DeliveryFilter, JobFilter, Store as _, UsageFilter};
use onelane::store::{Existing, Findings, NewStore, RedbStore, Rigour, StoreOptions};

use crate::common::{Place, run};

/// The versions that this onelane reads.
const READ: [u64; 1] = [10];
/// What a fixture may take, packed.
const BYTES_MAX: usize = 100 * 1024;
/// Tables in which the story leaves no row.
const EMPTY: [&str; 0] = [];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn unpacked(name: &str) -> Vec<u8> {
    let packed = fs::read(directory().join(name)).unwrap();
    let mut bytes = Vec::new();
    GzDecoder::new(packed.as_slice())
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn open(path: &Path) -> RedbStore {
    RedbStore::open_existing(path, StoreOptions::default()).unwrap()
}

fn lines_of(store: &RedbStore) -> String {
    let parts: Vec<Vec<u8>> = store.lines().unwrap().map(Result::unwrap).collect();
    String::from_utf8(parts.concat()).unwrap()
}

/// The versions of which there is a fixture.
fn versions() -> Vec<u64> {
    let names = fs::read_dir(directory()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut versions: Vec<u64> = names
        .filter_map(|name| {
            let version = name.strip_prefix("store-")?.strip_suffix(".redb.gz")?;
            Some(version.parse().unwrap())
        })
        .collect();
    versions.sort_unstable();
    versions
}

/// Writes the fixture of this version, where it is asked for and there is none: the bytes of a store that a lane has open.
pub(crate) fn note(store: &[u8]) {
    if std::env::var_os("ONELANE_FIXTURE").is_none() {
        return;
    }
    let place = Place::new();
    let opened = open(&place.write("onelane.redb", store));
    let lines = lines_of(&opened);
    let version = opened
        .figures(&Retention::default(), Timestamp::default())
        .unwrap()
        .version;
    let write = |kind: &str, bytes: &[u8]| {
        let path = directory().join(format!("store-{version}.{kind}.gz"));
        if !path.exists() {
            fs::create_dir_all(directory()).unwrap();
            fs::write(path, packed(bytes)).unwrap();
        }
    };
    write("redb", store);
    write("jsonl", lines.as_bytes());
}

#[test]
fn a_store_of_every_version_that_was_released_is_read_whole_or_refused_in_words() {
    let versions = versions();
    assert!(
        READ.iter().all(|read| versions.contains(read)),
        "a version has no fixture"
    );
    for version in versions {
        let place = Place::new();
        let path = place.write(
            "onelane.redb",
            unpacked(&format!("store-{version}.redb.gz")),
        );
        let stats = run(&mut place.bare(&["db", "stats"]));
        if !READ.contains(&version) {
            let words = format!("a onelane store of version {version}");
            stats.with(3).noting(&[&words, "help: "]);
            continue;
        }
        stats.with(0);
        run(&mut place.bare(&["db", "check"])).with(0);
        let store = open(&path);
        assert_eq!(store.check(10).unwrap(), Findings::default());
        let lines = String::from_utf8(unpacked(&format!("store-{version}.jsonl.gz"))).unwrap();
        assert!(
            lines_of(&store) == lines,
            "version {version} is read otherwise than it was"
        );
        // Each noun, and not only its row.
        let jobs = store.jobs(&JobFilter::default(), None, usize::MAX).unwrap();
        assert!(jobs.jobs.iter().any(|job| job.response.is_some()));
        assert_eq!(jobs.total as usize, jobs.jobs.len());
        assert!(
            !store
                .calls(&CallFilter::default(), None, 1_000)
                .unwrap()
                .calls
                .is_empty()
        );
        assert!(!store.usage(&UsageFilter::default()).unwrap().is_empty());
        assert!(
            !store
                .deliveries(&DeliveryFilter::default(), None, 1_000)
                .unwrap()
                .deliveries
                .is_empty()
        );
        assert!(!store.audit(None, 1_000).unwrap().is_empty());
        assert!(!store.client_keys().unwrap().is_empty());
        assert!(!store.batches(None, 1_000).unwrap().is_empty());
        assert!(!store.files(None, 1_000).unwrap().is_empty());
        store.recover().unwrap();
    }
}

#[test]
fn the_lines_of_every_version_that_is_read_are_a_store_and_those_of_others_are_refused() {
    for version in versions() {
        let place = Place::new();
        let lines = unpacked(&format!("store-{version}.jsonl.gz"));
        let path = place.path("onelane.redb");
        let mut new = NewStore::begin(&path, Existing::Refused, Rigour::Readable).unwrap();
        let taken = new.take(&lines);
        if !READ.contains(&version) {
            let refused = taken.unwrap_err().to_string();
            assert!(
                refused.contains("with the onelane that wrote it"),
                "{refused}"
            );
            continue;
        }
        taken.unwrap();
        let whole = new.finish().unwrap();
        assert_eq!(whole.findings(), &Findings::default());
        whole.place().unwrap();
        assert!(
            lines_of(&open(&path)).as_bytes() == lines,
            "version {version}"
        );
    }
}

#[test]
fn a_fixture_has_rows_of_every_table_and_is_small() {
    for version in versions() {
        let lines = String::from_utf8(unpacked(&format!("store-{version}.jsonl.gz"))).unwrap();
        let head: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        let rows = head["rows"].as_object().unwrap();
        let empty: Vec<&str> = rows
            .iter()
            .filter(|(_, rows)| **rows == 0)
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(empty, EMPTY, "version {version}");
        let bytes = ["redb", "jsonl"].map(|kind| {
            let name = format!("store-{version}.{kind}.gz");
            fs::metadata(directory().join(name)).unwrap().len() as usize
        });
        assert!(bytes.iter().sum::<usize>() <= BYTES_MAX, "{bytes:?}");
    }
}
