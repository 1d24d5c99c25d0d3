//! What the calls of sessions came to. Sessions are many and soon over, so nothing is kept of them but the calls
//! themselves: the figures are summed from the call log, and reach as far back as retention keeps it.

use onelane_actors::ports::{CallFilter, Store, StoreError};

use super::{Statistics, StatisticsQuery, Summary, each_day};

/// Rows that an answer has at most.
const ROWS_MAX: usize = 10_000;
/// Calls that are in memory at once.
const PAGE: usize = 1_000;

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

/// Sums up calls by session. Costs what the call log costs.
pub(super) fn of_log(
    store: &dyn Store,
    query: StatisticsQuery,
) -> Result<Statistics, StatisticsError> {
    let filter = CallFilter {
        user_id: query.filter.user_id.clone(),
        model: query.filter.model.clone(),
        ..CallFilter::default()
    };
    let (days, session) = (query.filter.clone(), query.session.clone());
    // Before the log: what ends meanwhile must not seem to be missing there.
    let mut booked: u64 = 0;
    each_day(store, &query.filter, |row| {
        booked = booked.saturating_add(row.calls);
    })?;
    let mut summary = Summary::new(query);
    let (mut found, mut cursor) = (0, None);
    loop {
        let page = store.calls(&filter, cursor, PAGE)?;
        let calls = page.calls.iter();
        for call in calls.filter(|call| (days.start..=days.end).contains(&call.day())) {
            found += 1;
            if session.is_none() || call.session == session {
                summary.add_call(call);
            }
        }
        check(&summary)?;
        match page.cursor {
            Some(_) => cursor = page.cursor,
            None => break,
        }
    }
    Ok(Statistics {
        rows: summary.rows(),
        calls_not_in_log: Some(booked.saturating_sub(found)),
    })
}

fn check(summary: &Summary) -> Result<(), StatisticsError> {
    match summary.sums.len() > ROWS_MAX {
        true => Err(StatisticsError::TooMany { max: ROWS_MAX }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use onelane_actors::ports::UsageFilter;
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
