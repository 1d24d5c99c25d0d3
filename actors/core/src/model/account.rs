//! What the provider itself counts of an account: windows of a quota, the balance, tokens by day and model.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::money::nanos_of;
use super::{Cost, Currency, Day, Timestamp, limits};

/// The whole of a share in ten-thousandths.
pub const WHOLE_E4: u64 = 10_000;

/// What a window of a quota bounds.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum QuotaKind {
    /// Tokens of calls.
    Tokens,
    /// Points of a plan, for which calls are charged.
    Credits,
    /// Uses of the provider's tools: no call of the lane counts.
    Tools,
}

impl QuotaKind {
    /// The name used in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Credits => "credits",
            Self::Tools => "tools",
        }
    }
}

/// In what a window's length is counted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum QuotaSpan {
    /// Hours.
    Hours,
    /// Days.
    Days,
    /// Weeks.
    Weeks,
    /// Months.
    Months,
}

impl QuotaSpan {
    const fn letter(self) -> &'static str {
        match self {
            Self::Hours => "h",
            Self::Days => "d",
            Self::Weeks => "w",
            Self::Months => "mo",
        }
    }
}

/// One window of a quota. The provider leaves out what it pleases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaWindow {
    /// What it bounds.
    pub kind: QuotaKind,
    /// In what its length is counted; `None`: not told.
    pub span: Option<QuotaSpan>,
    /// So many of those.
    pub length: u32,
    /// The used share in ten-thousandths.
    #[serde(rename = "usedShare", with = "share")]
    #[schemars(with = "Option<f64>", description = "The used share; 1 is all.")]
    pub used_e4: Option<u64>,
    /// How much is used, in what it bounds.
    pub used: Option<u64>,
    /// How much there is in all.
    pub cap: Option<u64>,
    /// When it opens anew.
    pub resets_at: Option<Timestamp>,
}

impl QuotaWindow {
    /// Whether calls of the lane use it.
    #[must_use]
    pub const fn is_of_calls(&self) -> bool {
        !matches!(self.kind, QuotaKind::Tools)
    }

    /// Whether nothing is left of it, as far as is told.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        self.used_e4.is_some_and(|share| share >= WHOLE_E4)
    }
}

/// `5 h tokens`.
impl fmt::Display for QuotaWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.name();
        match self.span {
            Some(span) => f.pad(&format!("{} {} {kind}", self.length, span.letter())),
            None => f.pad(kind),
        }
    }
}

/// The windows of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quota {
    /// The plan's name, where it is told.
    pub plan: Option<String>,
    /// Its windows, as the provider orders them.
    pub windows: Vec<QuotaWindow>,
}

impl Quota {
    /// When calls are taken again that were refused for a window counted in `span` being used up. Windows that are used up
    /// must all have opened; where none is said to be, the refusal is believed and not the rounded share. A reset that no
    /// window of a plan is away from now is none.
    #[must_use]
    pub fn opens_at(&self, span: Option<QuotaSpan>, now: Timestamp) -> Option<Timestamp> {
        let of_calls = self.windows.iter().filter(|window| window.is_of_calls());
        let known = of_calls.filter_map(|window| Some((window, window.resets_at?)));
        let latest = now.plus_ms(limits::RESET_AHEAD_MS_MAX);
        let known = known.filter(|(_, at)| *at > now && *at <= latest);
        let known: Vec<(&QuotaWindow, Timestamp)> = known.collect();
        let used_up = known.iter().filter(|(window, _)| window.is_used_up());
        let used_up = used_up.map(|(_, at)| *at).max();
        let refused = known
            .iter()
            .filter(|(window, _)| match (span, window.span) {
                (Some(QuotaSpan::Weeks), Some(QuotaSpan::Months)) => true,
                (Some(span), Some(of)) => span == of,
                _ => false,
            });
        used_up.or_else(|| refused.map(|(_, at)| *at).min())
    }
}

/// What is left of the money of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Balance {
    /// What calls may still cost.
    pub available: Cost,
}

impl Balance {
    /// Reads a decimal, as the provider writes it; below 0 the account is in arrears.
    #[must_use]
    pub fn parse(text: &str, currency: Currency) -> Option<Self> {
        let (sign, text) = match text.strip_prefix('-') {
            Some(text) => (-1, text),
            None => (1, text),
        };
        // What is beyond nine decimals is nothing that anything costs.
        let text = match text.split_once('.') {
            Some((_, part)) if part.len() > 9 => text.get(..text.len() - part.len() + 9)?,
            _ => text,
        };
        let nanos = sign * nanos_of(text)?;
        Some(Self {
            available: Cost { nanos, currency },
        })
    }
}

/// What the provider counted of a day of its own and a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metered {
    /// The day, in the provider's zone.
    pub day: Day,
    /// The model, as prices know it.
    pub model: String,
    /// Calls; not every provider tells them by model.
    pub calls: Option<u64>,
    /// Tokens, cached ones included.
    pub tokens: u64,
}

/// Ten-thousandths as a share.
mod share {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::WHOLE_E4;

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(e4: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        e4.map(|e4| e4 as f64 / WHOLE_E4 as f64).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        let share = Option::<f64>::deserialize(from)?;
        Ok(share.map(|share| (share * WHOLE_E4 as f64).round() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_392_000_000);

    fn window(span: QuotaSpan, used_e4: u64, resets_in_ms: Option<u64>) -> QuotaWindow {
        QuotaWindow {
            kind: QuotaKind::Tokens,
            span: Some(span),
            length: 1,
            used_e4: Some(used_e4),
            used: None,
            cap: None,
            resets_at: resets_in_ms.map(|ms| NOW.plus_ms(ms)),
        }
    }

    #[test]
    fn a_balance_is_exact_and_may_be_below_nothing() {
        let nanos = |text: &str| {
            let balance = Balance::parse(text, Currency::Cny);
            balance.map(|balance| balance.available.nanos)
        };
        assert_eq!(nanos("66.6"), Some(66_600_000_000));
        assert_eq!(nanos("-0.05"), Some(-50_000_000));
        assert_eq!(nanos("1.23456789012"), Some(1_234_567_890));
        for text in ["", "-", "1e5", "much"] {
            assert_eq!(nanos(text), None, "{text}");
        }
    }

    #[test]
    fn a_used_up_window_says_when_calls_are_taken_again() {
        use QuotaSpan::{Hours, Weeks};
        let check = |windows: Vec<QuotaWindow>, span, want: Option<u64>| {
            let quota = Quota {
                plan: None,
                windows,
            };
            assert_eq!(
                quota.opens_at(Some(span), NOW),
                want.map(|ms| NOW.plus_ms(ms)),
                "{quota:?}"
            );
        };
        let day = 86_400_000;
        let (hours, week) = (
            window(Hours, 10_000, Some(5_000)),
            window(Weeks, 400, Some(day)),
        );
        check(vec![hours.clone(), week.clone()], Hours, Some(5_000));
        // Shares are rounded: the refusal is believed.
        let nearly = window(Hours, 9_900, Some(5_000));
        check(vec![nearly.clone(), week], Hours, Some(5_000));
        // Both are used up: the later one counts.
        let full = window(Weeks, 10_000, Some(day));
        check(vec![hours, full.clone()], Hours, Some(day));
        check(vec![nearly, full], Weeks, Some(day));
        // Nothing that helps.
        check(vec![window(Hours, 10_000, None)], Hours, None);
        check(vec![window(Hours, 0, Some(5_000))], Weeks, None);
        check(vec![window(Hours, 10_000, Some(400 * day))], Hours, None);
        let tools = QuotaWindow {
            kind: QuotaKind::Tools,
            ..window(Hours, 10_000, Some(5_000))
        };
        assert_eq!(tools.to_string(), "1 h tools");
        check(vec![tools], Hours, None);
    }
}
