//! The reason why a job waits, wherever it is asked for: API, command line and page say the same of it.

use std::collections::BTreeMap;

use onelane::simulator::{Fault, Rule, Simulator, SimulatorConfig};
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use serde_json::{Value, json};

use super::{TOKEN, World};
use crate::common::{Place, until};

/// A prompt that is never answered.
const HANGS: &str = "hangs";

/// Whoever looks at the pages, logged in.
struct Looker {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
    url: String,
    cookie: String,
}

impl Looker {
    fn at(url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let client = onelane::tls::client().unwrap().no_proxy();
        let client = client.redirect(reqwest::redirect::Policy::none());
        let client = client.build().unwrap();
        let login = client
            .post(format!("{url}/desk/login"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("secret={TOKEN}"));
        let taken = runtime.block_on(login.send()).unwrap();
        assert!(taken.headers().contains_key(LOCATION), "{taken:?}");
        let cookie = taken.headers()[SET_COOKIE].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        Self {
            runtime,
            client,
            url: url.to_owned(),
            cookie,
        }
    }

    /// The first line of a job's page, as text.
    fn first_line(&self, id: &str) -> String {
        let page = self.client.get(format!("{}/desk/jobs/{id}", self.url));
        let page = page.header(COOKIE, &self.cookie);
        let page = self.runtime.block_on(async {
            let answer = page.send().await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.text().await.unwrap()
        });
        let (_, line) = page.split_once("id=\"line\"").unwrap();
        let (line, _) = line.split_once("</section>").unwrap();
        let mut text = String::new();
        let mut is_tag = false;
        for char in line.chars() {
            match char {
                '<' => is_tag = true,
                '>' => is_tag = false,
                _ if !is_tag => text.push(char),
                _ => {}
            }
        }
        let text = text.replace("&#39;", "'").replace("&quot;", "\"");
        text.replace("&#34;", "\"").replace("&amp;", "&")
    }
}

/// What is said between the moments of a text: people are told those in their own way.
fn between_moments(text: &str) -> Vec<String> {
    let is_moment = |word: &str| word.len() > 20 && word.starts_with("20") && word.contains('T');
    let mut parts = vec![String::new()];
    for word in text.split(' ') {
        match is_moment(word) {
            true => parts.push(String::new()),
            false => {
                let part = parts.last_mut().unwrap();
                part.push_str(word);
                part.push(' ');
            }
        }
    }
    // A page has what was said apart from what it means.
    let parts = parts.iter().flat_map(|part| part.split(": "));
    let parts = parts.map(|part| part.trim().trim_matches(':').to_lowercase());
    parts.filter(|part| !part.is_empty()).collect()
}

impl World {
    /// The job waits for this, and everybody says so.
    #[track_caller]
    fn waits_for(&self, looker: &Looker, id: &str, name: &str) {
        let of_operators = format!("/api/admin/glm/queue/{id}");
        let reason = || self.get(&of_operators)["job"]["waitReason"].clone();
        until(name, || reason()["name"] == name);
        let reason = reason();
        let text = reason["text"].as_str().unwrap();
        let of_submitters = self.get(&format!("/api/glm/jobs/{id}"));
        assert_eq!(of_submitters["waitReason"]["name"], name, "{of_submitters}");
        let by_program = self.json(&format!("jobs show {id}"));
        assert_eq!(by_program["job"]["waitReason"]["name"], name);
        let typed = self.ask(&format!("jobs show {id}")).with(0).stdout;
        let typed = typed.to_lowercase();
        let page = looker.first_line(id).to_lowercase();
        for part in between_moments(text) {
            assert!(typed.contains(&part), "{name}: {part:?} in {typed}");
            assert!(page.contains(&part), "{name}: {part:?} in {page}");
        }
        if let Some(help) = reason["help"].as_str() {
            let help = help.to_lowercase();
            assert!(typed.contains(&help), "{name}: {help:?} in {typed}");
            assert!(page.contains(&help), "{name}: {help:?} in {page}");
        }
        let counts = &self.metrics()["lane"]["waitCounts"];
        assert!(counts[name].as_u64() > Some(0), "{name} in {counts}");
    }

    fn hand_in(&self, job: &Value) -> String {
        let taken = self.post("/api/glm/jobs", job);
        taken["id"].as_str().unwrap().to_owned()
    }

    fn order(&self, path: &str) {
        self.post(&format!("/api/admin/glm/{path}"), &json!({}));
    }

    fn set(&self, name: &str, value: &str) {
        self.ask(&format!("config set {name} {value}")).with(0);
    }
}

/// A daemon with this configuration, whose server never answers [`HANGS`].
fn world(config: &str) -> (World, Looker) {
    let simulator = Simulator::start(SimulatorConfig::default()).unwrap();
    simulator.add_rule(Rule::for_prompt(HANGS, Fault::Hang));
    let place = Place::new();
    place.write("config.toml", config);
    let world = World::on(place, simulator);
    let looker = Looker::at(&world.url);
    (world, looker)
}

#[test]
fn the_reason_why_a_job_waits_is_the_same_in_page_command_line_and_api() {
    let (world, looker) = world("[retry]\nbase_delay_ms = 3600000\nmax_delay_ms = 3600000\n");
    let later = json!({"prompt": "a", "runAt": "2099-01-01T00:00:00Z"});
    world.waits_for(&looker, &world.hand_in(&later), "scheduled");
    let rule = Rule::for_prompt("fails once", Fault::error("1234")).times(1);
    world.simulator.add_rule(rule);
    let failed = world.submit("fails once");
    world.waits_for(&looker, &failed, "delayed");

    let open = world.submit(HANGS);
    until("its call is open", || {
        world.get(&format!("/api/admin/glm/queue/{open}"))["job"]["status"] == "processing"
    });
    let staged = world.submit("next");
    world.waits_for(&looker, &staged, "stage");
    let behind = world.submit("behind");
    world.waits_for(&looker, &behind, "behind");
    let blocked = json!({"prompt": "after", "after": [open]});
    world.waits_for(&looker, &world.hand_in(&blocked), "blocked");

    world.pause();
    world.waits_for(&looker, &behind, "paused");
    world.order("resume");
    let reason = json!({"reason": "incident 7"});
    world.post("/api/admin/glm/breaker/open", &reason);
    world.waits_for(&looker, &behind, "breaker");
    world.order("breaker/reset");
    world.set("isActive", "false");
    world.waits_for(&looker, &behind, "inactive");
    world.set("isActive", "null");

    let key = world.post(
        "/api/admin/glm/keys",
        &json!({"name": "one", "callsInFlight": 1}),
    );
    let secret = key["key"].as_str().unwrap();
    world.set("maxConcurrency", "4");
    until("what waited is done", || {
        world.metrics()["jobs"]["completed"] == 2
    });
    let of_key = crate::common::Http::bearing(secret);
    let hand_in = |prompt: &str| {
        let url = format!("{}/api/glm/jobs", world.url);
        let taken = of_key.post(&url, &json!({"prompt": prompt})).unwrap();
        assert_eq!(taken.status, 202, "{taken:?}");
        taken.json()["id"].as_str().unwrap().to_owned()
    };
    let first = hand_in(HANGS);
    until("its call is open", || {
        world.get(&format!("/api/admin/glm/queue/{first}"))["job"]["status"] == "processing"
    });
    world.waits_for(&looker, &hand_in("second"), "keyBusy");

    let rule = Rule::for_prompt("no money", Fault::error("1113"));
    world.simulator.add_rule(rule);
    world.waits_for(&looker, &world.submit("no money"), "hold");
}

#[test]
fn a_wait_for_pace_budget_or_kept_slots_is_told_alike_everywhere() {
    let (world, looker) = world(
        "[lane]\nmax_concurrency = 3\nreserve = [{ priority = 50, slots = 2 }]\n\
         [lanes.slow]\nmodels = ['glm-4.6']\nrequests_per_minute = 1\n\
         [money.budgets.each]\nuser = '*'\ntokens = 3000\n",
    );
    let of = |model: &str, user: &str| {
        let job = json!({"prompt": "a", "model": model, "userId": user, "max_tokens": 10});
        world.hand_in(&job)
    };
    let first = of("glm-4.6", "ada");
    until("it is done", || {
        world.get(&format!("/api/admin/glm/queue/{first}"))["job"]["status"] == "completed"
    });
    world.waits_for(&looker, &of("glm-4.6", "ada"), "pace");
    let hangs = json!({"prompt": HANGS, "userId": "bob", "max_tokens": 2000});
    let open = world.hand_in(&hangs);
    until("its call is open", || {
        world.get(&format!("/api/admin/glm/queue/{open}"))["job"]["status"] == "processing"
    });
    world.waits_for(&looker, &world.hand_in(&hangs), "budget");
    // Of three slots two are kept.
    world.waits_for(&looker, &of("glm-4.7", "carol"), "reserved");
}

#[test]
fn a_job_waits_for_the_one_call_that_probes_and_that_is_told_alike_everywhere() {
    let (world, looker) = world(
        "[retry]\nbase_delay_ms = 3600000\nmax_delay_ms = 3600000\n\
         [breaker]\nconsecutive_failures = 1\ncool_down_ms = 1\n",
    );
    let rule = Rule::for_prompt("fails once", Fault::error("1234")).times(1);
    world.simulator.add_rule(rule);
    let failed = world.submit("fails once");
    world.waits_for(&looker, &failed, "delayed");
    let probes = world.submit(HANGS);
    until("its call is open", || {
        world.get(&format!("/api/admin/glm/queue/{probes}"))["job"]["status"] == "processing"
    });
    world.waits_for(&looker, &world.submit("behind"), "probe");
}

#[test]
fn a_job_is_set_aside_while_others_find_out_whose_fault_it_was_and_that_is_told_alike_everywhere() {
    let (world, looker) = world("");
    let refusal = Fault::Custom {
        status: 403,
        headers: BTreeMap::new(),
        body: String::new(),
    };
    let rule = Rule::for_prompt("refused", refusal).times(1);
    world.simulator.add_rule(rule);
    world.pause();
    let refused = world.submit("refused");
    let open = world.submit(HANGS);
    world.order("resume");
    until("the other is asked", || {
        world.get(&format!("/api/admin/glm/queue/{open}"))["job"]["status"] == "processing"
    });
    world.waits_for(&looker, &refused, "aside");
}

#[test]
fn a_job_that_was_parked_after_a_crash_says_so_everywhere() {
    let (world, _) = world("[lane]\non_interrupted = 'park'\n");
    let open = world.submit(HANGS);
    until("its call is open", || {
        world.get(&format!("/api/admin/glm/queue/{open}"))["job"]["status"] == "processing"
    });
    let World {
        place,
        simulator,
        running,
        ..
    } = world;
    running.kill();
    let world = World::on(place, simulator);
    let looker = Looker::at(&world.url);
    world.waits_for(&looker, &open, "parked");
}
