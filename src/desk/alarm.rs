//! What an alert says: in English its own words, in Chinese ours, of the same facts.

use onelane_core::model::{Alert, Cost, Currency, Timestamp, WHOLE, WaitReason, Watched};

use super::show::{duration, moments, number, percent};
use super::words::{Lang, Words};
use super::{meaning, reasons};

/// The rule that raised an alert, and what it is about.
pub(super) fn rule(alert: &Alert, lang: Lang) -> String {
    let key = &alert.key;
    match lang {
        Lang::Zh if key.rule == alert.on.name() => {
            let about = key.subject.as_deref().map(|about| format!(" {about}"));
            watched(alert.on).to_owned() + &about.unwrap_or_default()
        }
        Lang::En | Lang::Zh => key.to_string(),
    }
}

/// What is bad.
pub(super) fn says(alert: &Alert, now: Timestamp, lang: Lang) -> String {
    match lang {
        Lang::En => moments(&alert.message, now),
        Lang::Zh => chinese(alert, now),
    }
}

const fn watched(on: Watched) -> &'static str {
    match on {
        Watched::ErrorRate => "失败率",
        Watched::ResponseTime => "响应时间",
        Watched::QueueLength => "队列长度",
        Watched::QueueAge => "最久等待时间",
        Watched::Spend => "花费",
        Watched::Budget => "预算",
        Watched::Breaker => "熔断器",
        Watched::Hold => "挂起",
        Watched::ForeignAnswer => "串错的回答",
        Watched::Unreachable => "无法连接",
        Watched::Quota => "配额用量",
        Watched::Balance => "余额消耗",
    }
}

fn chinese(alert: &Alert, now: Timestamp) -> String {
    match alert.on {
        Watched::Breaker => return "熔断器已打开，不放行任何调用".to_owned(),
        Watched::ForeignAnswer => {
            return format!(
                "{} 个回答属于其他调用：本机与 GLM 之间有环节串了回答，均未采用",
                alert.level / WHOLE
            );
        }
        Watched::Unreachable => {
            // Its last part is what the network said.
            let said = alert.message.split_once(": ").map(|(_, said)| said);
            let said = said.map_or_else(String::new, |said| format!("：{said}"));
            return format!("没有调用能到达 GLM{said}");
        }
        _ => {}
    }
    if let Some(held) = &alert.hold {
        let reason = WaitReason::hold(&held.scope, &held.hold);
        let code = &*held.hold.code;
        let said = [code, meaning::said_of_code(code, &held.hold.message)].join(" ");
        let says = reasons::sentence(&reason, now, Lang::Zh);
        return format!("{says} {}", said.trim());
    }
    let told = |nanos: i64| amount(alert, nanos);
    format!(
        "{}为 {}，达到 {} 即告警",
        rule(alert, Lang::Zh),
        told(alert.level),
        told(alert.threshold)
    )
}

/// A level with its unit.
fn amount(alert: &Alert, nanos: i64) -> String {
    let w = Words::of(Lang::Zh);
    let whole = u64::try_from(nanos / WHOLE).unwrap_or(0);
    match alert.on {
        Watched::ErrorRate | Watched::Budget | Watched::Quota | Watched::Balance => {
            format!("{} %", percent(nanos as f64 / WHOLE as f64))
        }
        Watched::ResponseTime | Watched::QueueAge => duration(whole, w),
        Watched::QueueLength => format!("{} 个任务", number(whole)),
        _ => {
            let currency = Currency::Cny;
            let decimal = Cost { nanos, currency }.decimal();
            let unit = alert.unit.strip_suffix("/h");
            unit.map_or_else(
                || decimal.clone(),
                |unit| format!("{decimal} {unit}（每小时）"),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use onelane_core::model::{AlertKey, Hold, HoldKind, HoldScope, ScopedHold};

    use super::*;

    fn alert(on: Watched, level: i64, unit: &str) -> Alert {
        Alert {
            key: AlertKey::of(on.name()),
            on,
            message: "in English".to_owned(),
            level,
            threshold: WHOLE / 2,
            unit: unit.to_owned(),
            hold: None,
            raised_at: Timestamp::from_millis(0),
        }
    }

    #[test]
    fn every_alert_is_told_in_chinese_by_its_own_facts() {
        let now = Timestamp::from_millis(0);
        let han = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
        for on in Watched::ALL {
            let told = says(&alert(on, WHOLE, on.unit()), now, Lang::Zh);
            assert!(told.contains(han), "{told}");
            assert!(!told.contains("English"), "{told}");
            assert!(rule(&alert(on, WHOLE, on.unit()), Lang::Zh).contains(han));
            assert_eq!(says(&alert(on, 0, ""), now, Lang::En), "in English");
        }
        let rate = says(&alert(Watched::ErrorRate, WHOLE, "share"), now, Lang::Zh);
        assert_eq!(rate, "失败率为 100.0 %，达到 50.0 % 即告警");
        let mut spend = alert(Watched::Spend, 12 * WHOLE, "CNY/h");
        spend.key = AlertKey::about("spend", "CNY");
        let told = says(&spend, now, Lang::Zh);
        assert!(told.starts_with("花费 CNY为 12 CNY（每小时）"), "{told}");
        let mut own = alert(Watched::QueueLength, 7 * WHOLE, "jobs");
        own.key = AlertKey::of("too_long");
        let told = says(&own, now, Lang::Zh);
        assert!(told.starts_with("too_long为 7 个任务"), "{told}");
        let mut unreachable = alert(Watched::Unreachable, WHOLE, "count");
        unreachable.message =
            "no call gets through to GLM since 2026-11-29T10:00:00.000Z: no route".to_owned();
        assert_eq!(
            says(&unreachable, now, Lang::Zh),
            "没有调用能到达 GLM：no route"
        );
        let mut held = alert(Watched::Hold, WHOLE, "count");
        held.hold = Some(ScopedHold {
            scope: HoldScope::Account,
            hold: Hold {
                kind: HoldKind::Operator,
                code: "1113".to_owned(),
                message: "您的账户已欠费".to_owned(),
                since: now,
                until: None,
            },
        });
        let told = says(&held, now, Lang::Zh);
        assert!(told.contains("1113 您的账户已欠费"), "{told}");
    }
}
