//! Where the events of a stream begin and end in its bytes, in whatever pieces those come.

use std::fmt::Display;

use super::edit::{Edit, edited};

/// Follows the bytes of a stream, and counts its events.
#[derive(Debug, Default)]
pub(super) struct Boundaries {
    at: At,
    /// The last byte was a carriage return: a line feed behind it is of the same end of line.
    after_return: bool,
    begun: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    /// No event is open.
    #[default]
    Between,
    /// In a line of an event.
    InLine,
    /// At the beginning of a line of an event: an empty one ends it.
    LineBegins,
}

impl Boundaries {
    /// Takes the next byte. Whether an event begins with it.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let is_rest = std::mem::replace(&mut self.after_return, byte == b'\r') && byte == b'\n';
        if is_rest {
            return false;
        }
        let is_end_of_line = matches!(byte, b'\r' | b'\n');
        let begins = self.at == At::Between && !is_end_of_line;
        self.at = match (self.at, is_end_of_line) {
            (At::InLine, true) => At::LineBegins,
            (At::Between | At::LineBegins, true) => At::Between,
            (_, false) => At::InLine,
        };
        self.begun += u64::from(begins);
        begins
    }

    /// Whether no event is open, and what comes next belongs to none.
    pub(super) fn is_between(&self) -> bool {
        self.at == At::Between && !self.after_return
    }

    /// Events that have begun.
    pub(super) const fn begun(&self) -> u64 {
        self.begun
    }
}

/// Writes their numbers into the events of a stream, and leaves out those that its reader had.
#[derive(Debug)]
pub(super) struct Numbered<S> {
    boundaries: Boundaries,
    /// What stands before each number.
    stream: S,
    /// The last that its reader had; 0: none.
    after: u64,
}

impl<S: Display> Numbered<S> {
    pub(super) fn after(stream: S, after: u64) -> Self {
        Self {
            boundaries: Boundaries::default(),
            stream,
            after,
        }
    }

    /// The next piece of the stream, as its reader gets it.
    pub(super) fn piece(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(piece.len() + 32);
        for byte in piece {
            let begins = self.boundaries.take(*byte);
            let n = self.boundaries.begun();
            if n <= self.after && self.after > 0 {
                continue;
            }
            if begins {
                out.extend_from_slice(format!("id: {}-{n}\n", self.stream).as_bytes());
            }
            out.push(*byte);
        }
        out
    }
}

/// Puts whole events together from the pieces of a stream.
#[derive(Debug, Default)]
pub(super) struct Whole {
    boundaries: Boundaries,
    open: Vec<u8>,
}

impl Whole {
    /// What ends in this piece: events, and what stands between them. All of them together are the stream to the byte.
    pub(super) fn events(&mut self, piece: &[u8]) -> Vec<Event> {
        let mut ended = Vec::new();
        for byte in piece {
            if self.boundaries.take(*byte) {
                self.end(&mut ended);
            }
            self.open.push(*byte);
        }
        if self.boundaries.at == At::Between {
            self.end(&mut ended);
        }
        ended
    }

    fn end(&mut self, ended: &mut Vec<Event>) {
        let event = std::mem::take(&mut self.open);
        if !event.is_empty() {
            ended.push(Event::of(String::from_utf8_lossy(&event).into_owned()));
        }
    }
}

/// An event as it came, and what it says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    text: String,
    /// Its lines of data, joined.
    data: String,
    /// Where each of those begins, in the data and in the text.
    lines: Vec<(usize, usize)>,
}

impl Event {
    pub(super) fn of(text: String) -> Self {
        const FIELD: &str = "data:";
        let (mut data, mut lines) = (String::new(), Vec::new());
        let mut at = 0;
        for line in text.split_inclusive(['\r', '\n']) {
            let begin = at;
            at += line.len();
            let Some(said) = line.strip_prefix(FIELD) else {
                continue;
            };
            let content = said.strip_prefix(' ').unwrap_or(said);
            let begin = begin + line.len() - content.len();
            let content = content.trim_end_matches(['\r', '\n']);
            if !lines.is_empty() {
                data.push('\n');
            }
            lines.push((data.len(), begin));
            data.push_str(content);
        }
        Self { text, data, lines }
    }

    /// As it came.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// What it says; `None`: nothing, it is a comment or blank.
    pub(super) fn data(&self) -> Option<&str> {
        (!self.lines.is_empty()).then_some(&*self.data)
    }

    /// As it came, but for these parts of its data.
    pub(super) fn with(&self, edits: Vec<Edit>) -> String {
        let in_text = |at: usize| {
            let before = self.lines.partition_point(|(begin, _)| *begin <= at);
            let line = before.checked_sub(1).and_then(|nth| self.lines.get(nth));
            line.map_or(at, |(begin, begin_in_text)| begin_in_text + at - begin)
        };
        let edits = edits.into_iter().map(|edit| {
            let start = in_text(edit.at.start);
            let end = match edit.at.is_empty() {
                true => start,
                false => in_text(edit.at.end - 1) + 1,
            };
            Edit {
                at: start..end,
                text: edit.text,
            }
        });
        edited(&self.text, edits.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_events_are_put_together_from_any_pieces() {
        let stream = ": hi\n\nevent: a\r\ndata: {\r\ndata:}\r\n\r\ndata: b\n\ndata: torn";
        for piece_bytes in [1, 2, 5, 100] {
            let mut whole = Whole::default();
            let pieces = stream.as_bytes().chunks(piece_bytes);
            let events: Vec<Event> = pieces.flat_map(|piece| whole.events(piece)).collect();
            let data: Vec<&str> = events.iter().filter_map(Event::data).collect();
            assert_eq!(data, ["{\n}", "b"], "{piece_bytes}");
            let all: String = events.iter().map(Event::text).collect();
            assert_eq!(Some(&*all), stream.strip_suffix("data: torn"));
        }
    }

    #[test]
    fn what_is_edited_of_an_event_leaves_the_rest_of_it_as_it_came() {
        let text = "event: a\r\n: hi\ndata: {\"n\": 1,\rdata:\"id\":\"x\"\ndata:  }\nid: 7\n\n";
        let event = Event::of(text.to_owned());
        let data = "{\"n\": 1,\n\"id\":\"x\"\n }";
        assert_eq!(event.data(), Some(data));
        let at = |part: &str| {
            let start = data.find(part).unwrap();
            start..start + part.len()
        };
        let edit = |at, text: &str| Edit {
            at,
            text: text.to_owned(),
        };
        let edits = vec![
            edit(at("\"x\""), "\"ours\""),
            edit(at("1"), "27"),
            edit(1..1, "\"m\":0,"),
        ];
        let want = text
            .replace("\"x\"", "\"ours\"")
            .replace("1,", "27,")
            .replace("{", "{\"m\":0,");
        assert_eq!(event.with(edits), want);
        assert_eq!(event.with(Vec::new()), text);
        // A value that goes over lines is one line afterwards.
        let event = Event::of("data: {\"a\":[\ndata: 1]}\n\n".to_owned());
        let whole = event.with(vec![edit(5..9, "2")]);
        assert_eq!(whole, "data: {\"a\":2}\n\n");
    }

    /// A stream in every way to end a line, with a comment, empty lines to spare and an end that is none.
    const ODD: &str = "\n: hi\n\ndata: a\r\n\r\n\r\nevent: b\rdata: b\r\rdata: c\n\ndata: d";

    fn numbered(after: u64, piece_bytes: usize) -> String {
        let mut numbered = Numbered::after("s", after);
        let pieces = ODD.as_bytes().chunks(piece_bytes);
        let out = pieces.flat_map(|piece| numbered.piece(piece));
        String::from_utf8(out.collect()).unwrap()
    }

    #[test]
    fn events_are_numbered_alike_in_whatever_pieces_they_come() {
        let want = "\nid: s-1\n: hi\n\nid: s-2\ndata: a\r\n\r\n\r\nid: s-3\nevent: b\rdata: b\r\rid: s-4\ndata: c\n\nid: s-5\ndata: d";
        for piece_bytes in [1, 2, 3, 7, 100] {
            assert_eq!(numbered(0, piece_bytes), want);
        }
    }

    #[test]
    fn whoever_had_an_event_gets_what_comes_behind_it() {
        let whole = numbered(0, 1);
        for had in 1..5 {
            let next = format!("id: s-{}\n", had + 1);
            let rest = &whole[whole.find(&next).unwrap()..];
            assert_eq!(numbered(had, 3), rest);
        }
        assert_eq!(numbered(5, 3), "");
    }
}
