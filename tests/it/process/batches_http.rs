//! Guards: a batch over HTTP of which a kill loses lines, doubles them, or leaves it half made.

use std::collections::BTreeSet;

use onelane::model::BatchState;
use serde_json::json;

use super::{serve, simulator};
use crate::common::{Http, Place, Running, run, until};

const ENDPOINT: &str = "/v1/chat/completions";
/// Many commits of lines.
const LINES: usize = 6_000;

fn lines(count: usize) -> String {
    let body = json!({"messages": [{"role": "user", "content": "hi"}]});
    let line = |n| json!({"custom_id": format!("line-{n}"), "method": "POST", "url": ENDPOINT, "body": body});
    (1..=count).map(|n| line(n).to_string() + "\n").collect()
}

#[test]
fn a_batch_that_is_killed_while_its_lines_become_jobs_has_each_of_them_once() {
    let place = Place::new();
    // The first call is open all the time.
    let simulator = simulator(600_000);
    let http = Http::new();
    let running = Running::start(&mut serve(&place, &simulator));
    let file = http
        .upload(&format!("{}/v1/files", running.url()), &lines(LINES))
        .unwrap();
    assert_eq!(file.status, 200, "{file:?}");
    let file = file.json()["id"].as_str().unwrap().to_owned();
    let new = json!({"input_file_id": file, "endpoint": ENDPOINT});
    let batch = http
        .post(&format!("{}/v1/batches", running.url()), &new)
        .unwrap();
    assert_eq!(batch.status, 200, "{batch:?}");
    let id = batch.json()["id"].as_str().unwrap().to_owned();
    let waiting = |running: &Running| -> u64 {
        let metrics = http
            .get(&format!("{}/api/admin/glm/metrics", running.url()))
            .unwrap();
        let length = &metrics.json()["queueLength"];
        length.as_u64().unwrap_or_else(|| panic!("{metrics:?}"))
    };
    until("some lines are jobs", || waiting(&running) > 300);
    running.kill();
    let left = place.store("onelane.redb").jobs().len();
    assert!(left < LINES, "killed in the middle, not after it");

    let running = Running::start(&mut serve(&place, &simulator));
    until("more of them are", || waiting(&running) > left as u64 + 300);
    running.kill();
    let running = Running::start(&mut serve(&place, &simulator));
    let path = format!("{}/v1/batches/{id}", running.url());
    until("all are", || waiting(&running) >= LINES as u64 - 1);
    let shown = http.get(&path).unwrap().json();
    assert_eq!(shown["status"], "in_progress", "{shown}");
    assert_eq!(shown["request_counts"]["total"], LINES, "{shown}");
    // The file is not needed any more once they are.
    let path = format!("{}/v1/files/{file}", running.url());
    until("it is closed", || http.delete(&path).unwrap().status == 200);
    running.kill();
    let store = place.store("onelane.redb");
    let jobs = store.jobs();
    let names: BTreeSet<_> = jobs
        .iter()
        .map(|record| record.job.content_id.clone())
        .collect();
    assert_eq!((jobs.len(), names.len()), (LINES, LINES), "each line once");
    drop(store);
    run(&mut place.onelane(&["db", "check"])).with(0);
    let told = run(&mut place.onelane(&["batch", "ls", "--json"])).with(0);
    let batch = &told.json()["batches"][0];
    assert_eq!(
        (batch["id"].as_str(), batch["name"].as_str()),
        (Some(&*id), Some("lines.jsonl"))
    );
    assert_eq!(
        batch["state"],
        serde_json::to_value(BatchState::Running).unwrap(),
        "{batch}"
    );
}

#[test]
fn an_upload_that_a_kill_tore_leaves_nothing() {
    let (place, simulator) = (Place::new(), simulator(0));
    let running = Running::start(&mut serve(&place, &simulator));
    let address = running.url().strip_prefix("http://").unwrap().to_owned();
    let mut torn = std::net::TcpStream::connect(&address).unwrap();
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nHost: {address}\r\nContent-Type: multipart/form-data; boundary=b\r\n\
         Content-Length: 90000000\r\n\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; \
         filename=\"a.jsonl\"\r\n\r\n"
    );
    std::io::Write::write_all(&mut torn, head.as_bytes()).unwrap();
    // More than what may be on its way: the server has taken some of it.
    std::io::Write::write_all(&mut torn, &vec![b'x'; 24_000_000]).unwrap();
    running.kill();
    let before = place.store("onelane.redb").files();
    assert!(
        before.iter().all(|file| !file.is_whole() && file.parts > 0),
        "{before:?}"
    );
    assert_eq!(before.len(), 1);
    let mut patience = std::time::Duration::from_millis(50);
    until("the next start has cleared it away", || {
        let running = Running::start(&mut serve(&place, &simulator));
        running.url();
        // It does so beside all else; a start that is killed too early leaves it to the next one.
        std::thread::sleep(patience);
        patience *= 2;
        running.kill();
        place.store("onelane.redb").files().is_empty()
    });
}
