//! Where the events of a stream begin and end in its bytes, in whatever pieces those come.

use std::fmt::Display;

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
    /// The data of the events that end in this piece, each its lines joined; those without any are left out.
    pub(super) fn data(&mut self, piece: &[u8]) -> Vec<String> {
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

    fn end(&mut self, ended: &mut Vec<String>) {
        let event = std::mem::take(&mut self.open);
        let event = String::from_utf8_lossy(&event);
        let lines = event.split(['\r', '\n']);
        let data = lines.filter_map(|line| line.strip_prefix("data:"));
        let data: Vec<&str> = data
            .map(|data| data.strip_prefix(' ').unwrap_or(data))
            .collect();
        if !data.is_empty() {
            ended.push(data.join("\n"));
        }
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
            let events: Vec<String> = pieces.flat_map(|piece| whole.data(piece)).collect();
            assert_eq!(events, ["{\n}", "b"], "{piece_bytes}");
        }
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
