//! Who held each slot when, and what the gaps between were: told from the call log, drawn as a picture. A gap in which the
//! job that came next was not there yet is idle; one in which it was is a wait, or a cool-down after a refusal.

use onelane_core::model::{CallOutcome, CallRecord, FailureClass, Job, JobId, Timestamp};

use super::axis::{Axis, Mark};
use super::show::duration;
use super::terms::Terms;
use super::words::{Words, fill};

const WIDTH: u64 = 960;
const LEFT: u64 = 56;
const RIGHT: u64 = 952;
const ROW: u64 = 34;
/// Slots that are drawn.
pub(super) const SLOTS_MAX: usize = 16;
/// Bars of a picture; where there would be more, each stands for what a slot mostly was in some time.
const BARS_MAX: usize = 300;

/// What a slot was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Answered,
    Running,
    Failed,
    /// Given up, or cut off.
    Dropped,
    CooledDown,
    Waited,
    Idle,
}

impl Kind {
    pub(super) const ALL: [Self; 7] = [
        Self::Answered,
        Self::Running,
        Self::Failed,
        Self::Dropped,
        Self::CooledDown,
        Self::Waited,
        Self::Idle,
    ];

    /// The class of the style.
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Running => "runs",
            Self::Failed => "broke",
            Self::Dropped | Self::CooledDown => "cooled",
            Self::Waited => "waited",
            Self::Idle => "of",
        }
    }

    /// Whether somebody held it.
    pub(super) const fn is_held(self) -> bool {
        matches!(
            self,
            Self::Answered | Self::Running | Self::Failed | Self::Dropped
        )
    }

    pub(super) const fn word(self, w: &Words, t: &Terms) -> &'static str {
        match self {
            Self::Answered => t.slot_answered,
            Self::Running => w.runs_now,
            Self::Failed => w.out_failed,
            Self::Dropped => w.out_cancelled,
            Self::CooledDown => t.slot_cooled,
            Self::Waited => t.slot_waited,
            Self::Idle => t.slot_idle,
        }
    }
}

/// Somebody's stay in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stay {
    pub(super) job: JobId,
    pub(super) user: String,
    pub(super) model: String,
    from: Timestamp,
    to: Timestamp,
    kind: Kind,
    /// The code after which the lane cools down.
    cools: Option<String>,
}

impl Stay {
    /// Of a call that ended.
    pub(super) fn of(call: &CallRecord) -> Self {
        let kind = match call.outcome {
            CallOutcome::Completed => Kind::Answered,
            CallOutcome::Failed => Kind::Failed,
            CallOutcome::Cancelled | CallOutcome::Interrupted => Kind::Dropped,
        };
        let cooling = call.failure.as_ref().filter(|failure| {
            matches!(
                failure.class,
                FailureClass::Throttle
                    | FailureClass::Overload
                    | FailureClass::QuotaWindow
                    | FailureClass::OperatorFatal
                    | FailureClass::Unreachable
            )
        });
        Self {
            job: call.job_id,
            user: call.user_id.clone(),
            model: call.model.clone(),
            from: call.started_at,
            to: call.ended_at.max(call.started_at),
            kind,
            cools: cooling.map(|failure| failure.code.clone()),
        }
    }

    /// Of a job whose call is open.
    pub(super) fn open(job: &Job, now: Timestamp) -> Option<Self> {
        let from = job.open?.at;
        Some(Self {
            job: job.id,
            user: job.user_id.clone(),
            model: job.sent_to().to_owned(),
            from,
            to: now.max(from),
            kind: Kind::Running,
            cools: None,
        })
    }
}

/// What a slot was for some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) kind: Kind,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) stay: Option<Stay>,
    /// Of a cool-down.
    code: Option<String>,
}

impl Part {
    pub(super) fn ms(&self) -> u64 {
        self.to.since(self.from)
    }
}

/// The parts of each slot from one moment to another, without a gap. `waits`: jobs wait now.
pub(super) fn slots(
    mut stays: Vec<Stay>,
    from: Timestamp,
    to: Timestamp,
    waits: bool,
) -> Vec<Vec<Part>> {
    stays.retain(|stay| stay.to > from && stay.from < to);
    stays.sort_by_key(|stay| (stay.from, stay.to));
    let mut slots: Vec<Vec<Stay>> = Vec::new();
    for stay in stays {
        let is_free = |slot: &&mut Vec<Stay>| slot.last().is_none_or(|last| last.to <= stay.from);
        match slots.iter_mut().find(is_free) {
            Some(slot) => slot.push(stay),
            None => slots.push(vec![stay]),
        }
    }
    let told = slots
        .into_iter()
        .map(|stays| parts_of(stays, from, to, waits));
    told.collect()
}

fn parts_of(stays: Vec<Stay>, from: Timestamp, to: Timestamp, waits: bool) -> Vec<Part> {
    let (mut at, mut parts, mut cools) = (from, Vec::new(), None);
    let gap = |kind, from, to, code: Option<String>| Part {
        kind,
        from,
        to,
        stay: None,
        code,
    };
    let between = |parts: &mut Vec<Part>, from, to, there: Timestamp, cools: Option<String>| {
        // Until the next job was there nobody could have the slot.
        let there = there.max(from).min(to);
        if there > from {
            parts.push(gap(Kind::Idle, from, there, None));
        }
        if to > there {
            let kind = if cools.is_some() {
                Kind::CooledDown
            } else {
                Kind::Waited
            };
            parts.push(gap(kind, there, to, cools));
        }
    };
    for stay in stays {
        let there = stay.job.made_at().unwrap_or(at);
        between(&mut parts, at, stay.from.max(at), there, cools.take());
        let end = stay.to.min(to);
        cools.clone_from(&stay.cools);
        parts.push(Part {
            kind: stay.kind,
            from: stay.from.max(from),
            to: end,
            code: None,
            stay: Some(stay),
        });
        at = end;
    }
    let there = if waits { at } else { to };
    between(&mut parts, at, to, there, cools);
    parts
}

/// A bar of the picture.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bar {
    pub(super) class: &'static str,
    pub(super) x: u64,
    pub(super) y: u64,
    pub(super) width: u64,
    pub(super) title: String,
    /// The job that it leads to.
    pub(super) href: Option<String>,
}

/// The picture.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) width: u64,
    pub(super) height: u64,
    pub(super) base: u64,
    /// Where each slot's name stands.
    pub(super) names: Vec<(u64, String)>,
    pub(super) bars: Vec<Bar>,
    pub(super) marks: Vec<Mark>,
}

/// Draws the slots; `None`: nobody held one.
pub(super) fn draw(slots: &[Vec<Part>], (w, t): (&Words, &Terms)) -> Option<Picture> {
    let slots = slots.get(..SLOTS_MAX).unwrap_or(slots);
    let times = slots.iter().flatten().map(|part| (part.from, part.to));
    let axis = Axis::over(times, (LEFT, RIGHT))?;
    let is_exact = slots.iter().map(Vec::len).sum::<usize>() <= BARS_MAX;
    let mut bars = Vec::new();
    for (n, parts) in slots.iter().enumerate() {
        let y = n as u64 * ROW + 8;
        let mut bar = |kind: Kind, x: u64, end: u64, title: String, href: Option<String>| {
            if kind != Kind::Idle {
                bars.push(Bar {
                    class: kind.class(),
                    x,
                    y,
                    width: (end - x).max(1),
                    title,
                    href,
                });
            }
        };
        if is_exact {
            for part in parts {
                let title = title(part, (w, t));
                let job = part.stay.as_ref().map(|stay| stay.job);
                let href = job.map(|job| format!("/desk/jobs/{job}"));
                bar(part.kind, axis.at(part.from), axis.at(part.to), title, href);
            }
            continue;
        }
        let cells = (BARS_MAX / slots.len().max(1)) as u64;
        for (kind, first, last) in mostly(parts, axis.from(), axis.whole(), cells) {
            let x = |cell: u64| LEFT + (RIGHT - LEFT) * cell / cells;
            let title = format!("{} {}", t.mostly, kind.word(w, t));
            bar(kind, x(first), x(last), title, None);
        }
    }
    let base = slots.len() as u64 * ROW + 8;
    let mark = |_, after: u64| match after {
        0 => w.now.to_owned(),
        ms => fill(w.ago, &[&duration(ms, w)]),
    };
    Some(Picture {
        width: WIDTH,
        height: base + 20,
        base,
        names: (0..slots.len() as u64)
            .map(|n| (n * ROW + 22, (n + 1).to_string()))
            .collect(),
        bars,
        marks: axis.marks(mark),
    })
}

fn title(part: &Part, (w, t): (&Words, &Terms)) -> String {
    let word = part.kind.word(w, t);
    let length = duration(part.ms(), w);
    match (&part.stay, &part.code) {
        (Some(stay), _) => format!("{} · {} · {word} · {length}", stay.user, stay.model),
        (None, Some(code)) => format!("{word} ({code}) · {length}"),
        (None, None) => format!("{word} · {length}"),
    }
}

/// What a slot mostly was in each of so many cells of time, beside idle; cells of the same kind together.
fn mostly(parts: &[Part], from: Timestamp, whole: u64, cells: u64) -> Vec<(Kind, u64, u64)> {
    let mut told: Vec<(Kind, u64, u64)> = Vec::new();
    let mut parts = parts.iter().peekable();
    for cell in 0..cells {
        let begin = from.plus_ms(whole * cell / cells);
        let end = from.plus_ms(whole * (cell + 1) / cells);
        let mut sums = [0_u64; Kind::ALL.len()];
        while let Some(part) = parts.peek() {
            let ms = part.to.min(end).since(part.from.max(begin));
            for (sum, kind) in sums.iter_mut().zip(Kind::ALL) {
                *sum += if kind == part.kind { ms } else { 0 };
            }
            if part.to > end {
                break;
            }
            parts.next();
        }
        // What somebody did, or waited for, is seen also where the slot was idle for the larger part.
        let told_of = |(sum, kind): &(&u64, Kind)| *kind != Kind::Idle && **sum > 0;
        let most = sums.iter().zip(Kind::ALL).filter(told_of);
        let most = most.max_by_key(|(sum, _)| **sum);
        let kind = most.map_or(Kind::Idle, |(_, kind)| kind);
        match told.last_mut() {
            Some((last, _, to)) if *last == kind => *to = cell + 1,
            _ => told.push((kind, cell, cell + 1)),
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use onelane_core::model::{AttemptNo, Failure};
    use uuid::Uuid;

    use super::super::words::Lang;
    use super::*;

    const BEGIN: i64 = 1_795_392_000_000;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(BEGIN + ms)
    }

    /// A job that was made then.
    fn job(made: i64, n: u128) -> Job {
        let made = u128::try_from(BEGIN + made).unwrap();
        let id = Uuid::from_u128((made << 80) | 0x7000_8000_0000_0000_0000 | n);
        Job::new(JobId::from_uuid(id), "alice", "glm-5", at(0))
    }

    fn call(made: i64, from: i64, to: i64, failure: Option<Failure>) -> CallRecord {
        let outcome = match failure {
            Some(_) => CallOutcome::Failed,
            None => CallOutcome::Completed,
        };
        let job = job(made, u128::try_from(from).unwrap());
        CallRecord {
            failure,
            ..CallRecord::of(&job, AttemptNo(1), outcome, at(from), at(to))
        }
    }

    fn kinds(parts: &[Part]) -> Vec<(Kind, u64)> {
        parts.iter().map(|part| (part.kind, part.ms())).collect()
    }

    fn words() -> (&'static Words, &'static Terms) {
        (Words::of(Lang::En), Terms::of(Lang::En))
    }

    #[test]
    fn a_gap_is_idle_until_the_next_job_is_there_and_a_wait_from_then_on() {
        let stays = [
            call(0, 100, 300, None),
            call(600, 700, 900, None),
            call(100, 950, 1_000, None),
        ];
        let slots = slots(
            stays.iter().map(Stay::of).collect(),
            at(0),
            at(1_200),
            false,
        );
        assert_eq!(slots.len(), 1);
        let want = [
            (Kind::Waited, 100),
            (Kind::Answered, 200),
            (Kind::Idle, 300),
            (Kind::Waited, 100),
            (Kind::Answered, 200),
            (Kind::Waited, 50),
            (Kind::Answered, 50),
            (Kind::Idle, 200),
        ];
        assert_eq!(kinds(&slots[0]), want);
    }

    #[test]
    fn after_a_refusal_the_lane_cools_down_and_what_waits_at_the_end_waits() {
        let throttled = Failure::new(FailureClass::Throttle, "1302", "too many");
        let stays = [call(0, 0, 100, Some(throttled)), call(0, 400, 500, None)];
        let slots = slots(stays.iter().map(Stay::of).collect(), at(0), at(600), true);
        let want = [
            (Kind::Failed, 100),
            (Kind::CooledDown, 300),
            (Kind::Answered, 100),
            (Kind::Waited, 100),
        ];
        assert_eq!(kinds(&slots[0]), want);
        let picture = draw(&slots, words()).unwrap();
        assert!(picture.bars.iter().any(|bar| bar.title.contains("1302")));
    }

    #[test]
    fn calls_at_once_have_slots_of_their_own_and_each_slot_is_told_whole() {
        let stays = [
            call(0, 0, 500, None),
            call(0, 100, 200, None),
            call(0, 300, 900, None),
        ];
        let slots = slots(stays.iter().map(Stay::of).collect(), at(50), at(800), false);
        assert_eq!(slots.len(), 2);
        for parts in &slots {
            assert_eq!((parts[0].from, parts.last().unwrap().to), (at(50), at(800)));
            assert!(parts.windows(2).all(|two| two[0].to == two[1].from));
        }
    }

    #[test]
    fn a_picture_of_many_calls_has_few_bars() {
        let many = (0..4_000).map(|n| call(0, n * 10, n * 10 + 8, None));
        let slots = slots(
            many.map(|c| Stay::of(&c)).collect(),
            at(0),
            at(40_000),
            false,
        );
        let picture = draw(&slots, words()).unwrap();
        assert!(!picture.bars.is_empty() && picture.bars.len() <= BARS_MAX);
        let inside = |bar: &Bar| bar.x >= LEFT && bar.x + bar.width <= RIGHT + 1;
        assert!(picture.bars.iter().all(inside));
        assert_eq!(draw(&[], words()), None);
    }
}
