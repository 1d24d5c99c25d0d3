//! Guards: deliveries keep their times and their number, and alerts of a running lane are told, on
//! virtual time with a receiver that is a script.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use onelane::Config;
use onelane::config::Loaded;
use onelane::model::{DeliveryStatus, Event, Timestamp};
use onelane::orchestrator::{Feed, Orchestrator, Parts, Submission};
use onelane::ports::{DeliveryFilter, Store};
use onelane::webhooks::{EndpointSettings, Post, Sender, Sending, Sent, SigningKeys};
use onelane_actors::FaultPoints;
use onelane_actors::testing::{MemoryStore, ScriptedGlm, SeededIds, SimClock};
use serde_json::Value;

use crate::support::{GENEROUS, START, ms};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Answers as told, with 200 when nothing more is said, and remembers what it was sent.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Sent>>>,
    posts: Arc<Mutex<Vec<Post>>>,
    takes: std::time::Duration,
    /// Whatever is sent to a URL with this in it hangs for half a minute, and is not answered.
    hangs: &'static str,
    open: Arc<Mutex<(usize, usize)>>,
}

impl Script {
    fn answering(answers: impl IntoIterator<Item = Sent>) -> Self {
        let script = Self::default();
        script.answers.lock().unwrap().extend(answers);
        script
    }

    fn posts(&self) -> Vec<Post> {
        self.posts.lock().unwrap().clone()
    }

    /// When each was sent, in milliseconds from the start.
    fn times(&self) -> Vec<u64> {
        self.posts()
            .iter()
            .map(|post| post.at.since(START))
            .collect()
    }

    fn types(&self) -> Vec<String> {
        let kind = |post: &Post| {
            let body: Value = serde_json::from_slice(&post.body).unwrap();
            body["type"].as_str().unwrap().to_owned()
        };
        self.posts().iter().map(kind).collect()
    }

    /// The most that were ever under way at once.
    fn most_open(&self) -> usize {
        self.open.lock().unwrap().1
    }
}

impl Sender for Script {
    fn send(&self, post: Post) -> Sending {
        let hangs = !self.hangs.is_empty() && post.url.contains(self.hangs);
        self.posts.lock().unwrap().push(post);
        if hangs {
            return Box::pin(async {
                tokio::time::sleep(ms(30_000)).await;
                Sent::Failed("no answer".to_owned())
            });
        }
        let answer = self.answers.lock().unwrap().pop_front();
        let script = self.clone();
        Box::pin(async move {
            assert_ne!(answer, Some(Sent::Answered(0)), "a sender that breaks down");
            {
                let mut open = script.open.lock().unwrap();
                open.0 += 1;
                open.1 = open.1.max(open.0);
            }
            tokio::time::sleep(script.takes).await;
            script.open.lock().unwrap().0 -= 1;
            answer.unwrap_or(Sent::Answered(200))
        })
    }
}

fn config(events: &[&str]) -> Config {
    let mut config = Config::default();
    let endpoint = EndpointSettings {
        url: "https://example.com/hook".to_owned(),
        secret: SigningKeys::parse(SECRET).ok(),
        secret_file: None,
        events: events.iter().map(|event| (*event).to_owned()).collect(),
    };
    config.webhooks.endpoints.insert("ops".to_owned(), endpoint);
    config
}

async fn start(
    config: &Config,
    store: &MemoryStore,
    script: &Script,
    now: Timestamp,
) -> Orchestrator {
    start_by(config, store, script, SimClock::starting_at(now)).await
}

async fn start_by(
    config: &Config,
    store: &MemoryStore,
    script: &Script,
    clock: SimClock,
) -> Orchestrator {
    let parts = Parts {
        store: Arc::new(store.clone()),
        glm: Arc::new(ScriptedGlm::answering(ms(10))),
        clock: Arc::new(clock),
        ids: Arc::new(SeededIds::new(7)),
        config: Loaded::from_config(config).unwrap(),
        registry: onelane::Registry::default(),
        tokens: None,
        budget: GENEROUS,
        fault_points: FaultPoints::default(),
    };
    let sender = Arc::new(script.clone());
    Orchestrator::start_sending(parts, sender).await.unwrap()
}

fn prompt(text: &str) -> Submission {
    Submission::prompt(text).unwrap()
}

async fn count(lane: &Orchestrator, status: DeliveryStatus) -> usize {
    let filter = DeliveryFilter {
        status: Some(status),
        ..DeliveryFilter::default()
    };
    let page = lane.deliveries(filter, None, 1_000).await.unwrap();
    page.deliveries.len()
}

/// Waits, on virtual time, until so many deliveries have this status.
async fn until(lane: &Orchestrator, status: DeliveryStatus, wanted: usize) {
    for _ in 0..10_000 {
        if count(lane, status).await == wanted {
            return;
        }
        tokio::time::sleep(ms(1_000)).await;
    }
    panic!("never {wanted} {status:?}");
}

#[tokio::test(start_paused = true)]
async fn a_delivery_is_tried_with_growing_delays_and_given_up_in_the_end() {
    let refused = std::iter::repeat_n(Sent::Failed("no connection".to_owned()), 1_000);
    let script = Script::answering(refused);
    let store = MemoryStore::new();
    let mut config = config(&["job.completed"]);
    config.webhooks.retry.max_delay_ms = 1_800_000;
    config.webhooks.give_up_ms = 7_200_000;
    let lane = start(&config, &store, &script, START).await;
    lane.call(prompt("x")).await.unwrap();
    until(&lane, DeliveryStatus::Failed, 1).await;
    let times = script.times();
    let delays: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // 5 s, then five times as long up to half an hour, each shortened by a fifth at most.
    let mut nominal = 5_000;
    let growing = delays.len() - 1;
    for delay in &delays[..growing] {
        let floor = nominal - nominal / 5;
        assert!((floor..=nominal + 1_000).contains(delay), "{delays:?}");
        nominal = (nominal * 5).min(1_800_000);
    }
    let retry_policy = 7_200_000;
    let last = times.last().unwrap() - times[0];
    assert!(
        (retry_policy..retry_policy + 60_000).contains(&last),
        "{times:?}"
    );
    let posts = script.posts();
    assert!(
        posts
            .iter()
            .all(|post| post.message_id == posts[0].message_id)
    );
    assert!(posts.iter().all(|post| post.body == posts[0].body));
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_fails_while_the_clock_is_days_ahead_is_not_given_up() {
    const DAY_MS: i64 = 86_400_000;
    let refused = std::iter::repeat_n(Sent::Failed("no connection".to_owned()), 4);
    let script = Script::answering(refused);
    let store = MemoryStore::new();
    let config = config(&["job.completed"]);
    let clock = SimClock::starting_at(START);
    let lane = start_by(&config, &store, &script, clock.clone()).await;
    lane.call(prompt("x")).await.unwrap();
    tokio::time::sleep(ms(1_000)).await;
    assert_eq!(script.posts().len(), 1);
    // Twice as long as a delivery is tried.
    clock.step(6 * DAY_MS);
    for _ in 0..120 {
        tokio::time::sleep(ms(1_000)).await;
        assert_eq!(count(&lane, DeliveryStatus::Failed).await, 0);
    }
    assert!(script.posts().len() >= 2, "it is tried meanwhile");
    clock.step(-6 * DAY_MS);
    until(&lane, DeliveryStatus::Delivered, 1).await;
    assert_eq!(script.posts().len(), 5);
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_by_hours_makes_no_delivery_older() {
    const HOUR_MS: i64 = 3_600_000;
    let refused = std::iter::repeat_n(Sent::Failed("no connection".to_owned()), 1_000);
    let script = Script::answering(refused);
    let store = MemoryStore::new();
    let mut config = config(&["job.completed"]);
    config.webhooks.give_up_ms = 3_600_000;
    let clock = SimClock::starting_at(START);
    let lane = start_by(&config, &store, &script, clock.clone()).await;
    lane.call(prompt("x")).await.unwrap();
    for step in [3, 20, -9, 15] {
        tokio::time::sleep(ms(600_000)).await;
        clock.step(step * HOUR_MS);
        tokio::time::sleep(ms(60_000)).await;
        assert_eq!(count(&lane, DeliveryStatus::Failed).await, 0, "{step}");
    }
    until(&lane, DeliveryStatus::Failed, 1).await;
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn what_has_no_way_lapses_by_its_age_and_not_by_a_clock_that_jumps() {
    const HOUR_MS: i64 = 3_600_000;
    let store = MemoryStore::new();
    let mut with_way = config(&["job.completed"]);
    with_way.webhooks.give_up_ms = 3_600_000;
    let script = Script::answering([Sent::Failed("no connection".to_owned())]);
    let clock = SimClock::starting_at(START);
    let lane = start_by(&with_way, &store, &script, clock.clone()).await;
    lane.call(prompt("x")).await.unwrap();
    until(&lane, DeliveryStatus::Pending, 1).await;
    tokio::time::sleep(ms(1_000)).await;
    lane.shutdown(ms(1_000)).await;
    drop(lane);
    // Its endpoint is gone.
    let mut without = with_way.clone();
    without.webhooks.endpoints.clear();
    let lane = start_by(&without, &store, &script, clock.clone()).await;
    tokio::time::sleep(ms(60_000)).await;
    clock.step(20 * HOUR_MS);
    tokio::time::sleep(ms(1_500_000)).await;
    assert_eq!(count(&lane, DeliveryStatus::Pending).await, 1);
    tokio::time::sleep(ms(3_600_000)).await;
    assert_eq!(count(&lane, DeliveryStatus::Failed).await, 1);
    assert_eq!(script.posts().len(), 1);
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_neither_loses_nor_repeats_a_delivery() {
    let store = MemoryStore::new();
    let down = Script::answering([Sent::Answered(503), Sent::Answered(503)]);
    let config = config(&["job.completed"]);
    let lane = start(&config, &store, &down, START).await;
    for text in ["a", "b"] {
        lane.call(prompt(text)).await.unwrap();
    }
    until(&lane, DeliveryStatus::Pending, 2).await;
    tokio::time::sleep(ms(1_000)).await;
    assert_eq!(down.posts().len(), 2);
    lane.shutdown(ms(1_000)).await;
    drop(lane);

    let up = Script::default();
    let lane = start(&config, &store, &up, START.plus_ms(60_000)).await;
    until(&lane, DeliveryStatus::Delivered, 2).await;
    lane.shutdown(ms(1_000)).await;
    drop(lane);
    let ids = |script: &Script| {
        let mut ids: Vec<String> = script.posts().into_iter().map(|p| p.message_id).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&up), ids(&down));

    let after = Script::default();
    let lane = start(&config, &store, &after, START.plus_ms(90_000)).await;
    tokio::time::sleep(ms(600_000)).await;
    assert_eq!(after.posts().len(), 0);
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn slow_receivers_hold_up_neither_the_lane_nor_more_than_their_share() {
    let mut config = config(&["job.completed"]);
    config.webhooks.max_in_flight = 6;
    let script = Script {
        takes: ms(10_000),
        ..Script::default()
    };
    let store = MemoryStore::new();
    let lane = start(&config, &store, &script, START).await;
    let begun = tokio::time::Instant::now();
    for n in 0..20 {
        lane.call(prompt(&format!("{n}"))).await.unwrap();
    }
    assert!(begun.elapsed() < ms(10_000), "the lane did not wait");
    until(&lane, DeliveryStatus::Delivered, 20).await;
    assert_eq!(script.most_open(), 3);
    lane.shutdown(ms(1_000)).await;
}

/// An alert is raised when so many jobs are due.
fn watch_the_queue(config: &mut Config, threshold: &str, for_ms: u64) {
    let rule = config.alerts.rules.rule_mut("queue_length");
    (rule.enabled, rule.for_ms) = (true, for_ms);
    rule.threshold = threshold.parse().ok();
}

/// As [`config`], with callbacks to any host.
fn with_callbacks(events: &[&str]) -> Config {
    let mut config = config(events);
    config.webhooks.callbacks.allowed_hosts = vec!["*".to_owned()];
    config.webhooks.secret = SigningKeys::parse(SECRET).ok();
    config
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_hangs_holds_up_neither_an_alert_nor_another_receiver() {
    let mut config = with_callbacks(&["alert.raised"]);
    watch_the_queue(&mut config, "3", 0);
    let script = Script {
        hangs: "hangs.test",
        ..Script::default()
    };
    let store = MemoryStore::new();
    let lane = start(&config, &store, &script, START).await;
    for n in 0..200 {
        let job = prompt(&format!("{n}")).callback_url("https://hangs.test/hook");
        lane.call(job).await.unwrap();
    }
    // They are on their way, and nobody takes them.
    tokio::time::sleep(ms(60_000)).await;
    let sent_to = |part: &str| {
        let posts = script.posts();
        let at = posts.iter().find(|post| post.url.contains(part));
        at.map(|post| post.at)
    };
    lane.pause(None).await.unwrap();
    for n in 0..3 {
        lane.submit(prompt(&format!("w{n}"))).await.unwrap();
    }
    let before = START.plus_ms(60_000);
    tokio::time::sleep(ms(6_000)).await;
    let alert = sent_to("example.com").unwrap();
    assert!(alert.since(before) < 12_000, "{alert}");
    lane.resume().await.unwrap();
    lane.call(prompt("well").callback_url("https://well.test/"))
        .await
        .unwrap();
    tokio::time::sleep(ms(1_000)).await;
    assert!(sent_to("well.test").is_some());
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_knows_no_endpoint_gives_up_nothing_and_the_next_one_delivers() {
    let store = MemoryStore::new();
    let refused = std::iter::repeat_n(Sent::Answered(503), 1);
    let script = Script::answering(refused);
    let config = with_callbacks(&["job.completed"]);
    let lane = start(&config, &store, &script, START).await;
    let job = prompt("x").callback_url("https://well.test/");
    lane.call(job).await.unwrap();
    lane.pause(None).await.unwrap();
    tokio::time::sleep(ms(1_000)).await;
    lane.shutdown(ms(0)).await;
    drop(lane);
    let waits = count_in(&store, DeliveryStatus::Pending);
    assert!(waits >= 1, "one was refused");

    let nothing = Script::default();
    let lane = start(&Config::default(), &store, &nothing, START.plus_ms(60_000)).await;
    lane.resume().await.unwrap();
    lane.call(prompt("y")).await.unwrap();
    tokio::time::sleep(ms(3_600_000)).await;
    lane.shutdown(ms(1_000)).await;
    drop(lane);
    assert_eq!(nothing.posts().len(), 0);
    assert_eq!(count_in(&store, DeliveryStatus::Failed), 0);
    assert_eq!(
        count_in(&store, DeliveryStatus::Pending),
        waits + 1,
        "the end of the second job waits, too"
    );

    let up = Script::default();
    let lane = start(&config, &store, &up, START.plus_ms(7_200_000)).await;
    until(&lane, DeliveryStatus::Pending, 0).await;
    assert_eq!(up.posts().len(), waits + 1);
    lane.shutdown(ms(1_000)).await;
}

fn count_in(store: &MemoryStore, status: DeliveryStatus) -> usize {
    let filter = DeliveryFilter {
        status: Some(status),
        ..DeliveryFilter::default()
    };
    let page = store.deliveries(&filter, None, 1_000).unwrap();
    page.deliveries.len()
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_way_is_given_up_when_its_patience_ends() {
    let store = MemoryStore::new();
    let mut config = config(&["job.completed"]);
    config.webhooks.give_up_ms = 7_200_000;
    let script = Script::answering([Sent::Answered(410)]);
    let lane = start(&config, &store, &script, START).await;
    for text in ["a", "b"] {
        lane.call(prompt(text)).await.unwrap();
        tokio::time::sleep(ms(1_000)).await;
    }
    tokio::time::sleep(ms(7_200_000 - 10_000)).await;
    assert_eq!(count(&lane, DeliveryStatus::Pending).await, 2);
    tokio::time::sleep(ms(700_000)).await;
    assert_eq!(count(&lane, DeliveryStatus::Failed).await, 2);
    assert_eq!(script.posts().len(), 1, "nothing more was sent there");
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_is_sent_again_by_a_filter() {
    let store = MemoryStore::new();
    let mut config = config(&["job.completed", "job.cancelled"]);
    config.webhooks.give_up_ms = 1;
    let script = Script::answering(std::iter::repeat_n(Sent::Answered(500), 6));
    let lane = start(&config, &store, &script, START).await;
    for text in ["a", "b", "c"] {
        lane.call(prompt(text)).await.unwrap();
    }
    until(&lane, DeliveryStatus::Failed, 3).await;
    let filter = |event: &str| DeliveryFilter {
        event: Some(event.to_owned()),
        ..DeliveryFilter::default()
    };
    let again = |event, dry_run| lane.redeliver_all(filter(event), dry_run);
    assert_eq!(again("job.cancelled", false).await.unwrap(), 0);
    assert_eq!(again("job.completed", true).await.unwrap(), 3);
    tokio::time::sleep(ms(10_000)).await;
    assert_eq!(count(&lane, DeliveryStatus::Failed).await, 3, "a dry run");
    let tried = script.posts().len();
    assert_eq!(again("job.completed", false).await.unwrap(), 3);
    until(&lane, DeliveryStatus::Delivered, 3).await;
    let ids: std::collections::BTreeSet<String> = script
        .posts()
        .into_iter()
        .map(|post| post.message_id)
        .collect();
    assert_eq!(ids.len(), 3, "under their old ids");
    assert!(script.posts().len() >= tried + 3);
    assert_eq!(again("job.completed", false).await.unwrap(), 0);
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_breaks_down_leaves_no_slot_taken() {
    let store = MemoryStore::new();
    let mut config = config(&["job.completed"]);
    config.webhooks.max_in_flight = 1;
    // The script panics on these.
    let script = Script::answering(std::iter::repeat_n(Sent::Answered(0), 3));
    let lane = start(&config, &store, &script, START).await;
    for n in 0..3 {
        lane.call(prompt(&format!("{n}"))).await.unwrap();
    }
    until(&lane, DeliveryStatus::Delivered, 3).await;
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_go_out_what_is_due() {
    let script = Script::default();
    let store = MemoryStore::new();
    let lane = start(&config(&["job.completed"]), &store, &script, START).await;
    lane.call(prompt("the last one")).await.unwrap();
    lane.shutdown(ms(1_000)).await;
    drop(lane);
    assert_eq!(script.types(), ["job.completed"]);
    let left = store
        .deliveries(&DeliveryFilter::default(), None, 9)
        .unwrap();
    assert_eq!(left.deliveries[0].status, DeliveryStatus::Delivered);
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_forgotten_after_a_while() {
    let mut config = config(&["job.completed"]);
    config.webhooks.keep_ms = 3_600_000;
    let (script, store) = (Script::default(), MemoryStore::new());
    let lane = start(&config, &store, &script, START).await;
    lane.call(prompt("x")).await.unwrap();
    until(&lane, DeliveryStatus::Delivered, 1).await;
    tokio::time::sleep(ms(3_000_000)).await;
    assert_eq!(count(&lane, DeliveryStatus::Delivered).await, 1);
    tokio::time::sleep(ms(1_300_000)).await;
    assert_eq!(count(&lane, DeliveryStatus::Delivered).await, 0);
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn a_line_that_grows_raises_an_alert_and_its_end_clears_it() {
    let mut config = config(&["alert.raised", "alert.cleared"]);
    watch_the_queue(&mut config, "5", 60_000);
    let (script, store) = (Script::default(), MemoryStore::new());
    let lane = start(&config, &store, &script, START).await;
    let mut events = lane.subscribe();
    lane.pause(None).await.unwrap();
    for n in 0..6 {
        lane.submit(prompt(&format!("{n}"))).await.unwrap();
    }
    tokio::time::sleep(ms(50_000)).await;
    assert!(lane.alerts().active.is_empty(), "not before its time");
    tokio::time::sleep(ms(20_000)).await;
    assert_eq!(lane.alerts().active[0].level, 6_000_000_000);
    lane.shutdown(ms(1_000)).await;
    drop(lane);

    // It is still so after a restart, and nobody is told again.
    let lane = start(&config, &store, &script, START.plus_ms(100_000)).await;
    tokio::time::sleep(ms(200_000)).await;
    assert_eq!(script.types(), ["alert.raised"]);
    lane.resume().await.unwrap();
    tokio::time::sleep(ms(100_000)).await;
    assert_eq!(script.types(), ["alert.raised", "alert.cleared"]);
    assert_eq!(lane.alerts().recent.len(), 1);
    lane.shutdown(ms(1_000)).await;
    let mut raised = 0;
    while let Some(feed) = events.next().await {
        let is_alert = |event: &Event| matches!(event, Event::AlertRaised { .. });
        raised += usize::from(matches!(feed, Feed::Event(_, event) if is_alert(&event)));
    }
    assert_eq!(raised, 1);
}

#[tokio::test(start_paused = true)]
async fn who_has_no_webhooks_has_no_deliveries() {
    let (script, store) = (Script::default(), MemoryStore::new());
    let lane = start(&Config::default(), &store, &script, START).await;
    let before = store.commits();
    lane.call(prompt("x")).await.unwrap();
    let refused = lane
        .submit(prompt("y").callback_url("https://example.com/"))
        .await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("webhooks.allowed_hosts")
    );
    tokio::time::sleep(ms(3_600_000)).await;
    // Submitted, started, ended: nothing was written for notices, nor by rules that found nothing.
    assert!(
        store.commits() - before <= 3,
        "{}",
        store.commits() - before
    );
    assert_eq!(
        store
            .deliveries(&DeliveryFilter::default(), None, 9)
            .unwrap()
            .deliveries
            .len(),
        0
    );
    lane.shutdown(ms(1_000)).await;
}
