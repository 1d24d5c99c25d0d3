//! Other people's JSON looked at without making a tree of it, which takes a hundred times the memory of the text:
//! lists element by element, texts, the meaning of a value as a digest.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// Shows every element of a list until `look` answers `false`; `None`: it is no list, or was not looked at to its end.
pub fn each<'a>(list: &'a RawValue, look: impl FnMut(&'a RawValue) -> bool) -> Option<()> {
    struct Each<F>(F);

    impl<'de, F: FnMut(&'de RawValue) -> bool> Visitor<'de> for Each<F> {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<bool, A::Error> {
            while let Some(element) = seq.next_element()? {
                if !(self.0)(element) {
                    while seq.next_element::<IgnoredAny>()?.is_some() {}
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }

    let mut deserializer = serde_json::Deserializer::from_str(list.get());
    let is_whole = deserializer.deserialize_seq(Each(look)).ok()?;
    is_whole.then_some(())
}

/// Shows every member of an object until `look` answers `false`; `None`: it is no object, or was not looked at to its
/// end.
pub(crate) fn each_member<'a>(
    object: &'a RawValue,
    look: impl FnMut(&str, &'a RawValue) -> bool,
) -> Option<()> {
    struct Each<F>(F);

    impl<'de, F: FnMut(&str, &'de RawValue) -> bool> Visitor<'de> for Each<F> {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<bool, A::Error> {
            while let Some((Name(name), value)) = map.next_entry()? {
                if !(self.0)(&name, value) {
                    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }

    let mut deserializer = serde_json::Deserializer::from_str(object.get());
    let is_whole = deserializer.deserialize_map(Each(look)).ok()?;
    is_whole.then_some(())
}

/// How deep lists and objects of a text that is JSON stand in each other.
pub(crate) fn levels(json: &str) -> usize {
    let (mut level, mut deepest) = (0_usize, 0);
    let (mut is_text, mut is_escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            _ if is_text => {}
            b'[' | b'{' => {
                level += 1;
                deepest = deepest.max(level);
            }
            b']' | b'}' => level = level.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Names of one object among which one that is given twice is looked for: a body of a million would take memory.
pub(crate) const NAMES_COMPARED_MAX: usize = 1_024;

/// Where inside a name is given twice, as `[0].content`; `None`: nowhere, or deeper than is looked.
pub(crate) fn twice(json: &RawValue) -> Option<String> {
    let mut deserializer = serde_json::Deserializer::from_str(json.get());
    Twice.deserialize(&mut deserializer).ok()?
}

struct Twice;

impl<'de> DeserializeSeed<'de> for Twice {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Twice {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let (mut found, mut number) = (None, 0_usize);
        while let Some(inside) = seq.next_element_seed(Twice)? {
            let place = || inside.map(|inside| format!("[{number}]{inside}"));
            found = found.or_else(place);
            number += 1;
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut found, mut names) = (None, HashSet::new());
        while let Some(Name(name)) = map.next_key()? {
            let again = names.contains(&name).then(String::new);
            let inside = map.next_value_seed(Twice)?;
            let place = || again.or(inside).map(|inside| format!(".{name}{inside}"));
            found = found.or_else(place);
            if names.len() < NAMES_COMPARED_MAX {
                names.insert(name);
            }
        }
        Ok(found)
    }
}

/// A string's text; `None`: it is none.
#[must_use]
pub fn text(json: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(serde::Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    let text: Option<Text<'_>> = serde_json::from_str(json.get()).ok();
    text.map(|text| text.0)
}

/// A whole number that is not negative.
#[must_use]
pub fn number(json: &RawValue) -> Option<u64> {
    serde_json::from_str(json.get()).ok()
}

/// Without the spaces between its parts.
pub(crate) fn compact(json: &str) -> Cow<'_, str> {
    let mut out: Option<String> = None;
    let (mut in_text, mut is_escaped) = (false, false);
    for (at, c) in json.char_indices() {
        if !in_text && matches!(c, ' ' | '\t' | '\n' | '\r') {
            out.get_or_insert_with(|| json.get(..at).unwrap_or_default().to_owned());
            continue;
        }
        in_text ^= c == '"' && !is_escaped;
        is_escaped = in_text && c == '\\' && !is_escaped;
        if let Some(out) = &mut out {
            out.push(c);
        }
    }
    out.map_or(Cow::Borrowed(json), Cow::Owned)
}

/// Feeds the meaning of JSON to a hash: the same for equal JSON, whatever its spacing and the order of its
/// names. `false`: it nests too deep; what the hash holds then is of no use.
pub(crate) fn meaning(json: &str, hash: &mut Sha256) -> bool {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    Meaning(hash).deserialize(&mut deserializer).is_ok()
}

struct Meaning<'h>(&'h mut Sha256);

impl Meaning<'_> {
    fn scalar(self, value: &impl fmt::Display) {
        self.0.update(b"s");
        self.0.update(value.to_string().as_bytes());
        self.0.update(b",");
    }
}

impl<'de> DeserializeSeed<'de> for Meaning<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Meaning<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.scalar(&"null");
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.scalar(&value);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.scalar(&value);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.scalar(&value);
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.scalar(&value);
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.0.update(b"t");
        self.0.update((value.len() as u64).to_be_bytes());
        self.0.update(value.as_bytes());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.0.update(b"[");
        while seq.next_element_seed(Meaning(self.0))?.is_some() {}
        self.0.update(b"]");
        Ok(())
    }

    /// The members' digests are added up: a sum has no order, and needs no room for all of them.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut sum = [0_u64; 4];
        let mut members = 0_u64;
        while let Some(Name(name)) = map.next_key()? {
            let mut member = Sha256::new();
            Meaning(&mut member).visit_str::<A::Error>(&name)?;
            map.next_value_seed(Meaning(&mut member))?;
            let digest: [u8; 32] = member.finalize().into();
            for (sum, part) in sum.iter_mut().zip(digest.chunks_exact(8)) {
                let part = part.iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
                *sum = sum.wrapping_add(part);
            }
            members += 1;
        }
        self.0.update(b"{");
        self.0.update(members.to_be_bytes());
        for part in sum {
            self.0.update(part.to_be_bytes());
        }
        Ok(())
    }
}

/// A name that is borrowed unless it is spelled with escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_list_is_shown_element_by_element() {
        let mut seen = Vec::new();
        let whole = each(raw(r#"[1,{"a":[2]},"x"]"#), |element| {
            seen.push(element.get());
            true
        });
        assert_eq!(whole, Some(()));
        assert_eq!(seen, ["1", r#"{"a":[2]}"#, "\"x\""]);
        assert_eq!(each(raw("[1,2]"), |_| false), None);
        assert_eq!(each(raw("{}"), |_| true), None);
    }

    #[test]
    fn levels_are_counted_where_they_are_no_text() {
        for (json, deep) in [
            ("1", 0),
            (r#""[[[""#, 0),
            (r#"{"a":[1,{}],"b":[[]]}"#, 3),
            (r#"["\"[[",["\\",[]]]"#, 3),
            ("[[],[],[]]", 2),
        ] {
            assert_eq!(levels(json), deep, "{json}");
        }
    }

    #[test]
    fn a_name_that_is_given_twice_is_found_at_its_place() {
        for (json, place) in [
            (
                r#"[{"a":1},{"a":{"b":[0,{"c":1,"c":2}]}}]"#,
                Some("[1].a.b[1].c"),
            ),
            (r#"{"a":1,"\u0061":2}"#, Some(".a")),
            (r#"[{"a":1},{"a":2},1.5,-1,null,true,"a"]"#, None),
            ("{}", None),
        ] {
            assert_eq!(twice(raw(json)).as_deref(), place, "{json}");
        }
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(twice(raw(&deep)), None, "deeper than is looked");
    }

    #[test]
    fn members_are_shown_one_by_one() {
        let mut seen = Vec::new();
        let whole = each_member(raw(r#"{"a":[1],"b":"x"}"#), |name, value| {
            seen.push(format!("{name}={}", value.get()));
            true
        });
        assert_eq!(whole, Some(()));
        assert_eq!(seen, ["a=[1]", "b=\"x\""]);
        assert_eq!(each_member(raw(r#"{"a":1}"#), |_, _| false), None);
        assert_eq!(each_member(raw("[]"), |_, _| true), None);
    }

    #[test]
    fn spaces_count_inside_of_texts_alone() {
        let check = |json: &str, want: &str| assert_eq!(compact(json), want);
        check(r#"{"a":1}"#, r#"{"a":1}"#);
        check(
            "{ \"a b\" : [ 1 ,\n \"c \\\" d\\\\\" , 2 ] }",
            r#"{"a b":[1,"c \" d\\",2]}"#,
        );
    }

    #[test]
    fn json_has_a_meaning_whatever_its_form() {
        let of = |json: &str| {
            let mut hash = Sha256::new();
            assert!(meaning(json, &mut hash), "{json}");
            <[u8; 32]>::from(hash.finalize())
        };
        let same = |a: &str, b: &str| assert_eq!(of(a), of(b), "{a} {b}");
        same(
            r#"{"a":1,"b":[{"c":2,"d":3}]}"#,
            r#"{ "b":[{"d":3,"c":2}] ,"a":1}"#,
        );
        same(r#""\u0061""#, r#""a""#);
        same("1.50", "1.5");
        let all = [
            "null",
            "true",
            "1",
            "-1",
            "1.5",
            "\"1\"",
            "\"null\"",
            "[]",
            "{}",
            "[1]",
            "[[1]]",
            "[1,1]",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"1":"a"}"#,
            r#"{"a":{}}"#,
            r#"{"a":[]}"#,
            r#"["a",1]"#,
            r#"{"a":1,"b":2}"#,
            r#"{"a":2,"b":1}"#,
            r#"[{"a":1},{"b":2}]"#,
            "[12]",
            "[1,2]",
            "\"\"",
        ];
        let digests: std::collections::BTreeSet<_> = all.iter().map(|json| of(json)).collect();
        assert_eq!(digests.len(), all.len());
        assert!(!meaning(&"[".repeat(10_000), &mut Sha256::new()));
    }
}
