//! What a daemon finds when it starts, and what it leaves: in the log, for whoever reads it later.

use onelane::error::Error;
use onelane::orchestrator::Orchestrator;

/// Says what the store holds that is not done.
pub(super) async fn tell_found(lane: &Orchestrator) -> Result<(), Error> {
    let (counts, snapshot) = (lane.queue_status().await?, lane.lane().await?);
    let parked = snapshot.wait_counts.get("parked").copied().unwrap_or(0);
    let dead_letters = counts.failed;
    tracing::info!(
        waiting = counts.pending,
        running = counts.processing,
        parked,
        dead_letters,
        holds = snapshot.holds.len(),
        maybe_billed = lane.maybe_billed_count().await?,
        "what the store holds at the start"
    );
    for held in &snapshot.holds {
        let hold = &held.hold;
        tracing::warn!(
            scope = %held.scope,
            kind = hold.kind.name(),
            error_code = hold.code,
            reason = hold.message,
            until = hold.until.map(|wait| wait.until.to_rfc3339()),
            "a hold is in force from before"
        );
    }
    Ok(())
}

/// Says what is left for the next start. The lane has stopped; its store can still be read.
pub(super) async fn tell_left(lane: &Orchestrator) {
    let told = async {
        let counts = lane.queue_status().await?;
        tracing::info!(
            waiting = counts.pending,
            running = counts.processing,
            dead_letters = counts.failed,
            maybe_billed = lane.maybe_billed_count().await?,
            "what is left for the next start"
        );
        Ok::<_, Error>(())
    };
    if let Err(error) = told.await {
        tracing::warn!(%error, "what is left can't be read");
    }
}
