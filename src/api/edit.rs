//! A text with other words in some places, and the rest of it as it was.

use std::ops::Range;

/// What stands at a place from now on; nothing is there yet where the place is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) at: Range<usize>,
    pub(super) text: String,
}

/// A text with these edits, which don't overlap.
pub(super) fn edited(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| edit.at.start);
    let mut out = String::with_capacity(text.len() + 64);
    let mut from = 0;
    for edit in edits {
        out.push_str(text.get(from..edit.at.start).unwrap_or_default());
        out.push_str(&edit.text);
        from = edit.at.end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

/// Where a part of a text stands in it; `None`: it is none of it.
pub(super) fn place(part: &str, text: &str) -> Option<Range<usize>> {
    let start = part.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
    let end = start.checked_add(part.len())?;
    (end <= text.len()).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_as_it_was_but_where_it_is_edited() {
        let text = "one, two";
        let at =
            |part: &'static str| text.find(part).unwrap()..text.find(part).unwrap() + part.len();
        let edit = |at, text: &str| Edit {
            at,
            text: text.to_owned(),
        };
        let edits = vec![edit(at("two"), "2"), edit(0..0, "("), edit(8..8, ")")];
        assert_eq!(edited(text, edits), "(one, 2)");
        assert_eq!(place(&text[5..8], text), Some(5..8));
        assert_eq!(place("another", text), None);
    }
}
