//! The call log by its fields, and everything as lines.

use onelane_actors::ports::{CallFilter, Store as _};
use onelane_actors::testing::sample as rows;
use onelane_core::model::{CallOutcome, Timestamp};

use super::{Running, sample};

const CALLS: &str = "/api/admin/glm/calls";
const EXPORT: &str = "/api/admin/glm/export";

#[tokio::test]
async fn the_call_log_is_narrowed_by_every_field_and_pages() {
    let api = Running::start().await;
    let record = sample::completed(1);
    let id = record.job.id;
    api.lane.with(|state| {
        state.calls.push(sample::call(&record));
        state.jobs.push(record);
    });
    let query = format!(
        "{CALLS}?userId=a&model=glm-4.7&outcome=interrupted&jobId={id}&from=2026-11-23T08:00:00Z\
         &to=2026-11-24T08:00:00%2B08:00&limit=5&cursor=7"
    );
    let reply = api.get(&query).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let asked = api.lane.with(|state| state.call_filter.clone()).unwrap();
    let at = |text| Timestamp::parse_rfc3339(text);
    let want = CallFilter {
        user_id: Some("a".to_owned()),
        model: Some("glm-4.7".to_owned()),
        outcome: Some(CallOutcome::Interrupted),
        job_id: Some(id),
        from: at("2026-11-23T08:00:00Z"),
        before: at("2026-11-24T00:00:00Z"),
        billing_open: false,
    };
    assert_eq!(asked, want);
    let body = reply.json();
    assert_eq!(body["nextCursor"], "9");
    assert_eq!(body["calls"][0]["requestId"], id.to_string());
    assert_eq!(body["calls"][0]["request"]["prompt"], "prompt 1");

    let table = api.get(&format!("{CALLS}?format=csv")).await;
    assert_eq!(table.headers["x-next-cursor"], "9");
    let lines: Vec<_> = table.text.lines().collect();
    assert!(
        lines[0].starts_with("id,requestId,attempt,"),
        "{}",
        lines[0]
    );
    assert_eq!(lines.len(), 2);
    for wrong in ["outcome=done", "from=today", "jobId=1", "status=failed"] {
        let reply = api.get(&format!("{CALLS}?{wrong}")).await;
        assert_eq!(reply.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn everything_is_exported_as_lines_whatever_its_size() {
    let api = Running::start().await;
    api.lane.with(|state| {
        for n in 1..=100 {
            let life = [rows::insert(n), rows::start(n), rows::complete(n, 1)];
            state.store.commit(&life).unwrap();
        }
    });
    for (what, count) in [("jobs", 100), ("calls", 100), ("usage", 1)] {
        let reply = api.get(&format!("{EXPORT}?what={what}")).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(reply.headers["content-type"], "application/jsonl");
        assert_eq!(reply.text.lines().count(), count, "{what}");
        let line = reply.text.lines().next().unwrap();
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(row["id"].is_string());
        let table = api.get(&format!("{EXPORT}?what={what}&format=csv")).await;
        assert_eq!(table.text.lines().count(), count + 1, "{what}");
    }
    assert_eq!(api.get(EXPORT).await.status, 400);
    assert_eq!(api.get(&format!("{EXPORT}?what=keys")).await.status, 400);
}
