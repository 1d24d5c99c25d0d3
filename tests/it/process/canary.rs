//! Guards: what must not be seen is not. A marker stands in every secret, key, URL, prompt and answer, and is
//! searched for in whatever anybody can be shown: every GET under every role, refusals, webhooks, the log at its
//! most talkative, exports and what commands print. Where a marker may be is data ([`ENTITLED`]).

use std::collections::BTreeSet;
use std::net::TcpListener;

use onelane::simulator::{AnswerWith, Fault, Rule, Simulator, SimulatorConfig};
use serde_json::{Value, json};

use super::serve;
use super::webhooks::Receiver;
use crate::common::{Http, Place, Running, run, until};

/// The markers. Those of bodies stand behind what previews show.
const API_KEY: &str = "canary-of-the-api-key";
const ADMIN: &str = "canary-of-the-admin-token";
const VIEWER: &str = "canary-of-the-viewer-token";
const WRONG_TOKEN: &str = "canary-of-a-wrong-token";
/// `canary-of-a-webhook-secret`, as webhooks want it.
const WEBHOOK_SECRET: &str = "whsec_Y2FuYXJ5LW9mLWEtd2ViaG9vay1zZWNyZXQ=";
const ENDPOINT_PATH: &str = "canary-of-the-endpoints-path";
const ENDPOINT_QUERY: &str = "canary-of-the-endpoints-query";
const CALLBACK_PATH: &str = "canary-of-the-callbacks-path";
const CALLBACK_QUERY: &str = "canary-of-the-callbacks-query";
const PROMPT: &str = "canary-of-the-prompt";
const ANSWER: &str = "canary-of-the-answer";
const KEY: &str = "canary-of-the-idempotency-key";
const METADATA: &str = "canary-of-the-metadata";

const MARKERS: [&str; 13] = [
    API_KEY,
    ADMIN,
    VIEWER,
    WRONG_TOKEN,
    WEBHOOK_SECRET,
    ENDPOINT_PATH,
    ENDPOINT_QUERY,
    CALLBACK_PATH,
    CALLBACK_QUERY,
    PROMPT,
    ANSWER,
    KEY,
    METADATA,
];

/// Everything that is a job's.
const OF_A_JOB: &[&str] = &[CALLBACK_PATH, CALLBACK_QUERY, PROMPT, ANSWER, KEY, METADATA];

/// Who may see what, and where; `owner` is the operator or, where there is no token, a program of this machine. All
/// else may be seen nowhere, and nothing of this in vain: each marker is seen at each of its places.
const ENTITLED: &[(&str, &[&str])] = &[
    ("owner GET /api/glm/jobs/{id}", OF_A_JOB),
    ("owner GET /api/glm/jobs/{id}/result", &[ANSWER]),
    ("owner GET /api/glm/jobs", &[KEY, METADATA]),
    ("owner GET /v1/async-result/{id}", &[ANSWER]),
    ("owner GET /api/paas/v4/async-result/{id}", &[ANSWER]),
    ("owner GET /api/coding/paas/v4/async-result/{id}", &[ANSWER]),
    ("owner GET /api/admin/glm/queue/{id}", OF_A_JOB),
    ("owner GET /api/admin/glm/queue", &[KEY, METADATA]),
    ("owner GET /api/admin/glm/dead-letters", &[KEY, METADATA]),
    ("owner GET /api/admin/glm/export?what=jobs", OF_A_JOB),
    (
        "owner GET /api/admin/glm/export?what=jobs&format=csv",
        &[PROMPT, ANSWER, KEY, METADATA],
    ),
    // Who asked to be told of jobs is told the answer and what the submitter sent along.
    ("receiver of the endpoint", &[ANSWER, METADATA]),
    ("receiver of the callback", &[ANSWER, METADATA]),
    // Whoever has the file has all that is in it.
    ("shell db export jobs", OF_A_JOB),
];

/// What was seen, and where.
#[derive(Default)]
struct Search {
    seen: BTreeSet<(String, &'static str)>,
    wrong: Vec<String>,
}

impl Search {
    fn look(&mut self, place: &str, text: &str) {
        let found = ENTITLED.iter().find(|(known, _)| *known == place);
        let allowed = found.map_or(&[][..], |(_, allowed)| allowed);
        for marker in MARKERS.into_iter().filter(|marker| text.contains(marker)) {
            if allowed.contains(&marker) {
                self.seen.insert((place.to_owned(), marker));
            } else {
                self.wrong.push(format!("{place} shows {marker}: {text}"));
            }
        }
    }

    fn end(self) {
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
        for (place, markers) in ENTITLED {
            for marker in *markers {
                let seen = self.seen.contains(&((*place).to_owned(), *marker));
                assert!(
                    seen,
                    "{place} does not show {marker}: the test looks at nothing"
                );
            }
        }
    }
}

/// A daemon with markers in its configuration; with tokens or without.
fn daemon(place: &Place, simulator: &Simulator, tokens: bool) -> Running {
    let mut command = serve(place, simulator);
    command
        .env("ONELANE_API_KEY", API_KEY)
        .args(["--config", "canary.toml"]);
    if tokens {
        command.env("ONELANE_ADMIN_TOKEN", ADMIN);
    }
    Running::start(&mut command)
}

fn configure(place: &Place, endpoint: &str, tokens: bool) {
    let viewer = match tokens {
        true => format!("[server]\nviewer_token = '{VIEWER}'\n"),
        false => String::new(),
    };
    place.write(
        "canary.toml",
        format!(
            "{viewer}[log]\nfilter = 'trace'\n\
             [webhooks]\nallowed_hosts = ['127.0.0.1']\nallow_http = true\nallow_private = true\n\
             secret = '{WEBHOOK_SECRET}'\n\
             [webhooks.endpoints.ops]\nsecret = '{WEBHOOK_SECRET}'\n\
             url = 'http://{endpoint}/{ENDPOINT_PATH}?token={ENDPOINT_QUERY}'\n\
             events = ['job.completed', 'job.failed']\n"
        ),
    );
}

/// Every GET of the document, with a query where there is a choice.
fn questions(document: &Value, id: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (template, methods) in document["paths"].as_object().unwrap() {
        if methods.get("get").is_none() {
            continue;
        }
        let queries: &[&str] = match template.as_str() {
            "/api/admin/glm/export" => &[
                "?what=jobs",
                "?what=jobs&format=csv",
                "?what=calls",
                "?what=calls&format=csv",
                "?what=usage",
            ],
            "/api/admin/glm/calls" => &["", "?format=csv"],
            "/api/admin/glm/queue" => &["", "?order=service"],
            // It has no end; what it tells of a job, the events of the job tell.
            "/api/glm/events" => &[],
            _ => &[""],
        };
        for query in queries {
            let asked = format!("{}{query}", template.replace("{id}", id));
            all.push((format!("GET {template}{query}"), asked));
        }
    }
    assert!(all.len() > 20, "{all:?}");
    all
}

/// What everybody gets who may not, or asks wrongly.
fn look_at_refusals(search: &mut Search, url: &str, document: &Value) {
    let (admin, viewer, wrong) = (
        Http::bearing(ADMIN),
        Http::bearing(VIEWER),
        Http::bearing(WRONG_TOKEN),
    );
    let bad = json!({"prompt": 7, "idempotencyKey": KEY, "metadata": {"a": METADATA},
        "callbackUrl": format!("http://elsewhere.example/{CALLBACK_PATH}?{CALLBACK_QUERY}")});
    for (template, methods) in document["paths"].as_object().unwrap() {
        let path = format!("{url}{}", template.replace(['{', '}'], ""));
        for (method, who) in [("get", &wrong), ("get", &Http::new())] {
            if methods.get(method).is_some() {
                let refused = who.get(&path).unwrap();
                search.look(&format!("refusal of {template}"), &refused.text);
            }
        }
        if methods.get("post").is_some() {
            for who in [&admin, &viewer, &wrong] {
                let refused = who.post(&path, &bad).unwrap();
                search.look(&format!("refusal of {template}"), &refused.text);
            }
        }
    }
    let config = format!("{url}/api/admin/glm/config");
    let wrong = json!({"apiKey": [API_KEY], "server": {"admin_token": ADMIN}});
    let refused = admin.put(&config, &wrong).unwrap();
    assert_eq!(refused.status, 400, "{refused:?}");
    search.look("refusal of a change", &refused.text);
    let callback = json!({"prompt": "x",
        "callbackUrl": format!("http://elsewhere.example/{CALLBACK_PATH}?{CALLBACK_QUERY}")});
    let refused = admin
        .post(&format!("{url}/api/glm/jobs"), &callback)
        .unwrap();
    assert_eq!(refused.status, 422, "{refused:?}");
    search.look("refusal of a callback", &refused.text);
}

#[test]
fn what_is_secret_is_shown_to_nobody_and_what_is_private_to_no_viewer() {
    let place = Place::new();
    let long = "x".repeat(400);
    let simulator = Simulator::start(SimulatorConfig {
        rules: vec![
            Rule::for_prompt("refuse", Fault::error("1210")),
            Rule::always(Fault::Answer(AnswerWith {
                content: Some(format!("{long}{ANSWER}")),
                ..AnswerWith::default()
            })),
        ],
        ..SimulatorConfig::default()
    })
    .unwrap();
    let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (callback, endpoint) = (listen(), listen());
    let (callback_at, endpoint_at) = (
        callback.local_addr().unwrap(),
        endpoint.local_addr().unwrap(),
    );
    let (callback, endpoint) = (Receiver::serve(callback), Receiver::serve(endpoint));
    let mut search = Search::default();

    configure(&place, &endpoint_at.to_string(), true);
    let running = daemon(&place, &simulator, true);
    let (url, admin, viewer) = (running.url(), Http::bearing(ADMIN), Http::bearing(VIEWER));
    let job = |prompt: &str, key: &str| {
        json!({"prompt": prompt, "idempotencyKey": key, "metadata": {"a": METADATA},
            "callbackUrl": format!("http://{callback_at}/{CALLBACK_PATH}?t={CALLBACK_QUERY}")})
    };
    let submit = |prompt: &str, key: &str| {
        let taken = admin.post(&format!("{url}/api/glm/jobs"), &job(prompt, key));
        let taken = taken.unwrap();
        assert_eq!(taken.status, 202, "{taken:?}");
        search_free(&taken.text);
        taken.json()["id"].as_str().unwrap().to_owned()
    };
    let id = submit(&format!("{long}{PROMPT}"), KEY);
    let refused = submit(&format!("{long}refuse{PROMPT}"), &format!("{KEY}-2"));
    for id in [&id, &refused] {
        let ended = admin.get(&format!("{url}/api/glm/jobs/{id}?wait=60s"));
        assert_eq!(ended.unwrap().status, 200);
    }
    until("both receivers were told", || {
        callback.taken().len() >= 2 && endpoint.taken().len() >= 2
    });
    let document = admin.get(&format!("{url}/openapi.json")).unwrap().json();
    for (place, path) in questions(&document, &id) {
        let seen = admin.get(&format!("{url}{path}")).unwrap();
        search.look(&format!("owner {place}"), &seen.text);
        let seen = viewer.get(&format!("{url}{path}")).unwrap();
        search.look(&format!("viewer {place}"), &seen.text);
    }
    look_at_refusals(&mut search, &url, &document);
    running.signal("TERM");
    let ended = running.end().with(0);
    assert!(ended.stderr.contains("DEBUG") || ended.stderr.contains("TRACE"));
    search.look("log", &ended.to_string());
    for message in callback.taken() {
        search.look("receiver of the callback", &message.text());
    }
    for message in endpoint.taken() {
        search.look("receiver of the endpoint", &message.text());
    }

    // Without a token a program of this machine may do what an operator may.
    configure(&place, &endpoint_at.to_string(), false);
    let running = daemon(&place, &simulator, false);
    let url = running.url();
    for (place, path) in questions(&document, &id) {
        let seen = Http::new().get(&format!("{url}{path}")).unwrap();
        search.look(&format!("owner {place}"), &seen.text);
    }
    running.signal("TERM");
    search.look("log", &running.end().with(0).to_string());

    look_at_the_shell(&mut search, &place, &simulator, &format!("{long}{PROMPT}"));
    search.end();
}

/// The answer to a submission repeats nothing of it.
#[track_caller]
fn search_free(text: &str) {
    assert!(!text.contains("canary"), "{text}");
}

/// What commands print, as JSON.
fn look_at_the_shell(search: &mut Search, place: &Place, simulator: &Simulator, prompt: &str) {
    place.write(
        "prompts.jsonl",
        format!(
            "{}\n",
            json!({"prompt": prompt, "metadata": {"a": METADATA}})
        ),
    );
    let base = simulator.base_url();
    let commands: [(&str, &[&str]); 9] = [
        ("config show", &["config", "show", "--json"]),
        ("stats", &["stats", "--json"]),
        ("db stats", &["db", "stats", "--json"]),
        ("db check", &["db", "check", "--json"]),
        ("db export calls", &["db", "export", "--what", "calls"]),
        ("db export usage", &["db", "export", "--what", "usage"]),
        ("db export jobs", &["db", "export", "--what", "jobs"]),
        ("estimate", &["estimate", "prompts.jsonl", "--json"]),
        (
            "run",
            &["run", "prompts.jsonl", "--json", "--base-url", &base],
        ),
    ];
    for (name, arguments) in commands {
        let mut command = place.bare(arguments);
        command.args(["--config", "canary.toml"]);
        let ended = run(command.env("ONELANE_API_KEY", API_KEY)).with(0);
        search.look(&format!("shell {name}"), &ended.to_string());
    }
}
