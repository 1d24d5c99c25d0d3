//! `onelane policy`: the meaning of error codes, all in a table or one in words.

use onelane::config::{Loaded, PolicyClass, PolicyRow};
use onelane::model::{BreakerRule, JobRule, LaneRule, Settings, code, limits};
use serde_json::json;

use super::args::PolicyArgs;
use super::exit::{CliError, Exit};
use super::{start, table};

/// Shows the table in force, or one row of it.
pub(crate) fn policy(args: &PolicyArgs, json: bool) -> Result<Exit, CliError> {
    let loaded = start::look(&args.common)?;
    match &args.code {
        None => {
            let rows = loaded.policy();
            super::answer(json, &json!({ "policy": rows }), |_| as_table(&rows))?;
        }
        Some(code) => {
            let row = loaded.policy_of(code).ok_or_else(|| unknown(code))?;
            super::answer(json, &row, |row| in_words(row, &loaded))?;
        }
    }
    Ok(Exit::Done)
}

fn unknown(code: &str) -> CliError {
    CliError::usage(format!("{code:?} is no code of the table")).help(
        "give a code of GLM such as 1305, an HTTP status such as http_503, or one of ours such as \
         timeout_total; `onelane policy` lists them all. What GLM states and the table does not \
         know is judged by its HTTP status",
    )
}

fn as_table(rows: &[PolicyRow]) -> String {
    let name = |name: Option<&'static str>| name.unwrap_or("-").to_owned();
    let head = [
        "CODE", "HTTP", "CLASS", "JOB", "LANE", "BREAKER", "FROM", "MEANING",
    ];
    let lines = rows.iter().map(|row| {
        [
            row.code.clone(),
            row.status_code
                .map_or_else(|| "-".to_owned(), |s| s.to_string()),
            row.class.name().to_owned(),
            name(row.job.map(JobRule::name)),
            name(row.lane.map(LaneRule::name)),
            name(row.breaker.map(BreakerRule::name)),
            from(row),
            row.meaning.clone().unwrap_or_default(),
        ]
    });
    let lines: Vec<_> = lines.collect();
    table::table(head, &lines)
}

fn from(row: &PolicyRow) -> String {
    row.origin.clone().unwrap_or_else(|| "shipped".to_owned())
}

/// Codes of calls that brought nothing and of answers that broke off.
const MAY_HAVE_BEGUN: [&str; 3] = [code::CONNECTION, code::TIMEOUT_IDLE, code::TIMEOUT_TOTAL];

fn in_words(row: &PolicyRow, loaded: &Loaded) -> String {
    let settings = &loaded.settings;
    let meaning = row.meaning.as_deref().unwrap_or("no row of its own");
    let http = row.status_code.map(|status| format!(", HTTP {status}"));
    let class = match row.class {
        PolicyClass::MapByInnerCode => "that of the code inside the body".to_owned(),
        PolicyClass::ByHttpStatus => "that of the HTTP status it comes with".to_owned(),
        PolicyClass::Is(class) => class.name().to_owned(),
    };
    let up_to_class = || "as that class does".to_owned();
    let job = row.job.map(|rule| match rule {
        // Under these stand answers that had begun, too.
        JobRule::Backoff if !row.overridden && MAY_HAVE_BEGUN.contains(&row.code.as_str()) => {
            format!(
                "{}; where an answer had begun, a second time it fails",
                job(rule, row.lane, settings)
            )
        }
        rule => job(rule, row.lane, settings),
    });
    let lane = row.lane.map(|rule| lane(rule, settings));
    let breaker = row.breaker.map(|rule| breaker(rule, settings));
    format!(
        "{}{}: {meaning}\nclass    {class} ({})\njob      {}\nlane     {}\nbreaker  {}",
        row.code,
        http.unwrap_or_default(),
        from(row),
        job.unwrap_or_else(up_to_class),
        lane.unwrap_or_else(up_to_class),
        breaker.unwrap_or_else(up_to_class),
    )
}

fn job(rule: JobRule, lane: Option<LaneRule>, settings: &Settings) -> String {
    let retry = &settings.retry;
    let bounded = format!(
        "uses up a retry (of {}, unless the job says otherwise); without one left it fails",
        retry.max_retries
    );
    match rule {
        JobRule::Keep if lane == Some(LaneRule::CoolDown) => format!(
            "goes back to its place, no retry is used up; after {} such answers it fails",
            retry.max_throttles
        ),
        JobRule::Keep => "goes back to its place, no retry is used up".to_owned(),
        JobRule::Retry => format!("goes back to its place and {bounded}"),
        JobRule::Backoff => format!(
            "waits {} ms, then {} times as long each time, {} ms at most (a longer Retry-After wins), and {bounded}",
            retry.delays.base_delay_ms, retry.delays.backoff_multiplier, retry.delays.max_delay_ms
        ),
        JobRule::Once => format!(
            "waits as for backoff and {bounded}; a second time it fails, since it may have been paid for"
        ),
        JobRule::StepAside => format!(
            "steps aside, no retry is used up, and other jobs go: the same refusal of {} distinct requests without \
             an answer between holds all lanes until an operator acts, an answer fails those that stepped aside; \
             where no other job waits, it backs off and {bounded}",
            limits::REFUSALS_HELD_AT
        ),
        JobRule::Fail => {
            "fails at once and stays to be looked at; it can be retried by hand".to_owned()
        }
    }
}

fn lane(rule: LaneRule, settings: &Settings) -> String {
    let growing = |base: u64, max: u64| {
        format!(
            "for {base} ms, doubling from one such answer to the next, {max} ms at most; ends by itself"
        )
    };
    let by_operator = match settings.lane.operator_probe_ms {
        0 => "ends when the key or the base URL changes, or when an operator resumes the lane"
            .to_owned(),
        ms => format!(
            "ends when the key or the base URL changes, when an operator resumes the lane, or when \
             the one call that tries it every {ms} ms succeeds"
        ),
    };
    match rule {
        LaneRule::GoOn => "goes on with the next job".to_owned(),
        LaneRule::CoolDown => format!(
            "calls nothing {}; a success starts the count afresh",
            growing(
                settings.retry.throttle.base_ms,
                settings.retry.throttle.max_ms
            )
        ),
        LaneRule::HoldModel => format!(
            "calls this model no more {}; other models go on, a fallback may serve",
            growing(
                settings.retry.overload.base_ms,
                settings.retry.overload.max_ms
            )
        ),
        LaneRule::AwaitRoute => format!(
            "nothing is called {}; then one call tries, and one that gets through ends it",
            growing(
                settings.retry.throttle.base_ms,
                settings.retry.throttle.max_ms
            )
        ),
        LaneRule::HoldUntilReset => {
            "all lanes are held until the reset that GLM states; ends by itself".to_owned()
        }
        LaneRule::HoldForOperator => format!("all lanes are held; {by_operator}"),
        LaneRule::HoldModelForOperator => {
            format!("this model is held, others go on; {by_operator}")
        }
        LaneRule::HoldIfAgain => {
            format!(
                "goes on; all lanes are held if it happens again before an answer; {by_operator}"
            )
        }
    }
}

fn breaker(rule: BreakerRule, settings: &Settings) -> String {
    let breaker = &settings.breaker;
    match rule {
        BreakerRule::Ignore => "hears nothing of it".to_owned(),
        BreakerRule::Count => format!(
            "counts a failure; {} in a row open it: no call for {} ms, then one that probes",
            breaker.consecutive_failures, breaker.cool_down_ms
        ),
        BreakerRule::Open => format!(
            "opens at once: no call for {} ms, then one that probes",
            breaker.cool_down_ms
        ),
    }
}
