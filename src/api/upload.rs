//! A file that is uploaded: a form of several parts, read as it comes and put on disk part by part, so that no file is
//! in memory whole.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt as _;
use multer::{Field, Multipart};
use onelane_core::model::{FileId, KeyId, StoredFile, limits as bounds};
use warp::http::HeaderMap;
use warp::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};

use super::Api;
use super::body::Body;
use super::limits;
use super::principal::Principal;
use super::problem::{Kind, Problem};
use super::room::{self, Claim};
use crate::orchestrator::Orchestrator;

/// The media type of a form of several parts.
pub(super) const FORM: &str = "multipart/form-data";

/// The only thing that files are for here.
pub(super) const PURPOSE: &str = "batch";

/// A file that is not whole; dropped before it is, it goes.
struct Torn {
    lane: Orchestrator,
    file: Option<FileId>,
}

impl Drop for Torn {
    fn drop(&mut self) {
        let Some(id) = self.file.take() else { return };
        let lane = self.lane.clone();
        // A dropped future can't wait.
        tokio::spawn(async move {
            if let Err(error) = lane.remove_file(id).await {
                tracing::debug!(file_id = %id, %error, "a torn file stays until the next start");
            }
        });
    }
}

/// Takes a file in, and answers it once all of it is on disk.
pub(super) async fn take(
    api: &Arc<Api>,
    principal: &Principal,
    headers: &HeaderMap,
    mut body: Body,
) -> Result<StoredFile, Problem> {
    let (boundary, claim) = match claimed(api, principal, headers).await {
        Ok(claimed) => claimed,
        Err(problem) => {
            body.refuse().await;
            return Err(problem);
        }
    };
    let Ok(_right) = Arc::clone(&api.uploads).try_acquire_owned() else {
        return Err(body.refused_as_busy().await);
    };
    let whole = api
        .batches
        .file_bytes_max
        .saturating_add(limits::UPLOAD_FRAME_BYTES_MAX);
    // The library knows its own errors alone.
    let failed: Arc<Mutex<Option<Problem>>> = Arc::default();
    let told = Arc::clone(&failed);
    let pieces = body.pieces(whole).map(move |piece| {
        piece.map_err(|problem| {
            let words = problem.detail().to_owned();
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
            std::io::Error::other(words)
        })
    });
    let mut form = Form {
        lane: api.lane.clone(),
        key_id: principal.key_id(),
        claim,
        of_one: api.batches.file_bytes_max,
        multipart: Multipart::new(pieces, boundary),
    };
    let taken = form.take().await;
    let failed = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
    match failed {
        // What came of it is a form that ends too early.
        Some(problem) => Err(problem),
        None => taken,
    }
}

struct Form {
    lane: Orchestrator,
    key_id: Option<KeyId>,
    claim: Claim,
    /// Bytes that any file may have.
    of_one: u64,
    multipart: Multipart<'static>,
}

impl Form {
    async fn take(&mut self) -> Result<StoredFile, Problem> {
        let mut torn = Torn {
            lane: self.lane.clone(),
            file: None,
        };
        let (mut purpose, mut name) = (None, None);
        while let Some(mut field) = self.multipart.next_field().await.map_err(malformed)? {
            match field.name() {
                Some("file") if torn.file.is_some() => return Err(twice("file")),
                Some("file") => {
                    name = Some(file_name(&field)?);
                    let begun = self.lane.begin_file(self.key_id).await?;
                    torn.file = Some(begun.id);
                    self.content(begun.id, &mut field).await?;
                }
                Some("purpose") if purpose.is_some() => return Err(twice("purpose")),
                Some("purpose") => purpose = Some(text(&mut field).await?),
                // GLM's and OpenAI's SDKs have others, which say nothing of a batch's file.
                _ => drop(text(&mut field).await?),
            }
        }
        match purpose.as_deref() {
            Some(PURPOSE) => {}
            Some(other) => {
                let problem =
                    format!("must be {PURPOSE:?}, not {other:?}: other files have no use here");
                return Err(Problem::of_field(Kind::InvalidField, "purpose", problem));
            }
            None => return Err(missing("purpose")),
        }
        let (Some(id), Some(name)) = (torn.file, name) else {
            return Err(missing("file"));
        };
        let file = self.lane.finish_file(id, name).await?;
        torn.file = None;
        Ok(file)
    }

    /// Puts a file's content on disk, part by part.
    async fn content(&self, id: FileId, field: &mut Field<'_>) -> Result<(), Problem> {
        let (mut number, mut bytes) = (0, 0_u64);
        let mut part: Vec<u8> = Vec::new();
        loop {
            let chunk = field.chunk().await.map_err(malformed)?;
            let is_last = chunk.is_none();
            let mut chunk = chunk.unwrap_or_default();
            bytes += chunk.len() as u64;
            if bytes > self.of_one {
                return Err(room::too_large(self.of_one));
            }
            if bytes > self.claim.bytes {
                let problem = format!(
                    "there is room for {} bytes, and the file has more; delete some files",
                    self.claim.bytes
                );
                return Err(Problem::new(Kind::FilesFull, problem));
            }
            loop {
                let room = bounds::FILE_PART_BYTES.saturating_sub(part.len());
                part.extend_from_slice(&chunk.split_to(room.min(chunk.len())));
                let is_full = part.len() >= bounds::FILE_PART_BYTES;
                if is_full || (is_last && !part.is_empty()) {
                    let full = std::mem::take(&mut part);
                    self.lane.add_to_file(id, number, full.into()).await?;
                    number += 1;
                }
                if chunk.is_empty() {
                    break;
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

/// A field that is no file.
async fn text(field: &mut Field<'_>) -> Result<String, Problem> {
    const BYTES_MAX: usize = 4 * 1024;
    let mut bytes: Vec<u8> = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(malformed)? {
        let chunk: Bytes = chunk;
        if bytes.len() + chunk.len() > BYTES_MAX {
            let name = field.name().unwrap_or_default().to_owned();
            let problem = format!("has more than {BYTES_MAX} bytes");
            return Err(Problem::of_field(Kind::InvalidField, &name, problem));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn file_name(field: &Field<'_>) -> Result<String, Problem> {
    let wrong = |problem: String| Problem::of_field(Kind::InvalidField, "file", problem);
    let name = field.file_name().unwrap_or_default().trim().to_owned();
    let max = bounds::FILE_NAME_CHARS_MAX;
    if name.chars().count() > max || name.chars().any(char::is_control) {
        return Err(wrong(format!(
            "must have a name of at most {max} characters, none of them a control character"
        )));
    }
    if !name.to_ascii_lowercase().ends_with(".jsonl") {
        return Err(wrong(format!(
            "must be lines of JSON, with a name that ends in .jsonl, not {name:?}"
        )));
    }
    Ok(name)
}

/// What parts the parts of the form, and the room that the file may have.
async fn claimed(
    api: &Api,
    principal: &Principal,
    headers: &HeaderMap,
) -> Result<(String, Claim), Problem> {
    let boundary = boundary(headers)?;
    let declared = headers.get(CONTENT_LENGTH);
    let declared = declared.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let claim = api.rooms.claim(&api.lane, principal.key_id(), declared);
    Ok((boundary, claim.await?))
}

/// What parts the parts of the form.
fn boundary(headers: &HeaderMap) -> Result<String, Problem> {
    let wrong = |problem: &str| Problem::new(Kind::UnsupportedMediaType, problem);
    let coded = headers.get(CONTENT_ENCODING);
    if coded.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(wrong("an upload is not packed; leave Content-Encoding out"));
    }
    let media = headers.get(CONTENT_TYPE).and_then(|of| of.to_str().ok());
    media
        .and_then(|media| multer::parse_boundary(media).ok())
        .ok_or_else(|| wrong("send the file as multipart/form-data, with a boundary"))
}

fn malformed(error: multer::Error) -> Problem {
    Problem::new(
        Kind::InvalidBody,
        format!("the form can't be read: {error}"),
    )
}

fn twice(name: &str) -> Problem {
    Problem::of_field(Kind::InvalidField, name, "is given twice; give it once")
}

fn missing(name: &str) -> Problem {
    Problem::of_field(Kind::MissingField, name, "is missing")
}
