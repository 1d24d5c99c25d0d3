//! Guards: a failure that stops too much, too little, or until the wrong moment; a job that is burned or
//! failed for what is not its fault; a stop that metrics, holds, breaker or queue do not show while it
//! lasts. Here are the classes, in `scene` one is looked at while it lasts, `costs` is about its end,
//! `breaker` about the breaker that it opens.

mod breaker;
mod costs;
mod scene;

use onelane::model::{FailureClass, HoldKind, Timestamp};
use onelane::simulator::{ErrorFault, Fault, ResetWording, Shape};
use serde_json::Value;

use scene::assert_told;

/// The model of jobs that name none.
const MODEL: &str = "glm-4.7";
/// A model of the same lane.
const OTHER: &str = "glm-4.5-air";
/// How long everything takes that ends by itself: nothing ends while a test looks.
const LONG_MS: u64 = 600_000;
/// How far ahead a stated reset is.
const RESET_MS: u64 = 3 * 60 * 60 * 1_000;
/// What the lane adds to a stated reset, since clocks differ.
const GRACE_MS: u64 = 3_000;
/// How long a used-up quota holds of which nothing is said.
const QUOTA_UNKNOWN_MS: u64 = 15 * 60 * 1_000;

/// What is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Lane,
    Model,
    Account,
}

/// When the stop ends by itself.
#[derive(Debug, Clone, Copy)]
enum Until {
    /// Never.
    Operator,
    /// So many milliseconds after it began: at least, at most.
    After(u64, u64),
    /// At the moment that the message states in Beijing time, and a grace.
    Stated,
    /// At the next midnight in Beijing, and a grace.
    Midnight,
}

/// What becomes of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It goes back to its place and has lost nothing.
    Kept,
    /// It goes back to its place and has lost a retry.
    Retried,
    /// It waits for its time and has lost a retry.
    BacksOff,
    /// It fails.
    Failed,
}

/// One answer of the server to one call, and what must follow.
#[derive(Debug, Clone)]
struct Row {
    fault: Fault,
    class: FailureClass,
    code: &'static str,
    status: Option<u16>,
    fate: Fate,
    stop: Option<(Scope, HoldKind, Until)>,
    maybe_billed: bool,
}

/// A refusal of GLM's, in its usual shape and with its usual status.
fn refusal(code: &'static str, class: FailureClass, status: u16) -> Row {
    let fault = Fault::error(code);
    answer(fault, code, class, Some(status))
}

fn answer(fault: Fault, code: &'static str, class: FailureClass, status: Option<u16>) -> Row {
    let cooling = Until::After(LONG_MS * 8 / 10, LONG_MS);
    let (fate, stop) = match class {
        FailureClass::Throttle => (Fate::Kept, Some((Scope::Lane, HoldKind::Throttle, cooling))),
        FailureClass::Overload => (
            Fate::Retried,
            Some((Scope::Model, HoldKind::Overload, cooling)),
        ),
        FailureClass::QuotaWindow => (
            Fate::Kept,
            Some((Scope::Account, HoldKind::Quota, Until::Stated)),
        ),
        FailureClass::OperatorFatal => (
            Fate::Kept,
            Some((Scope::Account, HoldKind::Operator, Until::Operator)),
        ),
        FailureClass::RequestFatal => (Fate::Failed, None),
        // Nobody else is there to ask.
        FailureClass::ServerTransient | FailureClass::Unattributed => (Fate::BacksOff, None),
        FailureClass::Unreachable => (
            Fate::Kept,
            Some((Scope::Account, HoldKind::Unreachable, cooling)),
        ),
        FailureClass::DuplicateRequest | FailureClass::ForeignAnswer => (Fate::Retried, None),
    };
    Row {
        fault,
        class,
        code,
        status,
        fate,
        stop,
        maybe_billed: false,
    }
}

impl Row {
    /// The stop ends at another moment.
    fn until(mut self, until: Until) -> Self {
        self.stop = self.stop.map(|(scope, kind, _)| (scope, kind, until));
        self
    }

    /// It stops the model only.
    fn of_the_model(mut self) -> Self {
        self.stop = self
            .stop
            .map(|(_, kind, until)| (Scope::Model, kind, until));
        self
    }

    /// The refusal comes in another way.
    fn sent(mut self, change: impl FnOnce(&mut ErrorFault)) -> Self {
        if let Fault::Error(fault) = &mut self.fault {
            change(fault);
        }
        self
    }

    const fn maybe_billed(mut self) -> Self {
        self.maybe_billed = true;
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttle_stops_its_lane_and_costs_the_job_nothing() {
    let class = FailureClass::Throttle;
    assert_told(&refusal("1302", class, 429)).await;
    assert_told(&refusal("1303", class, 429)).await;
    // An hour is more than a limit of the account's rate can last.
    let longer = |fault: &mut ErrorFault| fault.retry_after = Some("3600".to_owned());
    let ten_minutes = Until::After(600_000, 600_000);
    assert_told(&refusal("1302", class, 429).sent(longer).until(ten_minutes)).await;
    let nameless = Fault::EmptyBody { status: 429 };
    assert_told(&answer(nameless, "http_429", class, Some(429))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overload_stops_its_model_and_costs_the_job_a_retry() {
    let class = FailureClass::Overload;
    assert_told(&refusal("1305", class, 429)).await;
    assert_told(&refusal("1312", class, 429)).await;
    let nameless = Fault::EmptyBody { status: 529 };
    assert_told(&answer(nameless, "http_529", class, Some(529))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_up_quota_stops_everything_until_the_stated_moment_to_the_second() {
    let class = FailureClass::QuotaWindow;
    for (code, wording, shape) in [
        ("1308", ResetWording::Mainland, Shape::Nested),
        ("1310", ResetWording::English, Shape::Bracketed),
        ("1316", ResetWording::MainlandContinue, Shape::FlatNumber),
    ] {
        let stamped = refusal(code, class, 429).sent(|fault| {
            (fault.wording, fault.shape) = (wording, shape);
            fault.reset_in_ms = Some(RESET_MS);
            // The stamp counts before it.
            fault.retry_after = Some("60".to_owned());
        });
        assert_told(&stamped).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_up_quota_without_a_stamp_stops_everything_for_as_long_as_is_likely() {
    let class = FailureClass::QuotaWindow;
    let told = |fault: &mut ErrorFault| fault.retry_after = Some("7200".to_owned());
    let two_hours = Until::After(7_200_000, 7_200_000);
    assert_told(&refusal("1308", class, 429).sent(told).until(two_hours)).await;
    let a_while = Until::After(QUOTA_UNKNOWN_MS, QUOTA_UNKNOWN_MS);
    assert_told(&refusal("1308", class, 429).until(a_while)).await;
    assert_told(&refusal("1310", class, 429).until(a_while)).await;
    assert_told(&refusal("1304", class, 429).until(Until::Midnight)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_an_operator_can_mend_stops_everything_without_an_end() {
    let class = FailureClass::OperatorFatal;
    assert_told(&refusal("1113", class, 429)).await;
    assert_told(&refusal("1000", class, 401)).await;
    assert_told(&refusal("1309", class, 429)).await;
    let nameless = Fault::EmptyBody { status: 401 };
    assert_told(&answer(nameless, "http_401", class, Some(401))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_account_may_not_use_stops_its_model_without_an_end() {
    let class = FailureClass::OperatorFatal;
    assert_told(&refusal("1311", class, 429).of_the_model()).await;
    assert_told(&refusal("1220", class, 403).of_the_model()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jobs_own_fault_stops_nothing() {
    let class = FailureClass::RequestFatal;
    assert_told(&refusal("1210", class, 400)).await;
    assert_told(&refusal("1301", class, 400)).await;
    let nameless = Fault::EmptyBody { status: 413 };
    assert_told(&answer(nameless, "http_413", class, Some(413))).await;
    let cut = Fault::finish_reason("sensitive");
    assert_told(&answer(cut, "finish:sensitive", class, Some(200))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transient_failure_stops_nothing_and_the_breaker_counts_it() {
    let class = FailureClass::ServerTransient;
    assert_told(&refusal("1234", class, 500)).await;
    assert_told(&refusal("500", class, 500)).await;
    let empty = Fault::EmptyBody { status: 503 };
    assert_told(&answer(empty, "http_503", class, Some(503))).await;
    let page = Fault::HtmlPage { status: 502 };
    assert_told(&answer(page, "http_502", class, Some(502))).await;
    assert_told(&answer(Fault::Reset, "conn", class, None).maybe_billed()).await;
    assert_told(&answer(Fault::CutBody, "conn", class, Some(200)).maybe_billed()).await;
    assert_told(&answer(Fault::Hang, "timeout_total", class, None).maybe_billed()).await;
    assert_told(&answer(Fault::StallBody, "timeout_idle", class, Some(200)).maybe_billed()).await;
}

/// A moment as the API writes it.
fn moment(json: &Value) -> Timestamp {
    let text = json.as_str().expect("a text");
    Timestamp::parse_rfc3339(text).expect("a moment")
}
