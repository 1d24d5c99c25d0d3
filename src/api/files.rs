//! Files over HTTP: those that batches are made of, which were uploaded, and those that are made of a batch's results
//! when they are asked for.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use onelane_core::model::{BatchId, FileId, StoredFile};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use warp::http::HeaderMap;

use super::Api;
use super::answer::{Answer, JSON_LINES, Json, Reply, Shapes};
use super::batches::Results;
use super::body::Body;
use super::input::{Ignored, Input, Nothing};
use super::principal::Principal;
use super::problem::{Kind, Problem};
use super::standing::why_closed;
use super::upload::{self, PURPOSE};
use crate::orchestrator::Orchestrator;

/// Which of the results of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The answers.
    Answers,
    /// Why lines have none.
    Errors,
}

/// A file by its name in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    Uploaded(FileId),
    Results(BatchId, Part),
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uploaded(id) => id.fmt(f),
            Self::Results(id, Part::Answers) => write!(f, "file-output-{id}"),
            Self::Results(id, Part::Errors) => write!(f, "file-errors-{id}"),
        }
    }
}

impl FromStr for Named {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let of = |prefix: &str| text.strip_prefix(prefix)?.parse::<BatchId>().ok();
        if let Some(id) = of("file-output-") {
            return Ok(Self::Results(id, Part::Answers));
        }
        if let Some(id) = of("file-errors-") {
            return Ok(Self::Results(id, Part::Errors));
        }
        text.parse().map(Self::Uploaded).map_err(|_| ())
    }
}

/// A file, as OpenAI and GLM show one.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "File")]
pub(super) struct FileCard {
    id: String,
    /// Always `file`.
    object: &'static str,
    bytes: u64,
    /// Seconds since 1970.
    created_at: i64,
    filename: String,
    /// `batch`, or `batch_output` of results.
    purpose: &'static str,
    /// Always `processed`: its lines are looked through when a batch is made of them.
    status: &'static str,
}

impl FileCard {
    fn uploaded(file: StoredFile) -> Self {
        Self {
            id: file.id.to_string(),
            object: "file",
            bytes: file.bytes,
            created_at: file.created_at.as_millis().div_euclid(1_000),
            filename: file.name,
            purpose: PURPOSE,
            status: "processed",
        }
    }
}

/// `POST files`.
pub(super) async fn upload(
    api: Arc<Api>,
    principal: Principal,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<FileCard>, Problem> {
    let file = upload::take(&api, &principal, &headers, body).await?;
    Ok(Json(FileCard::uploaded(file)))
}

/// A file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FilePath {
    /// Its id.
    id: String,
}

fn unknown(name: &str) -> Problem {
    Problem::new(Kind::UnknownFile, format!("there is no file {name:?}"))
}

/// A file that was uploaded whole. Those of others are not there.
pub(super) async fn whole(
    lane: &Orchestrator,
    principal: &Principal,
    id: FileId,
) -> Result<StoredFile, Problem> {
    let seen = |file: &StoredFile| file.is_whole() && principal.sees(file.key_id);
    let file = lane.file(id).await?.filter(seen);
    file.ok_or_else(|| unknown(&id.to_string()))
}

/// The file of a path: uploaded, or the results that are one.
async fn found(api: &Api, principal: &Principal, name: &str) -> Result<Found, Problem> {
    match name.parse::<Named>() {
        Ok(Named::Uploaded(id)) => {
            let file = whole(&api.lane, principal, id).await?;
            Ok(Found::Uploaded(file))
        }
        Ok(Named::Results(id, part)) => {
            let results = Results::of(&api.lane, principal, id, part).await?;
            let results = results.ok_or_else(|| unknown(name))?;
            Ok(Found::Results(Box::new(results)))
        }
        Err(()) => Err(unknown(name)),
    }
}

enum Found {
    Uploaded(StoredFile),
    Results(Box<Results>),
}

/// `GET files/{id}`.
pub(super) async fn read(
    api: Arc<Api>,
    input: Input<FilePath, Ignored>,
) -> Result<Json<FileCard>, Problem> {
    let name = input.path.id;
    let results = match found(&api, &input.principal, &name).await? {
        Found::Uploaded(file) => return Ok(Json(FileCard::uploaded(file))),
        Found::Results(results) => results,
    };
    let Some(_right) = api.bounds.export() else {
        return Err(busy());
    };
    let (filename, at) = (results.file_name(), results.ended_at);
    // Nobody knows before they are written.
    let (mut bytes, mut results) = (0, results);
    while let Some(part) = results.next(&api.lane).await? {
        bytes += part.len() as u64;
    }
    Ok(Json(FileCard {
        id: name,
        object: "file",
        bytes,
        created_at: at.as_millis().div_euclid(1_000),
        filename,
        purpose: "batch_output",
        status: "processed",
    }))
}

/// Which files.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct FilesQuery {
    /// The id of the last file of the page before.
    after: Option<String>,
    /// Files of a page; 10,000 without it.
    #[schemars(range(min = 1, max = 10_000))]
    limit: Option<usize>,
    /// Those for this alone; all are for `batch`.
    purpose: Option<String>,
    /// `asc`: the oldest first; else the newest.
    order: Option<String>,
}

/// A page of files.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Files")]
pub(super) struct FileList {
    /// Always `list`.
    object: &'static str,
    data: Vec<FileCard>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

/// `GET files`: those that were uploaded; for a client key its own.
pub(super) async fn list(
    api: Arc<Api>,
    input: Input<Nothing, FilesQuery>,
) -> Result<Json<FileList>, Problem> {
    let FilesQuery {
        after,
        limit,
        purpose,
        order,
    } = input.query;
    let mut files = api.lane.all_files().await?;
    let principal = &input.principal;
    files.retain(|file| file.is_whole() && principal.sees(file.key_id));
    if order.as_deref() != Some("asc") {
        files.reverse();
    }
    if purpose.is_some_and(|purpose| purpose != PURPOSE) {
        files.clear();
    }
    let mut ids = files.iter().map(|file| file.id.to_string());
    let skipped = match &after {
        None => 0,
        Some(after) => ids
            .position(|id| id == *after)
            .map_or(files.len(), |at| at + 1),
    };
    let limit = limit.unwrap_or(10_000);
    let has_more = files.len() > skipped + limit;
    let page = files.into_iter().skip(skipped).take(limit);
    let data: Vec<FileCard> = page.map(FileCard::uploaded).collect();
    Ok(Json(FileList {
        object: "list",
        first_id: data.first().map(|file| file.id.clone()),
        last_id: data.last().map(|file| file.id.clone()),
        has_more,
        data,
    }))
}

/// A file that is gone.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct FileDeleted {
    id: String,
    /// Always `file`.
    object: &'static str,
    /// Always `true`.
    deleted: bool,
}

/// `DELETE files/{id}`.
pub(super) async fn delete(
    api: Arc<Api>,
    input: Input<FilePath, Ignored>,
) -> Result<Json<FileDeleted>, Problem> {
    let name = input.path.id;
    match found(&api, &input.principal, &name).await? {
        Found::Uploaded(file) => api.lane.remove_file(file.id).await?,
        Found::Results(_) => {
            let problem = "results are made of the answers of a batch's jobs, and go with these";
            return Err(Problem::new(Kind::FileInUse, problem));
        }
    }
    Ok(Json(FileDeleted {
        id: name,
        object: "file",
        deleted: true,
    }))
}

/// A file's content, as the client takes it.
pub(super) struct Content(mpsc::Receiver<io::Result<Bytes>>);

impl Answer for Content {
    fn reply(self) -> Reply {
        Reply::parts(JSON_LINES, self.0)
    }

    fn describe(shapes: &mut Shapes<'_>) {
        shapes.text("200", "The content.", JSON_LINES);
    }
}

/// What content is read from.
enum Source {
    Uploaded(FileId, u32),
    Results(Box<Results>),
}

impl Source {
    async fn next(&mut self, lane: &Orchestrator) -> Result<Option<Vec<u8>>, Problem> {
        match self {
            Self::Uploaded(id, number) => {
                let part = lane.file_part(*id, *number).await?;
                *number += 1;
                Ok(part)
            }
            Self::Results(results) => results.next(lane).await,
        }
    }
}

/// `GET files/{id}/content`.
pub(super) async fn content(
    api: Arc<Api>,
    input: Input<FilePath, Ignored>,
) -> Result<Content, Problem> {
    let source = match found(&api, &input.principal, &input.path.id).await? {
        Found::Uploaded(file) => Source::Uploaded(file.id, 0),
        Found::Results(results) => Source::Results(results),
    };
    let Some(right) = api.bounds.export() else {
        return Err(busy());
    };
    let (sender, parts) = mpsc::channel(1);
    let (lane, key, clock) = (
        api.lane.clone(),
        input.principal.key_id(),
        Arc::clone(&api.clock),
    );
    tokio::spawn(async move {
        let why_cut = || key.and_then(|key| why_closed(&lane, key, clock.now()));
        copy(source, &lane, why_cut, &sender).await;
        drop(right);
    });
    Ok(Content(parts))
}

/// Hands a file on part by part, as long as its reader's key opens: then it breaks off, so that nobody takes the rest
/// for the end.
async fn copy(
    mut source: Source,
    lane: &Orchestrator,
    why_cut: impl Fn() -> Option<String>,
    parts: &mpsc::Sender<io::Result<Bytes>>,
) {
    loop {
        let part = match (why_cut(), source.next(lane).await) {
            (Some(why), _) => Err(io::Error::other(why)),
            (None, Ok(Some(part))) => Ok(part.into()),
            (None, Ok(None)) => return,
            (None, Err(problem)) => Err(io::Error::other(problem.detail().to_owned())),
        };
        let is_over = part.is_err();
        if parts.send(part).await.is_err() || is_over {
            return;
        }
    }
}

fn busy() -> Problem {
    let problem = "as many files are read as may be at once; ask again when one has ended";
    Problem::new(Kind::Busy, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_by_the_name_that_it_is_shown_by() {
        let id = BatchId::named("b");
        for named in [
            Named::Uploaded(FileId::from_bytes([7; 16])),
            Named::Results(id, Part::Answers),
            Named::Results(id, Part::Errors),
        ] {
            assert_eq!(named.to_string().parse(), Ok(named));
        }
        for none in [
            "",
            "file-",
            "file-output-",
            "file-output-batch_0",
            "batch_1",
        ] {
            assert_eq!(none.parse::<Named>(), Err(()), "{none}");
        }
    }
}
