//! Guards: what a service manager is told, and what SIGHUP reads anew.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use onelane::simulator::Simulator;
use serde_json::json;

use super::{Daemon, serve, world};
use crate::common::{PATIENCE, Place, until};

/// Listens as systemd does.
struct Manager(UnixDatagram);

impl Manager {
    fn at(place: &Place) -> Self {
        let socket = UnixDatagram::bind(place.path("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// The next message.
    fn hears(&self) -> String {
        let mut buffer = [0; 4_096];
        let read = self.0.recv(&mut buffer).expect("a message");
        String::from_utf8(buffer[..read].to_vec()).unwrap()
    }

    /// The first message with these words.
    fn hears_of(&self, words: &str) -> String {
        loop {
            let message = self.hears();
            if message.contains(words) {
                return message;
            }
        }
    }

    /// Nothing that lies unread tells of what happens from now on.
    fn forget(&self) {
        self.0.set_nonblocking(true).unwrap();
        while self.0.recv(&mut [0; 4_096]).is_ok() {}
        self.0.set_nonblocking(false).unwrap();
    }

    fn daemon(&self, place: &Place, simulator: &Simulator, watchdog: Option<Duration>) -> Daemon {
        let mut command = serve(place, simulator);
        command.env("NOTIFY_SOCKET", place.path("notify"));
        if let Some(time) = watchdog {
            command.env("WATCHDOG_USEC", time.as_micros().to_string());
        }
        Daemon::of(&mut command)
    }
}

#[test]
fn a_service_manager_is_told_of_the_start_when_the_api_listens_of_the_state_and_of_the_end() {
    let (place, simulator) = world();
    let manager = Manager::at(&place);
    let daemon = manager.daemon(&place, &simulator, None);
    let ready = manager.hears();
    assert!(
        ready.contains("READY=1") && ready.contains("STATUS=0 jobs wait, 0 of 1 calls open"),
        "{ready}"
    );
    assert_eq!(
        daemon
            .http
            .get(&format!("{}/healthz", daemon.url))
            .unwrap()
            .status,
        200
    );
    // Without a watchdog nobody asks for signs of life.
    let status = manager.hears_of("STATUS=");
    assert!(!status.contains("WATCHDOG"), "{status}");
    daemon.running.signal("TERM");
    assert!(manager.hears_of("STOPPING=1").contains("STATUS=stopping"));
    daemon.running.end().with(0);
}

#[test]
fn the_watchdog_is_fed_while_the_round_trip_works_and_the_status_says_why_nothing_goes_out() {
    let (place, simulator) = world();
    let manager = Manager::at(&place);
    let watchdog = Some(Duration::from_millis(200));
    let daemon = manager.daemon(&place, &simulator, watchdog);
    manager.hears_of("READY=1");
    for _ in 0..3 {
        manager.hears_of("WATCHDOG=1");
    }
    daemon.post("/api/admin/glm/pause", &json!({"reason": "lunch"}), 200);
    daemon.submit(&json!({"prompt": "waits"}));
    manager.forget();
    // A lane that is paused works.
    let status = manager.hears_of("1 jobs wait");
    assert!(
        status.contains("WATCHDOG=1") && status.contains("lunch"),
        "{status}"
    );
    daemon.stop();
}

#[test]
fn a_hangup_puts_in_force_what_may_change_and_names_what_waits_for_a_restart() {
    let (place, simulator) = world();
    place.write(
        "onelane.toml",
        "[glm]\nmodel = 'glm-4.7'\n\n[log]\nformat = 'text'\n",
    );
    let manager = Manager::at(&place);
    let daemon = manager.daemon(&place, &simulator, None);
    let config = |daemon: &Daemon| daemon.get("/api/admin/glm/config")["config"].clone();
    assert_eq!(config(&daemon)["model"], "glm-4.7");
    daemon.put("/api/admin/glm/config", &json!({"maxRetries": 9}));
    place.write(
        "onelane.toml",
        "[glm]\nmodel = 'glm-5'\n\n[retry]\nmax_retries = 5\n\n[log]\nformat = 'json'\n\n[server]\nrequests_max = 77\n",
    );
    manager.forget();
    daemon.running.signal("HUP");
    let reloading = manager.hears_of("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    let told = daemon.running.notes("the configuration was read anew");
    assert!(
        told.contains("glm.model") && !told.contains("max_retries"),
        "{told}"
    );
    let waits = daemon.running.notes("wait for a restart");
    assert!(waits.contains("log.format, server.requests_max"), "{waits}");
    manager.hears_of("READY=1");
    // A change that was made while running still wins over the file.
    let now = config(&daemon);
    assert_eq!(
        (&now["model"], &now["maxRetries"]),
        (&json!("glm-5"), &json!(9))
    );
    let id = daemon.submit(&json!({"prompt": "which model"}));
    assert_eq!(daemon.ended(&id)["model"], "glm-5");

    place.write("onelane.toml", "[glm]\nmodle = 'glm-6'\n");
    daemon.running.signal("HUP");
    let told = daemon.running.notes("the configuration stays as it is");
    assert!(told.contains("modle") && told.contains("model"), "{told}");
    assert_eq!(config(&daemon)["model"], "glm-5");
    daemon.stop();
}

#[test]
fn a_hangup_takes_a_key_that_was_changed_in_its_file() {
    let (place, simulator) = world();
    simulator.set_keys(["0123456789abcdef.the-first-secret"]);
    place.write("glm.key", "0123456789abcdef.the-first-secret\n");
    place.write("onelane.toml", "glm.api_key_file = 'glm.key'\n");
    let url = simulator.base_url();
    let mut command = place.bare(&["serve", "--base-url", &url, "--listen", "127.0.0.1:0"]);
    let daemon = Daemon::of(&mut command);
    let id = daemon.submit(&json!({"prompt": "with the first"}));
    assert_eq!(daemon.ended(&id)["status"], "completed");
    simulator.set_keys(["0123456789abcdef.the-second-secret"]);
    let id = daemon.submit(&json!({"prompt": "with the second"}));
    until("it is held", || {
        let holds = daemon.get("/api/admin/glm/holds");
        holds["holds"]
            .as_array()
            .is_some_and(|holds| !holds.is_empty())
    });
    place.write("glm.key", "0123456789abcdef.the-second-secret");
    daemon.running.signal("HUP");
    let told = daemon.running.notes("the configuration was read anew");
    assert!(
        told.contains("glm.api_key") && !told.contains("secret"),
        "{told}"
    );
    assert_eq!(daemon.ended(&id)["status"], "completed");
    daemon.stop();
}

#[test]
fn the_log_says_what_a_start_finds_and_what_an_end_leaves() {
    let (place, simulator) = world();
    let off = place.write("off.toml", "[glm]\nis_active = false\n");
    let daemon = Daemon::of(serve(&place, &simulator).arg("--config").arg(&off));
    let found = daemon.running.notes("what the store holds at the start");
    assert!(
        found.contains("waiting=0") && found.contains("holds=0"),
        "{found}"
    );
    daemon.submit(&json!({"prompt": "one"}));
    daemon.submit(&json!({"prompt": "two"}));
    daemon.running.signal("TERM");
    let ended = daemon.running.end().with(0);
    assert!(
        ended
            .stderr
            .contains("what is left for the next start waiting=2"),
        "{ended}"
    );
    let daemon = Daemon::of(serve(&place, &simulator).arg("--config").arg(&off));
    let found = daemon.running.notes("what the store holds at the start");
    assert!(
        found.contains("waiting=2") && found.contains("parked=0"),
        "{found}"
    );
    daemon.stop();
}

#[test]
fn lines_of_the_log_as_json_have_the_same_fields_as_readable_ones() {
    let (place, simulator) = world();
    place.write("onelane.toml", "log.format = 'json'\n");
    let daemon = Daemon::start(&place, &simulator);
    let line = daemon.running.notes("what the store holds at the start");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["message"], "what the store holds at the start");
    for field in [
        "waiting",
        "running",
        "parked",
        "dead_letters",
        "holds",
        "maybe_billed",
    ] {
        assert_eq!(line[field], 0, "{field}: {line}");
    }
    assert!(
        line["timestamp"].is_string() && line["target"].is_string(),
        "{line}"
    );
    daemon.stop();
}
