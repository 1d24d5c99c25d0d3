//! What stops calls: every hold with its reason and its end, the breaker, a pause. Each with what ends it.

use askama::Template;
use onelane_core::model::{BreakerState, ScopedHold, Timestamp, WaitReason};
use warp::http::Method;

use super::asked::{Answered, Asked};
use super::frame::{Frame, Nav, Note};
use super::headline::{capitalised, hold_path, tone};
use super::show::{When, number};
use super::terms::Terms;
use super::words::{Lang, Words, fill};
use super::{meaning, reasons};

#[derive(Template)]
#[template(path = "holds.html")]
struct Holds {
    frame: Frame,
    t: &'static Terms,
    rows: Vec<Row>,
    breaker: Breaker,
    /// That an operator paused the lane, or closed its intake.
    stopped: Option<String>,
}

struct Row {
    path: String,
    tone: &'static str,
    says: String,
    help: Option<String>,
    code: String,
    message: String,
    meaning: Option<String>,
    since: When,
    until: Option<When>,
}

struct Breaker {
    tone: &'static str,
    state: &'static str,
    says: Option<String>,
    help: Option<&'static str>,
    failures: String,
    since: When,
    probe: Option<When>,
    is_closed: bool,
}

/// `GET /desk/holds`.
pub(super) async fn page(asked: Asked) -> Answered {
    let (now, w, lang) = (asked.visit.now(), asked.words(), asked.look.lang);
    let t = Terms::of(lang);
    let lane = asked.lane().lane().await?;
    let stopped = lane.wait_reason.as_ref().filter(|reason| {
        matches!(
            reason,
            WaitReason::Paused { .. } | WaitReason::Draining { .. }
        )
    });
    let breaker = &lane.breaker;
    let why = (breaker.state == BreakerState::Open).then(|| WaitReason::breaker(breaker));
    let (breaker_tone, state) = match breaker.state {
        BreakerState::Closed => ("ok", t.breaker_closed),
        BreakerState::Open => ("bad", w.breaker_open),
        BreakerState::HalfOpen => ("warn", t.breaker_half_open),
    };
    let page = Holds {
        frame: asked.frame(Nav::Holds).await?,
        t,
        rows: lane
            .holds
            .iter()
            .map(|held| Row::of(held, now, (lang, w)))
            .collect(),
        breaker: Breaker {
            tone: breaker_tone,
            state,
            says: why
                .as_ref()
                .map(|reason| capitalised(&reasons::sentence(reason, now, lang))),
            help: why.as_ref().and_then(|reason| reasons::help(reason, lang)),
            failures: fill(
                t.failures_in_window,
                &[
                    &number(breaker.window_failures),
                    &number(breaker.window_calls),
                    &number(breaker.consecutive_failures),
                ],
            ),
            since: When::of(breaker.since, now, w),
            probe: breaker
                .probe_at
                .map(|at| When::of(at.as_told(now).until, now, w)),
            is_closed: breaker.state == BreakerState::Closed,
        },
        stopped: stopped.map(|reason| capitalised(&reasons::sentence(reason, now, lang))),
    };
    asked.page(&page)
}

impl Row {
    fn of(held: &ScopedHold, now: Timestamp, (lang, w): (Lang, &Words)) -> Self {
        let (scope, hold) = (&held.scope, &held.hold);
        let reason = WaitReason::hold(scope, hold);
        Self {
            path: hold_path(scope),
            tone: tone(&reason).class(),
            says: capitalised(&reasons::sentence(&reason, now, lang)),
            help: reasons::help(&reason, lang).map(capitalised),
            code: hold.code.clone(),
            message: meaning::said_of_code(&hold.code, &hold.message).to_owned(),
            meaning: meaning::of_code(&hold.code, lang),
            since: When::of(hold.since, now, w),
            until: hold
                .until
                .map(|wait| When::of(wait.as_told(now).until, now, w)),
        }
    }
}

/// `POST /desk/breaker/reset`.
pub(super) async fn reset_breaker(asked: Asked) -> Answered {
    let path = "/api/admin/glm/breaker/reset";
    asked.order(Method::POST, path, None).await?;
    Ok(asked.back(Note::Reset, None))
}
