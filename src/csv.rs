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
}
