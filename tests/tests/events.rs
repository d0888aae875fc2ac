//! Event streams, cut at random into pieces that split line ends and characters: the product's reader against one written
//! here by the text of the standard, and against a parser that many clients use.

use std::fmt::Write;

use tidegate_tests::framing::Random;
use tidegate_tests::sdk;
use tidegate_wire::sse::{EventView, Splitter};

/// Name, if there is one, and data.
type Event = (Option<String>, String);

/// A stream without its pieces: lines and line ends of every kind, and an end that completes nothing.
fn stream(random: &mut Random) -> Vec<u8> {
    let mut text = String::new();
    if random.once_in(4) {
        text.push('\u{feff}');
    }
    for _ in 0..random.below(40) {
        text.push_str(random.of(&[
            "data: a",
            "data:b",
            "data",
            "data:",
            "data:  c ",
            "data: d\u{e9}\u{1f600}\u{2028}",
            "data: {\"k\":\"v\"}",
            "event: x",
            "event:",
            "event",
            "Event: y",
            ": note",
            ":",
            "id: 1",
            "retry: 5",
            "odd",
            "data : e",
            " data: f",
            "data: \u{feff}g",
        ]));
        for _ in 0..1 + random.below(3) {
            text.push_str(random.of(&["\n", "\n", "\r\n", "\r\n", "\r"]));
        }
    }
    // Who waits for a line feed behind the last carriage return is shown that there is none.
    text.push_str(":end\n");
    text.into_bytes()
}

fn cut<'b>(random: &mut Random, mut bytes: &'b [u8]) -> Vec<&'b [u8]> {
    let widest = random.of(&[&1_usize, &2, &5, &40]);
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at((1 + random.below(*widest)).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// By the product's reader, as the relay uses it; never more in hand than the longest event.
fn by_the_product(pieces: &[&[u8]]) -> Vec<Event> {
    let (mut splitter, mut buffer, mut found) = (Splitter::new(), Vec::new(), Vec::new());
    let mut scratch = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("characters are whole in an event");
    for piece in pieces {
        buffer.extend_from_slice(piece);
        let mut at = 0;
        while let Some(span) = splitter.next_event(&buffer[at..]) {
            let view = EventView::parse(&buffer[at + span.start..at + span.end]);
            if view.data_lines_len() > 0 {
                found.push((view.event_name().map(text), text(view.whole_data(&mut scratch))));
            }
            at += span.end;
        }
        buffer.drain(..at);
    }
    found
}

/// By the text of the standard (HTML, 9.2.6), over all of it at once.
fn by_the_standard(bytes: &[u8]) -> Vec<Event> {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n").replace('\r', "\n");
    let (mut data, mut kind, mut found) = (String::new(), String::new(), Vec::new());
    for line in text.split_inclusive('\n').filter_map(|it| it.strip_suffix('\n')) {
        if line.is_empty() {
            if let Some(data) = data.strip_suffix('\n') {
                found.push((Some(kind.clone()).filter(|it| !it.is_empty()), data.to_owned()));
            }
            data.clear();
            kind.clear();
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => drop(writeln!(data, "{value}")),
            "event" => value.clone_into(&mut kind),
            _ => {}
        }
    }
    found
}

#[test]
fn every_cut_of_a_stream_gives_the_events_of_the_standard() {
    let mut events = 0;
    for seed in 0..3_000 {
        let mut random = Random::new(seed);
        let bytes = stream(&mut random);
        let expected = by_the_standard(&bytes);
        let pieces = cut(&mut random, &bytes);
        assert_eq!(by_the_product(&pieces), expected, "seed {seed}: {}", bytes.escape_ascii());
        events += expected.len();
    }
    assert!(events > 10_000, "{events}");
}

#[test]
fn the_parser_of_many_clients_agrees() {
    let mut lines = String::new();
    for seed in 0..600 {
        let mut random = Random::new(seed);
        let bytes = stream(&mut random);
        let pieces = cut(&mut random, &bytes);
        let expected = by_the_product(&pieces);
        let hex = |piece: &&[u8]| piece.iter().map(|it| format!("{it:02x}")).collect::<String>();
        let pieces: Vec<String> = pieces.iter().map(hex).collect();
        lines.push_str(&serde_json::json!({ "pieces": pieces, "expected": expected }).to_string());
        lines.push('\n');
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("streams");
    std::fs::write(&file, lines).expect("a file");
    sdk::node("events.mjs", &[&file.display().to_string()]);
}
