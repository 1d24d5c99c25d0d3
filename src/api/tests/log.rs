//! The call log by its fields, and everything as lines.

use onelane_core::testing::sample as rows;
use serde_json::json;

use super::World;

const CALLS: &str = "/api/admin/glm/calls";
const EXPORT: &str = "/api/admin/glm/export";

#[tokio::test]
async fn the_call_log_is_narrowed_by_every_field_and_pages() {
    let history = (1..=2).flat_map(|n| [rows::insert(n), rows::start(n), rows::complete(n, 1)]);
    let api = World::after(history).serve().await;
    let id = rows::job_id(1);
    let query = format!(
        "{CALLS}?userId=ada&model=glm-4.7&outcome=completed&jobId={id}&from=2026-11-23T00:00:00Z\
         &to=2026-11-24T08:00:00%2B08:00&limit=5"
    );
    let body = api.get(&query).await.expect(200);
    assert_eq!(body["calls"][0]["requestId"], json!(id));
    assert_eq!(body["calls"][0]["request"]["prompt"], "prompt 1");
    assert_eq!(body["calls"].as_array().unwrap().len(), 1);
    for other in [
        "userId=bob",
        "model=m",
        "outcome=failed",
        "from=2026-11-24T00:00:00Z",
        "to=2026-11-23T00:00:00Z",
    ] {
        let body = api.get(&format!("{CALLS}?{other}")).await.expect(200);
        assert_eq!(body["calls"], json!([]), "{other}");
    }
    let first = api.get(&format!("{CALLS}?limit=1")).await.expect(200);
    let next = first["nextCursor"].as_str().unwrap();
    let second = api.get(&format!("{CALLS}?limit=1&cursor={next}")).await;
    assert_eq!(second.expect(200)["calls"][0]["requestId"], json!(id));

    let table = api.get(&format!("{CALLS}?format=csv&limit=1")).await;
    assert_eq!(table.headers["x-next-cursor"], next);
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
    let history = (1..=100).flat_map(|n| [rows::insert(n), rows::start(n), rows::complete(n, 1)]);
    let api = World::after(history).serve().await;
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
