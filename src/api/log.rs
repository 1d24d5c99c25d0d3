//! The call log by any of its fields, and everything that the store has, as lines.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use onelane_actors::ports::CallFilter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::Api;
use super::admin::{Format, excerpts_of, shown};
use super::answer::{Answer, CSV, JSON_LINES, Large, Reply, Shapes, Table};
use super::input::{Input, Nothing};
use super::pages::{NextCursor, Page};
use super::problem::{Kind, Problem};
use crate::export::{self, Export, What};
use crate::orchestrator::Orchestrator;
use crate::views::CallView;

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub(super) struct CallsQuery {
    #[serde(flatten)]
    filter: CallFilter,
    #[serde(flatten)]
    page: Page,
    /// How the answer is written; JSON without it.
    format: Option<Format>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CallsAnswer {
    calls: Vec<CallView>,
    next_cursor: NextCursor,
}

/// `GET calls`: the call log, newest first. A page may be short and have others behind it.
pub(super) async fn calls(
    api: Arc<Api>,
    input: Input<Nothing, CallsQuery>,
) -> Result<Table<CallsAnswer>, Problem> {
    let CallsQuery {
        filter,
        page,
        format,
    } = input.query;
    let found = api.lane.calls(filter, page.cursor(), page.limit()).await?;
    if format == Some(Format::Csv) {
        return Ok(Table::Csv {
            write: Box::new(move || export::calls_to_csv(&found.calls)),
            next_cursor: found.cursor,
        });
    }
    let excerpts = excerpts_of(&api, &found.calls).await;
    Ok(Table::Json(Large::of(move || CallsAnswer {
        calls: shown(found.calls, &excerpts),
        next_cursor: found.cursor.into(),
    })))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportQuery {
    /// Which rows.
    what: What,
    /// How they are written; a JSON object a line without it.
    format: Option<export::Format>,
}

/// Rows that are read part by part, as the client takes them.
pub(super) struct Lines {
    format: export::Format,
    parts: mpsc::Receiver<io::Result<Bytes>>,
}

impl Answer for Lines {
    fn reply(self) -> Reply {
        let media = match self.format {
            export::Format::JsonLines => JSON_LINES,
            export::Format::Csv => CSV,
        };
        Reply::parts(media, self.parts)
    }

    fn describe(shapes: &mut Shapes<'_>) {
        let about = "A JSON object a line, or a table with a header.";
        shapes.text("200", about, JSON_LINES);
        shapes.text("200", about, CSV);
    }
}

/// `GET export`: all rows of a kind. If the store fails on the way the answer is cut off, which the client
/// sees.
pub(super) async fn export(
    api: Arc<Api>,
    input: Input<Nothing, ExportQuery>,
) -> Result<Lines, Problem> {
    let ExportQuery { what, format } = input.query;
    let format = format.unwrap_or(export::Format::JsonLines);
    let Some(right) = api.bounds.export() else {
        let problem = "as many exports are read as may be at once; ask again when one has ended";
        return Err(Problem::new(Kind::Busy, problem));
    };
    let begun = Export::new(what, format, api.lane.settings().calendar, api.clock.now());
    // What is wrong from the beginning is told as a problem.
    let first = api.lane.export_part(begun).await?;
    let (sender, parts) = mpsc::channel(1);
    let reading = read_parts(api.lane.clone(), first, sender);
    tokio::spawn(async move {
        reading.await;
        drop(right);
    });
    Ok(Lines { format, parts })
}

/// Reads part after part, each when the one before was taken, until the client goes away.
async fn read_parts(
    lane: Orchestrator,
    mut next: Option<(export::Part, Export)>,
    parts: mpsc::Sender<io::Result<Bytes>>,
) {
    while let Some((part, export)) = next {
        for error in &part.unreadable {
            tracing::warn!(%error, "a row can't be read and is not exported");
        }
        if !part.lines.is_empty() && parts.send(Ok(part.lines.into())).await.is_err() {
            return;
        }
        next = match lane.export_part(export).await {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!(%error, "an export broke off");
                let _ = parts.send(Err(io::Error::other(error.to_string()))).await;
                return;
            }
        };
    }
}
