//! The store beneath the lane, looked at while it is open: how large it is, and whether its tables agree.

use std::path::Path;
use std::sync::Arc;

use onelane_core::model::{Findings, StoreFigures};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::Api;
use super::answer::Json;
use super::input::Input;
use super::problem::{Kind, Problem};

/// Findings that are listed.
const FINDINGS_SHOWN_MAX: usize = 100;

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct FiguresAnswer {
    /// Its file, as the daemon calls it.
    path: String,
    /// The bytes of the file.
    file_bytes: u64,
    #[serde(flatten)]
    figures: StoreFigures,
}

/// `GET store`.
pub(super) async fn figures(api: Arc<Api>, _: Input) -> Result<Json<FiguresAnswer>, Problem> {
    let right = turn(&api)?;
    let figures = api.lane.store_figures().await?.ok_or_else(no_file)?;
    drop(right);
    let path = api.lane.config().config.store.path;
    let file_bytes = std::fs::metadata(Path::new(&path)).map_or(0, |file| file.len());
    Ok(Json(FiguresAnswer {
        path,
        file_bytes,
        figures,
    }))
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CheckAnswer {
    /// Its file, as the daemon calls it.
    path: String,
    /// Whether the tables agree.
    ok: bool,
    #[serde(flatten)]
    findings: Findings,
}

/// `GET store/check`.
pub(super) async fn check(api: Arc<Api>, _: Input) -> Result<Json<CheckAnswer>, Problem> {
    let right = turn(&api)?;
    let checked = api.lane.check_store(FINDINGS_SHOWN_MAX).await?;
    drop(right);
    let findings = checked.ok_or_else(no_file)?;
    Ok(Json(CheckAnswer {
        path: api.lane.config().config.store.path,
        ok: findings.total == 0,
        findings,
    }))
}

/// The right to read the whole store, of which there are as many as of exports.
fn turn(api: &Api) -> Result<OwnedSemaphorePermit, Problem> {
    api.bounds.export().ok_or_else(|| {
        let problem =
            "the whole store is read as often as may be at once; ask again when one has ended";
        Problem::new(Kind::Busy, problem)
    })
}

fn no_file() -> Problem {
    let problem = "the lane's store is of a kind that tells nothing of itself";
    Problem::new(Kind::StoreFailed, problem)
}
