//! What a setting takes, as data, and the types that have a kind by themselves.

use std::collections::BTreeMap;

use serde_json::{Number, Value};

use super::{Group, Place, Problem, SettingsError};

/// Whether text will do: its canonical form, or the problem.
pub type TextCheck = fn(&str) -> Result<String, Problem>;

/// Whether rows go together: the place of the first that does not, and the problem.
pub type RowsCheck = fn(&[Value]) -> Result<(), (usize, Problem)>;

/// What a setting takes.
#[derive(Debug, Clone)]
pub enum Kind {
    /// `true` or `false`.
    Switch,
    /// A whole number in these bounds.
    Whole {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
        /// 0 will do, too, and switches off.
        or_zero: bool,
        /// What is counted.
        unit: Unit,
    },
    /// A number in these bounds.
    Number {
        /// The least.
        min: f64,
        /// The most.
        max: f64,
    },
    /// Text that passes the check.
    Text(TextCheck),
    /// A decimal as text, so that it stays exact; a whole number will do.
    Decimal(TextCheck),
    /// A number, or the same as decimal text, that passes the check.
    Figure(fn(&str) -> Result<(), Problem>),
    /// Text that passes the check and is never shown.
    Secret(TextCheck),
    /// One of these words.
    Word(Vec<String>),
    /// A list of such values.
    List(Box<Self>),
    /// A list of groups, taken as one value.
    Rows {
        /// What stands in each.
        group: Group,
        /// Whether rows that are right by themselves go together.
        check: RowsCheck,
    },
    /// Settings of their own.
    Group(Group),
    /// Entries under names that the operator chooses.
    Named {
        /// Whether a name will do.
        check: TextCheck,
        /// What stands under a name.
        entry: Box<Self>,
        /// The first setting of an entry may stand alone in its place, as text.
        short: bool,
    },
}

/// What a whole number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// What its setting's name says.
    None,
    /// Milliseconds.
    Milliseconds,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// By the end of the setting's name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match name.rsplit('_').next() {
            Some("ms") => Self::Milliseconds,
            Some("bytes") => Self::Bytes,
            _ => Self::None,
        }
    }

    /// An amount in words, where that helps.
    fn in_words(self, amount: u64) -> Option<String> {
        let steps: &[(u64, &str, &str)] = match self {
            Self::None => &[],
            Self::Milliseconds => &[
                (86_400_000, "a day", "days"),
                (3_600_000, "an hour", "hours"),
                (60_000, "a minute", "minutes"),
            ],
            Self::Bytes => &[
                (1 << 40, "1 TiB", "TiB"),
                (1 << 30, "1 GiB", "GiB"),
                (1 << 20, "1 MiB", "MiB"),
            ],
        };
        let fits = |step: &&(u64, &str, &str)| amount >= step.0 && amount.is_multiple_of(step.0);
        let (size, one, many) = steps.iter().find(fits)?;
        match amount / size {
            1 => Some((*one).to_owned()),
            count => Some(format!("{count} {many}")),
        }
    }
}

impl Kind {
    /// What it takes, to follow "must be".
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Self::Switch => "true or false".to_owned(),
            Self::Whole {
                min,
                max,
                or_zero,
                unit,
            } => {
                let zero = if *or_zero { "0 (off) or " } else { "" };
                let range = match unit {
                    Unit::None => format!("a whole number from {min} to {max}"),
                    Unit::Milliseconds => format!("{min} to {max} milliseconds"),
                    Unit::Bytes => format!("{min} to {max} bytes"),
                };
                let most = unit.in_words(*max).map(|words| format!(" ({words})"));
                format!("{zero}{range}{}", most.unwrap_or_default())
            }
            Self::Number { min, max } if *min == f64::MIN && *max == f64::MAX => {
                "a number".to_owned()
            }
            Self::Number { min, max } => format!("{min:?} to {max:?}"),
            Self::Text(_) | Self::Secret(_) => "text".to_owned(),
            Self::Decimal(_) => "decimal text".to_owned(),
            Self::Figure(_) => "a number or decimal text".to_owned(),
            Self::Word(words) => format!("one of {}", quoted(words)),
            Self::List(_) => "a list of texts".to_owned(),
            Self::Rows { .. } => "a list of tables".to_owned(),
            Self::Group(_) | Self::Named { .. } => "a table".to_owned(),
        }
    }

    /// The canonical form of a single value, or what is wrong with it.
    pub fn accept(&self, value: &Value) -> Result<Value, Problem> {
        let refuse = || Err(format!("must be {}", self.in_words()).into());
        match (self, value) {
            (Self::Switch, Value::Bool(_)) => Ok(value.clone()),
            (
                Self::Whole {
                    min, max, or_zero, ..
                },
                Value::Number(number),
            ) => match number.as_u64() {
                Some(n) if (*min..=*max).contains(&n) || (*or_zero && n == 0) => Ok(n.into()),
                _ => refuse(),
            },
            (Self::Whole { .. }, _) => Err(mismatch("a whole number", value)),
            (Self::Number { min, max }, Value::Number(number)) => match number.as_f64() {
                Some(n) if (*min..=*max).contains(&n) => Ok(n.into()),
                _ => refuse(),
            },
            (Self::Number { .. }, _) => Err(mismatch("a number", value)),
            (
                Self::Text(check) | Self::Secret(check) | Self::Decimal(check),
                Value::String(text),
            ) => check(text).map(Value::from),
            (Self::Decimal(check), Value::Number(number)) => match number.is_f64() {
                true => Err(float_problem(&number.to_string())),
                false => check(&number.to_string()).map(Value::from),
            },
            (Self::Figure(check), Value::String(text)) => check(text).map(|()| value.clone()),
            (Self::Figure(check), Value::Number(number)) => {
                check(&number.to_string()).map(|()| value.clone())
            }
            (Self::Word(words), _) => match value.as_str() {
                Some(text) if words.iter().any(|word| word == text) => Ok(value.clone()),
                _ => refuse(),
            },
            _ => Err(mismatch(&self.in_words(), value)),
        }
    }

    /// The settings inside it have the defaults that a group as a whole has.
    pub(super) fn set_default(&mut self, default: &Value) {
        if let Self::Group(group) = self {
            for member in &mut group.0 {
                member.default = default.get(&member.name).cloned().unwrap_or_default();
                member.kind.set_default(&member.default);
            }
        }
    }

    /// The kind of a single value: a list's is that of its items.
    pub(super) fn innermost(&mut self) -> &mut Self {
        match self {
            Self::List(item) => item.innermost(),
            Self::Named { entry, .. } => entry.innermost(),
            kind => kind,
        }
    }

    /// The settings inside it.
    #[must_use]
    pub fn members(&self) -> Option<&Group> {
        match self {
            Self::Rows { group, .. } | Self::Group(group) => Some(group),
            Self::Named { entry, .. } => entry.members(),
            _ => None,
        }
    }
}

/// Names in backticks, with commas between.
pub fn quoted<T: AsRef<str>>(names: &[T]) -> String {
    let quoted: Vec<_> = names
        .iter()
        .map(|name| format!("`{}`", name.as_ref()))
        .collect();
    quoted.join(", ")
}

/// What to say of a value of another type.
#[must_use]
pub fn mismatch(expected: &str, value: &Value) -> Problem {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(n) if n.is_f64() => "a number with decimals",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a group of settings",
    };
    format!("must be {expected}, not {found}").into()
}

/// What to say of a decimal that is written as a number with a point.
#[must_use]
pub fn float_problem(literal: &str) -> Problem {
    format!("must be text, so that it stays exact: write \"{literal}\"").into()
}

/// Any text that says something: a name, a path.
pub fn plain(text: &str) -> Result<String, Problem> {
    if text.trim().is_empty() {
        return Err("must not be empty".into());
    }
    if text.chars().any(char::is_control) {
        return Err("must not contain control characters".into());
    }
    Ok(text.to_owned())
}

/// A name of the operator's own.
pub fn named(text: &str) -> Result<String, Problem> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if (1..=64).contains(&text.len()) && text.chars().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err("must be named with 1 to 64 letters, digits, `-` or `_`".into())
}

/// How secrets are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// Masked, for whoever looks.
    Masked,
    /// In the clear, for the configuration itself.
    Clear,
}

/// A type that a setting can have.
pub trait Setting: Sized {
    /// What it takes, before the bounds that a field of the type states.
    fn kind() -> Kind;

    /// The value as `config.toml` says it.
    fn write(&self, secrets: Secrets) -> Value;

    /// The value that was written so; `None`: its kind does not take that.
    fn take(value: &Value) -> Option<Self>;

    /// Takes the part of a value that was written so, and keeps what that does not say; `None`: its kind does not
    /// take that.
    fn change(&mut self, value: &Value) -> Option<()> {
        *self = Self::take(value)?;
        Some(())
    }

    /// Finds values that are right by themselves and don't go together.
    fn check(&self, _place: &Place, _faults: &mut Vec<SettingsError>) {}
}

impl Setting for bool {
    fn kind() -> Kind {
        Kind::Switch
    }

    fn write(&self, _: Secrets) -> Value {
        (*self).into()
    }

    fn take(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl Setting for f64 {
    fn kind() -> Kind {
        Kind::Number {
            min: Self::MIN,
            max: Self::MAX,
        }
    }

    fn write(&self, _: Secrets) -> Value {
        // What is no number is written as text, which is refused wherever it is read.
        let number = Number::from_f64(*self).map(Value::Number);
        number.unwrap_or_else(|| self.to_string().into())
    }

    fn take(value: &Value) -> Option<Self> {
        value.as_f64()
    }
}

macro_rules! whole_numbers {
    ($($type:ty: $max:expr),*) => {$(
        impl Setting for $type {
            fn kind() -> Kind {
                Kind::Whole { min: 0, max: $max, or_zero: false, unit: Unit::None }
            }

            fn write(&self, _: Secrets) -> Value {
                (*self).into()
            }

            fn take(value: &Value) -> Option<Self> {
                Self::try_from(value.as_u64()?).ok()
            }
        }
    )*};
}

// TOML's integers end at 63 bits.
whole_numbers!(
    u8: u8::MAX.into(),
    u16: u16::MAX.into(),
    u32: u32::MAX.into(),
    u64: i64::MAX as u64,
    usize: i64::MAX as u64
);

impl Setting for String {
    fn kind() -> Kind {
        Kind::Text(plain)
    }

    fn write(&self, _: Secrets) -> Value {
        self.as_str().into()
    }

    fn take(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

/// `null` is what is not set.
impl<T: Setting> Setting for Option<T> {
    fn kind() -> Kind {
        T::kind()
    }

    fn write(&self, secrets: Secrets) -> Value {
        self.as_ref()
            .map_or(Value::Null, |value| value.write(secrets))
    }

    fn take(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            value => T::take(value).map(Some),
        }
    }

    fn check(&self, place: &Place, errors: &mut Vec<SettingsError>) {
        if let Some(value) = self {
            value.check(place, errors);
        }
    }
}

/// A list of groups is rows.
impl<T: Setting> Setting for Vec<T> {
    fn kind() -> Kind {
        match T::kind() {
            Kind::Group(group) => Kind::Rows {
                group,
                check: |_| Ok(()),
            },
            item => Kind::List(Box::new(item)),
        }
    }

    fn write(&self, secrets: Secrets) -> Value {
        self.iter().map(|item| item.write(secrets)).collect()
    }

    fn take(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(T::take).collect()
    }
}

impl<T: Setting> Setting for BTreeMap<String, T> {
    fn kind() -> Kind {
        Kind::Named {
            check: plain,
            entry: Box::new(T::kind()),
            short: false,
        }
    }

    fn write(&self, secrets: Secrets) -> Value {
        let entries = self
            .iter()
            .map(|(name, entry)| (name.clone(), entry.write(secrets)));
        Value::Object(entries.collect())
    }

    fn take(value: &Value) -> Option<Self> {
        let entries = value.as_object()?.iter();
        entries
            .map(|(name, entry)| Some((name.clone(), T::take(entry)?)))
            .collect()
    }

    fn check(&self, place: &Place, errors: &mut Vec<SettingsError>) {
        for (name, entry) in self {
            entry.check(&place.entry(name), errors);
        }
    }
}

/// Makes settings of enums whose serde form is one word. Every variant must be named.
#[macro_export]
macro_rules! words {
    ($($type:ident { $($variant:ident),* $(,)? })*) => {$(
        impl $crate::model::setting::Setting for $type {
            fn kind() -> $crate::model::setting::Kind {
                $crate::model::setting::words(&[$(Self::$variant),*])
            }

            fn write(&self, _: $crate::model::setting::Secrets) -> ::serde_json::Value {
                // Does not compile while a variant is missing above.
                match self {
                    $(Self::$variant)|* => ::serde_json::to_value(self).unwrap_or_default(),
                }
            }

            fn take(value: &::serde_json::Value) -> Option<Self> {
                <Self as ::serde::Deserialize>::deserialize(value).ok()
            }
        }
    )*};
}

/// Makes settings of types that are read from text and written as text.
#[macro_export]
macro_rules! written {
    ($($type:ty),* $(,)?) => {$(
        impl $crate::model::setting::Setting for $type {
            fn kind() -> $crate::model::setting::Kind {
                $crate::model::setting::Kind::Text(|text| {
                    let read: Result<Self, String> = text.parse();
                    Ok(read?.to_string())
                })
            }

            fn write(&self, _: $crate::model::setting::Secrets) -> ::serde_json::Value {
                self.to_string().into()
            }

            fn take(value: &::serde_json::Value) -> Option<Self> {
                value.as_str()?.parse().ok()
            }
        }
    )*};
}

/// The kind of an enum with these variants.
pub fn words<T: serde::Serialize>(variants: &[T]) -> Kind {
    let word = |variant: &T| match serde_json::to_value(variant) {
        Ok(Value::String(word)) => Some(word),
        _ => None,
    };
    Kind::Word(variants.iter().filter_map(word).collect())
}
