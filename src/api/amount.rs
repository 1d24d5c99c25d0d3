//! Amounts that clients state: decimal text, to the last nano-unit, never a float.

use std::borrow::Cow;

use onelane_core::model::Nanos;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// An amount as a JSON number or as decimal text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Amount(pub(super) Nanos);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text: Cow<'_, str> = match raw.get().starts_with('"') {
            true => serde_json::from_str(raw.get()).unwrap_or_default(),
            false => raw.get().into(),
        };
        let amount = parse(&text).map(Self);
        amount.ok_or_else(|| serde::de::Error::custom("not an amount"))
    }
}

impl JsonSchema for Amount {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["number", "string"],
            "format": "amount",
            "minimum": 0,
            "pattern": r"^[0-9]{1,9}(\.[0-9]{1,9})?$",
        })
    }
}

/// `12`, `0.0125` or, as some programs write small numbers, `1.25e-2`.
pub(super) fn parse(text: &str) -> Option<Nanos> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let digits = [whole, part].concat();
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !plain(whole) || !plain(part) {
        return None;
    }
    let number: i128 = digits.parse().ok()?;
    if number == 0 {
        return Some(0);
    }
    // The power of ten that is still missing.
    let shift = exponent
        .checked_add(9)?
        .checked_sub(i32::try_from(part.len()).ok()?)?;
    let power = 10_i128.checked_pow(shift.unsigned_abs())?;
    let nanos = if shift >= 0 {
        number.checked_mul(power)?
    } else {
        (number % power == 0).then_some(number / power)?
    };
    Nanos::try_from(nanos).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_exact_to_the_last_nano_unit() {
        let check = |json: &str, want: Option<Nanos>| {
            let read = serde_json::from_str::<Amount>(json).ok();
            assert_eq!(read.map(|amount| amount.0), want, "{json}");
        };
        check("0", Some(0));
        check("0.000", Some(0));
        check("12", Some(12_000_000_000));
        check("0.0125", Some(12_500_000));
        check("\"0.000000001\"", Some(1));
        check("0.1", Some(100_000_000));
        check("9007199.254740993", Some(9_007_199_254_740_993));
        check("9223372036.854775807", Some(i64::MAX));
        check("9223372036.854775808", None);
        check("1e-9", Some(1));
        check("1.25E-2", Some(12_500_000));
        check("1e+3", Some(1_000_000_000_000));
        check("0.1000000000", Some(100_000_000));
        check("0.0000000001", None);
        check("1e-10", None);
        check("1e99", None);
        check("-1", None);
        check("\"\"", None);
        check("\".5\"", None);
        check("\"5.\"", None);
        check("\"1,5\"", None);
        check("\"+1\"", None);
        check("true", None);
        check("[1]", None);
    }
}
