//! What the calls of sessions came to. Sessions are many and soon over, so nothing is kept of them but the calls
//! themselves: the figures are summed from the call log, from its end back to the first day that is asked for, and reach
//! no further back than retention keeps it.

use onelane_actors::ports::{CallFilter, Store, StoreError, UsageFilter};
use onelane_core::model::{CallRecord, Day};

use super::{Statistics, StatisticsQuery, Summary, each_day};

/// Rows that an answer has at most.
const ROWS_MAX: usize = 10_000;
/// Calls that are in memory at once.
const PAGE: usize = 1_000;
/// Calls stand in the log in the order in which they ended, as far as the clock was never set back: it is believed that
/// it was not by more days than these while a page of calls was written.
const CLOCK_BACK_DAYS: i32 = 7;

/// Why sums can't be told.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StatisticsError {
    /// The store can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There are too many sessions.
    #[error(
        "makes more than {max} rows with sessions; ask for fewer days, or for one model, user or session"
    )]
    TooMany {
        /// How many rows there may be.
        max: usize,
    },
}

/// Sums up calls by session. Costs what the call log costs from its end back to the first day.
pub(super) fn of_log(
    store: &dyn Store,
    query: StatisticsQuery,
) -> Result<Statistics, StatisticsError> {
    let (days, session) = (query.filter.clone(), query.session.clone());
    let mut summary = Summary::new(query);
    let missing = each_call(store, &days, |call| {
        if session.is_none() || call.session == session {
            summary.add_call(call);
        }
        check(&summary)
    })?;
    Ok(Statistics {
        rows: summary.rows(),
        calls_not_in_log: Some(missing),
    })
}

/// Shows the calls of some days, of a user and a model where they are named, the latest first. Answers how many more there
/// were, which the log has no more.
pub(crate) fn each_call<E: From<StoreError>>(
    store: &dyn Store,
    days: &UsageFilter,
    mut look: impl FnMut(&CallRecord) -> Result<(), E>,
) -> Result<u64, E> {
    let filter = CallFilter {
        user_id: days.user_id.clone(),
        model: days.model.clone(),
        ..CallFilter::default()
    };
    // Before the log: what ends meanwhile must not seem to be missing there.
    let mut booked: u64 = 0;
    each_day(store, days, |row| {
        booked = booked.saturating_add(row.calls);
    })?;
    let mut found = 0;
    log_back_to(store, &filter, days.start, |call| {
        if !(days.start..=days.end).contains(&call.day()) {
            return Ok(());
        }
        found += 1;
        look(call)
    })?;
    Ok(booked.saturating_sub(found))
}

/// Shows the calls of the log, the latest first, back to this day at least.
fn log_back_to<E: From<StoreError>>(
    store: &dyn Store,
    filter: &CallFilter,
    first: Day,
    mut look: impl FnMut(&CallRecord) -> Result<(), E>,
) -> Result<(), E> {
    let far_before = Day(first.0.saturating_sub(CLOCK_BACK_DAYS));
    let mut cursor = None;
    loop {
        let page = store.calls(filter, cursor, PAGE)?;
        page.calls.iter().try_for_each(&mut look)?;
        let is_past = |call: &CallRecord| call.day() < far_before;
        let is_over = !page.calls.is_empty() && page.calls.iter().all(is_past);
        match page.cursor {
            Some(_) if !is_over => cursor = page.cursor,
            _ => return Ok(()),
        }
    }
}

fn check(summary: &Summary) -> Result<(), StatisticsError> {
    match summary.sums.len() > ROWS_MAX {
        true => Err(StatisticsError::TooMany { max: ROWS_MAX }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use onelane_actors::testing::{MemoryStore, sample};
    use onelane_core::model::{
        Calendar, CallOutcome, Cutoff, KeyId, Prune, PruneCursor, SessionId, Transition,
    };

    use super::*;
    use crate::statistics::{GroupBy, StatisticsRow, of_store};

    fn id(text: &str) -> SessionId {
        text.parse().unwrap()
    }

    fn query(group_by: &str, session: Option<&str>) -> StatisticsQuery {
        StatisticsQuery {
            filter: UsageFilter::default(),
            session: session.map(id),
            group_by: GroupBy::parse(group_by).unwrap(),
            calendar: Calendar::default(),
        }
    }

    /// A call each: of job 1 to 5 by session, the last two by the same name of two client keys.
    fn store() -> MemoryStore {
        let store = MemoryStore::new();
        let sessions = [None, Some("a"), Some("a"), Some("b"), Some("b")];
        for (n, session) in (1..).zip(sessions) {
            let Transition::Settle(mut settlement) = sample::complete(n, 1) else {
                unreachable!()
            };
            settlement.call.session = session.map(id);
            settlement.call.key_id = (n >= 4).then(|| KeyId::new(n));
            let end = Transition::Settle(settlement);
            commit(&store, &[sample::insert(n), sample::start(n), end]);
        }
        store
    }

    fn commit(store: &MemoryStore, changes: &[Transition]) {
        for decision in store.commit(changes).unwrap() {
            decision.unwrap();
        }
    }

    fn told(rows: &[StatisticsRow]) -> Vec<String> {
        let words = |row: &StatisticsRow| format!("{} {}", row.id, row.total_calls);
        rows.iter().map(words).collect()
    }

    #[test]
    fn calls_are_summed_by_session_and_those_of_two_keys_apart() {
        let store = store();
        let all = of_store(&store, query("session", None)).unwrap();
        assert_eq!(
            told(&all.rows),
            [
                "all 1",
                "a 2",
                "ol-0000000000000004:b 1",
                "ol-0000000000000005:b 1"
            ]
        );
        let by_model = of_store(&store, query("model", None)).unwrap();
        assert_eq!(by_model.calls_not_in_log, None, "the log plays no part");
        // What is told of sessions adds up to what is told without them.
        let sum = |rows: &[StatisticsRow]| -> (u64, u64, u64) {
            rows.iter().fold((0, 0, 0), |(calls, prompt, cached), row| {
                (
                    calls + row.total_calls,
                    prompt + row.usage.prompt_tokens,
                    cached + row.usage.cached_tokens,
                )
            })
        };
        assert_eq!(sum(&all.rows), sum(&by_model.rows));
        let one = of_store(&store, query("none", Some("a"))).unwrap();
        assert_eq!(told(&one.rows), ["a 2"]);
        assert_eq!(one.calls_not_in_log, Some(0));
        assert!(one.rows[0].cached_share_e4.is_some());
        let nobody = of_store(&store, query("day,user", Some("c"))).unwrap();
        assert_eq!(told(&nobody.rows), [""; 0]);
    }

    #[test]
    fn calls_that_the_log_has_not_any_more_are_counted_as_missing() {
        let store = store();
        // All but the latest two.
        let now = sample::START.plus_ms(86_400_000);
        let prune = Prune {
            calls: Cutoff {
                most: Some(2),
                settled: now,
                now,
                ..Cutoff::default()
            },
            jobs: Cutoff::default(),
            failed: Cutoff::default(),
            bodies_before: None,
            rows_max: 1_000,
            bytes_max: u64::MAX,
            from: PruneCursor::default(),
        };
        commit(&store, &[Transition::Prune(Box::new(prune))]);
        let left = of_store(&store, query("session", None)).unwrap();
        assert_eq!(left.rows.len(), 2);
        assert_eq!(left.calls_not_in_log, Some(3));
        let sums = of_store(&store, query("none", None)).unwrap();
        assert_eq!(told(&sums.rows), ["all 5"], "the sums stay");
    }

    #[test]
    fn of_a_long_log_only_the_days_are_read_that_are_asked_for() {
        const A_DAY: u64 = 100;
        let store = MemoryStore::new();
        // The older the call, the earlier its place: 60 days of them.
        let today = Day(sample::START.day().0 + 59);
        for n in 0..60 * A_DAY {
            let Transition::Settle(mut settlement) = sample::complete(n + 1, 1) else {
                unreachable!()
            };
            settlement.call.session = Some(id(&format!("s{}", n % 4)));
            settlement.call.booked_on = Some(Day(today.0 - 59 + i32::try_from(n / A_DAY).unwrap()));
            let end = Transition::Settle(settlement);
            commit(&store, &[sample::insert(n + 1), sample::start(n + 1), end]);
        }
        let query = |days: i32| StatisticsQuery {
            filter: UsageFilter {
                start: Day(today.0 - days + 1),
                end: today,
                ..UsageFilter::default()
            },
            ..query("session", None)
        };
        let week = of_store(&store, query(7)).unwrap();
        assert_eq!(told(&week.rows), ["s0 175", "s1 175", "s2 175", "s3 175"]);
        assert_eq!(week.calls_not_in_log, Some(0));
        let mut looked_at = 0;
        let first = Day(today.0 - 6);
        let looked = log_back_to(&store, &CallFilter::default(), first, |_| {
            looked_at += 1;
            Ok::<_, StatisticsError>(())
        });
        looked.unwrap();
        assert!((700..=3_000).contains(&looked_at), "{looked_at} of 6000");
        let all = of_store(&store, query(60)).unwrap();
        assert_eq!(told(&all.rows)[0], "s0 1500");
    }

    #[test]
    fn a_question_without_a_first_day_is_about_less_of_the_log_than_of_the_sums() {
        let first = |group_by: &str, session: Option<&str>| {
            let group_by = GroupBy::parse(group_by).unwrap();
            let session = session.map(id);
            Day(100).0 - crate::statistics::first_day(Day(100), group_by, session.as_ref()).0 + 1
        };
        assert_eq!(first("day,model", None), 30);
        assert_eq!(first("session", None), 7);
        assert_eq!(first("none", Some("a")), 7);
    }

    #[test]
    fn too_many_sessions_are_refused_in_words() {
        let mut summary = Summary::new(query("session", None));
        let mut call = sample::call(1, 1, CallOutcome::Completed);
        for n in 0..=ROWS_MAX {
            assert!(check(&summary).is_ok());
            call.session = Some(id(&n.to_string()));
            summary.add_call(&call);
        }
        let problem = check(&summary).unwrap_err().to_string();
        assert!(
            problem.contains("10000") && problem.contains("fewer days"),
            "{problem}"
        );
    }
}
