//! The life of a job as a picture: what it waited for, its attempts, where it stands. A row for each part, from its
//! submission to its end or to now.

use onelane_core::model::{CallOutcome, CallRecord, FailureClass, Timestamp};

use super::show::duration;
use super::words::{Words, fill};

/// The picture's width in its own units, and where its bars begin and end.
const WIDTH: u64 = 1_100;
const LEFT: u64 = 210;
const RIGHT: u64 = 1_090;
/// The height of a row.
const ROW: u64 = 28;
/// Parts that are shown; of more the latest.
const PARTS_MAX: usize = 24;

/// What a part of a life is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It waited for its turn.
    Waited,
    /// It waited since an attempt of it, or of others, was refused.
    CooledDown,
    /// An attempt that brought its answer.
    Answered,
    /// One that did not.
    Failed,
    /// An attempt that goes on.
    Running,
}

impl Kind {
    const fn class(self) -> &'static str {
        match self {
            Self::Waited => "waited",
            Self::CooledDown => "cooled",
            Self::Answered => "answered",
            Self::Failed => "broke",
            Self::Running => "runs",
        }
    }
}

/// A part of a life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    kind: Kind,
    from: Timestamp,
    to: Timestamp,
    label: String,
    says: Option<String>,
}

/// What is known of a job's life.
pub(super) struct Life<'a> {
    pub(super) created: Timestamp,
    pub(super) attempts: &'a [CallRecord],
    /// When the open attempt was sent.
    pub(super) open: Option<Timestamp>,
    /// When it ended; `None`: it goes on.
    pub(super) ended: Option<Timestamp>,
    pub(super) now: Timestamp,
}

/// The parts of a life, in their order.
pub(super) fn parts(life: &Life<'_>, w: &Words) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut at = life.created;
    let mut after: Option<&CallRecord> = None;
    let wait = |from: Timestamp, to: Timestamp, after: Option<&CallRecord>, is_now: bool| {
        let failure = after.and_then(|call| call.failure.as_ref());
        let (kind, label) = match failure {
            None if is_now => (Kind::Waited, w.waits_now.to_owned()),
            None => (Kind::Waited, w.waited_turn.to_owned()),
            Some(failure) if failure.class == FailureClass::Throttle => {
                (Kind::CooledDown, fill(w.cooled_down, &[&failure.code]))
            }
            Some(failure) => (Kind::CooledDown, fill(w.waited_retry, &[&failure.code])),
        };
        Part {
            kind,
            from,
            to,
            label,
            says: None,
        }
    };
    for call in life.attempts {
        if call.started_at > at {
            parts.push(wait(at, call.started_at, after, false));
        }
        let is_answered = call.outcome == CallOutcome::Completed;
        parts.push(Part {
            kind: if is_answered {
                Kind::Answered
            } else {
                Kind::Failed
            },
            from: call.started_at,
            to: call.ended_at,
            label: fill(w.attempt_of, &[&call.attempt.0.to_string(), &call.model]),
            says: call.failure.as_ref().map(|failure| failure.code.clone()),
        });
        at = at.max(call.ended_at);
        after = Some(call);
    }
    match (life.open, life.ended) {
        (Some(open), _) => {
            if open > at {
                parts.push(wait(at, open, after, false));
            }
            parts.push(Part {
                kind: Kind::Running,
                from: open,
                to: life.now.max(open),
                label: w.runs_now.to_owned(),
                says: None,
            });
        }
        (None, None) => parts.push(wait(at, life.now.max(at), after, true)),
        (None, Some(ended)) if life.attempts.is_empty() => {
            parts.push(wait(at, ended.max(at), None, false));
        }
        (None, Some(_)) => {}
    }
    let left_out = parts.len().saturating_sub(PARTS_MAX);
    parts.split_off(left_out)
}

/// A bar of the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) class: &'static str,
    pub(super) y: u64,
    pub(super) text_y: u64,
    pub(super) x: u64,
    pub(super) width: u64,
    /// Beside the bar, where there is room.
    pub(super) beside_x: u64,
    pub(super) anchor: &'static str,
    pub(super) beside: String,
}

/// A mark of the scale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) x: u64,
    pub(super) anchor: &'static str,
    pub(super) text: String,
}

/// The picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) width: u64,
    pub(super) height: u64,
    pub(super) grid_to: u64,
    pub(super) bars: Vec<Bar>,
    pub(super) marks: Vec<Mark>,
    pub(super) whole: String,
}

/// Draws the parts; `None`: there are none.
pub(super) fn draw(parts: &[Part], w: &Words) -> Option<Picture> {
    let from = parts.iter().map(|part| part.from).min()?;
    let to = parts.iter().map(|part| part.to).max()?;
    let whole = to.since(from).max(1);
    let at = |moment: Timestamp| LEFT + (RIGHT - LEFT) * moment.since(from).min(whole) / whole;
    let bar = |(row, part): (usize, &Part)| {
        let y = row as u64 * ROW + 8;
        let (x, end) = (at(part.from), at(part.to));
        let width = (end - x).max(2);
        let length = duration(part.to.since(part.from), w);
        let is_late = x + width > (LEFT + RIGHT) / 2 + 200;
        Bar {
            label: part.label.clone(),
            class: part.kind.class(),
            y,
            text_y: y + 12,
            x,
            width,
            beside_x: if is_late {
                x.saturating_sub(6)
            } else {
                x + width + 6
            },
            anchor: if is_late { "end" } else { "start" },
            beside: match &part.says {
                Some(says) => format!("{says} · {length}"),
                None => length,
            },
        }
    };
    let height = parts.len() as u64 * ROW + 30;
    let mark = |quarter: u64| Mark {
        x: LEFT + (RIGHT - LEFT) * quarter / 4,
        anchor: match quarter {
            0 => "start",
            4 => "end",
            _ => "middle",
        },
        text: duration(whole * quarter / 4, w),
    };
    Some(Picture {
        width: WIDTH,
        height,
        grid_to: height - 18,
        bars: parts.iter().enumerate().map(bar).collect(),
        marks: (0..=4).map(mark).collect(),
        whole: duration(whole, w),
    })
}

#[cfg(test)]
mod tests {
    use onelane_core::model::{AttemptNo, Failure, Job};

    use super::super::words::Lang;
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + ms)
    }

    fn call(no: u32, from: i64, to: i64, failure: Option<Failure>) -> CallRecord {
        let id = crate::views::tests::sample::id(1);
        let job = Job::new(id, "alice", "glm-5", at(0));
        let outcome = match failure {
            Some(_) => CallOutcome::Failed,
            None => CallOutcome::Completed,
        };
        CallRecord {
            failure,
            ..CallRecord::of(&job, AttemptNo(no), outcome, at(from), at(to))
        }
    }

    #[test]
    fn a_life_is_its_waits_and_its_attempts_without_a_gap() {
        let w = Words::of(Lang::En);
        let throttled = Failure::new(FailureClass::Throttle, "1302", "too many");
        let calls = [call(1, 100, 110, Some(throttled)), call(2, 300, 500, None)];
        let life = Life {
            created: at(0),
            attempts: &calls,
            open: None,
            ended: Some(at(500)),
            now: at(900),
        };
        let parts = parts(&life, w);
        let kinds: Vec<Kind> = parts.iter().map(|part| part.kind).collect();
        assert_eq!(
            kinds,
            [Kind::Waited, Kind::Failed, Kind::CooledDown, Kind::Answered]
        );
        assert!(
            parts.windows(2).all(|two| two[0].to == two[1].from),
            "{parts:?}"
        );
        assert!(parts[2].label.contains("1302"));
        let picture = draw(&parts, w).unwrap();
        assert_eq!(picture.bars.len(), 4);
        assert_eq!(picture.whole, "500 ms");
        assert!(
            picture
                .bars
                .iter()
                .all(|bar| bar.x >= LEFT && bar.x + bar.width <= RIGHT + 2)
        );
    }

    #[test]
    fn what_waits_or_runs_ends_now() {
        let w = Words::of(Lang::En);
        let life = |open: Option<Timestamp>| Life {
            created: at(0),
            attempts: &[],
            open,
            ended: None,
            now: at(900),
        };
        let waiting = parts(&life(None), w);
        assert_eq!((waiting.len(), waiting[0].to), (1, at(900)));
        let running = parts(&life(Some(at(400))), w);
        assert_eq!(
            running.last().map(|part| (part.kind, part.to)),
            Some((Kind::Running, at(900)))
        );
        assert!(draw(&[], w).is_none());
    }
}
