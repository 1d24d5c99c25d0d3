//! Why something waits, for people: in English the words of the reason itself, in Chinese ours, a reason each.

use onelane_core::model::{HoldKind, HoldWait, Timestamp, WaitReason};

use super::show::moments;
use super::words::Lang;

/// A reason in a sentence. What GLM said stands beside it ([`HoldWait::said`]).
pub(super) fn sentence(reason: &WaitReason, now: Timestamp, lang: Lang) -> String {
    moments(&whole(reason, lang), now)
}

/// The same with every moment in full.
fn whole(reason: &WaitReason, lang: Lang) -> String {
    match (lang, reason) {
        (Lang::En, WaitReason::Hold(hold)) => hold.stops(),
        (Lang::En, reason) => reason.to_string(),
        (Lang::Zh, reason) => chinese(reason),
    }
}

/// What to do about a reason, where to wait is not enough.
pub(super) fn help(reason: &WaitReason, lang: Lang) -> Option<&'static str> {
    let help = reason.help()?;
    Some(match (lang, reason) {
        (Lang::En, _) => help,
        (Lang::Zh, WaitReason::Hold(_)) => {
            "没有任务失败。请检查密钥、地址、余额、套餐或协议，处理后点击“恢复”。"
        }
        (Lang::Zh, WaitReason::Breaker { .. }) => "点击“恢复”，或重置熔断器。",
        (Lang::Zh, WaitReason::Budget(_)) => "提高预算，或以更小的 max_tokens 重新提交任务。",
        (Lang::Zh, WaitReason::Paused { .. } | WaitReason::Draining { .. }) => "点击“恢复”。",
        (Lang::Zh, WaitReason::Inactive) => "在配置中把 isActive 设为 true。",
        (Lang::Zh, WaitReason::Parked { .. }) => "查看该任务，然后重试或取消。",
        (Lang::Zh, WaitReason::DiskFull) => "请释放磁盘空间，之后会自动恢复。",
        (Lang::Zh, _) => help,
    })
}

/// A reason in a few words, by its name.
pub(super) fn name(reason: &str, lang: Lang) -> &str {
    let found = NAMES.iter().find(|(name, ..)| *name == reason);
    match (found, lang) {
        (Some((_, en, _)), Lang::En) => en,
        (Some((.., zh)), Lang::Zh) => zh,
        (None, _) => reason,
    }
}

const NAMES: [(&str, &str, &str); 23] = [
    ("behind", "behind others", "排在其他任务之后"),
    ("stage", "next, on record", "已就位，即将开始"),
    ("delayed", "delayed until a retry", "等待重试"),
    ("scheduled", "scheduled", "定时任务"),
    ("pace", "pace of the lane", "通道限速"),
    ("hold", "held", "挂起"),
    ("breaker", "breaker open", "熔断"),
    ("probe", "one call probes", "等待探测"),
    ("aside", "stepped aside", "暂时让位"),
    ("budget", "no room in a budget", "预算不足"),
    ("paused", "paused", "已暂停"),
    ("inactive", "lane switched off", "通道已停用"),
    ("draining", "intake closed", "入口已关闭"),
    ("stopping", "shutting down", "正在停止"),
    ("blocked", "after other jobs", "等待前置任务"),
    ("parked", "parked for a decision", "搁置，待处理"),
    ("keyBusy", "its key has enough open", "密钥并发已满"),
    (
        "reserved",
        "slots kept for the urgent",
        "槽位预留给紧急任务",
    ),
    ("otherBatch", "another batch runs alone", "其他批次独占运行"),
    ("diskBehind", "disk is behind", "磁盘写入落后"),
    ("diskFull", "disk is full", "磁盘已满"),
    ("reading", "store is being read", "正在读取存储"),
    ("offline", "no lane runs", "没有运行的通道"),
];

fn said(reason: &Option<String>) -> String {
    reason
        .as_ref()
        .map_or_else(String::new, |reason| format!("：{reason}"))
}

fn chinese(reason: &WaitReason) -> String {
    match reason {
        WaitReason::Behind {
            position,
            more_than,
            estimate_ms,
        } => {
            let place = match (position, more_than) {
                (Some(1), _) => "下一个运行".to_owned(),
                (Some(position), _) => format!("排在第 {position} 位"),
                (None, Some(more)) => format!("前面有超过 {more} 个任务"),
                (None, None) => "前面还有其他任务".to_owned(),
            };
            let estimate =
                estimate_ms.map(|ms| format!("，预计约 {} 秒后开始", ms.div_ceil(1_000)));
            place + &estimate.unwrap_or_default()
        }
        WaitReason::Stage => "已就位，有空闲槽位即开始".to_owned(),
        WaitReason::Delayed { until } => format!("等待重试，直到 {until}"),
        WaitReason::Scheduled { until } => format!("定于 {until} 开始"),
        WaitReason::Pace { until, lane } => format!("通道 {lane} 限速，{until} 之前不能开始调用"),
        WaitReason::Hold(hold) => chinese_hold(hold),
        WaitReason::Breaker {
            until: Some(at),
            reason,
            ..
        } => format!("已熔断，{at} 再次尝试：{reason}"),
        WaitReason::Breaker {
            forced: true,
            reason,
            ..
        } => format!("操作员打开了熔断器：{reason}"),
        WaitReason::Breaker { reason, .. } => format!("已熔断：{reason}"),
        WaitReason::Probe => "正在用一次调用探测 GLM 是否恢复".to_owned(),
        WaitReason::Aside { code, .. } => {
            format!("暂时让位：由其他任务查明原因（{code}）")
        }
        WaitReason::Budget(budget) => {
            let (status, needed) = (&budget.status, budget.needed);
            let name = &status.account.budget;
            match budget.too_large {
                true => format!(
                    "可能需要 {needed}，而预算 {name} 每期只允许 {}",
                    status.limit
                ),
                false => format!(
                    "可能需要 {needed}，而预算 {name} 只剩 {}，直到 {}",
                    status.left, status.until
                ),
            }
        }
        WaitReason::Paused { since, reason } => format!("自 {since} 起暂停{}", said(reason)),
        WaitReason::Inactive => "通道已停用".to_owned(),
        WaitReason::Draining { since, reason } => {
            format!("自 {since} 起关闭入口{}", said(reason))
        }
        WaitReason::Stopping => "进程正在停止，下次启动后继续".to_owned(),
        WaitReason::Blocked { by } => match by.len() {
            0 => "等待其他任务".to_owned(),
            count => format!("等待 {count} 个前置任务完成"),
        },
        WaitReason::Parked { attempt, .. } => match attempt {
            Some(no) => format!("已搁置：第 {} 次尝试被中断，可能已计费，由操作员决定", no.0),
            None => "已搁置：有调用被中断，可能已计费，由操作员决定".to_owned(),
        },
        WaitReason::KeyBusy { key } => format!("客户端密钥 {key} 的并发调用已满"),
        WaitReason::Reserved { priority, lane } => {
            format!("通道 {lane} 的空闲槽位预留给优先级 {priority} 及以上的任务")
        }
        WaitReason::OtherBatch => "当前只运行另一个批次的任务".to_owned(),
        WaitReason::DiskBehind => "磁盘写入落后，结果等待保存".to_owned(),
        WaitReason::DiskFull => "磁盘已满".to_owned(),
        WaitReason::Reading => "正在从存储读取任务和账目".to_owned(),
        WaitReason::Offline => "没有通道在此存储上运行".to_owned(),
    }
}

fn chinese_hold(hold: &HoldWait) -> String {
    let part = match (&hold.lane, &hold.model) {
        (Some(lane), _) => format!("通道 {lane}"),
        (None, Some(model)) => format!("模型 {model}"),
        (None, None) => "账户".to_owned(),
    };
    let Some(until) = hold.until.filter(|_| hold.kind != HoldKind::Operator) else {
        return format!("{part}已挂起，需要操作员处理");
    };
    match hold.kind {
        HoldKind::Unreachable => format!("{part}：无法连接 GLM，{until} 再次尝试"),
        HoldKind::Quota => format!("{part}：额度已用完，直到 {until}"),
        HoldKind::AfterTimeout | HoldKind::Throttle | HoldKind::Overload | HoldKind::Operator => {
            format!("{part}：冷却中，直到 {until}")
        }
    }
}

#[cfg(test)]
mod tests {
    use onelane_actors::testing::waits::wait_reasons;

    use super::*;

    #[test]
    fn every_reason_has_a_name_and_a_sentence_in_both_languages() {
        for reason in WaitReason::NAMES {
            assert!(NAMES.iter().any(|(name, ..)| *name == reason), "{reason}");
        }
        for reason in wait_reasons() {
            let zh = whole(&reason, Lang::Zh);
            assert!(
                zh.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c)),
                "{zh}"
            );
            let en = whole(&reason, Lang::En);
            assert!(reason.to_string().starts_with(&en), "{en}");
        }
    }
}
