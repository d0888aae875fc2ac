//! Event streams: finds where an event ends, reads its fields, writes events.
//!
//! It works on the caller's buffer and copies nothing: the caller bounds the buffer, and with it the longest event.
//! Lines may end in LF, CR or CRLF and pieces may be cut anywhere. What an event *means* is the dialect's affair.

use memchr::{memchr, memchr2};

/// A comment that keeps a connection alive and that every client ignores.
pub const KEEP_ALIVE_COMMENT: &[u8] = b": keep-alive\n\n";

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Where one event lies in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventSpan {
    /// Where its first line begins: behind a byte order mark, or behind the LF of a CRLF that was cut in two.
    pub start: usize,
    /// One past its empty line: how much of the input is done with.
    pub end: usize,
}

/// Finds the ends of events in a stream that arrives in pieces.
///
/// Feed it the same growing buffer; once it returns a span, feed it what is behind `end`. It remembers how far it
/// looked, so that each byte is looked at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Splitter {
    looked: usize,
    line_start: usize,
    /// The last event ended in a CR that was the last byte there was: an LF that follows belongs to it.
    after_carriage_return: bool,
    begun: bool,
}

impl Splitter {
    /// A splitter at the beginning of a stream.
    pub fn new() -> Splitter {
        Splitter::default()
    }

    /// The next event that is whole, its empty line included. An empty line without anything before it is an event
    /// too, one without fields.
    pub fn next_event(&mut self, input: &[u8]) -> Option<EventSpan> {
        if input.len() < self.looked {
            // Not the same growing buffer: what was remembered of it does not hold.
            (self.looked, self.line_start) = (0, 0);
        }
        let start = self.first_line_start(input);
        self.line_start = self.line_start.max(start);
        self.looked = self.looked.max(start);
        while let Some(found) = input.get(self.looked..).and_then(|rest| memchr2(b'\r', b'\n', rest)) {
            let terminator = self.looked + found;
            let empty = terminator == self.line_start;
            let after = match (input.get(terminator), input.get(terminator + 1)) {
                (Some(b'\r'), Some(b'\n')) => terminator + 2,
                // Whether an LF follows decides where the next line begins, and that is not known yet. An empty
                // line ends the event all the same: a stream of CR must not wait for a byte that never comes.
                (Some(b'\r'), None) if !empty => {
                    self.looked = terminator;
                    return None;
                }
                _ => terminator + 1,
            };
            if empty {
                let cut =
                    input.get(terminator) == Some(&b'\r') && after == input.len() && after == terminator + 1;
                *self = Splitter { looked: 0, line_start: 0, after_carriage_return: cut, begun: true };
                return Some(EventSpan { start, end: after });
            }
            self.line_start = after;
            self.looked = after;
        }
        self.looked = input.len();
        None
    }

    /// Where the first line of the event begins, as far as can be told: there is no line end in a part of a byte order
    /// mark, so nothing is decided before it is whole.
    fn first_line_start(&self, input: &[u8]) -> usize {
        if self.begun {
            usize::from(self.after_carriage_return && input.first() == Some(&b'\n'))
        } else if input.starts_with(BYTE_ORDER_MARK) {
            BYTE_ORDER_MARK.len()
        } else {
            0
        }
    }
}

/// The fields of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventView<'a> {
    block: &'a [u8],
    event: Option<&'a [u8]>,
    first_data: Option<&'a [u8]>,
    data_lines: usize,
    field_lines: usize,
    comment_lines: usize,
}

impl<'a> EventView<'a> {
    /// Reads an event: the bytes of an [`EventSpan`], `start` to `end`.
    pub fn parse(block: &'a [u8]) -> EventView<'a> {
        let mut view = EventView {
            block,
            event: None,
            first_data: None,
            data_lines: 0,
            field_lines: 0,
            comment_lines: 0,
        };
        for line in (Lines { rest: block }) {
            match split_field(line) {
                Line::Empty => {}
                Line::Comment => view.comment_lines += 1,
                Line::Field(name, value) => {
                    view.field_lines += 1;
                    view.take_field(name, value);
                }
            }
        }
        view
    }

    /// The event's name; `None` if it has none or an empty one, which means `message`.
    pub fn event_name(&self) -> Option<&'a [u8]> {
        self.event
    }

    /// The first line of data: all of it in nearly every stream. `None` if there is no data line.
    pub fn data(&self) -> Option<&'a [u8]> {
        self.first_data
    }

    /// All lines of data. The data of the event is these, joined by LF.
    pub fn data_lines(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        self.fields().filter(|(name, _)| *name == b"data").map(|(_, value)| value)
    }

    /// How many lines of data there are.
    pub fn data_lines_len(&self) -> usize {
        self.data_lines
    }

    /// The whole data: lent if it has one line, else joined in `scratch`, which is cleared before.
    pub fn whole_data<'b>(&self, scratch: &'b mut Vec<u8>) -> &'b [u8]
    where
        'a: 'b,
    {
        if self.data_lines <= 1 {
            return self.first_data.unwrap_or_default();
        }
        scratch.clear();
        for (place, line) in self.data_lines().enumerate() {
            if place > 0 {
                scratch.push(b'\n');
            }
            scratch.extend_from_slice(line);
        }
        scratch
    }

    /// All fields in order, name and value; comments are left out.
    pub fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone + use<'a> {
        Lines { rest: self.block }.filter_map(|line| match split_field(line) {
            Line::Field(name, value) => Some((name, value)),
            _ => None,
        })
    }

    /// Whether there are comments and nothing else.
    pub fn is_comment_only(&self) -> bool {
        self.field_lines == 0 && self.comment_lines > 0
    }

    /// Whether there is nothing at all: an empty line by itself.
    pub fn is_empty(&self) -> bool {
        self.field_lines == 0 && self.comment_lines == 0
    }

    fn take_field(&mut self, name: &'a [u8], value: &'a [u8]) {
        match name {
            b"event" => self.event = (!value.is_empty()).then_some(value),
            b"data" => {
                self.data_lines += 1;
                self.first_data.get_or_insert(value);
            }
            _ => {}
        }
    }
}

enum Line<'a> {
    Empty,
    Comment,
    Field(&'a [u8], &'a [u8]),
}

fn split_field(line: &[u8]) -> Line<'_> {
    let Some(colon) = memchr(b':', line) else {
        return if line.is_empty() { Line::Empty } else { Line::Field(line, &[]) };
    };
    if colon == 0 {
        return Line::Comment;
    }
    let (name, rest) = line.split_at(colon);
    let value = rest.get(1..).unwrap_or_default();
    Line::Field(name, value.strip_prefix(b" ").unwrap_or(value))
}

/// The lines of a block, without their ends.
#[derive(Clone, Debug)]
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let end = memchr2(b'\r', b'\n', self.rest).unwrap_or(self.rest.len());
        let (line, ending) = self.rest.split_at(end);
        self.rest = match ending {
            [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => rest,
            [] => ending,
        };
        Some(line)
    }
}

/// Writes one event. Data of several lines becomes several data lines. Of a name only what precedes a line end is
/// written: a name cannot begin a field of its own.
pub fn write_event(out: &mut Vec<u8>, event: Option<&str>, data: &[u8]) {
    if let Some(name) = event {
        let name = name.as_bytes();
        let end = memchr2(b'\r', b'\n', name).unwrap_or(name.len());
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.get(..end).unwrap_or_default());
        out.push(b'\n');
    }
    let mut rest = data;
    loop {
        let end = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        let (line, ending) = rest.split_at(end);
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
        rest = match ending {
            [] => break,
            [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => rest,
        };
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests;
