//! Members of a noun that its row keeps and no wire form shows, marked at the field:
//!
//! ```text
//! #[serde(default, skip_serializing_if = "private")]
//! #[schemars(skip)]
//! pub callback_url: Option<String>,
//! ```
//!
//! serde asks `skip_serializing_if` of the value alone, never of the serializer. So the store says that it
//! writes a row by doing so inside [`row`]; whatever is written anywhere else is for the wire and leaves
//! out what is private.

use std::cell::Cell;

thread_local! {
    static ROW: Cell<bool> = const { Cell::new(false) };
}

/// Writes a row: inside `write` the private members of nouns are written, too.
pub fn row<T>(write: impl FnOnce() -> T) -> T {
    /// Puts back what was said before, also when `write` panics.
    struct Before(bool);

    impl Drop for Before {
        fn drop(&mut self) {
            ROW.set(self.0);
        }
    }

    let _before = Before(ROW.replace(true));
    write()
}

/// Marks a private member: whether to leave it out, for `skip_serializing_if`.
pub(crate) fn private<T>(_: &T) -> bool {
    !ROW.get()
}

/// Marks a member of a job that stands at the head of its row, and there without its name.
pub(crate) fn in_head<T>(_: &T) -> bool {
    ROW.get()
}

/// Marks a private member that rows leave out when there is none.
pub(crate) fn private_or_none<T>(value: &Option<T>) -> bool {
    private(value) || value.is_none()
}

/// Marks a private member whose default is left out of rows, too.
pub(crate) fn private_or_default<T: Default + PartialEq>(value: &T) -> bool {
    private(value) || *value == T::default()
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Serialize)]
    struct Noun {
        told: u8,
        #[serde(skip_serializing_if = "private")]
        kept: u8,
        #[serde(skip_serializing_if = "private_or_default")]
        kept_if_set: Option<u8>,
    }

    fn written(noun: &Noun) -> Value {
        serde_json::to_value(noun).unwrap()
    }

    #[test]
    fn a_private_member_is_in_the_row_and_never_on_the_wire() {
        let noun = |kept_if_set| Noun {
            told: 1,
            kept: 2,
            kept_if_set,
        };
        assert_eq!(written(&noun(Some(3))), json!({"told": 1}));
        let in_row = |noun: &Noun| row(|| written(noun));
        let all = json!({"told": 1, "kept": 2, "kept_if_set": 3});
        assert_eq!(in_row(&noun(Some(3))), all);
        assert_eq!(in_row(&noun(None)), json!({"told": 1, "kept": 2}));
        // A row that could not be written to its end changes nothing for what comes after it.
        let broken = std::panic::catch_unwind(|| row(|| panic!("no room")));
        assert!(broken.is_err());
        assert_eq!(written(&noun(Some(3))), json!({"told": 1}));
    }
}
