//! What metrics systems scrape: the counts of the lane, and the API's own.

use std::sync::Arc;

use onelane_actors::meters::table;
use warp::http::StatusCode;

use super::Api;
use super::answer::{Answer, Reply, Shapes};
use super::input::{Ignored, Input, Nothing};
use super::problem::Problem;

/// The media type of Prometheus' text format.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics in Prometheus' text format.
pub(super) struct Exposition(String);

impl Answer for Exposition {
    fn reply(self) -> Reply {
        Reply::text(StatusCode::OK, EXPOSITION, self.0.into_bytes())
    }

    fn describe(shapes: &mut Shapes<'_>) {
        shapes.text(
            "200",
            "Series, each with its name, labels and value.",
            EXPOSITION,
        );
    }
}

/// `GET metrics`.
pub(super) async fn metrics(
    api: Arc<Api>,
    _: Input<Nothing, Ignored>,
) -> Result<Exposition, Problem> {
    sample(&api);
    let rendered = api.lane.render_metrics().await?;
    Ok(Exposition(rendered.unwrap_or_else(|| {
        "# The program that this lane is a part of keeps its metrics itself.\n".to_owned()
    })))
}

/// Tells the lane's registry what the API knows.
fn sample(api: &Api) {
    let meters = api.lane.registry().meters();
    let figures = api.bounds.figures(api.log.dropped());
    let gauges = [
        (&table::CONNECTIONS, figures.connections),
        (&table::CONNECTIONS_MAX, figures.connections_max),
        (&table::REQUESTS, figures.requests),
        (&table::REQUESTS_MAX, figures.requests_max),
        (&table::BODY_MEMORY, figures.body_memory_bytes),
        (&table::BODY_MEMORY_MAX, figures.body_memory_bytes_max),
    ];
    for (meter, value) in gauges {
        meters.set(meter, &[], value as f64);
    }
    let counters = [
        (&table::CONNECTIONS_MADE_WAY, figures.connections_made_way),
        (&table::REQUESTS_REFUSED, figures.requests_refused),
        (&table::ANSWERS_UNTAKEN, figures.answers_untaken),
        (&table::LOG_LINES_DROPPED, figures.log_lines_dropped),
    ];
    for (meter, value) in counters {
        meters.reach(meter, &[], value);
    }
}
