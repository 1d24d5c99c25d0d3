//! Comma-separated values as RFC 4180 writes them: what spreadsheets and databases read.

use std::borrow::Cow;

/// One line with its end. A field with a comma, a quote or a line's end in it is quoted.
pub(crate) fn line<'a>(fields: impl IntoIterator<Item = Cow<'a, str>>) -> String {
    let mut line = String::new();
    for (i, field) in fields.into_iter().enumerate() {
        if i > 0 {
            line.push(',');
        }
        if field.contains([',', '"', '\r', '\n']) {
            line.push('"');
            line.push_str(&field.replace('"', "\"\""));
            line.push('"');
        } else {
            line.push_str(&field);
        }
    }
    line.push_str("\r\n");
    line
}

/// A field that somebody else wrote, such as a prompt or a name. Where it begins like a formula it gets an
/// apostrophe in front: a spreadsheet shows it then, and does not run it. Numbers need none.
pub(crate) fn text(field: &str) -> Cow<'_, str> {
    if field.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        Cow::Owned(format!("'{field}"))
    } else {
        Cow::Borrowed(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_quotes_gets_them() {
        let fields = ["plain", "", "a,b", "say \"hi\"", "two\nlines", "长"];
        assert_eq!(
            line(fields.map(Cow::Borrowed)),
            "plain,,\"a,b\",\"say \"\"hi\"\"\",\"two\nlines\",长\r\n"
        );
    }

    #[test]
    fn a_text_is_never_a_formula() {
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"] {
            assert_eq!(text(formula), format!("'{formula}"));
        }
        for plain in ["", "a=1", " =1", "'=1", "1-1"] {
            assert_eq!(text(plain), plain);
        }
    }
}
