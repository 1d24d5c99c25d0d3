//! What the lane is told: everything an operator may change while it runs, already validated.
#![allow(
    rustdoc::bare_urls,
    reason = "these docs are the comments of config.toml, too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::batch::Scope;
use super::face::glm_url;
use super::model_name;
use super::setting::{KeyPath, Kind, Place, Problem, Secrets, Setting, SettingsError};
use super::{
    Budget, Calendar, CallbackRules, ClientKeys, DEFAULT_LANE, DoubtSettings, Face, FaceSettings,
    GatewaySettings, LaneRules, NamedLane, NoUpstream, PolicyOverride, Retention, RetrySettings,
    Unpriced, lane_for, limits,
};
use crate::model::PriceTable;
use crate::{section, words};

/// A secret that no log, error or response shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Checks that it can travel in an HTTP header, as a key or token.
    pub fn check(text: &str) -> Result<(), Problem> {
        if text.is_empty() {
            return Err("must not be empty".into());
        }
        if text.starts_with("****") {
            return Err("is a masked secret; leave it out to keep the one in force".into());
        }
        if !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err("must be printable ASCII without blanks".into());
        }
        Ok(())
    }

    /// What may be shown: the last four characters of a long secret, nothing of a short one.
    #[must_use]
    pub fn masked(&self) -> String {
        let chars: Vec<char> = self.0.chars().collect();
        if chars.len() < 16 {
            return "****".to_owned();
        }
        let tail: String = chars.iter().skip(chars.len() - 4).collect();
        format!("****{tail}")
    }
}

impl Setting for Secret {
    fn kind() -> Kind {
        Kind::Secret(|text| Self::check(text).map(|()| text.to_owned()))
    }

    fn write(&self, secrets: Secrets) -> Value {
        match secrets {
            Secrets::Masked => self.masked().into(),
            Secrets::Clear => self.expose().into(),
        }
    }

    fn take(value: &Value) -> Option<Self> {
        value.as_str().map(Self::new)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(****)")
    }
}

/// Where calls go and with which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The base URL, without a slash at its end; `/chat/completions` is appended.
    pub base_url: String,
    /// Where the other faces are.
    pub faces: FaceSettings,
    /// The key; without one the lane is held.
    pub api_key: Option<Secret>,
}

/// The base URL of GLM.
fn base_url(text: &str) -> Result<String, Problem> {
    let url = glm_url(text)?;
    if let Some(base) = url.strip_suffix("/chat/completions") {
        let problem = format!("must leave out /chat/completions, which is appended: write {base}");
        return Err(problem.into());
    }
    Ok(url)
}

impl Endpoint {
    /// Where calls of a face go.
    pub fn url(&self, face: Face) -> Result<String, NoUpstream> {
        face.upstream(&self.base_url, &self.faces)
    }

    /// A short digest of base URL and key, to see whether an operator changed either. It tells
    /// nothing of the key.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"onelane endpoint\0");
        hash.update(self.base_url.as_bytes());
        hash.update(b"\0");
        if let Some(key) = &self.api_key {
            hash.update(key.expose().as_bytes());
        }
        hash.finalize()
            .iter()
            .take(8)
            .map(|b| format!("{b:02x}"))
            .collect()
    }
}

section! {
    /// `[glm]`: where calls go and what they ask for.
    pub struct GlmSettings checked by Self::goes_together {
        /// Where calls go, without a slash at its end; /chat/completions is appended. The international site is
        /// https://api.z.ai/api/paas/v4, the default where the key comes from ZAI_API_KEY: written in a file, a
        /// base URL beats that.
        base_url: String = "https://open.bigmodel.cn/api/paas/v4".to_owned() => [
            text(base_url).sample("\"https://open.bigmodel.cn/api/paas/v4\"")
        ];
        /// Where GLM's other APIs are.
        faces: FaceSettings = FaceSettings::default();
        /// The key; without one the lane is held. Better in ONELANE_API_KEY, ZAI_API_KEY or ZHIPUAI_API_KEY, where no
        /// backup of this file has it.
        api_key: Option<Secret> = None => [sample("\"id.secret\"")];
        /// A file that holds the key, as secret managers mount it. The program that reads the configuration fills in
        /// the key.
        api_key_file: Option<String> = None => [sample("\"glm.key\"").fixed()];
        /// The proxy through which GLM is called, and nobody else: an http or https URL, perhaps with user and password.
        /// "none" is none. Not set, HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY count. This machine is always
        /// reached straight.
        proxy: Option<Secret> = None => [sample("\"http://proxy.example:3128\"").fixed()];
        /// A PEM file with authorities that TLS to GLM trusts beside the system's, such as a proxy's that looks into it.
        ca_file: Option<String> = None => [sample("\"proxy-ca.pem\"").fixed()];
        /// The model of jobs that name none.
        model: String = "glm-4.7".to_owned() => [text(model_name::spelled)];
        /// Output tokens at most for plain prompts; not set, it is up to GLM.
        max_tokens: Option<u32> = None => [within(1..=131_072).sample("4096")];
        /// The temperature of plain prompts; not set, it is up to GLM.
        temperature: Option<f64> = None => [within(0.0..=1.0).sample("0.7")];
        /// false stops the lane before its next call, as a pause does; jobs are still accepted.
        is_active: bool = true;
        /// The bounds of one call. A call that reaches one is closed and counts as a transient failure.
        timeouts: Timeouts = Timeouts::default();
        /// Whether a connection serves more than one call: "echoed", where answers name the call that they are for, as
        /// GLM's do; or "always". Elsewhere an answer too many would be taken for that of the next call.
        reuse: Reuse = Reuse::Echoed;
        /// Models that are called through GLM's asynchronous API: after a crash the answer is fetched, not bought
        /// again.
        async_models: Vec<String> = Vec::new() => [text(model_name::setting)];
        /// Between two looks at whether an asynchronous answer is there.
        async_poll_ms: u64 = 2_000 => [within(100..=3_600_000)];
        /// Models that may serve, in this order, while a job's own model is held for overload. The answer says which
        /// model served, and that one's price counts. An empty list is none.
        fallbacks: BTreeMap<String, Vec<String>> = BTreeMap::new() => [
            names(model_name::setting).text(model_name::spelled).sample("\"glm-5\" = [\"glm-4.7\"]")
        ];
    }
}

/// When a connection to GLM serves more than one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reuse {
    /// Where answers name the `request_id` of their call.
    #[default]
    Echoed,
    /// Wherever the server allows it.
    Always,
}

words! {
    Reuse { Echoed, Always }
}

impl GlmSettings {
    /// Where calls go and with which key.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            base_url: self.base_url.clone(),
            faces: self.faces.clone(),
            api_key: self.api_key.clone(),
        }
    }

    /// The models that may serve in a model's place, as the settings spell them.
    pub fn fallbacks_of(&self, model: &str) -> impl Iterator<Item = &str> {
        let mut chains = self.fallbacks.iter();
        let chain = chains.find(|(own, _)| model_name::is_model(own, model));
        chain
            .into_iter()
            .flat_map(|(_, chain)| chain)
            .map(String::as_str)
    }

    /// How a fallback's name goes to GLM: as the settings spell it.
    #[must_use]
    pub fn spelling<'a>(&'a self, model: &'a str) -> &'a str {
        let mut names = self.fallbacks.values().flatten();
        let spelled = names.find(|name| model_name::is_model(name, model));
        spelled.map_or(model, String::as_str)
    }

    fn goes_together(&self, place: &Place, errors: &mut Vec<SettingsError>) {
        for (model, chain) in &self.fallbacks {
            let at = place.at("fallbacks").join(model.as_str());
            if chain.len() > limits::FALLBACKS_MAX {
                errors.push(SettingsError::new(at, "must name 1 to 8 models"));
            } else if chain.iter().any(|next| model_name::is_model(next, model)) {
                let problem = "must name other models, each in 1 to 128 characters";
                errors.push(SettingsError::new(at, problem));
            }
        }
    }
}

section! {
    /// The bounds of one call, in milliseconds.
    #[derive(Copy, Eq)]
    pub struct Timeouts {
        /// Until the connection stands: a server that does not take one this long is down.
        connect_ms: u64 = 10_000 => [within(1..=limits::DAY_MS)];
        /// From the connection until the response's headers where GLM answers at once: when a task is handed over or looked
        /// at (`glm.async_models`). A call has no first byte before its whole thinking, and is bounded by `total_ms` alone.
        first_byte_ms: u64 = 300_000 => [within(1..=limits::DAY_MS)];
        /// Between two pieces of the response's body: in the middle of an answer silence means a lost connection.
        idle_ms: u64 = 60_000 => [within(1..=limits::DAY_MS)];
        /// All in all, a streamed call waits so long for a client that does not read; then it goes on without, and the client is
        /// served from what came.
        stall_ms: u64 = 10_000 => [within(0..=limits::DAY_MS)];
        /// The whole call, however lively it is, may take so long. A job's own timeout counts instead.
        total_ms: u64 = 600_000 => [within(1..=limits::DAY_MS).json("timeout")];
    }
}

section! {
    /// `[lane]`: the path to GLM for every model that no lane of its own takes, and what all lanes have in
    /// common.
    #[derive(Eq)]
    pub struct LaneSettings {
        /// The rules of the default lane.
        rules: LaneRules = LaneRules::default() => [flat("")];
        /// A lane rests this long after a call timed out, since GLM may still count the call; 0 is not at all.
        pause_after_timeout_ms: u64 = 0 => [within(0..=3_600_000)];
        /// A hold that only an operator ends lets one call try so often whether it still stands; 0 is never.
        operator_probe_ms: u64 = 0 => [within(1_000..=limits::DAY_MS).or_zero()];
        /// Jobs that may wait; beyond it submissions are refused instead of filling the disk.
        max_queue_jobs: u64 = limits::QUEUE_JOBS_DEFAULT => [within(1..=i64::MAX as u64)];
        /// What becomes of a job whose call was open in a crash: "retry" may pay twice; "park" parks it until an
        /// operator puts it back in line or cancels it; "fail" leaves it failed, to be retried by hand.
        on_interrupted: OnInterrupted = OnInterrupted::Retry;
        /// A job that was in flight in so many crashes in a row may be their cause: it is failed.
        quarantine_after: u32 = 3 => [within(1..=u32::MAX as u64)];
    }
}

impl From<LaneRules> for LaneSettings {
    fn from(rules: LaneRules) -> Self {
        Self {
            rules,
            ..Self::default()
        }
    }
}

section! {
    /// `[breaker]`: when the circuit breaker opens and when it tries again. While it is open no call is made, and
    /// jobs wait.
    #[derive(Copy)]
    pub struct BreakerSettings checked by Self::goes_together {
        /// So many failures in a row open the breaker: no calls until the cool-down is over. Jobs wait.
        consecutive_failures: u32 = 5 => [within(1..=u32::MAX as u64)];
        /// The breaker opens, too, when this share of the window's calls failed; 0.0 switches that off.
        failure_rate: f64 = 0.5 => [within(0.0..=1.0)];
        /// The failure rate is that of the calls of so many milliseconds.
        window_ms: u64 = 60_000 => [within(1..=limits::DAY_MS)];
        /// The failure rate counts only with so many calls in its window.
        min_calls: u32 = 20 => [within(1..=10_000)];
        /// From the breaker's opening to the one call that probes.
        cool_down_ms: u64 = 30_000 => [within(1..=7 * limits::DAY_MS)];
        /// Each failed probe makes the next cool-down so many times longer.
        cool_down_multiplier: f64 = 2.0 => [within(1.0..=100.0)];
        /// No cool-down is longer.
        cool_down_max_ms: u64 = 600_000 => [within(1..=7 * limits::DAY_MS)];
    }
}

impl BreakerSettings {
    fn goes_together(&self, place: &Place, errors: &mut Vec<SettingsError>) {
        if self.cool_down_ms > self.cool_down_max_ms {
            let problem = Problem::from("must be at least 1 and not longer than ");
            let problem = problem.setting(place.at("cool_down_max_ms"));
            errors.push(SettingsError::new(place.at("cool_down_ms"), problem));
        }
    }
}

words! {
    OnInterrupted { Retry, Park, Fail }
}

/// What becomes of a job whose call was open when the process died.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum OnInterrupted {
    /// It goes back to its place; the call may be paid twice.
    #[default]
    Retry,
    /// It is parked until an operator puts it back in line or cancels it.
    Park,
    /// It fails, and an operator may retry it by hand; nothing is paid twice.
    Fail,
}

/// Everything the lane is told. Its sections are those of the configuration, which has checked each value;
/// [`Settings::check`] finds values that don't go together.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// Where calls go and what they ask for.
    pub glm: GlmSettings,
    /// The default lane, which takes every model that no other lane names, and what all lanes have in common.
    pub lane: LaneSettings,
    /// Lanes of their own for some models, by name.
    pub lanes: BTreeMap<String, NamedLane>,
    /// How transient failures are retried, and how long throttle and overload answers delay.
    pub retry: RetrySettings,
    /// When the breaker opens.
    pub breaker: BreakerSettings,
    /// Codes whose class or rules differ from the shipped ones.
    pub policy: BTreeMap<String, PolicyOverride>,
    /// What codes mean, in English.
    pub meanings: Arc<BTreeMap<String, String>>,
    /// What calls may cost.
    pub budgets: Vec<Budget>,
    /// What budgets keep for calls that may have been billed.
    pub in_doubt: DoubtSettings,
    /// The calendar that days and months are of.
    pub calendar: Calendar,
    /// What the gateway does for clients that wait.
    pub gateway: GatewaySettings,
    /// Where the end of a job may be told.
    pub callbacks: CallbackRules,
    /// What calls cost.
    pub prices: Arc<PriceTable>,
    /// What becomes of submissions for models without a price.
    pub unpriced: Unpriced,
    /// How long what has ended is kept.
    pub retention: Retention,
    /// Which jobs the lane runs. No setting of the configuration: who starts the lane says so.
    pub scope: Scope,
    /// The client keys, as the store keeps them. No setting of the configuration either.
    pub keys: Arc<ClientKeys>,
}

impl Settings {
    /// With these client keys, and what their calls may come to.
    #[must_use]
    pub fn with_keys(mut self, keys: Arc<ClientKeys>) -> Self {
        self.budgets.retain(|budget| budget.key.is_none());
        self.budgets
            .extend(keys.iter().filter_map(|key| key.budget()));
        self.keys = keys;
        self
    }

    /// Finds values that don't go together, all of them.
    #[must_use]
    pub fn check(&self) -> Vec<SettingsError> {
        let (top, mut errors) = (Place::default(), Vec::new());
        self.glm.check(&top.entry("glm"), &mut errors);
        self.lane.check(&top.entry("lane"), &mut errors);
        self.lanes.check(&top.entry("lanes"), &mut errors);
        self.check_lanes(&mut errors);
        self.retry.check(&top.entry("retry"), &mut errors);
        self.breaker.check(&top.entry("breaker"), &mut errors);
        self.check_budgets(&mut errors);
        self.check_fallbacks(&mut errors);
        errors
    }

    /// No model may go through two lanes, nor more calls through all lanes than there are slots.
    fn check_lanes(&self, errors: &mut Vec<SettingsError>) {
        let lanes = KeyPath::from("lanes");
        if self.lanes.len() > limits::LANES_MAX {
            errors.push(SettingsError::new(lanes.clone(), "must be at most 64"));
        }
        let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, lane) in &self.lanes {
            for model in &lane.models {
                let first = *taken.entry(model).or_insert(name);
                if first != name {
                    let problem = Problem::from(format!("must not name {model}, which "))
                        .setting(lanes.join(first).join("models"))
                        .words(" names already; take it out of one of them");
                    errors.push(SettingsError::new(lanes.join(name).join("models"), problem));
                }
            }
        }
        if self.sum_of_slots() > u32::from(limits::CONCURRENCY_MAX) {
            let problem =
                "must have at most 256 calls in flight together, the default lane included";
            errors.push(SettingsError::new(lanes, problem));
        }
    }

    fn check_budgets(&self, errors: &mut Vec<SettingsError>) {
        let (path, mut names) = (KeyPath::from("money.budgets"), BTreeSet::new());
        if self.budgets.len() > limits::BUDGETS_MAX {
            errors.push(SettingsError::new(path.clone(), "must be at most 64"));
        }
        for budget in &self.budgets {
            if !names.insert(&budget.name) {
                errors.push(SettingsError::new(
                    path.join(&*budget.name),
                    "must stand there once",
                ));
            }
        }
    }

    /// Where jobs without a price are refused, no fallback may be without one.
    fn check_fallbacks(&self, errors: &mut Vec<SettingsError>) {
        if self.unpriced != Unpriced::Refuse {
            return;
        }
        for (model, chain) in &self.glm.fallbacks {
            let no_price = |m: &&String| !self.prices.is_priced(m);
            if let Some(fallback) = chain.iter().find(no_price) {
                let problem = Problem::from(format!(
                    "must not name {fallback}, which has no price, while "
                ))
                .setting(KeyPath::from("money.unpriced"))
                .words(" is \"refuse\"");
                let path = KeyPath::from("glm.fallbacks").join(model.as_str());
                errors.push(SettingsError::new(path, problem));
            }
        }
    }

    /// Every lane with its rules, the default one first, the others by name.
    pub fn all_lanes(&self) -> impl Iterator<Item = (&str, &LaneRules)> {
        let named = self
            .lanes
            .iter()
            .map(|(name, lane)| (name.as_str(), &lane.rules));
        std::iter::once((DEFAULT_LANE, &self.lane.rules)).chain(named)
    }

    /// The lane that a model belongs to.
    #[must_use]
    pub fn lane_of(&self, model: &str) -> &str {
        lane_for(&self.lanes, model).unwrap_or(DEFAULT_LANE)
    }

    /// The rules of a lane; those of the default lane for a name that is not (or no longer) known.
    #[must_use]
    pub fn rules_of(&self, lane: &str) -> &LaneRules {
        self.lanes
            .get(lane)
            .map_or(&self.lane.rules, |lane| &lane.rules)
    }

    /// Calls in flight at most, over all lanes.
    #[must_use]
    pub fn slots(&self) -> u16 {
        u16::try_from(self.sum_of_slots()).unwrap_or(u16::MAX)
    }

    fn sum_of_slots(&self) -> u32 {
        let slots = self
            .all_lanes()
            .map(|(_, rules)| u32::from(rules.max_concurrency));
        slots.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AutoSettings;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(Settings::default().check(), []);
    }

    #[test]
    fn values_that_don_t_go_together_are_named_where_they_stand() {
        let mut settings = Settings::default();
        settings.lane.rules.auto = AutoSettings {
            on: true,
            min: 2,
            ..AutoSettings::default()
        };
        settings.retry.overload.base_ms = settings.retry.overload.max_ms + 1;
        let errors = settings
            .check()
            .iter()
            .map(SettingsError::to_string)
            .collect::<Vec<_>>();
        let expected = [
            "lane.auto_min: must be at least 1 and not above lane.max_concurrency",
            "retry.overload_base_ms: must be at least 1 and not longer than retry.overload_max_ms",
        ];
        assert_eq!(errors, expected);
    }

    #[test]
    fn a_model_that_two_lanes_name_is_refused_with_both() {
        let lane = |models: &[&str]| NamedLane {
            models: models.iter().map(|m| (*m).to_owned()).collect(),
            rules: LaneRules::default(),
        };
        let with = |air: &[&str], old: &[&str]| Settings {
            lanes: [("air", lane(air)), ("old", lane(old))]
                .map(|(name, lane)| (name.to_owned(), lane))
                .into(),
            ..Settings::default()
        };
        let errors = with(&["a", "glm-4*"], &["glm-4*"]).check();
        assert_eq!(
            errors[0].to_string(),
            "lanes.old.models: must not name glm-4*, which lanes.air.models names already; take it \
             out of one of them"
        );
        // The longer one wins: nothing is in doubt.
        assert_eq!(with(&["glm-4.5*"], &["glm-4*"]).check(), []);
    }

    #[test]
    fn a_secret_never_shows() {
        let secret = Secret::new("0123456789abcdef.topsecret");
        assert_eq!(format!("{secret:?}"), "Secret(****)");
        assert_eq!(secret.masked(), "****cret");
        assert_eq!(Secret::new("short").masked(), "****");
    }

    #[test]
    fn a_secret_fits_in_a_header_and_is_never_repeated() {
        assert_eq!(Secret::check("0123456789abcdef.topsecret"), Ok(()));
        for bad in ["", "a b", "a\n", "schlüssel", "****cret"] {
            let problem = Secret::check(bad).unwrap_err().to_string();
            assert!(bad.len() < 2 || !problem.contains(bad), "{problem}");
        }
    }

    #[test]
    fn a_base_url_is_canonical_or_the_problem_says_what_to_write() {
        let good = |text: &str, url: &str| assert_eq!(base_url(text).as_deref(), Ok(url), "{text}");
        good(
            "https://api.z.ai/api/paas/v4/",
            "https://api.z.ai/api/paas/v4",
        );
        good("http://127.0.0.1:8080", "http://127.0.0.1:8080");
        good("HTTP://LocalHost:8080//", "http://localhost:8080");
        let bad = |text: &str, part: &str| {
            let problem = base_url(text).unwrap_err().to_string();
            assert!(problem.contains(part), "{text}: {problem}");
        };
        bad(
            "https://api.z.ai/api/paas/v4/chat/completions/",
            "write https://api.z.ai/api/paas/v4",
        );
        for text in "|api.z.ai|localhost:80|ftp://x/y|https://|http://:80".split('|') {
            bad(text, "must be an http or https URL");
        }
        bad("https://u:p@x/v4", "glm.api_key");
        bad("https://x/v4?a=1", "without `?`");
        bad("https://x/v4#a", "without `?`");
    }
}
