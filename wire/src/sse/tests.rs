//! The grammar of event streams by cases and against a plain second reader, and the same events however the bytes
//! are cut.

use proptest::prelude::*;

use super::*;

/// Name and data of an event, as a client would dispatch it.
type Event = (Option<String>, String);

fn owned(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The events of a stream that arrives in pieces of `step` bytes and whose buffer is drained as it goes.
fn events(input: &[u8], step: usize) -> Vec<Event> {
    let mut splitter = Splitter::new();
    let mut buffer: Vec<u8> = Vec::new();
    let mut found = Vec::new();
    let mut scratch = Vec::new();
    for piece in input.chunks(step.max(1)) {
        buffer.extend_from_slice(piece);
        let mut at = 0;
        while let Some(span) = splitter.next_event(&buffer[at..]) {
            let view = EventView::parse(&buffer[at + span.start..at + span.end]);
            if view.data_lines_len() > 0 {
                found.push((view.event_name().map(owned), owned(view.whole_data(&mut scratch))));
            }
            at += span.end;
        }
        buffer.drain(..at);
    }
    found
}

/// A second reader, by the text of the standard: whole input, lines first, then fields.
fn plain_reader(input: &[u8]) -> Vec<Event> {
    let text = owned(input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input));
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let (mut found, mut name, mut data) = (Vec::new(), String::new(), None::<String>);
    let mut lines: Vec<&str> = text.split('\n').collect();
    lines.pop();
    for line in lines {
        if line.is_empty() {
            if let Some(data) = data.take() {
                found.push(((!name.is_empty()).then(|| name.clone()), data));
            }
            name.clear();
        } else if let Some((field, value)) = line.split_once(':').or(Some((line, ""))) {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => name = value.to_owned(),
                "data" => {
                    data = Some(data.map_or_else(|| value.to_owned(), |before| before + "\n" + value));
                }
                _ => {}
            }
        }
    }
    found
}

fn event(name: &str, data: &str) -> Event {
    ((!name.is_empty()).then(|| name.to_owned()), data.to_owned())
}

#[test]
fn events_are_split_at_empty_lines_of_any_kind() {
    let expected = vec![event("a", "1"), event("", "2"), event("", "3")];
    for ending in ["\n", "\r", "\r\n"] {
        let text = "event: a|data: 1||data: 2||data: 3||".replace('|', ending);
        for step in 1..=text.len() {
            assert_eq!(events(text.as_bytes(), step), expected, "{ending:?} in pieces of {step}");
        }
    }
}

#[test]
fn the_span_covers_the_empty_line() {
    let mut splitter = Splitter::new();
    assert_eq!(splitter.next_event(b"data: 1\n\ndata: 2\n"), Some(EventSpan { start: 0, end: 9 }));
    assert_eq!(splitter.next_event(b"data: 2\n"), None);
    assert_eq!(splitter.next_event(b"data: 2\n\n"), Some(EventSpan { start: 0, end: 9 }));
    assert_eq!(splitter.next_event(b""), None);
    assert_eq!(splitter.next_event(b"\r\n"), Some(EventSpan { start: 0, end: 2 }));
}

#[test]
fn an_event_of_carriage_returns_does_not_wait_for_the_next_one() {
    let mut splitter = Splitter::new();
    assert_eq!(splitter.next_event(b"data: 1\r\r"), Some(EventSpan { start: 0, end: 9 }));
    // The LF that belonged to the last CR is not a line of its own.
    assert_eq!(splitter.next_event(b"\ndata: 2\r\n\r"), Some(EventSpan { start: 1, end: 11 }));
    assert_eq!(splitter.next_event(b"\n"), None);
    assert_eq!(splitter.next_event(b"\n\n"), Some(EventSpan { start: 1, end: 2 }));
}

#[test]
fn a_byte_order_mark_is_dropped_at_the_beginning_only() {
    let text = b"\xef\xbb\xbfdata: 1\n\n\xef\xbb\xbfdata: 2\n\ndata: 3\n\n";
    for step in 1..text.len() {
        assert_eq!(events(text, step), [event("", "1"), event("", "3")], "in pieces of {step}");
    }
    let mut splitter = Splitter::new();
    assert_eq!(splitter.next_event(b"\xef\xbb"), None);
    assert_eq!(splitter.next_event(b"\xef\xbb\xbf\n"), Some(EventSpan { start: 3, end: 4 }));
}

#[test]
fn each_byte_is_looked_at_once() {
    let mut splitter = Splitter::new();
    let mut buffer = vec![b'x'; 1000];
    assert_eq!(splitter.next_event(&buffer), None);
    assert_eq!(splitter.looked, 1000);
    // What was looked at is not looked at again: a line end put there behind its back is not seen.
    buffer[10..12].copy_from_slice(b"\n\n");
    buffer.extend_from_slice(b"y\n\n");
    assert_eq!(splitter.next_event(&buffer), Some(EventSpan { start: 0, end: 1003 }));
}

#[test]
fn a_shorter_buffer_starts_over() {
    let mut splitter = Splitter::new();
    assert_eq!(splitter.next_event(b"data: something long\n"), None);
    assert_eq!(splitter.next_event(b"data: 1\n\n"), Some(EventSpan { start: 0, end: 9 }));
}

#[test]
fn fields_are_read_by_the_grammar() {
    let view = EventView::parse(
        b": note\nevent: first\nevent:second\ndata:  two spaces\ndata\nid: 7\ndata:c:d\nodd\n\n",
    );
    assert_eq!(view.event_name(), Some(&b"second"[..]));
    assert_eq!(view.data(), Some(&b" two spaces"[..]));
    assert_eq!(view.data_lines().collect::<Vec<_>>(), [&b" two spaces"[..], b"", b"c:d"]);
    assert_eq!((view.data_lines_len(), view.whole_data(&mut vec![1])), (3, &b" two spaces\n\nc:d"[..]));
    assert_eq!(
        view.fields().filter(|(name, _)| *name == b"id").map(|(_, value)| value).next(),
        Some(&b"7"[..])
    );
    assert!(!view.is_comment_only() && !view.is_empty());
    let no_name = EventView::parse(b"event: \ndata: x\n\n");
    assert_eq!((no_name.event_name(), no_name.whole_data(&mut Vec::new())), (None, &b"x"[..]));
    assert_eq!(EventView::parse(b"Data: x\n\n").data(), None, "names have case");
    assert_eq!(EventView::parse(b"event: ping\n\n").whole_data(&mut Vec::new()), b"");
}

#[test]
fn comments_and_emptiness_are_told_apart() {
    let comment = EventView::parse(KEEP_ALIVE_COMMENT);
    assert!(comment.is_comment_only() && !comment.is_empty());
    let empty = EventView::parse(b"\r\n");
    assert!(!empty.is_comment_only() && empty.is_empty());
    assert!(!EventView::parse(b": a\nid: 1\n\n").is_comment_only());
    assert_eq!(events(KEEP_ALIVE_COMMENT, 3), []);
}

#[test]
fn an_event_is_written_so_that_it_reads_back() {
    let mut out = Vec::new();
    write_event(&mut out, Some("error"), b"{\"a\":1}");
    write_event(&mut out, None, b"");
    write_event(&mut out, Some("x\ndata: injected"), b"one\r\ntwo\rthree\n");
    assert_eq!(
        owned(&out),
        "event: error\ndata: {\"a\":1}\n\ndata: \n\nevent: x\ndata: one\ndata: two\ndata: three\ndata: \n\n"
    );
    assert_eq!(
        events(&out, 1),
        [event("error", "{\"a\":1}"), event("", ""), event("x", "one\ntwo\nthree\n")]
    );
}

/// Pieces of streams, line ends of every kind among them.
fn stream_text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => proptest::sample::select(vec![
            "data: a", "data:b", "data", "event: x", "event:", ": c", "id: 1", "\n", "\n\n", "\r", "\r\r",
            "\r\n", "\r\n\r\n",
            "\u{feff}", " ", ":", "\u{e9}\u{1f600}", "data: {\"k\":\"v\"}\n\n",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn every_split_gives_the_same_events(text in stream_text(), step in 1_usize..20) {
        prop_assert_eq!(events(&text, step), events(&text, text.len()));
    }

    #[test]
    fn agrees_with_a_plain_reader(text in stream_text(), step in 1_usize..20) {
        prop_assert_eq!(events(&text, step), plain_reader(&text));
    }

    #[test]
    fn what_is_written_reads_back(
        name in proptest::option::of("[a-z_.]{1,10}"),
        data in "[ -~\u{e9}\u{1f600}]{0,40}",
        step in 1_usize..20,
    ) {
        let mut out = Vec::new();
        write_event(&mut out, name.as_deref(), data.as_bytes());
        prop_assert_eq!(events(&out, step), [(name, data)]);
    }
}
