//! The life of a job as a picture: what it waited for, its attempts with their parts, where it stands. A row for each
//! stretch, from its submission to its end or to now.

use onelane_actors::relay::SoFar;
use onelane_core::model::{CallOutcome, CallRecord, FailureClass, Timestamp};

use super::axis::{Axis, Mark};
use super::show::{duration, number};
use super::words::{Words, fill};

/// The picture's width in its own units, and where its bars begin and end.
const WIDTH: u64 = 1_100;
const LEFT: u64 = 210;
const RIGHT: u64 = 1_090;
/// The height of a row.
const ROW: u64 = 28;
/// Stretches that are shown; of more the latest.
const STRETCHES_MAX: usize = 24;

/// What a stretch of a life is, or a part of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It waited for its turn.
    Waited,
    /// It waited since an attempt of it, or of others, was refused.
    CooledDown,
    /// It was on record and waited for a slot.
    Staged,
    /// Its start was put on disk.
    Stored,
    /// Its connection was made.
    Connected,
    /// GLM had it and told nothing yet.
    Silent,
    /// An attempt that brought its answer, or the part in which that came.
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
            Self::Staged => "staged",
            Self::Stored => "stored",
            Self::Connected => "connects",
            Self::Silent => "silent",
            Self::Answered => "answered",
            Self::Failed => "broke",
            Self::Running => "runs",
        }
    }
}

/// A part of a stretch: its bar is drawn in these.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    kind: Kind,
    from: Timestamp,
    to: Timestamp,
}

/// A stretch of a life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    kind: Kind,
    from: Timestamp,
    to: Timestamp,
    label: String,
    says: Vec<String>,
    pieces: Vec<Piece>,
}

/// A call that goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenCall {
    /// When it was sent.
    pub(super) sent: Timestamp,
    /// What has come of its answer, where that is streamed.
    pub(super) so_far: Option<SoFar>,
}

/// What is known of a job's life.
pub(super) struct Life<'a> {
    pub(super) created: Timestamp,
    pub(super) attempts: &'a [CallRecord],
    pub(super) open: Option<OpenCall>,
    /// Why it waits, in a word or two.
    pub(super) waits: Option<&'a str>,
    /// When it ended; `None`: it goes on.
    pub(super) ended: Option<Timestamp>,
    pub(super) now: Timestamp,
}

/// A stretch in one piece.
fn plain(kind: Kind, from: Timestamp, to: Timestamp, label: String) -> Stretch {
    Stretch {
        kind,
        from,
        to,
        label,
        says: Vec::new(),
        pieces: vec![Piece { kind, from, to }],
    }
}

/// What it waited for after an attempt, or before the first.
fn wait(from: Timestamp, to: Timestamp, after: Option<&CallRecord>, w: &Words) -> Stretch {
    let failure = after.and_then(|call| call.failure.as_ref());
    let (kind, label) = match failure {
        None => (Kind::Waited, w.waited_turn.to_owned()),
        Some(failure) if failure.class == FailureClass::Throttle => {
            (Kind::CooledDown, fill(w.cooled_down, &[&failure.code]))
        }
        Some(failure) => (Kind::CooledDown, fill(w.waited_retry, &[&failure.code])),
    };
    plain(kind, from, to, label)
}

/// The stretches of a life, in their order.
pub(super) fn stretches(life: &Life<'_>, w: &Words) -> Vec<Stretch> {
    let mut all = Vec::new();
    let mut at = life.created;
    let mut after: Option<&CallRecord> = None;
    for call in life.attempts {
        before(call, at, after, &mut all, w);
        all.push(attempt(call, w));
        at = at.max(call.ended_at);
        after = Some(call);
    }
    match (life.open, life.ended) {
        (Some(open), _) => {
            if open.sent > at {
                all.push(wait(at, open.sent, after, w));
            }
            all.push(running(open, life.now.max(open.sent), w));
        }
        (None, None) => {
            let mut now = wait(at, life.now.max(at), after, w);
            match life.waits {
                Some(reason) => reason.clone_into(&mut now.label),
                None if now.kind == Kind::Waited => w.waits_now.clone_into(&mut now.label),
                None => {}
            }
            all.push(now);
        }
        (None, Some(ended)) if life.attempts.is_empty() => {
            all.push(wait(at, ended.max(at), None, w));
        }
        (None, Some(_)) => {}
    }
    let left_out = all.len().saturating_sub(STRETCHES_MAX);
    all.split_off(left_out)
}

/// What was before an attempt: it waited, was staged, and its start was stored.
fn before(
    call: &CallRecord,
    at: Timestamp,
    after: Option<&CallRecord>,
    all: &mut Vec<Stretch>,
    w: &Words,
) {
    let sent = call.started_at;
    if sent <= at {
        return;
    }
    let known = [
        (Kind::Staged, call.parts.staged_ms, w.staged),
        (Kind::Stored, call.parts.commit_ms, w.stored),
    ];
    let known = known
        .into_iter()
        .find_map(|(kind, ms, label)| Some((kind, ms.filter(|ms| *ms > 0)?, label)));
    // It may have been staged while another attempt of it was told of.
    let begins = known.map_or(sent, |(_, ms, _)| sent.minus_ms(ms).max(at));
    if begins > at {
        all.push(wait(at, begins, after, w));
    }
    if let Some((kind, _, label)) = known {
        all.push(plain(kind, begins, sent, label.to_owned()));
    }
}

/// An attempt that ended, with its parts.
fn attempt(call: &CallRecord, w: &Words) -> Stretch {
    let (sent, parts) = (call.started_at, &call.parts);
    let ended = call.ended_at.max(sent);
    let ends_as = match call.outcome {
        CallOutcome::Completed => Kind::Answered,
        CallOutcome::Failed | CallOutcome::Cancelled | CallOutcome::Interrupted => Kind::Failed,
    };
    let code = call.failure.as_ref().map(|failure| failure.code.clone());
    let mut says: Vec<String> = code.into_iter().collect();
    let told = [
        (w.part_connect, parts.connect_ms),
        (w.part_first_token, parts.first_token_ms),
        (w.part_decode, call.decode_ms()),
    ];
    for (name, ms) in told {
        says.extend(ms.map(|ms| format!("{name} {}", duration(ms, w))));
    }
    Stretch {
        kind: ends_as,
        from: sent,
        to: ended,
        label: fill(w.attempt_of, &[&call.attempt.0.to_string(), &call.model]),
        says,
        pieces: pieces(
            (sent, ended),
            (parts.connect_ms, parts.first_token_ms),
            ends_as,
        ),
    }
}

/// The call that goes on, with what is known of its parts.
fn running(open: OpenCall, now: Timestamp, w: &Words) -> Stretch {
    let first = open.so_far.and_then(|so_far| so_far.first_token_ms);
    let mut says = Vec::new();
    says.extend(first.map(|ms| format!("{} {}", w.part_first_token, duration(ms, w))));
    says.extend(
        open.so_far
            .map(|so_far| fill(w.tokens_so_far, &[&number(so_far.events as u64)])),
    );
    Stretch {
        kind: Kind::Running,
        from: open.sent,
        to: now,
        label: w.runs_now.to_owned(),
        says,
        pieces: pieces((open.sent, now), (None, first), Kind::Running),
    }
}

/// The parts of a call without a gap: its connection, the silence before the first token, and the rest.
fn pieces(
    (sent, ended): (Timestamp, Timestamp),
    (connect, first_token): (Option<u64>, Option<u64>),
    rest: Kind,
) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = sent;
    for (kind, ms) in [(Kind::Connected, connect), (Kind::Silent, first_token)] {
        let Some(ms) = ms else { continue };
        let to = sent.plus_ms(ms).min(ended).max(at);
        if to > at {
            pieces.push(Piece { kind, from: at, to });
            at = to;
        }
    }
    if ended > at || pieces.is_empty() {
        pieces.push(Piece {
            kind: rest,
            from: at,
            to: ended,
        });
    }
    pieces
}

/// A piece of a bar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Drawn {
    pub(super) class: &'static str,
    pub(super) x: u64,
    pub(super) width: u64,
}

/// A bar of the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) y: u64,
    pub(super) text_y: u64,
    pub(super) pieces: Vec<Drawn>,
    /// Beside the bar, where there is room.
    pub(super) beside_x: u64,
    pub(super) anchor: &'static str,
    pub(super) beside: String,
}

/// The picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) width: u64,
    pub(super) height: u64,
    pub(super) grid_to: u64,
    pub(super) bars: Vec<Bar>,
    pub(super) marks: Vec<Mark>,
    /// What the colours of an attempt's parts mean, where one has any.
    pub(super) keys: Vec<(&'static str, &'static str)>,
    pub(super) whole: String,
}

/// Draws the stretches; `None`: there are none.
pub(super) fn draw(all: &[Stretch], w: &'static Words) -> Option<Picture> {
    let times = all.iter().map(|stretch| (stretch.from, stretch.to));
    let axis = Axis::over(times, (LEFT, RIGHT))?;
    let bar = |(row, stretch): (usize, &Stretch)| {
        let y = row as u64 * ROW + 8;
        let drawn = |piece: &Piece| {
            let (x, end) = (axis.at(piece.from), axis.at(piece.to));
            Drawn {
                class: piece.kind.class(),
                x,
                width: (end - x).max(2),
            }
        };
        let x = axis.at(stretch.from);
        let end = axis.at(stretch.to).max(x + 2);
        let length = duration(stretch.to.since(stretch.from), w);
        let is_late = end > (LEFT + RIGHT) / 2 + 200;
        let says = stretch.says.iter().cloned();
        Bar {
            label: stretch.label.clone(),
            y,
            text_y: y + 12,
            pieces: stretch.pieces.iter().map(drawn).collect(),
            beside_x: match is_late {
                true => x.saturating_sub(6),
                false => end + 6,
            },
            anchor: if is_late { "end" } else { "start" },
            beside: says.chain([length]).collect::<Vec<_>>().join(" · "),
        }
    };
    let keys = [
        (Kind::Connected, w.part_connect),
        (Kind::Silent, w.part_first_token),
        (Kind::Answered, w.part_decode),
    ];
    let has_parts = all.iter().any(|stretch| stretch.pieces.len() > 1);
    let keys = keys.into_iter().filter(|_| has_parts);
    let height = all.len() as u64 * ROW + 30;
    Some(Picture {
        width: WIDTH,
        height,
        grid_to: height - 18,
        bars: all.iter().enumerate().map(bar).collect(),
        marks: axis.marks(|before, _| duration(before, w)),
        keys: keys.map(|(kind, name)| (kind.class(), name)).collect(),
        whole: duration(axis.whole(), w),
    })
}

#[cfg(test)]
mod tests {
    use onelane_core::model::{AttemptNo, Failure, Job, Parts};

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
            waits: None,
            ended: Some(at(500)),
            now: at(900),
        };
        let parts = stretches(&life, w);
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
                .flat_map(|bar| &bar.pieces)
                .all(|piece| piece.x >= LEFT && piece.x + piece.width <= RIGHT + 2)
        );
    }

    #[test]
    fn what_waits_or_runs_ends_now() {
        let w = Words::of(Lang::En);
        let life = |sent: Option<Timestamp>| Life {
            created: at(0),
            attempts: &[],
            open: sent.map(|sent| OpenCall { sent, so_far: None }),
            waits: None,
            ended: None,
            now: at(900),
        };
        let waiting = stretches(&life(None), w);
        assert_eq!((waiting.len(), waiting[0].to), (1, at(900)));
        let running = stretches(&life(Some(at(400))), w);
        assert_eq!(
            running.last().map(|part| (part.kind, part.to)),
            Some((Kind::Running, at(900)))
        );
        assert!(draw(&[], w).is_none());
    }

    #[test]
    fn an_attempt_shows_its_parts_and_what_was_before_it() {
        let w = Words::of(Lang::En);
        let mut first = call(1, 100, 1_000, None);
        first.response_time_ms = 890;
        first.parts = Parts {
            staged_ms: Some(60),
            commit_ms: None,
            connect_ms: Some(10),
            first_byte_ms: Some(300),
            first_token_ms: Some(400),
        };
        let mut second = call(2, 1_005, 1_400, None);
        second.parts.commit_ms = Some(3);
        let calls = [first, second];
        let life = Life {
            created: at(0),
            attempts: &calls,
            open: Some(OpenCall {
                sent: at(2_000),
                so_far: Some(SoFar {
                    events: 7,
                    first_token_ms: Some(200),
                }),
            }),
            waits: None,
            ended: None,
            now: at(3_000),
        };
        let all = stretches(&life, w);
        let told: Vec<_> = all
            .iter()
            .map(|stretch| (stretch.kind, stretch.to.since(stretch.from)))
            .collect();
        let want = [
            (Kind::Waited, 40),
            (Kind::Staged, 60),
            (Kind::Answered, 900),
            (Kind::Waited, 2),
            (Kind::Stored, 3),
            (Kind::Answered, 395),
            (Kind::Waited, 600),
            (Kind::Running, 1_000),
        ];
        assert_eq!(told, want);
        let pieces = |stretch: &Stretch| -> Vec<(Kind, u64)> {
            let pieces = stretch.pieces.iter();
            pieces.map(|p| (p.kind, p.to.since(p.from))).collect()
        };
        let parts = [
            (Kind::Connected, 10),
            (Kind::Silent, 390),
            (Kind::Answered, 500),
        ];
        assert_eq!(pieces(&all[2]), parts);
        assert_eq!(pieces(&all[7]), [(Kind::Silent, 200), (Kind::Running, 800)]);
        let picture = draw(&all, w).unwrap();
        assert_eq!(
            picture.bars[2].beside,
            "connect 10 ms · first token 400 ms · answer 490 ms · 900 ms"
        );
        assert_eq!(
            picture.bars[7].beside,
            "first token 200 ms · 7 tokens so far · 1.0 s"
        );
        assert_eq!(picture.keys.len(), 3);
    }

    #[test]
    fn what_waits_now_says_for_what() {
        let w = Words::of(Lang::En);
        let life = Life {
            created: at(0),
            attempts: &[],
            open: None,
            waits: Some("paused"),
            ended: None,
            now: at(900),
        };
        assert_eq!(stretches(&life, w)[0].label, "paused");
    }
}
