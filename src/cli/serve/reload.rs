//! SIGHUP: the files of the configuration are read anew.

use onelane::orchestrator::Orchestrator;

use super::manager::{self, Told};
use crate::cli::args::Common;
use crate::cli::start;

/// Reads the configuration file and the files of secrets anew. What may change while the daemon runs is in force then;
/// what may not is named. Files that can't be used change nothing.
pub(super) async fn reload(lane: &Orchestrator, common: &Common) {
    manager::tell(Told::Reloading).await;
    if let Err(error) = read_anew(lane, common).await {
        tracing::warn!(error, "SIGHUP: the configuration stays as it is");
    }
    // Also where nothing changed: the manager waits for it.
    let status = match lane.lane().await {
        Ok(snapshot) => manager::status(&snapshot),
        Err(error) => error.to_string(),
    };
    manager::tell(Told::Ready(status)).await;
}

async fn read_anew(lane: &Orchestrator, common: &Common) -> Result<(), String> {
    let common = common.clone();
    let reading = tokio::task::spawn_blocking(move || start::read(&common));
    let fresh = reading
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;
    let reread = lane
        .reread(&fresh)
        .await
        .map_err(|error| error.to_string())?;
    for warning in &reread.loaded.warnings {
        tracing::warn!("{warning}");
    }
    let list = |names: &[String]| match names {
        [] => "nothing".to_owned(),
        names => names.join(", "),
    };
    let changed = list(&reread.changed);
    tracing::info!(changed, "SIGHUP: the configuration was read anew");
    if !reread.needs_restart.is_empty() {
        let needs_restart = list(&reread.needs_restart);
        tracing::warn!(needs_restart, "SIGHUP: some settings wait for a restart");
    }
    Ok(())
}
