//! What a file that is no JSON lines is instead: told once, in place of a bad line for each of its lines.

use serde::de::IgnoredAny;

/// A file of another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Characters of two bytes or four, in this encoding.
    Wide(&'static str),
    /// gzip.
    Gzip,
    /// One JSON array.
    Array,
    /// JSON objects, each over several lines.
    Pretty,
    /// JSON objects, with a comma behind each.
    Commas,
    /// A table with this between its cells.
    Table(char),
    /// Text without any JSON.
    Text,
}

impl Shape {
    /// What a file is that begins with these bytes, if it is no JSON lines. `whole`: they are all of it.
    pub(crate) fn of(head: &[u8], whole: bool) -> Option<Self> {
        if let Some(encoding) = wide(head) {
            return Some(Self::Wide(encoding));
        }
        if head.starts_with(&[0x1f, 0x8b]) {
            return Some(Self::Gzip);
        }
        let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
        let head = head.trim_ascii_start();
        if head.starts_with(b"[") && is_array(head, whole) {
            return Some(Self::Array);
        }
        let mut rest = head;
        while rest.starts_with(b"{") {
            let (line, after) = first_line(rest);
            if serde_json::from_slice::<IgnoredAny>(line).is_ok() {
                rest = after.trim_ascii_start();
                continue;
            }
            if rest.len() == head.len() && ends_with_comma(line) {
                return Some(Self::Commas);
            }
            return spans_lines(rest, line.len(), whole).then_some(Self::Pretty);
        }
        // JSON lines with a bad one among them are what they seem to be.
        if rest.len() < head.len() {
            return None;
        }
        text(head, whole)
    }

    /// What it is called.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Wide(_) => "is UTF-16 or UTF-32 text",
            Self::Gzip => "is compressed with gzip",
            Self::Array => "is one JSON array",
            Self::Pretty => "holds JSON objects over several lines each",
            Self::Commas => "has a comma behind each JSON object",
            Self::Table(',') => "is a table (CSV)",
            Self::Table('\t') => "is a table (TSV)",
            Self::Table(_) => "is a table",
            Self::Text => "is text without JSON",
        }
    }

    /// How to make JSON lines of it.
    pub(crate) fn help(self, name: &str) -> String {
        let (from, to) = match name {
            "-" => (String::new(), String::new()),
            name => (
                format!(" {}", quoted(name)),
                format!(" > {}", quoted(&lines_of(name))),
            ),
        };
        let python = |separator: &str| {
            let input = if from.is_empty() {
                String::new()
            } else {
                format!(" <{from}")
            };
            format!(
                "python3 -c 'import csv,json,sys; [print(json.dumps(row)) for row in \
                 csv.DictReader(sys.stdin{separator})]'{input}{to}, with a column named prompt"
            )
        };
        match self {
            Self::Wide(encoding) => format!("iconv -f {encoding} -t UTF-8{from}{to}"),
            Self::Gzip => format!("gunzip -c{from}{to}"),
            Self::Array => format!("jq -c '.[]'{from}{to}"),
            Self::Pretty => format!("jq -c .{from}{to}"),
            Self::Commas => format!("sed 's/,[[:space:]]*$//'{from}{to}"),
            Self::Table(',') => python(""),
            Self::Table('\t') => python(", delimiter=\"\\t\""),
            Self::Table(separator) => python(&format!(", delimiter=\"{separator}\"")),
            Self::Text => {
                format!("for a prompt a line: jq -Rc '{{prompt: .}}'{from}{to}")
            }
        }
    }
}

/// Where the lines go: never into the file that they come from, which the shell would empty before it is read.
fn lines_of(name: &str) -> String {
    let path = std::path::Path::new(name);
    path.with_extension("lines.jsonl").display().to_string()
}

/// As one word of a shell.
fn quoted(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/+,:@%".contains(c);
    if !name.starts_with('-') && name.chars().all(is_plain) {
        return name.to_owned();
    }
    format!("'{}'", name.replace('\'', "'\\''"))
}

/// The encoding of a text whose characters have two bytes or four, as iconv names it.
fn wide(head: &[u8]) -> Option<&'static str> {
    let (encoding, is_text) = match head {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => ("UTF-32", true),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => ("UTF-16", true),
        // ASCII without a mark.
        [0, 0, 0, a, ..] => ("UTF-32BE", a.is_ascii_graphic()),
        [a, 0, 0, 0, ..] => ("UTF-32LE", a.is_ascii_graphic()),
        [0, a, 0, b, ..] => ("UTF-16BE", a.is_ascii_graphic() && b.is_ascii()),
        [a, 0, b, 0, ..] => ("UTF-16LE", a.is_ascii_graphic() && b.is_ascii()),
        _ => return None,
    };
    is_text.then_some(encoding)
}

/// Whether a line is one JSON value with a comma behind it.
fn ends_with_comma(line: &[u8]) -> bool {
    let value = line.trim_ascii_end().strip_suffix(b",");
    value.is_some_and(|value| serde_json::from_slice::<IgnoredAny>(value).is_ok())
}

/// The first line without its end, and what follows it.
fn first_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|b| *b == b'\n') {
        Some(end) => {
            let (line, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
            (line.trim_ascii_end(), rest.get(1..).unwrap_or_default())
        }
        None => (bytes.trim_ascii_end(), &[]),
    }
}

/// Whether an array goes through these bytes, rather than that a line of JSON lines happens to be one.
fn is_array(head: &[u8], whole: bool) -> bool {
    let mut values = serde_json::Deserializer::from_slice(head).into_iter::<IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => {
            let rest = head.get(values.byte_offset()..).unwrap_or_default();
            rest.trim_ascii().is_empty()
        }
        Some(Err(error)) if error.is_eof() => !whole || first_line(head).0.len() < head.len(),
        // A comma too many does not make it JSON lines.
        Some(Err(_)) => {
            let first = head.get(1..).unwrap_or_default().trim_ascii_start();
            first.starts_with(b"{") && first_line(head).0 == b"["
        }
        None => false,
    }
}

/// Whether the object that begins here goes on behind its first line.
fn spans_lines(bytes: &[u8], line: usize, whole: bool) -> bool {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => values.byte_offset() > line + 1,
        Some(Err(error)) => error.is_eof() && !whole && line < bytes.len(),
        None => false,
    }
}

/// A table or plain text: no line of it begins as JSON does.
fn text(head: &[u8], whole: bool) -> Option<Shape> {
    const LINES_LOOKED_AT: usize = 20;
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The end may be cut within a character.
        Err(error) if !whole && head.len() - error.valid_up_to() < 4 => {
            std::str::from_utf8(head.get(..error.valid_up_to())?).ok()?
        }
        Err(_) => return None,
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.take(LINES_LOOKED_AT).collect();
    if lines.len() < 2 || lines.iter().any(|line| line.starts_with(['{', '['])) {
        return None;
    }
    let header = lines.first()?;
    let cells = |separator| {
        let named = header.split(separator);
        let plain = |cell: &str| cell.trim().trim_matches('"').to_ascii_lowercase();
        named.map(plain).collect::<Vec<_>>()
    };
    let is_header = |cells: &[String]| {
        cells.len() > 1
            && cells.iter().all(|cell| {
                cell.chars().count() <= 40 && !cell.is_empty() && !cell.contains(['.', '?', '!'])
            })
    };
    for separator in [',', '\t', ';', '|'] {
        let rest = lines.iter().skip(1);
        if is_header(&cells(separator)) && rest.clone().any(|line| line.contains(separator)) {
            return Some(Shape::Table(separator));
        }
    }
    if header.trim_matches('"').eq_ignore_ascii_case("prompt") {
        return Some(Shape::Table(','));
    }
    Some(Shape::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Shape> {
        Shape::of(text.as_bytes(), true)
    }

    #[test]
    fn a_file_of_another_kind_is_recognised() {
        for (text, want) in [
            ("[\"a\", \"b\"]\n", Shape::Array),
            ("[{\"prompt\":\"a\"},{\"prompt\":\"b\"}]", Shape::Array),
            (
                "\u{feff} [\n  {\"prompt\":\"a\"},\n  {\"prompt\":\"b\"}\n]\n",
                Shape::Array,
            ),
            (
                "[\n{\"prompt\":\"a\"},\n{\"prompt\":\"b\"},\n]\n",
                Shape::Array,
            ),
            (
                "{\n  \"prompt\": \"a\"\n}\n{\n  \"prompt\": \"b\"\n}\n",
                Shape::Pretty,
            ),
            ("{\"prompt\": \"a\",\n \"priority\": 1}\n", Shape::Pretty),
            (
                "{\"prompt\":\"a\"}\n{\n\"prompt\": \"b\"\n}\n",
                Shape::Pretty,
            ),
            ("{\"prompt\":\"a\"},\n{\"prompt\":\"b\"}\n", Shape::Commas),
            ("prompt,model\nName one river.,glm-5\n", Shape::Table(',')),
            ("id;prompt\r\n1;Name one river.\r\n", Shape::Table(';')),
            ("id\tprompt\n1\tName one river.\n", Shape::Table('\t')),
            (
                "prompt\nName one river.\nName one lake.\n",
                Shape::Table(','),
            ),
            ("\"id\",\"prompt\"\n\"1\",\"a, b\nc\"\n", Shape::Table(',')),
            ("Name one river.\nName one lake, or two.\n", Shape::Text),
        ] {
            assert_eq!(of(text), Some(want), "{text}");
        }
        let wide: Vec<u8> = "{\"prompt\":\"a\"}\n"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert_eq!(Shape::of(&wide, true), Some(Shape::Wide("UTF-16LE")));
        let marked: Vec<u8> = [0xff, 0xfe].into_iter().chain(wide).collect();
        assert_eq!(Shape::of(&marked, true), Some(Shape::Wide("UTF-16")));
        let wider = [0, 0, 0, b'{', 0, 0, 0, b'"'];
        let help = Shape::of(&wider, true).unwrap().help("a.jsonl");
        assert_eq!(help, "iconv -f UTF-32BE -t UTF-8 a.jsonl > a.lines.jsonl");
        assert_eq!(Shape::of(&[0x1f, 0x8b, 8, 0], true), Some(Shape::Gzip));
    }

    #[test]
    fn a_file_that_is_cut_off_by_its_head_is_recognised_too() {
        let cut = |text: &str| Shape::of(text.as_bytes(), false);
        assert_eq!(cut("[{\"prompt\":\"a\"},{\"pro"), Some(Shape::Array));
        assert_eq!(cut("{\n  \"prompt\": \"a"), Some(Shape::Pretty));
        assert_eq!(cut("{\"prompt\":\"a\"}\n{\"prompt\":\"b"), None);
        assert_eq!(cut("{\"prompt\":\"a"), None, "its line goes on");
    }

    #[test]
    fn json_lines_with_bad_ones_among_them_are_what_they_are() {
        for text in [
            "",
            "\n\n",
            "{\"prompt\":\"a\"}\n",
            "{\"prompt\":\"a\"}\nnot json\n{\"prompt\":\"b\"}\n",
            "not json\n{\"prompt\":\"b\"}\n",
            "[1]\n{\"prompt\":\"b\"}\n",
            "{\"prompt\":\"torn\n{\"prompt\":\"b\"}\n",
            "{\"prompt\":\"torn",
            "not json\n",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
