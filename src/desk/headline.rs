//! The first line: what is going on, why, until when and what to do. Everything else comes after it.

use onelane_core::model::{HoldScope, Timestamp, WaitReason};
use onelane_core::scheduler::SchedulerSnapshot;

use super::reasons;
use super::show::{When, duration, number};
use super::words::{Lang, Words, fill};

/// Of which kind a state is. A colour never says it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Ok,
    Warn,
    Bad,
}

impl Tone {
    /// The class of the style.
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Headline {
    pub(super) tone: Tone,
    pub(super) state: &'static str,
    pub(super) says: String,
    /// What follows by itself, and what to do.
    pub(super) then: Vec<String>,
    /// What GLM said.
    pub(super) dim: Option<String>,
    /// The lane is to be resumed, not paused.
    pub(super) is_stopped: bool,
    /// It lasts until an operator acts.
    pub(super) lasts: bool,
    /// The path at which its hold ends.
    pub(super) hold: Option<String>,
}

/// What one sees of open calls: how many, and since when the longest.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Open {
    pub(super) calls: usize,
    pub(super) since: Option<Timestamp>,
}

/// The path at which a hold on this ends.
pub(super) fn hold_path(scope: &HoldScope) -> String {
    let encoded = |name: &str| super::show::encoded(name).replace('/', "%2F");
    match scope {
        HoldScope::Account => "account".to_owned(),
        HoldScope::Lane(name) => format!("lane/{}", encoded(name)),
        HoldScope::Model(name) => format!("model/{}", encoded(name)),
    }
}

impl Headline {
    /// Of the lanes as they are, while so many jobs are pending.
    pub(super) fn of(
        lane: &SchedulerSnapshot,
        pending: u64,
        open: Open,
        now: Timestamp,
        (lang, w): (Lang, &Words),
    ) -> Self {
        let is_stopped = lane.paused.is_some() || lane.draining.is_some();
        let hold = lane.holds.first().map(|held| hold_path(&held.scope));
        let Some(reason) = &lane.wait_reason else {
            let state = if open.calls > 0 { w.running } else { w.idle };
            return Self {
                tone: Tone::Ok,
                state,
                says: calls_and_jobs(pending, open, now, w),
                then: Vec::new(),
                dim: None,
                is_stopped,
                lasts: false,
                hold,
            };
        };
        let mut then = Vec::new();
        if let Some(until) = reason.until() {
            then.push(fill(w.goes_on, &[&When::of(until, now, w).relative]));
        } else if reason.waits_for_operator() {
            then.push(w.waits_for_operator.to_owned());
        }
        if matches!(reason, WaitReason::Hold(_)) {
            then.push(w.no_job_fails.to_owned());
        }
        // What a button beside it does needs no words.
        let help = reasons::help(reason, lang).filter(|_| !is_stopped);
        if let Some(help) = help {
            then.push(capitalised(help));
        }
        Self {
            tone: tone(reason),
            state: state(reason, w),
            says: capitalised(&reasons::sentence(reason, now, lang)),
            then,
            dim: dim(lane, reason, now, w),
            is_stopped,
            lasts: reason.waits_for_operator(),
            hold,
        }
    }
}

fn calls_and_jobs(pending: u64, open: Open, now: Timestamp, w: &Words) -> String {
    let since = open.since.map_or(0, |since| now.since(since));
    let calls = match open.calls {
        0 => w.none_open.to_owned(),
        1 => fill(w.one_open, &[&duration(since, w)]),
        n => fill(w.some_open, &[&number(n as u64), &duration(since, w)]),
    };
    let jobs = match pending {
        0 => w.nothing_waits.to_owned(),
        1 => w.one_waits.to_owned(),
        n => fill(w.some_wait, &[&number(n)]),
    };
    format!("{calls}, {jobs}.")
}

/// What GLM said, and since when.
fn dim(lane: &SchedulerSnapshot, reason: &WaitReason, now: Timestamp, w: &Words) -> Option<String> {
    let since = |at: Timestamp| fill(w.since, &[&When::of(at, now, w).relative]);
    match reason {
        WaitReason::Hold(hold) => {
            let held = lane.holds.iter().find(|held| held.hold.code == hold.code);
            let since = held.map(|held| since(held.hold.since));
            Some(
                [Some(hold.said()), since]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join(" · "),
            )
        }
        WaitReason::Paused { since: at, .. } | WaitReason::Draining { since: at, .. } => {
            Some(since(*at))
        }
        WaitReason::Breaker { .. } => Some(since(lane.breaker.since)),
        _ => None,
    }
}

/// How bad a reason is.
pub(super) fn tone(reason: &WaitReason) -> Tone {
    match reason {
        WaitReason::DiskFull | WaitReason::Offline => Tone::Bad,
        WaitReason::Paused { .. } | WaitReason::Draining { .. } => Tone::Warn,
        reason if reason.waits_for_operator() => Tone::Bad,
        _ => Tone::Warn,
    }
}

/// The word for the state that a reason means.
fn state(reason: &WaitReason, w: &Words) -> &'static str {
    match reason {
        WaitReason::Paused { .. } => w.paused,
        WaitReason::Hold(_) => w.held,
        WaitReason::Draining { .. } => w.draining,
        WaitReason::Inactive => w.off,
        WaitReason::Stopping => w.stopping,
        WaitReason::Breaker { .. } => w.breaker_open,
        WaitReason::DiskFull | WaitReason::Offline => w.trouble,
        _ => w.waiting,
    }
}

/// With a large letter at its beginning.
pub(super) fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(chars).collect()
}

#[cfg(test)]
mod tests {
    use onelane_core::model::{Hold, HoldKind, ScopedHold, Wait};

    use super::*;

    fn of(lane: &SchedulerSnapshot, pending: u64, open: Open) -> Headline {
        let now = Timestamp::from_millis(10_000_000);
        Headline::of(lane, pending, open, now, (Lang::En, Words::of(Lang::En)))
    }

    #[test]
    fn the_first_line_says_that_all_is_well() {
        let lane = SchedulerSnapshot::default();
        let open = Open {
            calls: 1,
            since: Some(Timestamp::from_millis(10_000_000 - 3_100)),
        };
        let line = of(&lane, 0, open);
        assert_eq!((line.tone, line.state), (Tone::Ok, "running"));
        assert_eq!(line.says, "One call is open for 3.1 s, nothing waits.");
        let line = of(&lane, 0, Open::default());
        assert_eq!(
            (line.state, line.says.as_str()),
            ("idle", "No call is open, nothing waits.")
        );
    }

    #[test]
    fn the_first_line_says_why_nothing_goes_on_until_when_and_what_glm_said() {
        let (at, until) = (9_000_000, 10_000_000 + 41 * 60_000);
        let hold = Hold {
            kind: HoldKind::Quota,
            code: "1308".to_owned(),
            message: "已达到 5 小时的使用上限".to_owned(),
            since: Timestamp::from_millis(at),
            until: Some(Wait::between(
                Timestamp::from_millis(at),
                Timestamp::from_millis(until),
            )),
        };
        let lane = SchedulerSnapshot {
            wait_reason: Some(WaitReason::hold(&HoldScope::Account, &hold)),
            holds: vec![ScopedHold {
                scope: HoldScope::Account,
                hold,
            }],
            ..SchedulerSnapshot::default()
        };
        let line = of(&lane, 9, Open::default());
        assert_eq!((line.tone, line.state), (Tone::Warn, "held"));
        assert!(
            line.says.starts_with("Quota is used up until"),
            "{}",
            line.says
        );
        assert!(!line.says.contains("1308"), "GLM's words stand apart");
        assert_eq!(
            line.then,
            [
                "Goes on by itself in 41 min.",
                "No job fails while it waits."
            ]
        );
        assert_eq!(
            line.dim.as_deref(),
            Some("1308: 已达到 5 小时的使用上限 · since 16 min ago")
        );
        assert_eq!(line.hold.as_deref(), Some("account"));
    }
}
