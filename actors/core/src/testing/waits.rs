//! Every reason for waiting.

use crate::model::{
    Amount, AttemptNo, BudgetKey, BudgetStatus, BudgetWait, Cost, Currency, Hold, HoldKind,
    HoldScope, JobId, KeyId, OverBudget, Period, Timestamp, WaitReason,
};

/// A budget of 100 CNY a day that has 37 left, for a call that may come to so many nano-yuan.
#[must_use]
pub fn short_budget(needed: u64) -> BudgetWait {
    let yuan = |nanos| {
        Amount::Money(Cost {
            nanos,
            currency: Currency::Cny,
        })
    };
    let status = BudgetStatus {
        account: BudgetKey {
            key: None,
            budget: "day".into(),
            user: Some("ada".into()),
            model: None,
        },
        limit: yuan(100_000_000_000),
        period: Period::Day,
        over: OverBudget::Wait,
        spent: yuan(60_500_000_000),
        reserved: yuan(1_000_000_000),
        in_doubt: yuan(2_500_000_000),
        left: yuan(37_000_000_000),
        warned: false,
        short: true,
        until: Timestamp::default(),
    };
    BudgetWait::new(status, needed)
}

/// Every reason for waiting, in the order of their names. A new reason does not compile until it is among these, and
/// so in every table test of the places that show them.
#[must_use]
pub fn wait_reasons() -> Vec<WaitReason> {
    let mut all = vec![WaitReason::Behind {
        position: Some(3),
        more_than: None,
        estimate_ms: Some(4_200),
    }];
    let since = Timestamp::default();
    while let Some(next) = match all.last() {
        None => None,
        Some(WaitReason::Behind { .. }) => Some(WaitReason::Stage),
        Some(WaitReason::Stage) => Some(WaitReason::Delayed { until: since }),
        Some(WaitReason::Delayed { .. }) => Some(WaitReason::Scheduled { until: since }),
        Some(WaitReason::Scheduled { .. }) => Some(WaitReason::Pace {
            until: since,
            lane: "air".to_owned(),
        }),
        Some(WaitReason::Pace { .. }) => {
            let hold = Hold {
                kind: HoldKind::Operator,
                code: "1113".to_owned(),
                message: "余额不足".to_owned(),
                since,
                until: None,
            };
            Some(WaitReason::hold(&HoldScope::Account, &hold))
        }
        Some(WaitReason::Hold(_)) => Some(WaitReason::Breaker {
            until: None,
            forced: true,
            reason: "incident 7".to_owned(),
        }),
        Some(WaitReason::Breaker { .. }) => Some(WaitReason::Probe),
        Some(WaitReason::Probe) => Some(WaitReason::Aside {
            code: "http_403".to_owned(),
            message: "blocked".to_owned(),
        }),
        Some(WaitReason::Aside { .. }) => Some(short_budget(40_000_000_000).into()),
        Some(WaitReason::Budget(_)) => Some(WaitReason::Paused {
            since,
            reason: Some("lunch".to_owned()),
        }),
        Some(WaitReason::Paused { .. }) => Some(WaitReason::Inactive),
        Some(WaitReason::Inactive) => Some(WaitReason::Draining {
            since,
            reason: None,
        }),
        Some(WaitReason::Draining { .. }) => Some(WaitReason::Stopping),
        Some(WaitReason::Stopping) => Some(WaitReason::Blocked {
            by: vec![JobId::from_bytes([7; 16])],
        }),
        Some(WaitReason::Blocked { .. }) => Some(WaitReason::Parked {
            since: Some(since),
            attempt: Some(AttemptNo(2)),
        }),
        Some(WaitReason::Parked { .. }) => Some(WaitReason::KeyBusy { key: KeyId::new(7) }),
        Some(WaitReason::KeyBusy { .. }) => Some(WaitReason::Reserved {
            priority: 50,
            lane: "air".to_owned(),
        }),
        Some(WaitReason::Reserved { .. }) => Some(WaitReason::OtherBatch),
        Some(WaitReason::OtherBatch) => Some(WaitReason::DiskBehind),
        Some(WaitReason::DiskBehind) => Some(WaitReason::DiskFull),
        Some(WaitReason::DiskFull) => Some(WaitReason::Reading),
        Some(WaitReason::Reading) => Some(WaitReason::Offline),
        Some(WaitReason::Offline) => None,
    } {
        all.push(next);
    }
    all
}
