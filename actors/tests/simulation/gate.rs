//! What GLM may see: checked when a call begins.

use std::sync::Arc;

use onelane_actors::ports::GlmCall;
use onelane_core::model::{AttemptPhase, JobStatus, KeyId, Settings, Timestamp};

use crate::ledger::Ledger;
use crate::server::{End, Server};
use crate::sim::State;

/// The longest that a transaction takes, in milliseconds.
pub(crate) const DISK_MS_MAX: u64 = 300;
/// From the decision to send a call to its beginning, in milliseconds: two transactions, since one may
/// be under way already.
pub(crate) const SENDING_MS: u64 = 2 * DISK_MS_MAX + 50;
const MINUTE_MS: u64 = 60_000;
/// The file is looked at so often.
const LOOK_MS: u64 = 1_000;

/// Whether a call may begin now; the error says why not.
pub(crate) fn may_begin(call: &GlmCall, state: &State) -> Result<(), String> {
    let (ledger, server, history) = (&state.ledger, &state.server, &state.history);
    let heard = state.heard();
    let now = heard.now.awake;
    let known = ledger.jobs.get(&call.job_id).ok_or("it is not on disk")?;
    let job = &known.job;
    let Some(open) = job.open.filter(|open| open.no == call.attempt) else {
        return Err(format!("that attempt is not on disk, the job is {job:?}"));
    };
    let decided = match open.phase {
        AttemptPhase::Started => heard.awake_at(open.at),
        // It goes out while its start is being stored.
        AttemptPhase::Staged => now,
    };
    let in_force: Vec<&Arc<Settings>> = history.between(decided, now).collect();
    if job
        .bound_to
        .is_some_and(|process| process != state.instance)
    {
        return Err("it belongs to a connection of another process".to_owned());
    }
    let is_known = |since: Option<Timestamp>, ms| since.is_some_and(|at| now.since(at) > ms);
    if is_known(state.room.told, SENDING_MS) {
        return Err("the disk is full".to_owned());
    }
    if is_known(state.gone, LOOK_MS + SENDING_MS) {
        return Err("the file of the store is gone".to_owned());
    }
    for before in &job.after {
        if ledger.status_of(*before) != Some(JobStatus::Completed) {
            return Err("a job that it runs after is not completed".to_owned());
        }
    }
    // A moment that has come has come.
    if job.run_at.is_some_and(|at| at > heard.now.latest_wall) {
        return Err("its time has not come".to_owned());
    }
    if !in_force.iter().any(|s| s.glm.endpoint() == call.endpoint) {
        return Err("with a key that was not in force".to_owned());
    }
    let own = |s: &&Arc<Settings>| {
        let chain = s.glm.fallbacks.get(&job.model);
        call.model == job.model || chain.is_some_and(|chain| chain.contains(&call.model))
    };
    if !in_force.iter().any(own) {
        return Err(format!("{} may not serve for {}", call.model, job.model));
    }
    if let Some(other) = open_calls(server).find(|other| other.job == call.job_id) {
        return Err(format!("its attempt {} is still open", other.attempt));
    }
    if !in_force.iter().any(|s| has_room(call, server, s)) {
        return Err(format!(
            "{} calls are open already, more than any settings in force since it was decided allow",
            server.open.len()
        ));
    }
    let key = job.key_id;
    if !in_force.iter().any(|s| key_has_room(key, state, s)) {
        return Err("its client key may have no more calls open".to_owned());
    }
    let calm = heard.now.glm.since(heard.now.unpaced) > MINUTE_MS + SENDING_MS;
    if let Some(settings) = history.steady_since(now.minus_ms(MINUTE_MS + SENDING_MS))
        && calm
        && !history.waited_for_room(decided)
    {
        paced(call, ledger, server, settings, heard.now.glm)?;
    }
    Ok(())
}

fn open_calls(server: &Server) -> impl Iterator<Item = &crate::server::Call> {
    server.open.iter().map(|number| &server.calls[*number])
}

/// Whether a call more fits into its lane, and into all lanes together.
fn has_room(call: &GlmCall, server: &Server, settings: &Settings) -> bool {
    let lane = settings.lane_of(&call.model);
    let in_lane = open_calls(server)
        .filter(|open| settings.lane_of(&open.model) == lane)
        .count();
    in_lane < usize::from(settings.rules_of(lane).max_concurrency)
        && server.open.len() < usize::from(settings.slots())
}

/// Whether a call more is one that its client key may have.
fn key_has_room(key: Option<KeyId>, state: &State, settings: &Settings) -> bool {
    let Some(key) = key else {
        return true;
    };
    let known = settings.keys.get(key);
    let Some(most) = known.and_then(|known| known.rights.calls_in_flight) else {
        return true;
    };
    let key_of = |job| Some(state.ledger.jobs.get(job)?.job.key_id == Some(key));
    let own = open_calls(&state.server).filter(|call| key_of(&call.job) == Some(true));
    own.count() < usize::from(most)
}

/// Whether the lane's pace was kept in the minute that ends with this call. A minute at GLM is shorter
/// by the time between decision and call.
fn paced(
    call: &GlmCall,
    ledger: &Ledger,
    server: &Server,
    settings: &Settings,
    now: Timestamp,
) -> Result<(), String> {
    let lane = settings.lane_of(&call.model);
    let pace = settings.rules_of(lane).pace;
    if !pace.is_on() {
        return Ok(());
    }
    let from = now.minus_ms(MINUTE_MS - SENDING_MS);
    let recent: Vec<_> = server
        .calls
        .iter()
        .rev()
        .take_while(|other| other.begun > from)
        .filter(|other| settings.lane_of(&other.model) == lane)
        .collect();
    let allowed = pace.requests_per_minute as usize;
    if allowed > 0 && recent.len() >= allowed {
        let begun: Vec<String> = recent
            .iter()
            .map(|c| format!("-{} ms", now.since(c.begun)))
            .collect();
        return Err(format!(
            "a minute of lane {lane} allows {allowed} calls, and these were before it: {begun:?}"
        ));
    }
    if let Some(last) = recent.first()
        && now.since(last.begun) + SENDING_MS < pace.min_spacing_ms
    {
        return Err(format!("{} ms after another", now.since(last.begun)));
    }
    if pace.tokens_per_minute > 0 {
        // Least of all that a call may have counted for.
        let counted = |other: &crate::server::Call| {
            let estimate = ledger.estimate_of(other.job);
            let used = ledger.tokens_of(other).or_else(|| {
                // Its end may be known although it is not on record yet.
                let ended = other.ended?;
                // Of an answer that broke off, or was closed before its end, the lane counts what was told.
                let is_closed = ended.since(other.begun) < other.plan.after_ms;
                let is_short = is_closed || matches!(other.plan.end, End::Fail(..));
                let is_cut = other.is_told && is_short;
                let billed = other.billed.filter(|_| !is_cut);
                Some(billed.map_or(0, |usage| usage.total_tokens))
            });
            used.map_or(estimate, |used| used.min(estimate))
        };
        let before: u64 = recent.iter().map(|other| counted(other)).sum();
        let own = ledger.estimate_of(call.job_id);
        if before > 0 && before + own > pace.tokens_per_minute {
            return Err(format!(
                "a minute of lane {lane} allows {} tokens, and there were {before} before its {own}",
                pace.tokens_per_minute
            ));
        }
    }
    Ok(())
}
