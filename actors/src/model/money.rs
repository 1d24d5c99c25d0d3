//! Money in integers: one nano-unit is a billionth of a yuan or dollar. No floats anywhere.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An amount in nano-units (1e-9) of some currency.
pub type Nanos = i64;

/// What an amount is counted in. GLM publishes two price lists, one in each currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Currency {
    /// Chinese yuan: the list of bigmodel.cn.
    Cny,
    /// US dollars: the list of z.ai.
    Usd,
}

impl Currency {
    /// The ISO 4217 code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Cny => "CNY",
            Self::Usd => "USD",
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// What a call cost: exact, with its currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// The amount in nano-units of `currency`.
    pub nanos: Nanos,
    /// What the amount is counted in.
    pub currency: Currency,
}

impl Cost {
    /// The amount as a plain decimal of at most nine places, without trailing zeros: a JSON number.
    #[must_use]
    pub fn decimal(self) -> String {
        let sign = if self.nanos < 0 { "-" } else { "" };
        let abs = self.nanos.unsigned_abs();
        let (whole, part) = (abs / 1_000_000_000, abs % 1_000_000_000);
        if part == 0 {
            return format!("{sign}{whole}");
        }
        let digits = format!("{part:09}");
        format!("{sign}{whole}.{}", digits.trim_end_matches('0'))
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.decimal(), self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_written_exactly() {
        let check = |nanos, text: &str| {
            let cost = Cost {
                nanos,
                currency: Currency::Cny,
            };
            assert_eq!(cost.decimal(), text);
        };
        check(0, "0");
        check(1, "0.000000001");
        check(28_000, "0.000028");
        check(1_000_000_000, "1");
        check(-1_500_000_000, "-1.5");
        check(i64::MAX, "9223372036.854775807");
    }
}
