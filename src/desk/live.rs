//! The stream that tells a page to look again. It ends when the session does.

use super::asked::{Answered, Asked};
use crate::api::site::{EVENT_STREAM, Reply};

/// `GET /desk/live`.
pub(super) async fn stream(asked: Asked) -> Answered {
    let changes = asked.visit.changes(&asked.desk.pulse, asked.still());
    Ok(Reply::live(EVENT_STREAM.to_owned(), changes))
}
