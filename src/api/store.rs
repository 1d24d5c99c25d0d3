//! The store beneath the lane, looked at while it is open: how large it is, whether its tables agree, and all of it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use onelane_actors::ports::StoreLines;
use onelane_core::model::{Findings, StoreFigures};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::Api;
use super::answer::{Answer, JSON_LINES, Json, Reply, Shapes};
use super::input::Input;
use super::problem::{Kind, Problem};
use crate::orchestrator::Orchestrator;

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

/// The whole store as lines that are read part by part, as the client takes them.
pub(super) struct Whole(mpsc::Receiver<io::Result<Bytes>>);

impl Answer for Whole {
    fn reply(self) -> Reply {
        Reply::parts(JSON_LINES, self.0)
    }

    fn describe(shapes: &mut Shapes<'_>) {
        let about = "A JSON object a line: a head, every row, and an end with the digest of all lines before it.";
        shapes.text("200", about, JSON_LINES);
    }
}

/// `POST store/backup`: all of the store, of one moment. If it fails on the way the answer is cut off, which the client sees,
/// also by the end that is missing.
pub(super) async fn backup(api: Arc<Api>, _: Input) -> Result<Whole, Problem> {
    let right = turn(&api)?;
    let lines = api.lane.store_lines().await?.ok_or_else(no_file)?;
    // What is wrong from the beginning is told as a problem.
    let first = api.lane.store_part(lines).await?;
    let (sender, parts) = mpsc::channel(1);
    let reading = read_parts(api.lane.clone(), first, sender);
    tokio::spawn(async move {
        reading.await;
        drop(right);
    });
    Ok(Whole(parts))
}

/// Reads part after part, each when the one before was taken, until the client goes away.
async fn read_parts(
    lane: Orchestrator,
    mut next: Option<(Vec<u8>, StoreLines)>,
    parts: mpsc::Sender<io::Result<Bytes>>,
) {
    while let Some((part, lines)) = next {
        if parts.send(Ok(part.into())).await.is_err() {
            return;
        }
        next = match lane.store_part(lines).await {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!(%error, "a backup broke off");
                let _ = parts.send(Err(io::Error::other(error.to_string()))).await;
                return;
            }
        };
    }
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
