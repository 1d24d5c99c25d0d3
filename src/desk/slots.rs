//! The slots: a timeline of who held each, and what the gaps were.

use std::collections::BTreeMap;

use askama::Template;
use onelane_actors::ports::JobFilter;
use onelane_core::model::{JobStatus, Timestamp};

use super::asked::{Answered, Asked};
use super::frame::{Frame, Nav};
use super::lists::{Tab, link};
use super::show::{duration, number};
use super::terms::Terms;
use super::timeline::{self, Kind, Part, Picture, SLOTS_MAX, Stay};
use super::words::fill;

/// Over so many minutes one can look back.
const MINUTES: [u64; 4] = [SHORTEST, 60, 360, 1_440];
const SHORTEST: u64 = 10;
const MINUTE_MS: u64 = 60_000;
/// Calls that a picture is told from.
const CALLS_MAX: usize = 2_000;
/// Open calls that are shown.
const OPEN_MAX: usize = 64;
/// Users that are told apart.
const USERS: usize = 10;

#[derive(Template)]
#[template(path = "slots.html")]
struct Slots {
    frame: Frame,
    t: &'static Terms,
    tabs: Vec<Tab>,
    picture: Option<Picture>,
    says: String,
    left_out: Option<String>,
    kinds: Vec<KindRow>,
    users: Vec<UserRow>,
}

struct KindRow {
    class: &'static str,
    name: &'static str,
    share: String,
    length: String,
    times: String,
}

struct UserRow {
    name: String,
    href: String,
    share: String,
    length: String,
    calls: String,
}

/// `GET /desk/slots`.
pub(super) async fn page(asked: Asked) -> Answered {
    let (lane, now, w) = (asked.lane(), asked.visit.now(), asked.words());
    let t = Terms::of(asked.look.lang);
    let wanted = asked.query("minutes").and_then(|n| n.parse().ok());
    let minutes = MINUTES.into_iter().find(|n| Some(*n) == wanted);
    let minutes = minutes.unwrap_or(SHORTEST);
    let mut from = now.minus_ms(minutes * MINUTE_MS);
    let calls = lane.calls_since(from, CALLS_MAX).await?;
    let is_cut = calls.len() >= CALLS_MAX;
    if let Some(first) = calls.last().filter(|_| is_cut) {
        from = first.started_at.max(from);
    }
    let filter = JobFilter {
        status: Some(JobStatus::Processing),
        ..JobFilter::default()
    };
    let open = lane.jobs(filter, None, OPEN_MAX).await?.jobs;
    let snapshot = lane.lane().await?;
    let open = open
        .iter()
        .filter_map(|record| Stay::open(&record.job, now));
    let stays = calls.iter().map(Stay::of).chain(open).collect();
    let waits = snapshot.ready + snapshot.waiting > 0;
    let slots = timeline::slots(stays, from, now, waits);
    let whole = now.since(from).saturating_mul(slots.len() as u64);
    let tab = |of: u64| Tab {
        href: link("/desk/slots", &[("minutes", of.to_string())]),
        text: duration(of * MINUTE_MS, w),
        count: None,
        is_current: of == minutes,
    };
    let more = slots.len().saturating_sub(SLOTS_MAX);
    let left_out = match (is_cut, more) {
        (true, _) => Some(fill(t.latest_calls_only, &[&number(CALLS_MAX as u64)])),
        (false, 0) => None,
        (false, more) => Some(fill(t.more_slots, &[&number(more as u64)])),
    };
    let mut frame = asked.frame(Nav::Slots).await?;
    // Hours are many calls to read.
    frame.is_live = minutes == SHORTEST;
    let page = Slots {
        frame,
        t,
        tabs: MINUTES.into_iter().map(tab).collect(),
        picture: timeline::draw(&slots, (w, t)),
        says: fill(
            t.slots_say,
            &[
                &number(slots.len() as u64),
                &duration(now.since(from), w),
                &number(u64::from(snapshot.max_concurrency)),
            ],
        ),
        left_out,
        kinds: Kind::ALL
            .into_iter()
            .filter_map(|kind| {
                let of = slots.iter().flatten().filter(|part| part.kind == kind);
                let (ms, times) = of.fold((0, 0_u64), |(ms, n), part| (ms + part.ms(), n + 1));
                (times > 0).then(|| KindRow {
                    class: kind.class(),
                    name: kind.word(w, t),
                    share: share(ms, whole),
                    length: duration(ms, w),
                    times: number(times),
                })
            })
            .collect(),
        users: users(&slots, whole, from)
            .into_iter()
            .map(|(name, href, ms, calls)| UserRow {
                name,
                href,
                share: share(ms, whole),
                length: duration(ms, w),
                calls: number(calls),
            })
            .collect(),
    };
    asked.page(&page)
}

/// A part of a whole as percent.
fn share(part: u64, whole: u64) -> String {
    let tenths = u128::from(part) * 1_000 / u128::from(whole.max(1));
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// Who held slots longest: where their calls stand, for how long, how often.
fn users(slots: &[Vec<Part>], whole: u64, from: Timestamp) -> Vec<(String, String, u64, u64)> {
    let mut held: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for part in slots.iter().flatten().filter(|part| part.kind.is_held()) {
        let Some(stay) = &part.stay else { continue };
        let (ms, calls) = held.entry(&stay.user).or_default();
        *ms = (*ms + part.ms()).min(whole);
        *calls += 1;
    }
    let mut held: Vec<_> = held.into_iter().collect();
    held.sort_by_key(|(_, (ms, _))| std::cmp::Reverse(*ms));
    let from = from.to_rfc3339();
    let told = held.into_iter().take(USERS).map(|(user, (ms, calls))| {
        let href = link("/desk/calls", &[("userId", user), ("from", &*from)]);
        (user.to_owned(), href, ms, calls)
    });
    told.collect()
}
