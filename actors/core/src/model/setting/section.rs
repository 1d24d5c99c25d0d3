//! A group of settings: a struct whose fields say once what each setting is, means, takes and is by default.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::kind::{Kind, RowsCheck, Secrets, Setting, TextCheck, Unit};
use super::{KeyPath, quoted};

/// Settings that belong together, in the order of `config.toml`.
#[derive(Debug, Clone)]
pub struct Group(pub Vec<Field>);

/// One setting of a group.
#[derive(Debug, Clone)]
pub struct Field {
    /// The name in `config.toml`.
    pub name: String,
    /// What it means, line by line.
    pub doc: Vec<String>,
    /// What it takes.
    pub kind: Kind,
    /// What it is when nobody says anything; null: not set.
    pub default: Value,
    /// Its name at the top of the admin API's `GLMConfig`, where that is not made from `name`.
    pub json: Option<&'static str>,
    /// The settings inside it are at the top of `GLMConfig`.
    pub is_at_top: bool,
    /// It can't change while the program runs.
    pub is_fixed: bool,
    /// A row without it is refused.
    pub is_required: bool,
    /// It is left out of what is shown where it is not set.
    pub is_left_out: bool,
    /// What the sample in `config.toml` says, in TOML; a setting with one stands there commented out.
    pub sample: Option<&'static str>,
    /// The settings or entries inside it stand in the group itself, their names behind this.
    flat: Option<&'static str>,
}

impl Field {
    /// A setting of this type, as its struct says it.
    #[must_use]
    pub fn of<T: Setting>(name: &str, doc: &[&str], default: &T) -> Self {
        let mut kind = T::kind();
        if let Kind::Whole { unit, .. } = kind.innermost() {
            *unit = Unit::of(name);
        }
        let default = default.write(Secrets::Masked);
        kind.set_default(&default);
        Self {
            name: name.to_owned(),
            doc: doc.iter().map(|line| line.trim().to_owned()).collect(),
            kind,
            default,
            json: None,
            is_at_top: false,
            is_fixed: false,
            is_required: false,
            is_left_out: false,
            sample: None,
            flat: None,
        }
    }

    /// It must be in these bounds.
    #[must_use]
    pub fn within(mut self, bounds: impl Into<Bounds>) -> Self {
        match (bounds.into(), self.kind.innermost()) {
            (Bounds::Whole(bounds), Kind::Whole { min, max, .. }) => {
                (*min, *max) = (*bounds.start(), *bounds.end());
            }
            (Bounds::Number(bounds), Kind::Number { min, max }) => {
                (*min, *max) = (*bounds.start(), *bounds.end());
            }
            _ => {}
        }
        self
    }

    /// 0 will do besides, and switches off what it is about.
    #[must_use]
    pub fn or_zero(mut self) -> Self {
        if let Kind::Whole { or_zero, .. } = self.kind.innermost() {
            *or_zero = true;
        }
        self
    }

    /// Its text, or each of its texts, must pass the check.
    #[must_use]
    pub fn text(mut self, own: TextCheck) -> Self {
        if let Kind::Text(check) | Kind::Decimal(check) = self.kind.innermost() {
            *check = own;
        }
        self
    }

    /// Its text, or each of its texts, must be one of these words.
    #[must_use]
    pub fn words(mut self, words: &[&str]) -> Self {
        *self.kind.innermost() = Kind::Word(words.iter().map(|word| (*word).to_owned()).collect());
        self
    }

    /// Its rows must go together.
    #[must_use]
    pub fn rows(mut self, own: RowsCheck) -> Self {
        if let Kind::Rows { check, .. } = &mut self.kind {
            *check = own;
        }
        self
    }

    /// The names of its entries must pass the check.
    #[must_use]
    pub fn names(mut self, own: TextCheck) -> Self {
        if let Kind::Named { check, .. } = &mut self.kind {
            *check = own;
        }
        self
    }

    /// The first setting of an entry may stand alone in its place.
    #[must_use]
    pub fn short_entries(mut self) -> Self {
        if let Kind::Named { short, .. } = &mut self.kind {
            *short = true;
        }
        self
    }

    /// It is called so in `config.toml`.
    #[must_use]
    pub fn called(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// The settings or entries inside it stand in the group itself, their names behind this.
    #[must_use]
    pub const fn flat(mut self, prefix: &'static str) -> Self {
        self.flat = Some(prefix);
        self
    }

    /// It is called so at the top of `GLMConfig`.
    #[must_use]
    pub const fn json(mut self, name: &'static str) -> Self {
        self.json = Some(name);
        self
    }

    /// The settings inside it are at the top of `GLMConfig`.
    #[must_use]
    pub const fn at_top(mut self) -> Self {
        self.is_at_top = true;
        self
    }

    /// It can't change while the program runs.
    #[must_use]
    pub const fn fixed(mut self) -> Self {
        self.is_fixed = true;
        self
    }

    /// A row without it is refused.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.is_required = true;
        self
    }

    /// It is left out of what is shown where it is not set.
    #[must_use]
    pub const fn left_out(mut self) -> Self {
        self.is_left_out = true;
        self
    }

    /// What the sample in `config.toml` says, in TOML.
    #[must_use]
    pub const fn sample(mut self, toml: &'static str) -> Self {
        self.sample = Some(toml);
        self
    }

    /// The path of its value in the group at a path.
    #[must_use]
    pub fn path_in(&self, group: &KeyPath) -> KeyPath {
        match self.flat {
            Some(_) => group.clone(),
            None => group.join(&*self.name),
        }
    }

    /// Whether what is inside it stands in the group itself.
    #[must_use]
    pub const fn is_flat(&self) -> bool {
        self.flat.is_some()
    }

    /// Puts its value into what the group's is.
    pub fn put(&self, group: &mut Map<String, Value>, value: Value) {
        match (self.flat, value) {
            (Some(prefix), Value::Object(inner)) => {
                group.extend(
                    inner
                        .into_iter()
                        .map(|(name, value)| (format!("{prefix}{name}"), value)),
                );
            }
            (_, Value::Null) if self.is_left_out => {}
            (_, value) => {
                group.insert(self.name.clone(), value);
            }
        }
    }

    /// Its value in what the group's is; `None`: it is not there.
    #[must_use]
    pub fn find(&self, group: &Value) -> Option<Value> {
        let Some(prefix) = self.flat else {
            return group.get(&self.name).cloned();
        };
        let inner = group.as_object()?.iter();
        let inner = inner.filter_map(|(name, value)| {
            Some((name.strip_prefix(prefix)?.to_owned(), value.clone()))
        });
        Some(Value::Object(inner.collect()))
    }
}

impl Group {
    /// The group of these fields, those of flat ones among them.
    #[must_use]
    pub fn of(fields: Vec<Field>) -> Self {
        let flattened = fields.into_iter().flat_map(|field| match field {
            Field {
                flat: Some(prefix),
                kind: Kind::Group(Self(members)),
                doc,
                default,
                ..
            } => {
                let member = |member: Field| Field {
                    default: default.get(&member.name).cloned().unwrap_or_default(),
                    name: format!("{prefix}{}", member.name),
                    // A prefix says what the members are about, and so does the doc.
                    doc: match prefix.is_empty() {
                        true => member.doc,
                        false => doc.iter().cloned().chain(member.doc).collect(),
                    },
                    ..member
                };
                members.into_iter().map(member).collect()
            }
            field => vec![field],
        });
        Self(flattened.collect())
    }

    /// The setting of this name in `config.toml`.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.0.iter().find(|field| field.name == name)
    }

    /// The names in `config.toml`, in backticks.
    #[must_use]
    pub fn names(&self) -> String {
        let names: Vec<_> = self.0.iter().map(|field| &field.name).collect();
        quoted(&names)
    }
}

/// Bounds of a number.
#[derive(Debug, Clone)]
pub enum Bounds {
    /// Of a whole number.
    Whole(RangeInclusive<u64>),
    /// Of any number.
    Number(RangeInclusive<f64>),
}

impl From<RangeInclusive<u64>> for Bounds {
    fn from(bounds: RangeInclusive<u64>) -> Self {
        Self::Whole(bounds)
    }
}

impl From<RangeInclusive<f64>> for Bounds {
    fn from(bounds: RangeInclusive<f64>) -> Self {
        Self::Number(bounds)
    }
}

/// Where the settings of a group are.
#[derive(Debug, Clone, Default)]
pub struct Place {
    group: KeyPath,
    prefix: String,
}

impl Place {
    /// The path of a setting here, by its name in the group's struct.
    #[must_use]
    pub fn at(&self, name: &str) -> KeyPath {
        self.group.join(format!("{}{name}", self.prefix))
    }

    /// The path of the group itself.
    #[must_use]
    pub const fn group(&self) -> &KeyPath {
        &self.group
    }

    /// Where the settings of an entry of this name are.
    #[must_use]
    pub fn entry(&self, name: &str) -> Self {
        Self {
            group: self.group.join(name),
            prefix: String::new(),
        }
    }

    /// Where the settings inside a field are.
    #[must_use]
    pub fn inside(&self, field: &Field) -> Self {
        match field.flat {
            Some(prefix) => Self {
                group: self.group.clone(),
                prefix: format!("{}{prefix}", self.prefix),
            },
            None => Self {
                group: self.at(&field.name),
                prefix: String::new(),
            },
        }
    }
}

/// A struct of settings. Each field has its doc, its type and its default, and what else there is to say of
/// it as calls of [`Field`]'s methods. After the struct's name may follow a function that finds values which
/// don't go together: `fn(&Self, &Place, &mut Vec<SettingsError>)`.
///
/// ```
/// onelane_core::section! {
///     /// `[tea]`: how it is made.
///     pub struct Tea {
///         /// How long it draws.
///         draw_ms: u64 = 180_000 => [within(1..=600_000)];
///         /// Whether there is milk in it.
///         milk: bool = false;
///     }
/// }
/// assert_eq!(Tea::default().draw_ms, 180_000);
/// ```
#[macro_export]
macro_rules! section {
    (
        $(#[doc = $about:literal])*
        $(#[derive($($derive:ident),*)])?
        pub struct $name:ident $(checked by $check:path)? {
            $(
                $(#[doc = $doc:literal])*
                $field:ident: $type:ty = $default:expr $(=> [$($said:tt)*])?;
            )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, PartialEq $($(, $derive)*)?)]
        pub struct $name {
            $($(#[doc = $doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $name {
            /// What its fields say, in their order.
            fn fields() -> &'static [$crate::model::setting::Field] {
                use $crate::model::setting::Field;
                static FIELDS: ::std::sync::LazyLock<Vec<Field>> = ::std::sync::LazyLock::new(|| {
                    let default = $name::default();
                    vec![$(
                        Field::of(stringify!($field), &[$($doc),*], &default.$field)
                            $(.$($said)*)?
                    ),*]
                });
                &FIELDS
            }
        }

        impl $crate::model::setting::Setting for $name {
            fn kind() -> $crate::model::setting::Kind {
                let fields = Self::fields().to_vec();
                $crate::model::setting::Kind::Group($crate::model::setting::Group::of(fields))
            }

            fn write(&self, secrets: $crate::model::setting::Secrets) -> ::serde_json::Value {
                let mut group = ::serde_json::Map::new();
                let mut fields = Self::fields().iter();
                $(
                    if let Some(field) = fields.next() {
                        let value = $crate::model::setting::Setting::write(&self.$field, secrets);
                        field.put(&mut group, value);
                    }
                )*
                ::serde_json::Value::Object(group)
            }

            fn take(value: &::serde_json::Value) -> Option<Self> {
                let mut taken = Self::default();
                $crate::model::setting::Setting::change(&mut taken, value)?;
                Some(taken)
            }

            fn change(&mut self, value: &::serde_json::Value) -> Option<()> {
                let mut fields = Self::fields().iter();
                $(
                    if let Some(found) = fields.next()?.find(value) {
                        $crate::model::setting::Setting::change(&mut self.$field, &found)?;
                    }
                )*
                Some(())
            }

            fn check(
                &self,
                place: &$crate::model::setting::Place,
                errors: &mut Vec<$crate::model::setting::SettingsError>,
            ) {
                let mut fields = Self::fields().iter();
                $(
                    if let Some(field) = fields.next() {
                        $crate::model::setting::Setting::check(
                            &self.$field,
                            &place.inside(field),
                            errors,
                        );
                    }
                )*
                $($check(self, place, errors);)?
            }
        }
    };
}
