//! The page `docs/metrics.md`, made of the table of metrics.

use std::fmt::Write as _;

use onelane_actors::meters::table::{self, Kind, Label, Meter, OTHER, Values};

const HEAD: &str = "\
# Metrics

`GET /metrics` tells them in Prometheus' text format. This page is made from the table in `actors/src/meters/table.rs`, of
which the registry is made, too. A test keeps it up to date: `ONELANE_BLESS=1 cargo test --test papers` writes it anew.

A token is asked for as at every endpoint that shows spending; that of a viewer is enough. Where no token is set, programs
on this machine need none.

```yaml
scrape_configs:
  - job_name: onelane
    static_configs: [{targets: [\"127.0.0.1:4700\"]}]
    authorization: {credentials_file: /etc/prometheus/onelane-viewer-token}
```

[deploy/grafana.json](../deploy/grafana.json) is a dashboard, [deploy/alerts.yml](../deploy/alerts.yml) has alert rules; both
name only what stands here.

- Counters and histograms begin at 0 with the process; gauges are looked up when they are scraped. What is on disk for good is
  in the [statistics](http.md#statistics-and-logs), not here.
- Every lane has a registry of its own, also where two live in one process. A program that embeds a lane reads it by
  `Orchestrator::render_metrics`, or brings a recorder of the crate `metrics` ([embedding.md](embedding.md#metrics)).
- No label is a user, a job, a client key or an address. Labels whose values come from outside have a bound; what comes
  after it is counted under `other`.
- A scrape costs the lane what `GET /api/admin/glm/metrics` does: its queue is not gone through, and of budgets that
  each user has the fullest is looked for.
";

/// The page.
pub(super) fn page() -> String {
    let mut page = HEAD.to_owned();
    let most = table::series_max();
    // Writing to a string does not fail.
    let _ = write!(
        page,
        "- There are {} metrics, of {most} series at most, whatever users and models there are.\n\n\
         | name | kind | unit | labels | meaning |\n|---|---|---|---|---|\n",
        table::ALL.len()
    );
    for meter in table::ALL {
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} |",
            meter.name,
            meter.kind.name(),
            meter.unit,
            labels(meter),
            meter.about()
        );
    }
    page.push_str("\n## Labels\n\n| label | of | values |\n|---|---|---|\n");
    for meter in table::ALL {
        for label in meter.labels {
            let _ = writeln!(
                page,
                "| `{}` | `{}` | {} |",
                label.name,
                meter.name,
                values(label)
            );
        }
    }
    page.push_str("\n## Buckets\n\n| histogram | upper bounds |\n|---|---|\n");
    for meter in table::ALL {
        if let Kind::Histogram(bounds) = meter.kind {
            let bounds: Vec<String> = bounds.iter().map(f64::to_string).collect();
            let _ = writeln!(page, "| `{}` | {} |", meter.name, bounds.join(", "));
        }
    }
    page
}

fn labels(meter: &Meter) -> String {
    let names = meter.labels.iter().map(|label| format!("`{}`", label.name));
    names.collect::<Vec<_>>().join(", ")
}

fn values(label: &Label) -> String {
    match label.values {
        // It would change with each release.
        Values::Fixed(_) if label.name == "version" => "that of the program".to_owned(),
        Values::Fixed(values) => {
            let values: Vec<String> = values().iter().map(|v| format!("`{v}`")).collect();
            values.join(", ")
        }
        Values::First { what, max } => format!("the first {max} {what}, then `{OTHER}`"),
    }
}
