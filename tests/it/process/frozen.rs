//! Guards: silence is judged after the socket was looked at, not by a clock that went on while the process stood still.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{serve, simulator};
use crate::common::{Http, Place, Running, until};
use crate::support::shows;

#[test]
fn a_process_that_was_frozen_while_the_answer_arrived_takes_it() {
    let (place, simulator) = (Place::new(), simulator(500));
    place.write("onelane.toml", "glm.timeouts.total_ms = 1500\n");
    let running = Running::start(&mut serve(&place, &simulator));
    let (http, url) = (Http::new(), running.url());
    for answered in 1..=2 {
        let job = http
            .post(&format!("{url}/api/glm/jobs"), &json!({"prompt": "hi"}))
            .unwrap();
        assert_eq!(job.status, 202, "{job:?}");
        let job = format!("{url}/api/glm/jobs/{}", job.json()["id"].as_str().unwrap());
        until("it is called", || simulator.stats().in_flight == 1);
        running.signal("STOP");
        let stopped = Instant::now();
        until("it is answered", || simulator.stats().answered == answered);
        // The time of the call is over before the process goes on.
        until("time passes", || stopped.elapsed() > Duration::from_secs(2));
        running.signal("CONT");
        let read = || http.get(&job).unwrap().json();
        until("it is done", || read()["processedAt"].is_string());
        shows!(read(), {"status": "completed", "attemptCount": 1});
        assert_eq!(simulator.stats().calls, answered);
    }
    running.signal("TERM");
    running.end().with(0);
}
