//! What a start needs: nothing stops it, a slot of its lane is free, its time has come, and nobody who
//! should go first waits.

use std::sync::Arc;

use onelane_core::model::{
    BreakerState, Due, HoldKind, Job, JobId, OrderSettings, Phase, SchedulerState, Settings,
    Timestamp,
};

use crate::clocks::Heard;
use crate::history::History;
use crate::ledger::{Known, Ledger};

/// Whether a start that was decided at this moment is right, by what was on disk then.
pub(crate) fn may_start(
    ledger: &Ledger,
    id: JobId,
    served_by: Option<&str>,
    by_clock: Timestamp,
    history: &History,
    heard: Heard<'_>,
) -> Result<(), String> {
    let at = heard.awake_at(by_clock);
    let Some(known) = ledger.jobs.get(&id) else {
        return Err("it is not on disk".to_owned());
    };
    let job = &known.job;
    nothing_stops(ledger)?;
    let is_early = match job.due() {
        None => false,
        // A moment that has come has come.
        Some(Due::At(moment)) => moment > heard.now.latest_wall,
        // One that begins again ends sooner than it did.
        Some(Due::After(wait)) => wait.until > by_clock && heard.now.set_back.is_none(),
    };
    if is_early {
        return Err(format!("it is not due before {:?}", job.due()));
    }
    if job.deadline.is_some_and(|deadline| deadline <= by_clock) {
        return Err("its deadline is over".to_owned());
    }
    let mut last = Ok(());
    let moments = heard.each_awake_at(by_clock);
    let in_force = moments.iter().flat_map(|at| history.between(*at, *at));
    for settings in in_force {
        last = fits(ledger, job, served_by, settings, at);
        if last.is_ok() {
            break;
        }
    }
    last?;
    // A stage keeps the order that was in force when it was filled.
    let since = match job.open {
        Some(open) => heard.awake_at(open.at).min(at),
        None => at,
    };
    match history.steady_since(since) {
        Some(settings) => nobody_is_overtaken(
            ledger,
            known,
            served_by,
            settings,
            history,
            (at, by_clock),
            heard,
        ),
        None => Ok(()),
    }
}

fn nothing_stops(ledger: &Ledger) -> Result<(), String> {
    if let Some(pause) = &ledger.lane.paused {
        return Err(format!("paused: {pause:?}"));
    }
    if let Some(hold) = &ledger.lane.hold {
        return Err(format!("the account is held: {hold:?}"));
    }
    let open = ledger.running().count();
    match ledger.breaker.state {
        BreakerState::Open => return Err("the breaker is open".to_owned()),
        BreakerState::HalfOpen if open > 0 => {
            return Err(format!(
                "the breaker is half-open, and {open} calls are open"
            ));
        }
        _ => {}
    }
    if ledger.lane.probing && open > 0 {
        return Err(format!("it is a probe beside {open} open calls"));
    }
    Ok(())
}

/// Whether these settings allow the start.
fn fits(
    ledger: &Ledger,
    job: &Job,
    served_by: Option<&str>,
    settings: &Settings,
    at: Timestamp,
) -> Result<(), String> {
    if !settings.glm.is_active {
        return Err("switched off".to_owned());
    }
    let model = served_by.unwrap_or(&job.model);
    if target(&job.model, &ledger.lane, settings) != Some(model) {
        return Err(format!(
            "{} is not where jobs of {} go: {:?}",
            model, job.model, ledger.lane.models
        ));
    }
    let lane = settings.lane_of(model);
    let condition = ledger.lane.lanes.get(lane);
    if let Some(hold) = condition.and_then(|lane| lane.hold.as_ref()) {
        return Err(format!("lane {lane} is held at {at}: {hold:?}"));
    }
    let rules = settings.rules_of(lane);
    let mut limit = rules.max_concurrency;
    if let Some(auto) = rules.auto()
        && let Some(learnt) = condition.and_then(|lane| lane.learnt)
    {
        limit = limit.min(learnt.limit.max(auto.min));
    }
    let open = |job: &&Job| settings.lane_of(job.sent_to()) == lane;
    let in_lane = ledger.running().filter(open).count();
    if in_lane >= usize::from(limit) {
        return Err(format!(
            "lane {lane} may have {limit} calls open and has {in_lane}"
        ));
    }
    let all = ledger.running().count();
    if all >= usize::from(settings.slots()) {
        return Err(format!("{all} calls are open, as many as there are slots"));
    }
    Ok(())
}

/// The model that a model's jobs are sent to.
fn target<'a>(model: &'a str, state: &SchedulerState, settings: &'a Settings) -> Option<&'a str> {
    let held = |model: &str| state.models.get(model)?.hold.as_ref();
    let Some(hold) = held(model) else {
        return Some(model);
    };
    if hold.kind != HoldKind::Overload {
        return None;
    }
    let chain = settings.glm.fallbacks.get(model)?.iter();
    chain.map(String::as_str).find(|m| held(m).is_none())
}

/// The priority of a job, less the ageing intervals before it could run: of two that age alike the
/// higher goes first at every moment. So a job that could run so much later that its priority does not
/// make up for it never overtakes: that bounds the waiting of every other.
fn rank(job: &Job, order: OrderSettings) -> i64 {
    let interval = i64::try_from(order.ageing_ms).unwrap_or(i64::MAX);
    let intervals = match interval {
        0 => 0,
        ms => job.available_since().as_millis().div_euclid(ms),
    };
    i64::from(job.priority) - intervals
}

/// Whether no job that was there before the decision should have gone first.
fn nobody_is_overtaken(
    ledger: &Ledger,
    own: &Known,
    served_by: Option<&str>,
    settings: &Arc<Settings>,
    history: &History,
    (at, by_clock): (Timestamp, Timestamp),
    heard: Heard<'_>,
) -> Result<(), String> {
    let order_of = |job: &Job| settings.rules_of(settings.lane_of(&job.model)).order;
    let lane = settings.lane_of(served_by.unwrap_or(&own.job.model));
    let order = order_of(&own.job);
    // The lane goes by another priority once that is on disk.
    let was = own.was.filter(|(_, until)| *until >= at);
    let own_rank = i64::from(
        was.map_or(0, |(before, _)| before - own.job.priority)
            .max(0),
    ) + rank(&own.job, order);
    let here = |job: &Job| {
        let model = target(&job.model, &ledger.lane, settings);
        // Probed by one call at a time: its other jobs wait for that call's end.
        let condition = model.and_then(|model| ledger.lane.models.get(model));
        if condition.is_some_and(|condition| condition.probing) {
            return false;
        }
        model.is_some_and(|model| settings.lane_of(model) == lane)
    };
    let waiting: Vec<&Known> = ledger
        .jobs
        .values()
        .filter(|other| match other.job.phase() {
            Phase::Waiting => true,
            // One that a restart found staged is not in line until it is known not to be open.
            Phase::Staged => other.job.open.is_some_and(|open| {
                let staged = heard.awake_at(open.at);
                // The wall clock, set back, may have shown that moment again after the restart.
                let is_new = staged.min(other.changed) > ledger.recovered;
                is_new && history.steady_since(staged).is_some()
            }),
            _ => false,
        })
        .filter(|other| other.job.id != own.job.id && here(&other.job))
        .collect();
    // Who has no room in a budget makes way.
    if !settings.budgets.is_empty() {
        return Ok(());
    }
    // Where lanes that age differently meet, what was staged is not displaced.
    let ages = |job: &Job| order_of(job).ageing_ms;
    if waiting
        .iter()
        .any(|other| ages(&other.job) != order.ageing_ms)
    {
        return Ok(());
    }
    for other in waiting {
        let job = &other.job;
        // It sleeps while its client key may have no more calls open.
        let key = job.key_id.and_then(|key| settings.keys.get(key));
        if key.is_some_and(|key| key.rights.calls_in_flight.is_some()) {
            continue;
        }
        // Heard of before the decision, whatever had to be stored first.
        if other.changed >= at || job.due().is_some_and(|due| due.moment() > by_clock) {
            continue;
        }
        // It fails in the same step.
        if job.deadline.is_some_and(|deadline| deadline <= by_clock) {
            continue;
        }
        let other_rank = rank(job, order_of(job));
        // Turns, and sessions that are kept together, decide within a rank.
        let by_seq = |order: OrderSettings| {
            let in_turn = order.fair_quantum_tokens > 0 || order.affinity > 0;
            // Client keys take turns wherever there are some.
            !in_turn && settings.keys.is_empty()
        };
        let by_seq = by_seq(order) && by_seq(order_of(job));
        if other_rank > own_rank || (other_rank == own_rank && by_seq && job.seq < own.job.seq) {
            return Err(format!(
                "before {job:?} (rank {other_rank}), which waits on lane {lane} since {} and should go first (rank {own_rank})",
                other.changed
            ));
        }
    }
    Ok(())
}
