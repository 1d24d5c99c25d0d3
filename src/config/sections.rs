//! The configuration as a value: the sections of `config.toml`. What the lane is told has its sections in
//! `onelane_core::model`; those of the rest of the program are here.

use std::collections::BTreeMap;

use onelane_core::model::setting::{
    self, KeyPath, Place, Problem, Secrets, Setting as _, SettingsError,
};
use onelane_core::model::{
    AlertSettings, Amount, BatchSettings, BreakerSettings, Budget, BudgetRules, BudgetScope,
    Calendar, Cost, Currency, DoubtSettings, GatewaySettings, GlmSettings, LaneSettings, NamedLane,
    Nanos, PolicyOverride, Retention, RetrySettings, Secret, Unpriced, limits,
};
use onelane_core::{section, words};
use serde::{Deserialize, Serialize, Serializer};

use super::policy;
use super::prices::{self, ModelPrice, PriceList};
use super::text;
use crate::otlp::OtlpSection;
use crate::webhooks::WebhookSettings;

section! {
    /// Everything that can be configured. Its TOML form shows secrets masked.
    pub struct Config checked by Self::goes_together {
        /// GLM: where calls go, with which key, and what they ask for.
        glm: GlmSettings = GlmSettings::default() => [at_top()];
        /// The lane to GLM for every model that no lane of its own takes, and what all lanes have in common.
        lane: LaneSettings = LaneSettings::default() => [at_top()];
        /// Lanes of their own: GLM counts per account and model, so models need not wait for each other. Every
        /// other model goes through [lane]. What a lane does not say is as built in, not as [lane] says; timeouts,
        /// retries, breaker and the other settings of [lane] are the same for all. At most 256 calls in all lanes.
        lanes: BTreeMap<String, NamedLane> = BTreeMap::new() => [names(text::lane_name).sample("big")];
        /// How transient failures are retried, and how long throttle and overload answers delay.
        retry: RetrySettings = RetrySettings::default();
        /// The circuit breaker: when it opens, so that no call is made and jobs wait, and when it tries again.
        breaker: BreakerSettings = BreakerSettings::default();
        /// What a code of GLM, or one such as http_503 or timeout_total, means, where the shipped table is wrong for
        /// you; `onelane policy` shows the table in force. Under a code stands a class, with all that belongs to
        /// it, as in 1234 = "overload", or a table with any of the settings of an entry.
        policy: BTreeMap<String, PolicyOverride> = BTreeMap::new() => [
            names(text::policy_code).short_entries().sample("http_503")
        ];
        /// What calls cost, and what they may cost.
        money: MoneySection = MoneySection::default() => [at_top()];
        /// What GLM itself counts of the account: the quota of a plan, the balance, tokens by day and model. Undocumented
        /// there, asked beside the lane, free of charge.
        account: AccountSection = AccountSection::default();
        /// The file that everything is in.
        store: StoreSection = StoreSection::default() => [at_top()];
        /// The HTTP API.
        server: ServerSection = ServerSection::default() => [fixed()];
        /// The gateway: clients of OpenAI's and GLM's kind that wait for an answer on their connection.
        gateway: GatewaySettings = GatewaySettings::default();
        /// What is bad enough to tell an operator. Each rule raises an alert at one level and clears it at a lower
        /// one, and either only after it was so for a while; what changes is an event, a log line and a webhook.
        alerts: AlertSettings = AlertSettings::default();
        /// Facts told over HTTP as standardwebhooks.com says: signed, repeated until they arrive, with the same
        /// webhook-id each time.
        webhooks: WebhookSettings = WebhookSettings::default() => [fixed()];
        /// Log lines.
        log: LogSection = LogSection::default() => [fixed()];
        /// Traces and logs for OpenTelemetry's collector. Needs a build with the feature otlp.
        otlp: OtlpSection = OtlpSection::default() => [fixed()];
    }
}

/// Secrets are masked.
impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.write(Secrets::Masked).serialize(serializer)
    }
}

impl Config {
    fn goes_together(&self, _: &Place, errors: &mut Vec<SettingsError>) {
        let words = policy::in_force(&self.policy);
        if let Err((code, problem)) = policy::refuse_endless(&self.policy, &words) {
            errors.push(SettingsError::new(
                KeyPath::from("policy").join(code),
                problem,
            ));
        }
    }
}

section! {
    /// `[money]`: what calls cost, and what they may cost.
    #[derive(Eq)]
    pub struct MoneySection {
        /// GLM's price list: "cny" of bigmodel.cn, "usd" of z.ai, "points" of a Coding Plan, "auto" by base_url; one
        /// of neither site is taken as bigmodel.cn's, and the log says so at the start. `onelane prices` shows it.
        price_list: PriceList = PriceList::Auto;
        /// Prices of your own, per million tokens, as text so that they stay exact. They replace all shipped rows of
        /// the model. More rows with prompt_from or completion_from (in tokens) are tiers.
        prices: Vec<ModelPrice> = Vec::new() => [rows(prices::check_rows)];
        /// The zone whose days and months count for statistics and budgets: "UTC", "+08:00" or "Asia/Shanghai".
        zone: Calendar = Calendar::default();
        /// What calls may cost. The worst that a call may come to is reserved before it is made; what does not fit
        /// waits for the next period, and the lane goes on for others.
        budgets: BTreeMap<String, BudgetSection> = BTreeMap::new() => [names(setting::named).sample("everybody")];
        /// What budgets keep for calls in doubt.
        in_doubt: DoubtSettings = DoubtSettings::default() => [flat("")];
        /// A job for a model without a price: "allow" takes it and flags its cost as unknown, "refuse" does not take
        /// it. Models are known by their names, in any case.
        unpriced: Unpriced = Unpriced::Allow;
    }
}

section! {
    /// `[money.budgets.NAME]`: what calls may cost in a day or a month.
    #[derive(Eq)]
    pub struct BudgetSection checked by Self::goes_together {
        /// Its rules.
        rules: BudgetRules = BudgetRules::default() => [flat("")];
        /// Whose calls: a user, "*" for each one's own, not set for all together.
        user: Option<String> = None => [text(text::whose).sample("\"*\"")];
        /// Calls to which model: one, "*" for each, not set for all together.
        model: Option<String> = None => [text(text::model).sample("\"glm-5\"")];
        /// The limit, as text so that it stays exact, in money of the price list in force or in currency.
        amount: Option<String> = None => [text(text::amount).sample("\"12.50\"")];
        /// What the amount is in, whichever price list is in force. Calls that are charged in something else are
        /// not counted, nor are calls to models without a price (unpriced = "refuse" keeps those out).
        currency: Option<Currency> = None => [sample("\"CNY\"")];
        /// The limit in tokens, instead of an amount.
        tokens: Option<u64> = None => [within(1..=i64::MAX as u64).sample("1000000")];
    }
}

impl AccountSection {
    /// The balance that is low in any case.
    pub(crate) fn balance_floor(&self) -> Option<Nanos> {
        text::nanos(self.low_balance.as_deref()?).ok()
    }
}

impl BudgetSection {
    fn goes_together(&self, place: &Place, errors: &mut Vec<SettingsError>) {
        match (&self.amount, self.tokens) {
            (None, Some(_)) if self.currency.is_some() => {
                let problem = Problem::from("goes with ").setting(place.at("amount"));
                let problem = problem.words(", and tokens is there");
                errors.push(SettingsError::new(place.at("currency"), problem));
            }
            (Some(_), None) | (None, Some(_)) => {}
            _ => errors.push(SettingsError::new(
                place.at("amount"),
                "must be there, or tokens instead; not both",
            )),
        }
    }

    /// The budget, in money of `currency` where it says neither tokens nor a currency of its own; `None` if it
    /// was not checked and has no limit.
    pub(crate) fn budget(&self, name: &str, currency: Currency) -> Option<Budget> {
        let whose = |name: Option<&String>| match name.map(String::as_str) {
            None => BudgetScope::All,
            Some("*") => BudgetScope::Each,
            Some(name) => BudgetScope::One(name.to_owned()),
        };
        let limit = match (&self.amount, self.tokens) {
            (Some(amount), _) => Amount::Money(Cost {
                nanos: text::nanos(amount).ok()?,
                currency: self.currency.unwrap_or(currency),
            }),
            (None, tokens) => Amount::Tokens(tokens?),
        };
        Some(Budget {
            key: None,
            name: name.to_owned(),
            users: whose(self.user.as_ref()),
            models: whose(self.model.as_ref()),
            limit,
            rules: self.rules,
        })
    }
}

section! {
    /// `[account]`: what GLM itself counts of the account.
    #[derive(Eq)]
    pub struct AccountSection {
        /// true asks GLM how quota and balance stand: they are shown, watched by the alerts "quota" and "balance", and a
        /// quota that is used up without a word of when it opens is held until its meter says. Needs a base URL at
        /// GLM's own host, or at one that passes such questions on.
        enabled: bool = false;
        /// How often it is asked.
        every_ms: u64 = 300_000 => [within(1_000..=limits::DAY_MS)];
        /// How long an answer may take.
        timeout_ms: u64 = 10_000 => [within(1..=600_000)];
        /// The alert "balance" is raised at this balance in any case, in its own currency.
        low_balance: Option<String> = None => [text(text::amount).sample("\"10\"")];
    }
}

section! {
    /// `[store]`: the file that everything is in.
    #[derive(Eq)]
    pub struct StoreSection {
        /// The file that every job is in. One process owns it.
        path: String = "onelane.redb".to_owned() => [fixed()];
        /// Memory for pages of the file.
        cache_bytes: usize = 16 * 1024 * 1024 => [within(1 << 20..=1 << 40).fixed()];
        /// How long what has ended is kept. Pruned in small steps while the lane works. What waits, runs, or may
        /// have been billed without anybody knowing is never pruned, nor are the sums of /statistics; nor is a
        /// job, with request and response, of which a webhook is still to be told. What ended in the last ten
        /// minutes is not pruned for being too many.
        retention: Retention = Retention::default();
    }
}

section! {
    /// `[server]`: the HTTP API.
    #[derive(Eq)]
    pub struct ServerSection {
        /// IP address and port of the HTTP API; "none" where a socket is enough. Any address other than loopback needs
        /// an admin token.
        listen: String = "127.0.0.1:4700".to_owned() => [text(text::listen)];
        /// The path of a Unix socket that the API listens on, too. Who comes over it counts as a program of this machine,
        /// as who comes over loopback does.
        socket: Option<String> = None => [sample("\"/run/onelane/onelane.sock\"")];
        /// Whom the system lets connect to the socket: its mode in octal digits.
        socket_mode: String = "0600".to_owned() => [text(text::mode)];
        /// The token that every request must bear. Better in ONELANE_ADMIN_TOKEN.
        admin_token: Option<Secret> = None => [sample("\"a-long-random-text\"")];
        /// A file that holds the token that every request must bear.
        admin_token_file: Option<String> = None => [sample("\"admin.token\"")];
        /// A token that sees everything but whole prompts and answers, and changes nothing.
        viewer_token: Option<Secret> = None => [sample("\"another-long-random-text\"")];
        /// A file that holds the viewer's token.
        viewer_token_file: Option<String> = None => [sample("\"viewer.token\"")];
        /// Larger bodies are refused with 413.
        max_body_bytes: usize = limits::REQUEST_BYTES_MAX => [within(1024..=1 << 30)];
        /// Bytes of request bodies in memory at once; requests beyond are refused with 503.
        body_memory_bytes: usize = 48 * 1024 * 1024 => [within(1024..=1 << 40)];
        /// Connections at once. When there are more, the one makes way that has waited longest without a whole request, a
        /// second at least; until then, or if all have one, 64 more are taken, for operators and health checks alone.
        /// Others are refused there with 503, and whoever comes then waits for a place.
        connections_max: usize = 1_024 => [within(1..=65_536)];
        /// Requests for work in progress at once, those that wait and streams to their end included; others are refused
        /// with 503. Operators' requests and health checks don't count.
        requests_max: usize = 1_000 => [within(1..=65_536)];
        /// Characters of prompts and responses in lists; 0 hides them. A single job is shown whole.
        preview_chars: usize = 200 => [within(0..=100_000)];
        /// A file in PEM with the certificate of this API, and those above it: with it the API speaks TLS alone. Read
        /// anew when it changes; one that can't be used is told in the log, and the one in force stays.
        tls_cert: Option<String> = None => [sample("\"fullchain.pem\"")];
        /// A file in PEM with the private key of that certificate. It goes with it, and is read anew with it.
        tls_key: Option<String> = None => [sample("\"key.pem\"")];
        /// Origins whose web pages may use the API from a browser, such as "https://app.example.com"; "*" for every page,
        /// where a token keeps the others out. None by default.
        cors_origins: Vec<String> = Vec::new() => [
            text(text::origin).sample("[\"https://app.example.com\"]")
        ];
        /// A client that takes longer for its headers, a TLS handshake or its next request is dropped.
        header_timeout_ms: u64 = 10_000 => [within(1..=limits::DAY_MS)];
        /// A client that pauses for longer in the middle of its body is refused with 408.
        body_idle_timeout_ms: u64 = 10_000 => [within(1..=limits::DAY_MS)];
        /// A client that takes longer to send its whole body is refused with 408.
        body_timeout_ms: u64 = 60_000 => [within(1..=limits::DAY_MS)];
        /// A client that takes longer for the next 256 KiB of its answer is dropped.
        write_timeout_ms: u64 = 30_000 => [within(1..=limits::DAY_MS)];
        /// Batches over HTTP, and the files that they are made of.
        batches: BatchSettings = BatchSettings::default();
        /// How long a shutdown waits for open calls before it closes them.
        shutdown_deadline_ms: u64 = 30_000 => [within(0..=limits::DAY_MS)];
    }
}

section! {
    /// `[log]`: what is logged and how.
    #[derive(Eq)]
    pub struct LogSection {
        /// A level (error, warn, info, debug, trace, off) or directives such as "info,onelane=debug".
        filter: String = "info".to_owned() => [text(text::log_filter)];
        /// "text" for people, "json" for machines.
        format: LogFormat = LogFormat::Text;
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

words! {
    LogFormat { Text, Json }
    PriceList { Auto, Cny, Usd, Points }
}
