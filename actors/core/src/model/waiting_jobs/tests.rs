//! Guards: jobs are found as they were put in, whatever came and went; and what one takes.

use std::num::NonZeroU32;

use proptest::collection::vec;
use proptest::prelude::*;

use super::by_id::SCATTERED_MAX;
use super::*;
use crate::model::{BatchId, KeyId, SessionTag, Wait, WorstCase};

/// A change of the set, as it is drawn.
#[derive(Debug, Clone)]
enum Change {
    Insert(Box<JobEntry>),
    Remove(JobId),
    SetDue(Seq, Option<Due>),
}

fn id(n: u64) -> JobId {
    JobId::from_bytes(u128::from(n).to_be_bytes())
}

/// Few ids and places, near each other and far off, so that they meet.
fn any_place() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..150, 1_000_u64..1_010, (u64::MAX - 3)..=u64::MAX]
}

fn any_due() -> impl Strategy<Value = Option<Due>> {
    let at = |ms| Timestamp::from_millis(ms);
    let after = move |(until, length_ms)| {
        Due::After(Wait {
            until: at(until),
            length_ms,
        })
    };
    proptest::option::of(prop_oneof![
        (0_i64..9).prop_map(move |ms| Due::At(at(ms))),
        (0_i64..9, 0_u64..9).prop_map(after),
    ])
}

prop_compose! {
    fn any_entry()(
        place in any_place(),
        other in proptest::option::weighted(0.1, any_place()),
        due in any_due(),
        deadline in proptest::option::weighted(0.2, 0_i64..9),
        names in (0_u8..3, 0_u8..4),
        numbers in (any::<i32>(), any::<i64>(), any::<u32>(), any::<u32>(), any::<u32>()),
        ids in (proptest::option::of(1_u64..3), proptest::option::of(1_u64..3), proptest::option::of(1_u64..3)),
        session: u32,
        flags: u8,
    ) -> JobEntry {
        let is = |bit: u8| flags & (1 << bit) != 0;
        JobEntry {
            // Mostly those of the place, so that a job comes again.
            id: id(other.unwrap_or(place)),
            seq: Seq(place),
            priority: numbers.0,
            due,
            deadline: deadline.map(Timestamp::from_millis),
            since: Timestamp::from_millis(numbers.1),
            model: format!("m{}", names.0).into(),
            user_id: format!("u{}", names.1).into(),
            tokens: numbers.2,
            worst: WorstCase { prompt: numbers.3, completion: numbers.4 },
            batch_id: ids.0.map(BatchId::new),
            dormant: is(0),
            parked: is(1),
            out_of_scope: is(2),
            capped: is(3),
            bound_to: ids.1,
            key: ids.2.map(KeyId::new),
            session: NonZeroU32::new(session).map(SessionTag::new),
        }
    }
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => any_entry().prop_map(|entry| Change::Insert(Box::new(entry))),
        2 => any_place().prop_map(|n| Change::Remove(id(n))),
        1 => (any_place(), any_due()).prop_map(|(n, due)| Change::SetDue(Seq(n), due)),
    ]
}

proptest! {
    #[test]
    fn a_waiting_job_is_found_as_it_was_put_in_by_its_id_and_by_its_place(
        changes in vec(any_change(), 0..300),
    ) {
        let mut jobs = WaitingJobs::new();
        let mut model: BTreeMap<Seq, JobEntry> = BTreeMap::new();
        for change in changes {
            match change {
                Change::Insert(entry) => {
                    let is_new = model
                        .values()
                        .all(|other| other.id != entry.id && other.seq != entry.seq);
                    prop_assert_eq!(jobs.insert(&entry), is_new);
                    if is_new {
                        model.insert(entry.seq, *entry);
                    }
                }
                Change::Remove(id) => {
                    let seq = model.values().find(|entry| entry.id == id).map(|entry| entry.seq);
                    let removed = jobs.remove(id).map(|(entry, _)| entry);
                    prop_assert_eq!(removed, seq.and_then(|seq| model.remove(&seq)));
                }
                Change::SetDue(seq, due) => {
                    jobs.set_due(seq, due);
                    if let Some(entry) = model.get_mut(&seq) {
                        entry.due = due;
                    }
                }
            }
            prop_assert_eq!(jobs.len(), model.len());
        }
        let all: Vec<JobEntry> = jobs.iter().map(JobEntry::owned).collect();
        prop_assert_eq!(&all, &model.values().cloned().collect::<Vec<_>>());
        for entry in &all {
            prop_assert_eq!(jobs.get(entry.id), Some(entry.clone()));
            prop_assert_eq!(jobs.at(entry.seq).map(JobEntry::owned), Some(entry.clone()));
        }
        let kinds = jobs.each_kind().map(|(_, kind)| kind.jobs).sum::<usize>();
        prop_assert_eq!(kinds, all.len());
    }

    #[test]
    fn the_oldest_due_job_of_a_block_is_found_beside_another(
        entries in vec((any_entry(), any::<bool>()), 0..100),
        asked in any_place(),
    ) {
        let mut jobs = WaitingJobs::new();
        let mut ready = BTreeMap::new();
        for (entry, is_ready) in &entries {
            if jobs.insert(entry) {
                jobs.set_ready(entry.seq, *is_ready);
                ready.insert(entry.seq, *is_ready);
            }
        }
        for class in PriorityClass::ALL {
            let beside = jobs.iter().filter(|entry| {
                entry.seq.0 != asked
                    && entry.seq.0 / 64 == asked / 64
                    && PriorityClass::of(entry.priority) == class
                    && ready.get(&entry.seq) == Some(&true)
            });
            let oldest = beside.map(|entry| entry.since).min();
            prop_assert_eq!(jobs.oldest_beside(Seq(asked), class), oldest);
        }
    }
}

proptest! {
    #[test]
    fn jobs_that_are_read_in_two_parts_are_those_that_are_read_in_one(
        entries in vec(any_entry(), 0..100),
        split in 0_usize..100,
        removed in 0_usize..2,
    ) {
        let by_place: BTreeMap<Seq, JobEntry> = entries.into_iter().map(|entry| (entry.seq, entry)).collect();
        let entries: Vec<JobEntry> = by_place.into_values().map(|entry| JobEntry { id: id(entry.seq.0), ..entry }).collect();
        let (first, second) = entries.split_at(split.min(entries.len()));
        let mut parts = [first, second].map(|part| {
            let mut jobs = WaitingJobs::new();
            part.iter().for_each(|entry| jobs.push(entry));
            jobs
        });
        let [one, two] = &mut parts;
        for entry in second.iter().take(removed) {
            two.remove(entry.id);
        }
        one.append(std::mem::take(two));
        let wanted = first.iter().chain(second.iter().skip(removed));
        prop_assert!(one.iter().map(JobEntry::owned).eq(wanted.cloned()));
        for (n, entry) in entries.iter().enumerate() {
            let is_there = n < first.len() || n >= first.len() + removed;
            prop_assert_eq!(one.remove(entry.id).is_some(), is_there);
        }
        prop_assert!(one.is_empty());
    }
}

#[test]
fn among_many_each_is_found_by_its_id() {
    let entry = |n: u64| JobEntry {
        id: id(n),
        seq: Seq(n),
        ..crate::testing::sample::new_job(1).job.entry()
    };
    let mut jobs = WaitingJobs::new();
    let many = 2 * SCATTERED_MAX as u64;
    (0..many).for_each(|n| jobs.push(&entry(n * 3)));
    assert_eq!(jobs.len() as u64, many);
    for n in 0..many * 3 {
        assert_eq!(jobs.has(id(n)), n % 3 == 0, "{n}");
    }
    jobs.push(&entry(0));
    assert_eq!(jobs.len() as u64, many, "its place is taken");
}

#[test]
fn a_job_that_comes_out_of_its_order_is_taken_in_once() {
    let entry = |n: u64| JobEntry {
        id: crate::testing::sample::job_id(n),
        seq: Seq(n),
        ..crate::testing::sample::new_job(1).job.entry()
    };
    let mut jobs = WaitingJobs::new();
    let order = [200, 5, 201, 3, 70, 5, 200, 64];
    order.iter().for_each(|n| jobs.push(&entry(*n)));
    let places: Vec<u64> = jobs.iter().map(|job| job.seq.0).collect();
    assert_eq!(places, [3, 5, 64, 70, 200, 201]);
    for n in places {
        assert_eq!(
            jobs.remove(entry(n).id).map(|(job, _)| job.seq),
            Some(Seq(n))
        );
    }
    assert!(jobs.is_empty());
}

#[test]
fn a_waiting_job_takes_48_bytes_beside_what_it_shares() {
    assert_eq!(size_of::<Packed>(), 48);
    assert!(size_of::<Block>() <= 40);
}

#[test]
fn what_the_last_job_shared_goes_with_it() {
    let mut jobs = WaitingJobs::new();
    let entry = |n: u64| JobEntry {
        user_id: Arc::from(format!("user {n}")),
        ..crate::testing::sample::new_job(n).job.entry()
    };
    for n in 1..=1_000 {
        assert!(jobs.insert(&JobEntry {
            seq: Seq(n),
            ..entry(n)
        }));
        let before = n.saturating_sub(10);
        assert_eq!(jobs.remove(entry(before).id).is_some(), before > 0);
    }
    assert_eq!(jobs.len(), 10);
    assert!(jobs.kinds.len() <= 11, "numbers are given again");
    assert!(jobs.blocks.len() <= 2);
}
