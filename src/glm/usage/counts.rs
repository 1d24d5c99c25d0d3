//! Reads the counts of a `usage` object where they stand, without building a tree: between two calls.

use std::fmt;

use onelane_core::model::limits;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::Names;

/// What stands where a count is looked for.
#[derive(Clone, Copy, Default)]
pub(super) struct Told {
    /// The count, if it is one.
    pub(super) count: Option<u64>,
    /// It is a number, be it a count or none.
    pub(super) is_number: bool,
}

/// The counts of a face, in the order of `Names::paths`.
pub(super) type Counts = [Told; PATHS];
/// How many counts are looked for.
pub(super) const PATHS: usize = 7;

/// Reads the counts of an object; of anything else there are none.
pub(super) fn read<'de, D: Deserializer<'de>>(usage: D, names: &Names) -> Counts {
    let mut counts = Counts::default();
    let object = Object {
        paths: names.paths(),
        within: "",
        counts: &mut counts,
    };
    match object.deserialize(usage) {
        Ok(()) => counts,
        Err(_) => Counts::default(),
    }
}

/// An object whose members are looked at; `within` is its name, empty at the top.
struct Object<'a> {
    paths: [&'static str; PATHS],
    within: &'a str,
    counts: &'a mut Counts,
}

impl Object<'_> {
    /// What is left of a path inside the object that is looked at.
    fn inside(&self, path: &'static str) -> Option<&'static str> {
        match self.within {
            "" => Some(path),
            outer => path.strip_prefix(outer)?.strip_prefix('/'),
        }
    }

    fn put(&mut self, told: Told, is_meant: impl Fn(&Self, &'static str) -> bool) {
        for (at, path) in self.paths.into_iter().enumerate() {
            if is_meant(self, path)
                && let Some(count) = self.counts.get_mut(at)
            {
                *count = told;
            }
        }
    }
}

/// What a member is to whoever looks for counts.
enum Member {
    /// The count of this name.
    Count(&'static str),
    /// An object of this name that may have counts.
    Object(&'static str),
    Other,
}

impl<'de> DeserializeSeed<'de> for &Object<'_> {
    type Value = Member;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<Member, D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for &Object<'_> {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<Member, E> {
        let known = self.paths.into_iter().filter_map(|path| self.inside(path));
        let mut known = known.filter(|path| !path.is_empty());
        Ok(known
            .find_map(|path| match path.split_once('/') {
                Some((outer, _)) if outer == name => Some(Member::Object(outer)),
                None if path == name => Some(Member::Count(path)),
                _ => None,
            })
            .unwrap_or(Member::Other))
    }
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("counts of tokens")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        while let Some(member) = members.next_key_seed(&self)? {
            match member {
                Member::Count(name) => {
                    let told = members.next_value()?;
                    self.put(told, |object, path| object.inside(path) == Some(name));
                }
                Member::Object(name) => {
                    // Of a name that is there twice the last one counts, with all that it has.
                    let of_it = |_: &Self, path: &str| {
                        path.split_once('/').is_some_and(|(outer, _)| outer == name)
                    };
                    self.put(Told::default(), of_it);
                    members.next_value_seed(Object {
                        paths: self.paths,
                        within: name,
                        counts: self.counts,
                    })?;
                }
                Member::Other => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<(), A::Error> {
        IgnoredAny.visit_seq(items).map(drop)
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Told {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        value.deserialize_any(Count)
    }
}

/// A count of tokens: GLM's are whole numbers, a relay's may be floats or text. More than any call can
/// have is none: such sums would hide all that was really used.
struct Count;

impl Count {
    fn number(count: Option<u64>) -> Told {
        Told {
            is_number: true,
            ..Self::text(count)
        }
    }

    fn text(count: Option<u64>) -> Told {
        Told {
            count: count.filter(|count| *count <= limits::TOKENS_MAX),
            is_number: false,
        }
    }
}

impl<'de> Visitor<'de> for Count {
    type Value = Told;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a count of tokens")
    }

    fn visit_u64<E>(self, count: u64) -> Result<Told, E> {
        Ok(Self::number(Some(count)))
    }

    fn visit_i64<E>(self, count: i64) -> Result<Told, E> {
        Ok(Self::number(u64::try_from(count).ok()))
    }

    fn visit_f64<E>(self, count: f64) -> Result<Told, E> {
        Ok(Self::number(whole(count)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Told, E> {
        let text = text.trim();
        let count = text.parse().ok();
        Ok(Self::text(count.or_else(|| whole(text.parse().ok()?))))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Told, E> {
        Ok(Told::default())
    }

    fn visit_unit<E>(self) -> Result<Told, E> {
        Ok(Told::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Told, A::Error> {
        IgnoredAny.visit_map(members).map(|_| Told::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Told, A::Error> {
        IgnoredAny.visit_seq(items).map(|_| Told::default())
    }
}

/// A float that is a whole number. A value far out of range becomes the end of the range.
fn whole(float: f64) -> Option<u64> {
    (float >= 0.0 && float.fract() == 0.0).then_some(float as u64)
}
