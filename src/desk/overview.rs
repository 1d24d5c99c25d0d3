//! The overview: what is going on. Its first line answers; below it stand reasons, then lists.

use askama::Template;
use onelane_actors::ports::{JobFilter, JobRecord};
use onelane_core::model::{
    Alert, BudgetKey, BudgetStatus, CallOutcome, CallRecord, Job, JobStatus, QuotaWindow,
    Timestamp, WaitReason,
};
use onelane_core::scheduler::LaneSnapshot;

use super::asked::{Answered, Asked};
use super::budgets::Nearest;
use super::frame::{Frame, Nav};
use super::headline::{Headline, Open, Tone, tone};
use super::recent::{Recent, waited};
use super::show::{When, duration, money, number, percent, short};
use super::terms::Terms;
use super::words::{Lang, Words, fill};
use super::{alarm, meaning, reasons};

/// Jobs that stand below "next".
const NEXT: usize = 5;
/// Calls that stand below "latest".
const LATEST: usize = 10;
/// Windows of the account's quota that are shown.
const WINDOWS: usize = 8;
/// Budgets that are shown.
const BUDGETS: usize = 12;
/// Running calls that are shown.
const RUNNING: usize = 16;

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    line: Headline,
    maybe_billed: Option<String>,
    waiting: String,
    oldest: Option<String>,
    figures: Figures,
    lanes: Vec<LaneRow>,
    running: Vec<RunningRow>,
    next: Vec<NextRow>,
    reasons: Vec<ReasonRow>,
    priorities: Vec<ReasonRow>,
    alerts: Vec<AlertRow>,
    budgets: Vec<BudgetRow>,
    t: &'static Terms,
    quota: Vec<QuotaRow>,
    balance: Option<String>,
    calls: Vec<CallRow>,
    concurrency: u16,
}

struct Figures {
    waits: Option<Waits>,
    calls: String,
    failed: Option<String>,
    answer: Option<String>,
    first_token: Option<String>,
    spent: Vec<String>,
    unpriced: Option<String>,
    cached: Option<String>,
}

struct Waits {
    p50: String,
    p90: String,
    p99: String,
}

struct LaneRow {
    name: String,
    open: usize,
    limit: u16,
    staged: usize,
    tone: &'static str,
    state: String,
    why: Option<String>,
}

struct RunningRow {
    id: String,
    short: String,
    user: String,
    model: String,
    since_ms: i64,
    elapsed: String,
    first_token: Option<String>,
    tokens: Option<String>,
}

struct NextRow {
    id: String,
    short: String,
    user: String,
    model: String,
    priority: i32,
    why: Option<String>,
}

struct ReasonRow {
    name: String,
    count: String,
}

struct AlertRow {
    message: String,
    since: When,
}

pub(super) struct BudgetRow {
    pub(super) name: String,
    pub(super) spent: String,
    pub(super) limit: String,
    pub(super) per_mille: u64,
    pub(super) tone: &'static str,
    pub(super) until: When,
}

/// A window of the account's quota.
struct QuotaRow {
    name: String,
    used: String,
    per_mille: u64,
    tone: &'static str,
    anew: Option<When>,
}

struct CallRow {
    when: When,
    id: String,
    short: String,
    user: String,
    model: String,
    tone: &'static str,
    outcome: String,
    says: Option<String>,
    waited: Option<String>,
    answer: String,
    tokens: Option<String>,
    cost: Option<String>,
}

/// `GET /`.
pub(super) async fn page(asked: Asked) -> Answered {
    let (lane, now, w) = (asked.lane(), asked.visit.now(), asked.words());
    let lang = asked.look.lang;
    let metrics = lane.metrics().await?;
    let recent = asked.desk.latest.of(&asked.visit).await?;
    let filter = JobFilter {
        status: Some(JobStatus::Processing),
        ..JobFilter::default()
    };
    let running = lane.jobs(filter, None, RUNNING).await?.jobs;
    let next = lane
        .jobs_in_service_order(JobFilter::default(), NEXT)
        .await?
        .jobs;
    let jobs: Vec<&Job> = next.iter().map(|record| &record.job).collect();
    let reasons = lane.wait_reasons(jobs).await;
    let budgets = Nearest::of(&asked, BUDGETS).await?.rows;
    let open = Open {
        calls: metrics.lane.in_flight,
        since: running.iter().filter_map(|r| Some(r.job.open?.at)).min(),
    };
    let snapshot = &metrics.lane;
    let oldest = snapshot.oldest_ready.map(|at| duration(now.since(at), w));
    let counts = snapshot.wait_counts.iter().filter(|(_, count)| **count > 0);
    let mut counts: Vec<(&str, u64)> = counts.map(|(name, count)| (*name, *count)).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let account = lane.account();
    let windows = account.quota.map(|quota| quota.windows).unwrap_or_default();
    let page = Overview {
        t: Terms::of(lang),
        quota: windows
            .iter()
            .take(WINDOWS)
            .map(|window| QuotaRow::of(window, now, w))
            .collect(),
        balance: account.balance.map(|balance| money(balance.available)),
        frame: asked.frame(Nav::Overview).await?,
        line: Headline::of(snapshot, metrics.jobs.pending, open, now, (lang, w)),
        maybe_billed: (metrics.maybe_billed > 0)
            .then(|| fill(w.maybe_billed, &[&number(metrics.maybe_billed)])),
        waiting: number(metrics.jobs.pending),
        oldest: oldest.map(|oldest| fill(w.oldest, &[&oldest])),
        figures: Figures::of(&recent, w),
        lanes: snapshot
            .lanes
            .iter()
            .map(|lane| LaneRow::of(lane, now, (lang, w)))
            .collect(),
        running: running
            .iter()
            .map(|record| RunningRow::of(&asked, record, now))
            .collect(),
        next: next
            .iter()
            .map(|record| NextRow::of(record, reasons.get(&record.job.id), now, lang))
            .collect(),
        reasons: counts
            .into_iter()
            .map(|(name, count)| ReasonRow {
                name: reasons::name(name, lang).to_owned(),
                count: number(count),
            })
            .collect(),
        priorities: snapshot
            .priorities
            .iter()
            .map(|at| ReasonRow {
                name: at.priority.to_string(),
                count: number(at.jobs),
            })
            .collect(),
        alerts: lane
            .alerts()
            .active
            .iter()
            .map(|alert| AlertRow::of(alert, now, (lang, w)))
            .collect(),
        budgets: budgets
            .iter()
            .map(|status| BudgetRow::of(status, now, w))
            .collect(),
        calls: metrics
            .recent_calls
            .iter()
            .take(LATEST)
            .map(|call| CallRow::of(call, now, w))
            .collect(),
        concurrency: lane.settings().lane.rules.max_concurrency,
    };
    asked.page(&page)
}

impl Figures {
    fn of(recent: &Recent, w: &Words) -> Self {
        let more = if recent.are_more { "+" } else { "" };
        Self {
            waits: recent.waits.map(|spread| Waits {
                p50: duration(spread.p50, w),
                p90: duration(spread.p90, w),
                p99: duration(spread.p99, w),
            }),
            calls: format!("{}{more}", number(recent.calls as u64)),
            failed: recent
                .failed
                .map(|share| fill(w.failed_share, &[&percent(share)])),
            answer: recent
                .answers
                .map(|spread| fill(w.response_time, &[&duration(spread.p50, w)])),
            first_token: recent
                .first_tokens
                .map(|spread| fill(w.first_token_after, &[&duration(spread.p50, w)])),
            spent: recent.spent.iter().map(|cost| money(*cost)).collect(),
            cached: recent
                .cached_e4
                .map(|share| fill(w.cached, &[&percent(share as f64 / 10_000.0)])),
            unpriced: (recent.unpriced > 0).then(|| fill(w.unpriced, &[&number(recent.unpriced)])),
        }
    }
}

impl LaneRow {
    fn of(lane: &LaneSnapshot, now: Timestamp, (lang, w): (Lang, &Words)) -> Self {
        let reason = lane.wait_reason.as_ref();
        Self {
            name: lane.name.clone(),
            open: lane.in_flight,
            limit: lane.limit,
            staged: lane.staged,
            tone: reason.map_or(Tone::Ok, tone).class(),
            state: reason.map_or(w.flows.to_owned(), |reason| {
                reasons::name(reason.name(), lang).to_owned()
            }),
            why: reason.map(|reason| reasons::sentence(reason, now, lang)),
        }
    }
}

impl RunningRow {
    fn of(asked: &Asked, record: &JobRecord, now: Timestamp) -> Self {
        let job = &record.job;
        let since = job.open.map_or(now, |open| open.at);
        let so_far = asked.lane().so_far(job.id);
        let first_token = so_far.and_then(|so_far| so_far.first_token_ms);
        Self {
            id: job.id.to_string(),
            short: short(job.id),
            user: job.user_id.clone(),
            model: job.sent_to().to_owned(),
            since_ms: since.as_millis(),
            elapsed: duration(now.since(since), asked.words()),
            first_token: first_token.map(|ms| duration(ms, asked.words())),
            tokens: so_far.map(|so_far| number(so_far.events as u64)),
        }
    }
}

impl NextRow {
    fn of(record: &JobRecord, reason: Option<&WaitReason>, now: Timestamp, lang: Lang) -> Self {
        let job = &record.job;
        Self {
            id: job.id.to_string(),
            short: short(job.id),
            user: job.user_id.clone(),
            model: job.model.clone(),
            priority: job.priority,
            why: reason.map(|reason| reasons::sentence(reason, now, lang)),
        }
    }
}

impl AlertRow {
    fn of(alert: &Alert, now: Timestamp, (lang, w): (Lang, &Words)) -> Self {
        Self {
            message: alarm::says(alert, now, lang),
            since: When::of(alert.raised_at, now, w),
        }
    }
}

impl BudgetRow {
    pub(super) fn of(status: &BudgetStatus, now: Timestamp, w: &Words) -> Self {
        let limit = status.limit.number().max(1);
        let per_mille = u128::from(status.gone()) * 1_000 / u128::from(limit);
        let tone = match (status.short, status.warned) {
            (true, _) => Tone::Bad,
            (false, true) => Tone::Warn,
            (false, false) => Tone::Ok,
        };
        Self {
            name: account(&status.account),
            spent: status.spent.to_string(),
            limit: status.limit.to_string(),
            per_mille: u64::try_from(per_mille).unwrap_or(1_000).min(1_000),
            tone: tone.class(),
            until: When::of(status.until, now, w),
        }
    }
}

impl QuotaRow {
    fn of(window: &QuotaWindow, now: Timestamp, w: &Words) -> Self {
        let per_mille = window.used_e4.map(|share| (share / 10).min(1_000));
        let tone = match per_mille {
            Some(1_000) => Tone::Bad,
            Some(900..) => Tone::Warn,
            _ => Tone::Ok,
        };
        Self {
            name: window.to_string(),
            used: window.used_e4.map_or_else(
                || w.none.to_owned(),
                |share| format!("{} %", percent(share as f64 / 10_000.0)),
            ),
            per_mille: per_mille.unwrap_or(0),
            tone: tone.class(),
            anew: window.resets_at.map(|at| When::of(at, now, w)),
        }
    }
}

/// A budget, with whose it is.
fn account(key: &BudgetKey) -> String {
    let of = [key.user.as_deref(), key.model.as_deref()]
        .into_iter()
        .flatten();
    let of = of
        .map(str::to_owned)
        .chain(key.key.map(|key| key.to_string()));
    std::iter::once(key.budget.to_string())
        .chain(of)
        .collect::<Vec<_>>()
        .join(" · ")
}

/// How an attempt ended, in a word, and how bad that is.
pub(super) fn outcome(call: &CallRecord, w: &Words) -> (Tone, String) {
    let code = call.failure.as_ref().map(|failure| failure.code.clone());
    match call.outcome {
        CallOutcome::Completed => (Tone::Ok, w.out_completed.to_owned()),
        CallOutcome::Failed => (Tone::Bad, code.unwrap_or_else(|| w.out_failed.to_owned())),
        CallOutcome::Cancelled => (Tone::Warn, w.out_cancelled.to_owned()),
        CallOutcome::Interrupted => (Tone::Bad, w.out_interrupted.to_owned()),
    }
}

impl CallRow {
    fn of(call: &CallRecord, now: Timestamp, w: &Words) -> Self {
        let (tone, outcome) = outcome(call, w);
        let by = call
            .answered_by
            .as_ref()
            .filter(|_| call.substitution.is_some());
        let says = by.map(|model| fill(w.answered_by, &[model]));
        let usage = &call.usage;
        Self {
            when: When::of(call.ended_at, now, w),
            id: call.job_id.to_string(),
            short: short(call.job_id),
            user: call.user_id.clone(),
            model: call.model.clone(),
            tone: tone.class(),
            outcome,
            says: says.or_else(|| call.failure.as_ref().map(meaning::said)),
            waited: waited(call).map(|ms| duration(ms, w)),
            answer: duration(call.response_time_ms, w),
            tokens: usage.is_reported().then(|| {
                let parts = [usage.prompt_tokens, usage.completion_tokens];
                parts.map(number).join(" + ")
            }),
            cost: call.cost.map(money),
        }
    }
}
