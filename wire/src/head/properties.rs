//! A head may be cut anywhere, hostile bytes end in a refusal, and what is written reads back as the same fields.

use proptest::prelude::*;

use super::tests::{GET, LIMITS, request, response};
use super::*;

/// What a whole head and a refusal come to, to be compared between two ways of feeding the same bytes.
fn summary(head: &RequestHead, parse: Result<Parse, Refusal>) -> Option<(Parse, String)> {
    let fields: Vec<(&str, &[u8])> = head.fields().collect();
    // A head that has not ended is refused as early as is cheap: there, refused and partial are alike.
    parse.ok().filter(|parse| *parse != Parse::Partial).map(|parse| {
        (
            parse,
            format!("{} {} {:?} {:?} {fields:?}", head.method(), head.path(), head.query(), head.framing()),
        )
    })
}

fn fed_whole(input: &[u8]) -> Option<(Parse, String)> {
    let mut head = RequestHead::default();
    let parse = head.parse(input, &LIMITS);
    summary(&head, parse)
}

/// Feeds growing prefixes, each `step` longer, then all of it. A refusal before the end counts as the outcome.
fn fed_in_pieces(input: &[u8], step: usize) -> Option<(Parse, String)> {
    let mut head = RequestHead::default();
    for end in (step..input.len()).step_by(step) {
        match head.parse(&input[..end], &LIMITS) {
            Ok(Parse::Partial) => {}
            outcome => return summary(&head, outcome),
        }
    }
    let parse = head.parse(input, &LIMITS);
    summary(&head, parse)
}

#[test]
fn a_head_may_be_cut_anywhere() {
    for input in [
        &b"\r\nPOST /v1/messages?x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX-Long: aaaaaaaaaaaaaaa\r\n\r\n"[..],
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n",
    ] {
        let whole = fed_whole(input);
        for cut in 1..input.len() {
            assert_eq!(fed_in_pieces(input, cut), whole, "cut at {cut}");
        }
    }
}

/// Lines that make up heads, good and bad.
fn head_line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => proptest::sample::select(vec![
            "GET / HTTP/1.1\r\n", "POST /a?b HTTP/1.1\r\n", "Host: a\r\n", "Content-Length: 12\r\n",
            "Transfer-Encoding: chunked\r\n", "Connection: close, x\r\n", "Expect: 100-continue\r\n", "\r\n",
            "X: \t y \r\n", "GET / HTTP/1.0\r\n", " folded\r\n", "bare: lf\n", "\n", "\r", "a : b\r\n",
        ]).prop_map(|line| line.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..12),
    ]
}

/// A head with some bytes changed, so that most of them nearly parse.
fn mutated_head() -> impl Strategy<Value = Vec<u8>> {
    let base =
        b"POST /v1/messages?beta=true HTTP/1.1\r\nHost: localhost\r\ncontent-length: 10\r\nX: y\r\n\r\n";
    proptest::collection::vec((0..base.len(), any::<u8>()), 0..3).prop_map(|changes| {
        let mut bytes = base.to_vec();
        for (place, byte) in changes {
            bytes[place] = byte;
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn pieces_read_as_the_whole(lines in proptest::collection::vec(head_line(), 1..8), step in 1_usize..40) {
        let input = lines.concat();
        prop_assert_eq!(fed_in_pieces(&input, step), fed_whole(&input));
    }

    #[test]
    fn mutated_heads_read_alike_in_pieces(input in mutated_head(), step in 1_usize..40) {
        prop_assert_eq!(fed_in_pieces(&input, step), fed_whole(&input));
    }

    #[test]
    fn what_is_accepted_is_what_it_seems(input in mutated_head()) {
        // Read the accepted head again by the plainest possible means: split at CRLF and at the first colon.
        let mut head = RequestHead::default();
        if let Ok(Parse::Complete { head_bytes }) = head.parse(&input, &LIMITS) {
            let text = &input[..head_bytes];
            let lines: Vec<&[u8]> = text[..text.len() - 4].split(|&b| b == b'\n').collect();
            prop_assert_eq!(lines.len() - 1, head.fields_len());
            for (line, (name, value)) in lines[1..].iter().zip(head.fields()) {
                let colon = line.iter().position(|&b| b == b':').expect("accepted without a colon");
                prop_assert_eq!(&line[..colon], name.as_bytes());
                prop_assert_eq!(line[colon + 1..].trim_ascii(), value.trim_ascii());
                prop_assert!(!value.iter().any(|&b| matches!(b, 0 | b'\r' | b'\n' | 0x7f)));
            }
        }
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), step in 1_usize..50) {
        let _ = fed_in_pieces(&bytes, step);
        let mut head = ResponseHead::default();
        let status_line = [b"HTTP/1.1 200 OK\r\n", &bytes[..]].concat();
        for input in [&bytes, &status_line] {
            for end in (0..=input.len()).step_by(step) {
                let _ = head.parse(&input[..end], &LIMITS, GET);
            }
        }
    }

    #[test]
    fn a_written_request_reads_back(
        path in "/[!-\"$->@-~]{0,20}",
        query in proptest::option::of("[!-\"$-~]{0,20}"),
        fields in proptest::collection::vec(
            ("x-[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", proptest::collection::vec(any::<u8>(), 0..12)),
            0..12,
        ),
        length in proptest::option::of(0_u64..10_000_000_000_000_000_000),
    ) {
        let mut out = b"before".to_vec();
        let mut expected: Vec<(String, Vec<u8>)> = vec![("host".into(), b"a".to_vec())];
        let mut writer = RequestWriter::new(&mut out, "M-SEARCH", &path, query.as_deref()).expect("valid");
        writer.field("host", b"a").expect("valid");
        if let Some(bytes) = length {
            writer.content_length(bytes).expect("the first");
            expected.push(("content-length".into(), bytes.to_string().into_bytes()));
        }
        for (name, value) in fields {
            // What the writer refuses leaves no trace; what it accepts reads back.
            if writer.field(&name, &value).is_ok() {
                expected.push((name, value));
            }
        }
        writer.finish();
        let head = request(&out[6..]).expect("what the writer accepts the reader accepts");
        let found: Vec<(String, Vec<u8>)> = head.fields().map(|(n, v)| (n.to_owned(), v.to_vec())).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!((head.method(), head.path(), head.query()), ("M-SEARCH", path.as_str(), query.as_deref()));
        prop_assert_eq!(head.framing(), length.map_or(Framing::None, Framing::Length));
    }

    #[test]
    fn a_written_reply_reads_back(
        status in (100_u16..600).prop_filter("never asked for", |status| *status != 101),
        fields in proptest::collection::vec(("x-[a-z]{1,12}", "[ -~\t]{0,20}"), 0..12),
    ) {
        let mut out = Vec::new();
        let mut writer = ResponseWriter::new(&mut out, status);
        let mut expected: Vec<(String, Vec<u8>)> = Vec::new();
        for (name, value) in fields {
            if writer.field(&name, value.as_bytes()).is_ok() {
                expected.push((name, value.into_bytes()));
            }
        }
        writer.finish();
        let head = response(&out, GET).expect("what the writer writes the reader accepts");
        let found: Vec<(String, Vec<u8>)> = head.fields().map(|(n, v)| (n.to_owned(), v.to_vec())).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(head.status(), status);
    }
}
