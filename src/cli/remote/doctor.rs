//! `onelane doctor`: what an operator would look at first, each with what to do about it.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use onelane::config::{Loaded, Origin};
use onelane::model::GlmSettings;
use onelane::store::StoreOptions;
use serde::Deserialize;

use super::account::{Account, AccountAnswer};
use super::client::{Daemon, Query};
use super::findings::{Findings, tell};
use super::nouns::{About, Budgets, Metrics};
use super::owner::{Owner, owner};
use super::status::stops;
use super::words::{now, seconds, span};
use crate::cli::args::DoctorArgs;
use crate::cli::args::remote::Target;
use crate::cli::exit::{CliError, Exit};
use crate::cli::start;

/// How long GLM may take to say which models there are.
const GLM_WITHIN: Duration = Duration::from_secs(15);
/// A clock that is so far from GLM's makes resets and days wrong.
const CLOCK_OFF_MAX: Duration = Duration::from_secs(30);
/// A device that takes so long for a commit holds up short calls.
const SYNC_SLOW: Duration = Duration::from_millis(50);
/// Less room is worth a warning: a compaction, a rescued copy and some days of jobs need it.
const FREE_MIN: u64 = 1024 * 1024 * 1024;
/// The share of a quota of which little is left.
const QUOTA_LOW_E4: u64 = 9_000;
/// Syncs of which the middle one counts.
const SYNCS: usize = 5;

/// Looks at everything. Ends with the code of the first failure: 2 configuration, 3 store, 4 an operator has to act.
pub(crate) async fn doctor(
    args: &DoctorArgs,
    target: &Target,
    json: bool,
) -> Result<Exit, CliError> {
    let mut findings = Findings::default();
    match start::configuration(&args.common) {
        Err(error) => findings.fail("config", error),
        Ok((loaded, simulator)) => {
            config(&loaded, &mut findings);
            let path = loaded.config.store.path.clone();
            let daemon = match target.is_named() {
                true => Daemon::of(target).map(|daemon| Owner::Daemon(Box::new(daemon))),
                false => owner(&path, target).await,
            };
            let stored = match &daemon {
                Ok(Owner::Daemon(_)) => Ok(loaded.clone()),
                _ => start::stored(loaded.clone()),
            };
            let known = stored.unwrap_or_else(|_| loaded.clone());
            glm(&known, &mut findings).await;
            store(&path, &daemon, &mut findings);
            match daemon {
                Ok(Owner::Daemon(daemon)) => running(&daemon, &mut findings).await,
                Ok(Owner::Nobody) => findings.ok("daemon", "none runs on this store"),
                Ok(Owner::Gone(error)) => {
                    findings.warn(
                        "daemon",
                        error.message,
                        error.help.as_deref().unwrap_or_default(),
                    );
                }
                Err(error) => findings.fail("daemon", error),
            }
            drop(simulator);
        }
    }
    tell(findings, json)
}

fn config(loaded: &Loaded, findings: &mut Findings) {
    let files = loaded.files();
    let mut variables = Vec::new();
    for setting in loaded.explain() {
        if let Origin::Env(name) = setting.origin
            && !variables.contains(&name.to_string())
        {
            variables.push(name.to_string());
        }
    }
    let told: Vec<String> = files.into_iter().chain(variables).collect();
    findings.ok(
        "config",
        match told.is_empty() {
            true => "defaults alone".to_owned(),
            false => told.join(", "),
        },
    );
    for warning in &loaded.warnings {
        findings.warn(
            "config",
            warning.to_string(),
            "`onelane config show` tells where each value comes from",
        );
    }
}

#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
}

async fn glm(loaded: &Loaded, findings: &mut Findings) {
    let settings = &loaded.settings.glm;
    if let Err(error) = loaded.config.check_key() {
        findings.fail("key", CliError::usage(error.to_string()));
        return;
    }
    let Some(key) = &loaded.config.glm.api_key else {
        return;
    };
    let origin = loaded.origin("glm.api_key");
    findings.ok("key", format!("{}, {origin}", key.masked()));
    let url = &settings.base_url;
    let client = match loaded.route() {
        Ok(route) => route
            .on(reqwest::Client::builder().timeout(GLM_WITHIN))
            .and_then(|client| Ok(client.build()?)),
        Err(error) => {
            findings.fail("glm", CliError::usage(error.to_string()));
            return;
        }
    };
    let Ok(client) = client else {
        findings.fail(
            "glm",
            CliError::usage("the HTTP client can't be built")
                .help("check glm.ca_file and glm.proxy"),
        );
        return;
    };
    let began = Instant::now();
    let asked = client
        .get(format!("{}/models", url.trim_end_matches('/')))
        .bearer_auth(key.expose())
        .send()
        .await;
    let answer = match asked {
        Ok(answer) => answer,
        Err(error) => {
            let why = if error.is_timeout() {
                "no answer in time"
            } else {
                "no connection"
            };
            let error = CliError::new(Exit::Held, format!("{url} can't be reached: {why}"))
                .help("check the network, glm.base_url and glm.proxy");
            findings.fail("glm", error);
            return;
        }
    };
    let took = seconds(began.elapsed().as_millis() as f64);
    let date = answer
        .headers()
        .get("date")
        .and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
    let status = answer.status().as_u16();
    let models = answer.text().await.ok();
    let models: Option<Models> = models.and_then(|text| serde_json::from_str(&text).ok());
    match (status, models) {
        (200..=299, Some(models)) => {
            let entitled = onelane::words::counted(models.data.len() as u64, "model", "models");
            findings.ok("glm", format!("{url} answers in {took}; lists {entitled}"));
            let known = |model: &str| {
                models
                    .data
                    .iter()
                    .any(|known| known.id.eq_ignore_ascii_case(model))
            };
            for (model, what) in named(settings) {
                if !known(model) {
                    let text = format!("{model}{what} is not in GLM's list");
                    findings.warn(
                        "model",
                        text,
                        "free and vision models are missing there and answer; others are held (1220)",
                    );
                }
            }
        }
        (401 | 403, _) => {
            let error = CliError::new(
                Exit::Held,
                format!("{url} does not take the key ({status})"),
            )
            .help("set another one: ZAI_API_KEY, ONELANE_API_KEY or glm.api_key_file");
            findings.fail("glm", error);
        }
        (500.., _) => findings.warn(
            "glm",
            format!("{url} answers {status} in {took}"),
            "the lane retries; look again later",
        ),
        _ => findings.ok(
            "glm",
            format!("{url} answers in {took}; it lists no models"),
        ),
    }
    if let Some(date) = date {
        clock(date, findings);
    }
}

/// The models that the configuration names, each once, with what it is named for.
fn named(settings: &GlmSettings) -> Vec<(&str, &'static str)> {
    let fallbacks = settings.fallbacks.values().flatten();
    let fallbacks = fallbacks.map(|model| (model.as_str(), ", of glm.fallbacks,"));
    let mut named: Vec<(&str, &str)> = Vec::new();
    for (model, what) in std::iter::once((settings.model.as_str(), "")).chain(fallbacks) {
        if named.iter().all(|(known, _)| *known != model) {
            named.push((model, what));
        }
    }
    named
}

/// The date of an answer has whole seconds.
fn clock(theirs: SystemTime, findings: &mut Findings) {
    let theirs = theirs.duration_since(SystemTime::UNIX_EPOCH);
    let theirs = theirs.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    });
    let off = Duration::from_millis(now().as_millis().abs_diff(theirs));
    match off > CLOCK_OFF_MAX {
        true => findings.warn(
            "clock",
            format!("{} from GLM's", span(off.as_millis() as u64)),
            "set this machine's clock: resets, budgets and days go by it",
        ),
        false => findings.ok(
            "clock",
            format!(
                "within {} of GLM's",
                span(off.as_millis().max(1_000) as u64)
            ),
        ),
    }
}

fn store(path: &str, daemon: &Result<Owner, CliError>, findings: &mut Findings) {
    let file = Path::new(path);
    let size = match std::fs::metadata(file) {
        Ok(found) => format!("{} KB", found.len() / 1024),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "not there yet".to_owned(),
        Err(error) => {
            let error = CliError::new(Exit::Store, format!("{path} can't be looked at: {error}"))
                .help("check the path and its permissions, or name another store with --store");
            findings.fail("store", error);
            return;
        }
    };
    let is_open = matches!(daemon, Ok(Owner::Daemon(_)));
    if file.exists()
        && !is_open
        && let Err(error) = onelane::store::RedbStore::open_to_look(file, StoreOptions::default())
    {
        findings.fail("store", error.into());
        return;
    }
    let directory = file
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    room(directory, findings);
    match sync_time(directory) {
        Ok(took) => {
            let told = format!(
                "{path}, {size}, a sync takes {:.2} ms",
                took.as_secs_f64() * 1_000.0
            );
            match took > SYNC_SLOW {
                true => findings.warn(
                    "store",
                    told,
                    "every job waits for such syncs: put the store on a faster local disk",
                ),
                false => findings.ok("store", told),
            }
        }
        Err(error) => {
            let error = CliError::new(
                Exit::Store,
                format!("beside {path} nothing can be written: {error}"),
            )
            .help("free some space, check permissions, or name another store with --store");
            findings.fail("store", error);
        }
    }
}

/// How much room the device of the store has. A full one stops the lane until there is some.
fn room(directory: &Path, findings: &mut Findings) {
    let Some(free) = free_bytes(directory) else {
        return;
    };
    let told = format!("{} MB free beside the store", free / (1024 * 1024));
    match free < FREE_MIN {
        true => findings.warn(
            "disk",
            told,
            "free some, or let [retention] remove what is over: a full disk stops the lane",
        ),
        false => findings.ok("disk", told),
    }
}

/// The bytes that this user may still write there; `None`: the system does not say.
#[cfg(unix)]
fn free_bytes(directory: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(directory).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

#[cfg(not(unix))]
const fn free_bytes(_: &Path) -> Option<u64> {
    None
}

/// How long the device takes to make a page durable.
fn sync_time(directory: &Path) -> std::io::Result<Duration> {
    let path = directory.join(format!(".onelane-doctor-{}", std::process::id()));
    let timed = || {
        let mut file = std::fs::File::options()
            .write(true)
            .create_new(true)
            .open(&path)?;
        let mut took = Vec::new();
        for _ in 0..SYNCS {
            let began = Instant::now();
            file.write_all(&[0; 4096])?;
            file.sync_data()?;
            took.push(began.elapsed());
        }
        took.sort();
        Ok(took.get(SYNCS / 2).copied().unwrap_or_default())
    };
    let took = timed();
    let _ = std::fs::remove_file(&path);
    took
}

/// What GLM told the daemon of the account.
fn quota(account: &Account, findings: &mut Findings) {
    if !account.enabled {
        findings.ok("quota", "GLM is not asked (account.enabled)");
        return;
    }
    for problem in account.problems() {
        let help = "check glm.base_url; account.enabled = false asks no more";
        findings.warn("quota", problem.clone(), help);
    }
    let mut has_any = false;
    for (used, window) in account.windows(now()) {
        has_any = true;
        match used >= QUOTA_LOW_E4 {
            true => findings.warn("quota", window, "calls are held when it is used up"),
            false => findings.ok("quota", window),
        }
    }
    if let Some(left) = account.balance() {
        findings.ok("balance", left);
    } else if !has_any && account.problems().is_empty() {
        findings.ok("quota", "GLM tells none of this account");
    }
}

async fn running(daemon: &Daemon, findings: &mut Findings) {
    let about = match daemon
        .about()
        .await
        .and_then(|answer| answer.read::<About>())
    {
        Ok(about) => about,
        Err(error) => {
            findings.fail("daemon", error);
            return;
        }
    };
    let (url, version) = (daemon.url(), &about.version);
    match version == env!("CARGO_PKG_VERSION") {
        true => findings.ok("daemon", format!("{url}, version {version}")),
        false => findings.warn(
            "daemon",
            format!(
                "{url} is version {version}, this is {}",
                env!("CARGO_PKG_VERSION")
            ),
            "start it anew with this version, or use the onelane of that one",
        ),
    }
    let none = Query::default();
    let metrics = daemon.get("/api/admin/glm/metrics", &none).await;
    match metrics.and_then(|answer| answer.read::<Metrics>()) {
        Ok(metrics) => {
            let stops = stops(&metrics.lane, now());
            let needs_operator = metrics
                .lane
                .holds
                .iter()
                .any(|hold| hold.kind == "operator");
            match stops.first() {
                None => findings.ok("lane", "goes on"),
                Some(first) if needs_operator => {
                    let error = CliError::new(Exit::Held, first.clone());
                    findings.fail(
                        "lane",
                        error.help(
                            "`onelane holds ls` tells more; `onelane lane resume` tries again",
                        ),
                    );
                }
                Some(first) => findings.warn("lane", first.clone(), "`onelane status` tells more"),
            }
            if metrics.maybe_billed > 0 {
                let told = format!("{} calls may have been billed", metrics.maybe_billed);
                findings.warn("books", told, "see GET /api/admin/glm/maybe-billed");
            }
        }
        Err(error) => findings.fail("lane", error),
    }
    let account = daemon.get("/api/admin/glm/account", &none).await;
    if let Ok(AccountAnswer { account }) = account.and_then(|answer| answer.read()) {
        quota(&account, findings);
    }
    let budgets = daemon.get("/api/admin/glm/budgets", &none).await;
    if let Ok(Budgets { budgets, .. }) = budgets.and_then(|answer| answer.read()) {
        for budget in budgets.iter().filter(|budget| budget.short) {
            let told = format!(
                "{}: {} of {} spent",
                budget.budget,
                budget.spent.text(),
                budget.limit.text()
            );
            findings.warn("budget", told, "`onelane budget set` raises it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_that_the_configuration_names_is_looked_for_once() {
        let mut settings = GlmSettings::default();
        let chain = ["glm-5", "glm-4.7", "glm-5"].map(str::to_owned).to_vec();
        settings.model = "glm-4.7".to_owned();
        settings.fallbacks = [("glm-4.7".to_owned(), chain)].into_iter().collect();
        let named = named(&settings);
        assert_eq!(named, [("glm-4.7", ""), ("glm-5", ", of glm.fallbacks,")]);
    }
}
