//! One case a rule. The properties are in `properties`.

use super::*;

pub(super) const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 16 * 1024, fields_max: 100 };
pub(super) const GET: RequestKind = RequestKind { head_method: false };

pub(super) fn request(input: &[u8]) -> Result<RequestHead, Refusal> {
    let mut head = RequestHead::default();
    match head.parse(input, &LIMITS)? {
        Parse::Complete { head_bytes } => assert_eq!(head_bytes, input.len()),
        Parse::Partial => panic!("not complete: {:?}", String::from_utf8_lossy(input)),
    }
    Ok(head)
}

pub(super) fn response(input: &[u8], kind: RequestKind) -> Result<ResponseHead, Refusal> {
    let mut head = ResponseHead::default();
    match head.parse(input, &LIMITS, kind)? {
        Parse::Complete { head_bytes } => assert_eq!(head_bytes, input.len()),
        Parse::Partial => panic!("not complete: {:?}", String::from_utf8_lossy(input)),
    }
    Ok(head)
}

/// A request with these lines behind the request line and `host`.
fn with_fields(lines: &str) -> Result<RequestHead, Refusal> {
    request(format!("POST /v1 HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes())
}

fn reply(lines: &str) -> Result<ResponseHead, Refusal> {
    response(format!("HTTP/1.1 200 OK\r\n{lines}\r\n").as_bytes(), GET)
}

#[track_caller]
fn refused(input: &[u8], refusal: Refusal) {
    assert_eq!(request(input).err(), Some(refusal), "{:?}", String::from_utf8_lossy(input));
}

#[test]
fn a_request_is_read() {
    let head = request(
        b"POST /v1/messages?beta=true&x HTTP/1.1\r\nHost: local\r\nX-Api-Key:  k\t\r\nEmpty:\r\nx-api-key: \xff2\
         \r\n\r\n",
    )
    .expect("valid");
    assert_eq!((head.method(), head.path(), head.query()), ("POST", "/v1/messages", Some("beta=true&x")));
    assert_eq!(head.field("x-api-key"), Some(&b"k"[..]));
    assert_eq!(head.field_all("X-API-KEY").collect::<Vec<_>>(), [&b"k"[..], b"\xff2"]);
    assert_eq!(head.field("empty"), Some(&b""[..]));
    assert_eq!(head.field("absent"), None);
    assert_eq!(
        head.fields().map(|(name, _)| name).collect::<Vec<_>>(),
        ["Host", "X-Api-Key", "Empty", "x-api-key"]
    );
    assert_eq!(
        (head.framing(), head.keep_alive(), head.http_1_0(), head.fields_len()),
        (Framing::None, true, false, 4)
    );
}

#[test]
fn the_query_is_none_empty_or_text() {
    let query = |target: &str| {
        let head = request(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).expect("valid");
        (head.path().to_owned(), head.query().map(str::to_owned))
    };
    assert_eq!(query("/"), ("/".into(), None));
    assert_eq!(query("/a?"), ("/a".into(), Some(String::new())));
    assert_eq!(query("/a?b?c"), ("/a".into(), Some("b?c".into())));
}

#[test]
fn what_follows_a_head_is_not_looked_at() {
    let mut head = RequestHead::default();
    let input = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\x00\nrest";
    assert_eq!(head.parse(input, &LIMITS), Ok(Parse::Complete { head_bytes: 27 }));
}

#[test]
fn a_head_is_used_again_without_allocating() {
    let mut head = RequestHead::default();
    let input = b"GET /first HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\n";
    head.parse(input, &LIMITS).expect("valid");
    let before = head.field("host").expect("there").as_ptr();
    let next = b"GET /2 HTTP/1.1\r\nX-Longer: abc\r\nHost: b\r\n\r\n";
    head.parse(next, &LIMITS).expect("valid");
    assert_eq!((head.path(), head.framing(), head.keep_alive()), ("/2", Framing::None, true));
    assert!(before.addr().abs_diff(head.field("host").expect("there").as_ptr().addr()) < input.len());
    head.clear();
    assert_eq!((head.method(), head.path(), head.query(), head.fields_len()), ("", "", None, 0));
}

#[test]
fn nothing_of_the_last_head_shows_while_the_next_is_partial() {
    let mut head = RequestHead::default();
    let input = b"POST /a?b HTTP/1.0\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n";
    head.parse(input, &LIMITS).expect("valid");
    assert_eq!(head.parse(b"GET /", &LIMITS), Ok(Parse::Partial));
    assert_eq!((head.method(), head.path(), head.query(), head.framing()), ("", "", None, Framing::None));
    assert!(!head.keep_alive() && head.field("connection").is_none());
    let mut head = ResponseHead::default();
    head.parse(b"HTTP/1.1 200 OK\r\n\r\n", &LIMITS, GET).expect("valid");
    assert_eq!(head.framing(), Framing::UntilClose);
    assert_eq!(head.parse(b"HTTP/1.1 5", &LIMITS, GET), Ok(Parse::Partial));
    assert_eq!(
        (head.status(), head.reason(), head.framing(), head.keep_alive()),
        (0, "", Framing::None, false)
    );
}

#[test]
fn line_ends_are_crlf() {
    refused(b"GET / HTTP/1.1\nHost: a\n\n", Refusal::BareLineEnd);
    refused(b"GET / HTTP/1.1\r\nHost: a\n\r\n", Refusal::BareLineEnd);
    refused(b"GET / HTTP/1.1\r\nHost: a\r\n\n", Refusal::BareLineEnd);
    refused(b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", Refusal::FieldValue);
    refused(b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\r\n\r\n", Refusal::FieldValue);
    refused(b"GET / HTTP/1.1\r\nHost: a\r\nX\r: b\r\n\r\n", Refusal::FieldName);
    refused(b"GET / HTTP/1.1\rHost: a\r\n\r\n", Refusal::StartLine);
    refused(b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::StartLine);
}

#[test]
fn one_leading_pair_is_tolerated() {
    assert!(request(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
    refused(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::LeadingLines);
    refused(b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BareLineEnd);
    refused(b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::StartLine);
}

#[test]
fn fields_have_a_plain_name_and_no_folding() {
    for (lines, refusal) in [
        ("X : b\r\n", Refusal::FieldName),
        ("X\t: b\r\n", Refusal::FieldName),
        (": b\r\n", Refusal::FieldName),
        ("no colon\r\n", Refusal::FieldName),
        ("nocolon\r\n", Refusal::FieldName),
        ("X(: b\r\n", Refusal::FieldName),
        ("X\u{e9}: b\r\n", Refusal::FieldName),
        ("X: b\r\n c\r\n", Refusal::Folded),
        ("X: b\r\n\tc: d\r\n", Refusal::Folded),
        (" X: b\r\n", Refusal::Folded),
    ] {
        assert_eq!(with_fields(lines).err(), Some(refusal), "{lines:?}");
        assert_eq!(reply(lines).err(), Some(refusal), "{lines:?}");
    }
}

#[test]
fn field_values_hold_no_control_byte_but_the_tab() {
    for byte in 0..=0xff_u8 {
        let mut input = b"GET / HTTP/1.1\r\nHost: a\r\nX: a".to_vec();
        input.push(byte);
        input.extend_from_slice(b"b\r\n\r\n");
        let allowed = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        let outcome = request(&input).map(|head| head.field("x").map(<[u8]>::to_vec));
        let expected = if byte == b'\n' { Refusal::BareLineEnd } else { Refusal::FieldValue };
        match outcome {
            Ok(value) => assert!(allowed && value == Some(vec![b'a', byte, b'b']), "{byte:#x}"),
            Err(refusal) => assert!(!allowed && refusal == expected, "{byte:#x}: {refusal:?}"),
        }
    }
}

#[test]
fn the_target_is_in_origin_form() {
    let of = |target: &[u8]| {
        let mut input = b"GET ".to_vec();
        input.extend_from_slice(target);
        input.extend_from_slice(b" HTTP/1.1\r\nHost: a\r\n\r\n");
        request(&input).err()
    };
    for target in
        ["http://a/", "*", "a:80", "//a/#f", "/#", "/a#b?c", "a", "?", "/\u{e9}", "/\x7f", "/\x01", "/a\tb"]
    {
        assert_eq!(of(target.as_bytes()), Some(Refusal::Target), "{target:?}");
    }
    for target in ["/a b", "", " /"] {
        assert!(of(target.as_bytes()).is_some(), "{target:?}");
    }
    assert_eq!(of(b"/\xff"), Some(Refusal::Target));
    for target in ["/", "//a", "/%00?%0a", "/a:b@c/*;d=e,f!$&'()+~", "/?a=[b]|{c}"] {
        assert_eq!(of(target.as_bytes()), None, "{target:?}");
    }
}

#[test]
fn connect_and_the_preface_of_http_2_are_refused() {
    refused(b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::Target);
    refused(b"PRI * HTTP/2.0\r\n\r\n", Refusal::Version);
}

#[test]
fn only_two_versions_are_spoken() {
    for (version, refusal) in [
        ("HTTP/1.2", Refusal::Version),
        ("HTTP/0.9", Refusal::Version),
        ("HTTP/2.0", Refusal::Version),
        ("HTTP/3.0", Refusal::Version),
        ("HTTP/1.10", Refusal::StartLine),
        ("HTTP/1.01", Refusal::StartLine),
        ("HTTP/01.1", Refusal::StartLine),
        ("HTTP/1", Refusal::Version),
        ("http/1.1", Refusal::StartLine),
        ("HTTP/1.1 ", Refusal::StartLine),
        (" HTTP/1.1", Refusal::StartLine),
        ("ICE/1.0", Refusal::StartLine),
        ("", Refusal::StartLine),
    ] {
        refused(format!("GET / {version}\r\nHost: a\r\n\r\n").as_bytes(), refusal);
    }
    refused(b"GET /\r\n\r\n", Refusal::StartLine);
    refused(b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::StartLine);
    refused(b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::StartLine);
}

#[test]
fn there_is_exactly_one_host() {
    refused(b"GET / HTTP/1.1\r\n\r\n", Refusal::HostMissing);
    refused(b"GET / HTTP/1.1\r\nHost: a\r\nhOST: a\r\n\r\n", Refusal::HostRepeated);
    refused(b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", Refusal::HostRepeated);
    assert!(request(b"GET / HTTP/1.0\r\n\r\n").is_ok());
    for host in ["", "a b", "a,b", "a/b", "a@b", "a?b", "a#b", "a\\b", "a\tb", "\u{e9}"] {
        refused(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), Refusal::HostInvalid);
    }
    for host in ["localhost:4000", "[::1]:80", "a_b.c-d", "127.0.0.1"] {
        assert!(request(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).is_ok(), "{host}");
    }
}

#[test]
fn a_length_is_digits_once() {
    for (lines, refusal) in [
        ("Content-Length: \r\n", Refusal::LengthInvalid),
        ("Content-Length: +1\r\n", Refusal::LengthInvalid),
        ("Content-Length: -1\r\n", Refusal::LengthInvalid),
        ("Content-Length: 0x1\r\n", Refusal::LengthInvalid),
        ("Content-Length: 1_0\r\n", Refusal::LengthInvalid),
        ("Content-Length: 1, 1\r\n", Refusal::LengthInvalid),
        ("Content-Length: 1 1\r\n", Refusal::LengthInvalid),
        ("Content-Length: 1.0\r\n", Refusal::LengthInvalid),
        ("Content-Length: 1;a\r\n", Refusal::LengthInvalid),
        ("Content-Length: \u{661}\r\n", Refusal::LengthInvalid),
        ("Content-Length: 1\r\nContent-Length: 1\r\n", Refusal::LengthRepeated),
        ("Content-Length: 1\r\ncontent-length: 2\r\n", Refusal::LengthRepeated),
        ("Content-Length: 18446744073709551616\r\n", Refusal::LengthTooLarge),
        ("Content-Length: 99999999999999999999999\r\n", Refusal::LengthTooLarge),
    ] {
        assert_eq!(with_fields(lines).err(), Some(refusal), "{lines:?}");
        assert_eq!(reply(lines).err(), Some(refusal), "{lines:?}");
    }
    let framing = |lines| with_fields(lines).map(|head| head.framing());
    assert_eq!(framing("Content-Length: 0\r\n"), Ok(Framing::Length(0)));
    assert_eq!(framing("content-length: \t0042 \r\n"), Ok(Framing::Length(42)));
    assert_eq!(
        framing("content-length: 9999999999999999999\r\n"),
        Ok(Framing::Length(9_999_999_999_999_999_999))
    );
}

#[test]
fn a_coding_is_chunked_once_and_alone() {
    for (lines, refusal) in [
        ("Transfer-Encoding: gzip\r\n", Refusal::CodingUnsupported),
        ("Transfer-Encoding: gzip, chunked\r\n", Refusal::CodingUnsupported),
        ("Transfer-Encoding: chunked, chunked\r\n", Refusal::CodingUnsupported),
        ("Transfer-Encoding: chunked,\r\n", Refusal::CodingUnsupported),
        ("Transfer-Encoding: chunked;a=b\r\n", Refusal::CodingUnsupported),
        ("Transfer-Encoding: \"chunked\"\r\n", Refusal::CodingUnsupported),
        ("Transfer-Encoding: xchunked\r\n", Refusal::CodingUnsupported),
        ("Transfer-Encoding: identity\r\n", Refusal::CodingUnsupported),
        ("Transfer-Encoding: \x0bchunked\r\n", Refusal::FieldValue),
        ("Transfer-Encoding:\r\n", Refusal::CodingUnsupported),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Refusal::CodingRepeated),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", Refusal::CodingRepeated),
        ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", Refusal::LengthWithCoding),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", Refusal::LengthWithCoding),
    ] {
        assert_eq!(with_fields(lines).err(), Some(refusal), "{lines:?}");
        assert_eq!(reply(lines).err(), Some(refusal), "{lines:?}");
    }
    let framing = |lines| with_fields(lines).map(|head| head.framing());
    assert_eq!(framing("Transfer-Encoding: chunked\r\n"), Ok(Framing::Chunked));
    assert_eq!(framing("TRANSFER-ENCODING:\tCHUNKED \r\n"), Ok(Framing::Chunked));
    refused(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::CodingOn10);
    assert_eq!(
        response(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", GET).err(),
        Some(Refusal::CodingOn10)
    );
}

#[test]
fn only_the_continue_expectation_is_met() {
    let head = with_fields("Expect: 100-Continue\r\nContent-Length: 5\r\n").expect("valid");
    assert!(head.expects_continue());
    assert!(
        !with_fields("Expect: 100-continue\r\n").expect("valid").expects_continue(),
        "there is no body to wait with"
    );
    let old =
        request(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").expect("valid");
    assert!(!old.expects_continue());
    for lines in [
        "Expect: 200-ok\r\n",
        "Expect:\r\n",
        "Expect: 100-continue, x\r\n",
        "Expect: 100-continue\r\nExpect: 100-continue\r\n",
    ] {
        assert_eq!(with_fields(lines).err(), Some(Refusal::Expectation), "{lines:?}");
    }
}

#[test]
fn connection_options_decide_about_the_connection() {
    let keeps = |input: &str| request(input.as_bytes()).expect("valid").keep_alive();
    assert!(keeps("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: x, close\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
    assert!(keeps("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n"));
    let head =
        with_fields("Connection: , X-Hop ,close\r\nconnection: upgrade\r\nUpgrade: h2c\r\n").expect("valid");
    assert!(head.connection_names("x-hop") && head.connection_names("Upgrade"));
    assert!(
        !head.connection_names("host") && !head.connection_names("hop") && !head.connection_names("x-hop-2")
    );
    for value in ["close; x", "\"close\"", "a b", "clo\u{e9}se"] {
        assert_eq!(
            with_fields(&format!("Connection: {value}\r\n")).err(),
            Some(Refusal::ConnectionOption),
            "{value}"
        );
    }
}

#[test]
fn upgrade_is_ignored_and_a_switch_refused() {
    let head =
        with_fields("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n").expect("valid");
    assert_eq!((head.framing(), head.keep_alive()), (Framing::Length(2), true));
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(response(switch, GET).err(), Some(Refusal::Upgraded));
}

#[test]
fn the_limits_hold_to_the_byte() {
    let whole = b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n";
    let parse = |head_bytes_max, fields_max| {
        RequestHead::default().parse(whole, &HeadLimits { head_bytes_max, fields_max })
    };
    assert_eq!(parse(whole.len(), 2), Ok(Parse::Complete { head_bytes: whole.len() }));
    assert_eq!(parse(whole.len() - 1, 2), Err(Refusal::HeadTooLarge));
    assert_eq!(parse(whole.len(), 1), Err(Refusal::FieldsTooMany));
    assert_eq!(parse(10, 2), Err(Refusal::TargetTooLong));
    // A full buffer without an end is refused: it could never be filled further.
    let unfinished = &whole[..whole.len() - 2];
    let full = HeadLimits { head_bytes_max: unfinished.len(), fields_max: 2 };
    assert_eq!(RequestHead::default().parse(unfinished, &full), Err(Refusal::HeadTooLarge));
    // A head that is cut before the limit may still end at it.
    let limits = HeadLimits { head_bytes_max: whole.len(), fields_max: 2 };
    assert_eq!(RequestHead::default().parse(&whole[..whole.len() - 1], &limits), Ok(Parse::Partial));
    let long = vec![b'a'; 200_000];
    let wide = HeadLimits { head_bytes_max: usize::MAX, fields_max: usize::MAX };
    assert_eq!(
        RequestHead::default().parse(&[b"GET /", &long[..]].concat(), &wide),
        Err(Refusal::TargetTooLong)
    );
    let head = [b"GET / HTTP/1.1\r\nHost: a\r\nA: ", &long[..]].concat();
    assert_eq!(RequestHead::default().parse(&head, &wide), Err(Refusal::HeadTooLarge));
}

#[test]
fn many_fields_up_to_the_limit_are_read() {
    let lines: String = (0..99).map(|number| format!("x{number}: {number}\r\n")).collect();
    let head = with_fields(&lines).expect("valid");
    assert_eq!((head.fields_len(), head.field("X98")), (100, Some(&b"98"[..])));
    assert_eq!(with_fields(&format!("{lines}y: 1\r\n")).err(), Some(Refusal::FieldsTooMany));
}

#[test]
fn what_cannot_become_a_head_is_refused_early() {
    let early = |input: &[u8]| RequestHead::default().parse(input, &LIMITS);
    assert_eq!(early(b"\x16\x03\x01\x02\x00\x01"), Err(Refusal::StartLine), "a TLS hello");
    assert_eq!(early(b"GET http:"), Ok(Parse::Partial), "the target may go on, and is judged when it ends");
    assert_eq!(early(b"GET http://a/ "), Err(Refusal::Target));
    assert_eq!(early(b"GET / HTTP/1"), Ok(Parse::Partial));
    assert_eq!(early(b"GET / HTTP/2"), Err(Refusal::Version));
    assert_eq!(early(b"GET / HTTP/2.0\r"), Err(Refusal::Version));
    assert_eq!(early(b"GET / HTTP/1.1\r\nX : b"), Err(Refusal::FieldName));
    assert_eq!(ResponseHead::default().parse(b"SSH-2.0", &LIMITS, GET), Err(Refusal::StartLine));
    assert_eq!(early(b"GET / HTTP/1.1\r\nX: y\r\n z"), Err(Refusal::Folded), "though the line has not ended");
    assert_eq!(ResponseHead::default().parse(b"HTTP/2", &LIMITS, GET), Err(Refusal::Version));
    assert_eq!(early(b""), Ok(Parse::Partial));
    assert_eq!(early(b"\r"), Ok(Parse::Partial));
    assert_eq!(early(b"\r\n"), Ok(Parse::Partial));
}

#[test]
fn a_shorter_input_starts_over() {
    let mut head = RequestHead::default();
    assert_eq!(head.parse(b"GET /one HTTP/1.1\r\nHost: a\r\n", &LIMITS), Ok(Parse::Partial));
    assert!(matches!(head.parse(b"GET / HTTP/1.1\r\nHost:a\r\n\r\n", &LIMITS), Ok(Parse::Complete { .. })));
    assert_eq!((head.path(), head.field("host")), ("/", Some(&b"a"[..])));
}

#[test]
fn a_reply_is_read() {
    let head = response(b"HTTP/1.1 529 Overloaded now\r\nretry-after: 3\r\ncontent-length: 7\r\n\r\n", GET)
        .expect("valid");
    assert_eq!((head.status(), head.reason(), head.framing()), (529, "Overloaded now", Framing::Length(7)));
    assert_eq!(head.field("Retry-After"), Some(&b"3"[..]));
    assert!(head.keep_alive() && !head.is_interim() && !head.http_1_0());
    for line in ["HTTP/1.1 200 ", "HTTP/1.1 200", "HTTP/1.1 200 \u{e9}"] {
        let head = response(format!("{line}\r\ncontent-length: 0\r\n\r\n").as_bytes(), GET).expect("valid");
        assert_eq!((head.status(), head.reason()), (200, ""), "{line:?}");
    }
}

#[test]
fn a_bad_status_line_is_refused() {
    for (line, refusal) in [
        ("HTTP/1.1 099 x", Refusal::Status),
        ("HTTP/1.1 600 x", Refusal::Status),
        ("HTTP/1.1 999", Refusal::Status),
        ("HTTP/1.1 20 x", Refusal::StartLine),
        ("HTTP/1.1 2000 x", Refusal::StartLine),
        ("HTTP/1.1  200 x", Refusal::StartLine),
        ("HTTP/1.1 2x0 x", Refusal::StartLine),
        ("HTTP/1.1 200 a\x01b", Refusal::StartLine),
        ("HTTP/1.1\t200 x", Refusal::StartLine),
        ("HTTP/2.0 200 x", Refusal::Version),
        ("HTTP/1.2 200 x", Refusal::Version),
        ("HTTP/1.11 200 x", Refusal::StartLine),
        ("ICY 200 OK", Refusal::StartLine),
    ] {
        assert_eq!(response(format!("{line}\r\n\r\n").as_bytes(), GET).err(), Some(refusal), "{line:?}");
    }
    assert_eq!(response(b"\r\nHTTP/1.1 200 OK\r\n\r\n", GET).err(), Some(Refusal::LeadingLines));
    assert_eq!(response(b"HTTP/1.1 200 OK\n\n", GET).err(), Some(Refusal::BareLineEnd));
}

#[test]
fn where_a_reply_ends_depends_on_status_and_method() {
    let head_method = RequestKind { head_method: true };
    let framing =
        |text: &str, kind| response(text.as_bytes(), kind).map(|head| (head.framing(), head.keep_alive()));
    let length = "Content-Length: 5\r\n\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    for (text, kind, expected) in [
        (format!("HTTP/1.1 200 OK\r\n{length}"), GET, Ok((Framing::Length(5), true))),
        (format!("HTTP/1.1 200 OK\r\n{chunked}"), GET, Ok((Framing::Chunked, true))),
        ("HTTP/1.1 200 OK\r\n\r\n".to_owned(), GET, Ok((Framing::UntilClose, false))),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n".to_owned(),
            GET,
            Ok((Framing::UntilClose, false)),
        ),
        (
            format!("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n{length}"),
            GET,
            Ok((Framing::Length(5), true)),
        ),
        (format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{length}"), GET, Ok((Framing::Length(5), false))),
        (format!("HTTP/1.1 200 OK\r\n{length}"), head_method, Ok((Framing::None, true))),
        (format!("HTTP/1.1 200 OK\r\n{chunked}"), head_method, Ok((Framing::None, true))),
        ("HTTP/1.1 200 OK\r\n\r\n".to_owned(), head_method, Ok((Framing::None, true))),
        (format!("HTTP/1.1 304 x\r\n{length}"), GET, Ok((Framing::None, true))),
        ("HTTP/1.1 204 x\r\n\r\n".to_owned(), GET, Ok((Framing::None, true))),
        ("HTTP/1.1 204 x\r\nContent-Length: 0\r\n\r\n".to_owned(), GET, Ok((Framing::None, true))),
        (format!("HTTP/1.1 204 x\r\n{length}"), GET, Err(Refusal::BodyForbidden)),
        (format!("HTTP/1.1 204 x\r\n{chunked}"), GET, Err(Refusal::BodyForbidden)),
        ("HTTP/1.1 100 Continue\r\n\r\n".to_owned(), GET, Ok((Framing::None, true))),
        ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".to_owned(), GET, Ok((Framing::None, true))),
        (format!("HTTP/1.1 103 x\r\n{length}"), GET, Err(Refusal::BodyForbidden)),
        (format!("HTTP/1.1 100 x\r\n{chunked}"), head_method, Err(Refusal::BodyForbidden)),
    ] {
        assert_eq!(framing(&text, kind), expected, "{text:?}");
    }
    assert!(response(b"HTTP/1.1 100 Continue\r\n\r\n", GET).expect("valid").is_interim());
}

#[test]
fn refusals_carry_the_right_status_and_a_code_of_their_own() {
    for (refusal, status) in [
        (Refusal::LengthWithCoding, 400),
        (Refusal::LengthTooLarge, 413),
        (Refusal::TargetTooLong, 414),
        (Refusal::Expectation, 417),
        (Refusal::HeadTooLarge, 431),
        (Refusal::FieldsTooMany, 431),
        (Refusal::CodingUnsupported, 501),
        (Refusal::Version, 505),
    ] {
        assert_eq!(refusal.status(), status);
        assert_eq!(refusal.to_string(), refusal.code());
    }
}

#[test]
fn a_writer_refuses_what_could_split_a_message() {
    let mut out = Vec::new();
    let new = |out: &mut Vec<u8>, method, path, query| RequestWriter::new(out, method, path, query).map(drop);
    assert_eq!(new(&mut out, "GE T", "/", None), Err(InvalidField::Method));
    assert_eq!(new(&mut out, "", "/", None), Err(InvalidField::Method));
    for path in ["", "a", "/ a", "/\r\n", "/#", "/a?b", "/\u{e9}", "http://a/"] {
        assert_eq!(new(&mut out, "GET", path, None), Err(InvalidField::Target), "{path:?}");
    }
    for query in ["a b", "a\r", "a#", "\u{e9}"] {
        assert_eq!(new(&mut out, "GET", "/", Some(query)), Err(InvalidField::Target), "{query:?}");
    }
    assert!(out.is_empty());
    let mut writer = ResponseWriter::new(&mut out, 204);
    for name in ["", "a b", "a:", "a\r\n", "\u{e9}", "a\0"] {
        assert_eq!(writer.field(name, b"x"), Err(InvalidField::Name), "{name:?}");
    }
    for value in ["a\r\nb: c", "a\nb", "a\rb", "a\0b", "\x7f", " a", "a ", "\ta"] {
        assert_eq!(writer.field("x", value.as_bytes()), Err(InvalidField::Value), "{value:?}");
    }
    writer.finish();
    assert_eq!(out, b"HTTP/1.1 204 No Content\r\n\r\n");
}

#[test]
fn a_writer_states_the_framing_once() {
    let mut out = Vec::new();
    let mut writer = RequestWriter::new(&mut out, "POST", "/a", Some("")).expect("valid");
    assert_eq!(writer.field("Content-Length", b"1x"), Err(InvalidField::Framing));
    assert_eq!(writer.field("transfer-encoding", b"gzip"), Err(InvalidField::Framing));
    writer.field("host", b"a").expect("valid");
    writer.content_length(u64::MAX).expect("the first");
    assert_eq!(writer.content_length(1), Err(InvalidField::Framing));
    assert_eq!(writer.chunked(), Err(InvalidField::Framing));
    assert_eq!(writer.field("content-length", b"1"), Err(InvalidField::Framing));
    assert_eq!(writer.field("Transfer-Encoding", b"chunked"), Err(InvalidField::Framing));
    writer.finish();
    assert_eq!(out, b"POST /a? HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551615\r\n\r\n");
    let mut out = Vec::new();
    let mut writer = ResponseWriter::new(&mut out, 77);
    writer.chunked().expect("the first");
    writer.finish();
    assert_eq!(out, b"HTTP/1.1 500 Internal Server Error\r\ntransfer-encoding: chunked\r\n\r\n");
}
