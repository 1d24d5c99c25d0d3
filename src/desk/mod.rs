//! The desk: pages for whoever operates the lane, served by the daemon beside its API. See everything, steer everything.
//!
//! A page shows the nouns that the API shows, read by what its handlers call, and changes nothing by itself: a form gives
//! an order of the table of endpoints (`Visit::order`), which is checked, let in and put on record as if it had come over
//! HTTP. So nothing is decided here, and a fact has one wording.
//!
//! # How a page is added
//!
//! 1. Its row in `table`: method, path, who may see it, handler.
//! 2. Its handler in a file of its own: it takes an `Asked`, reads `asked.lane()`, and answers
//!    `asked.page(&Template { frame: asked.frame(Nav::X).await?, .. })`. A form's handler gives its order by
//!    `asked.order(..)` and answers `asked.back(..)`, a redirect to the page it was sent from.
//! 3. Its template in `templates/`, which extends `layout.html`. What may change while somebody looks is an element with an
//!    `id` and `data-live`: the script fetches the page again when something happened, and replaces those elements
//!    whose content differs. So a page without scripts and one with them are the same page.
//! 4. Its words in `words`, each in both languages; a link in `Nav`, where it has one.
//!
//! | file | what it is for |
//! |---|---|
//! | `table` | the pages: rows, and which row a request is for |
//! | `asked` | a request that was let in: for whom, in which language; how it is answered |
//! | `frame` | what stands around every page |
//! | `gate`, `sessions`, `tries` | who gets in: log in and out, sessions in memory, forms that are our own; how often somebody may try |
//! | `words`, `reasons`, `meaning` | both languages, a message a field; why jobs wait in Chinese (in English the core's own words); what GLM said and what that means |
//! | `show` | numbers, times and money as people read them |
//! | `assets`, `files` | style, script and icon, named by their content |
//! | `live`, `watched` | the stream that tells a page to look again; what is made once for all who do |
//! | `headline`, `recent` | the first line; what the latest calls tell |
//! | `search`, `waterfall` | jobs by their words; the picture of a life |
//! | `overview`, `jobs`, `job`, `audit`, `orders` | the pages, and what their forms do |
//! | `usage`, `models`, `chart` | what calls came to, by day, model, user and key; models side by side; their pictures |
//! | `reconciliation` | our books beside GLM's meter |
//! | `budgets`, `holds`, `calls` | limits and how they stand; what is held, and the breaker; the call log |
//! | `slots`, `timeline` | who held each slot when, and what the gaps were |
//! | `batches`, `keys`, `alerts` | jobs that belong together; client keys; what is bad and who was told |
//! | `config`, `config_form` | the settings: a form made from their table, what would change, what was changed |
//! | `terms`, `lists` | the words of these pages; by what their lists are narrowed, and where numbers lead |

mod alarm;
mod alerts;
mod asked;
mod assets;
mod audit;
mod axis;
mod batches;
mod budgets;
mod calls;
mod chart;
mod config;
mod config_form;
mod files;
mod frame;
mod gate;
mod headline;
mod holds;
mod job;
mod jobs;
mod keys;
mod lists;
mod live;
mod meaning;
mod models;
mod orders;
mod overview;
mod reasons;
mod recent;
mod reconciliation;
mod search;
mod sessions;
mod show;
mod slots;
mod table;
mod terms;
mod timeline;
mod tries;
mod usage;
mod watched;
mod waterfall;
mod words;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::api::Pages;
use crate::api::site::{Pulse, Reply, Site, Visit};
use gate::Gate;
use recent::Latest;
use table::Table;
use watched::Watched;

/// The desk, to be served by [`Listening::with_pages`](crate::api::server::Listening::with_pages).
#[must_use]
pub fn pages() -> Pages {
    Pages(Arc::new(Desk {
        table: table::pages(),
        gate: Gate::default(),
        latest: Latest::default(),
        pulse: Pulse::default(),
        watched: Watched::default(),
    }))
}

/// What pages need beside the lane.
struct Desk {
    table: Table,
    gate: Gate,
    latest: Latest,
    pulse: Pulse,
    watched: Watched,
}

impl Site for Desk {
    fn is_at(&self, path: &str) -> bool {
        path == "/" || path == "/desk" || path.starts_with("/desk/")
    }

    fn answer(self: Arc<Self>, visit: Visit) -> BoxFuture<'static, Reply> {
        Box::pin(async move { gate::guarded(table::answer(&self, visit).await) })
    }
}
