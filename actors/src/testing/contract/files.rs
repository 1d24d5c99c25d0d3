//! Uploaded files, and batches that are made of them.

use std::sync::Arc;

use super::super::sample::{self, START, job_id};
use super::{Open, done, refused};
use crate::ports::Store;
use onelane_core::model::{
    Batch, BatchId, BatchInput, BatchProgress, BatchState, FileChange, FileId, InputChange,
    InputStage, NewJob, Refusal, StoredFile, Transition,
};

const FILE: FileId = FileId::from_bytes([3; 16]);
const BATCH: BatchId = BatchId::new(9);

fn file(change: FileChange) -> Transition {
    Transition::File(Box::new(change))
}

fn part(number: u32, bytes: &[u8]) -> Transition {
    let bytes = Arc::from(bytes);
    file(FileChange::Part {
        id: FILE,
        number,
        bytes,
    })
}

fn input(change: InputChange) -> Transition {
    Transition::Input(Box::new(change))
}

fn put(new: &BatchInput) -> Transition {
    input(InputChange::Put(new.clone()))
}

fn uploaded(store: &impl Store) {
    let begun = StoredFile::new(FILE, "", START, 7);
    let name = "lines.jsonl".to_owned();
    done(
        store,
        &[
            file(FileChange::Begin(begun)),
            part(0, b"{}\n"),
            part(1, b"{}"),
        ],
    );
    // Asked again, after an answer that was lost.
    done(
        store,
        &[part(1, b"{}"), file(FileChange::Finish { id: FILE, name })],
    );
}

fn lines() -> (BatchInput, Transition) {
    let new = BatchInput::new(
        BATCH,
        FILE,
        "/v1/chat/completions",
        START,
        START.plus_ms(9_000),
    );
    let batch = Batch::new(BATCH, "lines.jsonl", START);
    let begin = InputChange::Begin(new.clone(), Box::new(batch));
    (new, input(begin))
}

fn insert(n: u64) -> Transition {
    sample::insert_with(n, |new: &mut NewJob| new.job.batch_id = Some(BATCH))
}

/// A file has the parts that were added, once each, and leaves none.
pub fn a_file_is_kept_in_parts_and_goes_with_them<S: Store>(open_store: Open<'_, S>) {
    let store = open_store();
    uploaded(&store);
    drop(store);
    let store = open_store();
    let found = store.file(FILE).unwrap().expect("the file");
    assert_eq!((found.bytes, found.parts), (5, 2));
    assert!(found.is_whole());
    assert_eq!(store.files(None, 10).unwrap(), [found]);
    assert_eq!(store.file_part(FILE, 0).unwrap().unwrap(), b"{}\n");
    assert_eq!(store.file_part(FILE, 2).unwrap(), None);
    // Whole is whole.
    assert_eq!(refused(&store, part(2, b"x")), Refusal::NoSuchFile(FILE));
    done(&store, &[file(FileChange::Remove(FILE))]);
    assert_eq!(store.file(FILE).unwrap(), None);
    assert_eq!(store.file_part(FILE, 0).unwrap(), None);
    let again = file(FileChange::Remove(FILE));
    assert_eq!(refused(&store, again), Refusal::NoSuchFile(FILE));
}

/// A batch is closed with its last line, and who read an older version changes nothing; its file stays while lines of it
/// are to come.
pub fn a_batch_of_a_file_follows_its_lines<S: Store>(open_store: Open<'_, S>) {
    let store = open_store();
    let (new, begin) = lines();
    assert_eq!(refused(&store, begin.clone()), Refusal::NoSuchFile(FILE));
    assert_eq!(store.batch(BATCH).unwrap(), None);
    uploaded(&store);
    done(&store, &[begin.clone(), begin]);
    assert_eq!(store.batch_inputs(None, 9).unwrap().len(), 1);
    let in_use = Refusal::FileInUse {
        file: FILE,
        batch: BATCH,
    };
    assert_eq!(refused(&store, file(FileChange::Remove(FILE))), in_use);

    let inserting = BatchInput {
        stage: InputStage::Inserting,
        lines: 2,
        deletes_file: true,
        ..new.clone()
    }
    .next();
    done(&store, &[put(&inserting), insert(1), insert(2)]);
    assert_eq!(refused(&store, put(&inserting)), Refusal::StaleInput(BATCH));
    done(
        &store,
        &[put(&BatchInput {
            inserted: 2,
            ..inserting
        }
        .settled(InputStage::Inserted, START))],
    );
    let batch = store.batch(BATCH).unwrap().expect("the batch");
    assert_eq!(
        (batch.state, batch.counts.pending),
        (BatchState::Running, 2)
    );
    assert_eq!(store.file(FILE).unwrap(), None, "its lines are jobs");
    assert!(store.job(job_id(1)).unwrap().is_some());
    let input = store
        .batch_input(BATCH)
        .unwrap()
        .expect("what it is made of");
    assert_eq!(input.progress(Some(&batch)), BatchProgress::InProgress);
    let given_up = BatchInput {
        cancelled_at: Some(START),
        ..input
    }
    .next();
    done(&store, &[put(&given_up)]);
    assert_eq!(
        store.batch(BATCH).unwrap().unwrap().cancelled_at,
        Some(START)
    );
}
