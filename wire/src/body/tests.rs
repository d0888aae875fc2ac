//! Each framing to its exact end, each rule of chunks, and the same result however the bytes are cut.

use proptest::prelude::*;

use super::*;

const LIMIT: u64 = 1 << 20;

/// Reads a body from `input` in pieces of `step` bytes: its data, and how many bytes belonged to the message.
fn read(
    framing: Framing,
    limit: u64,
    input: &[u8],
    step: usize,
) -> Result<(Vec<u8>, usize, bool), BodyError> {
    let mut reader = BodyReader::new(framing, limit)?;
    let (mut data, mut at) = (Vec::new(), 0);
    let mut there = step.min(input.len());
    loop {
        let taken = reader.next(&input[at..there])?;
        data.extend_from_slice(&input[at..there][taken.data.clone()]);
        assert!(taken.data.end <= taken.consumed && at + taken.consumed <= there);
        assert_eq!(taken.ended, reader.ended());
        at += taken.consumed;
        if taken.ended || (at == there && there == input.len()) {
            assert_eq!(reader.received_bytes(), data.len() as u64);
            return Ok((data, at, taken.ended));
        }
        if at == there {
            there = (there + step).min(input.len());
        } else {
            assert!(taken.consumed > 0, "a step makes progress while there is input");
        }
    }
}

fn chunked(input: &[u8]) -> Result<(Vec<u8>, usize, bool), BodyError> {
    let whole = read(Framing::Chunked, LIMIT, input, input.len().max(1));
    for step in 1..input.len() {
        assert_eq!(read(Framing::Chunked, LIMIT, input, step), whole, "in pieces of {step}");
    }
    whole
}

#[test]
fn no_body_ends_at_once() {
    for framing in [Framing::None, Framing::Length(0)] {
        let mut reader = BodyReader::new(framing, 0).expect("within the limit");
        assert!(reader.ended() && reader.finish_at_eof().is_ok());
        assert_eq!(reader.next(b"next"), Ok(BodyStep { consumed: 0, data: 0..0, ended: true }));
    }
}

#[test]
fn a_length_ends_at_its_byte() {
    let mut reader = BodyReader::new(Framing::Length(5), 5).expect("within the limit");
    assert_eq!(reader.next(b"ab"), Ok(BodyStep { consumed: 2, data: 0..2, ended: false }));
    assert_eq!(reader.remaining_length(), Some(3));
    assert_eq!(reader.clone().finish_at_eof(), Err(BodyError::Cut));
    assert_eq!(reader.next(b"cdeGET /"), Ok(BodyStep { consumed: 3, data: 0..3, ended: true }));
    assert_eq!((reader.remaining_length(), reader.finish_at_eof()), (Some(0), Ok(())));
}

#[test]
fn the_limit_holds_to_the_byte() {
    assert_eq!(BodyReader::new(Framing::Length(6), 5).err(), Some(BodyError::TooLarge));
    assert_eq!(BodyReader::new(Framing::Length(u64::MAX), u64::MAX - 1).err(), Some(BodyError::TooLarge));
    let close = |input| read(Framing::UntilClose, 5, input, 2).map(|(data, ..)| data.len());
    assert_eq!((close(b"12345"), close(b"123456")), (Ok(5), Err(BodyError::TooLarge)));
    let chunks = |input| read(Framing::Chunked, 5, input, 3).map(|(data, ..)| data.len());
    assert_eq!(chunks(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), Ok(5));
    assert_eq!(chunks(b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"), Err(BodyError::TooLarge));
    // Refused when the size is stated, before any byte of the chunk is there.
    assert_eq!(chunks(b"6\r\n"), Err(BodyError::TooLarge));
    assert_eq!(chunks(b"ffffffffffffffff\r\n"), Err(BodyError::TooLarge));
}

#[test]
fn a_body_until_close_ends_with_the_connection() {
    let mut reader = BodyReader::new(Framing::UntilClose, LIMIT).expect("no length yet");
    assert_eq!(reader.next(b"abc"), Ok(BodyStep { consumed: 3, data: 0..3, ended: false }));
    assert_eq!((reader.ended(), reader.remaining_length()), (false, None));
    assert_eq!(reader.finish_at_eof(), Ok(()));
    assert!(reader.ended());
}

#[test]
fn chunks_are_read_to_their_exact_end() {
    let whole = b"4\r\nWiki\r\n0005\r\npedia\r\nA\r\n0123456789\r\n0\r\n\r\nGET / HTTP/1.1";
    assert_eq!(chunked(whole), Ok((b"Wikipedia0123456789".to_vec(), whole.len() - 14, true)));
    assert_eq!(chunked(b"0\r\n\r\n"), Ok((vec![], 5, true)));
    assert_eq!(chunked(b"00000\r\n\r\n0"), Ok((vec![], 9, true)));
    assert_eq!(chunked(b"1\r\na\r\n"), Ok((b"a".to_vec(), 6, false)));
}

#[test]
fn chunk_sizes_are_plain_hexadecimal() {
    for input in [
        "\r\n",
        "g\r\n",
        " 1\r\na\r\n",
        "1 \r\na\r\n",
        "+1\r\na\r\n",
        "-1\r\n",
        "0x1\r\na\r\n",
        "1\na\r\n",
        "1\r\ra\r\n",
        "1\r a",
        "\n1\r\na\r\n",
        "1\t;a\r\n",
        ";a\r\n",
        "00000000000000001\r\na\r\n",
        "1.0\r\n",
        "1_0\r\n",
        "\u{ff11}\r\n",
    ] {
        assert_eq!(chunked(input.as_bytes()), Err(BodyError::ChunkSize), "{input:?}");
    }
    assert_eq!(chunked(b"0000000000000001\r\na\r\n").map(|(data, ..)| data), Ok(b"a".to_vec()));
    assert_eq!(chunked(b"aB\r\n").map(|(data, ..)| data), Ok(vec![]));
}

#[test]
fn chunk_data_ends_in_crlf() {
    for input in ["1\r\nab\r\n", "1\r\na\n0\r\n\r\n", "1\r\na\r0\r\n", "1\r\na0\r\n\r\n", "1\r\na\r\r\n"] {
        assert_eq!(chunked(input.as_bytes()), Err(BodyError::ChunkEnd), "{input:?}");
    }
}

#[test]
fn chunk_extensions_are_bounded_and_dropped() {
    assert_eq!(chunked(b"1;a=\"b;c\";d\r\na\r\n0;x\r\n\r\n").map(|(data, ..)| data), Ok(b"a".to_vec()));
    for extension in ["a", "a;b", "a=b;c", "a=\"\"", "a=\"\\\"\\\\;\t\""] {
        let input = format!("1;{extension}\r\na\r\n");
        assert_eq!(chunked(input.as_bytes()).map(|(data, ..)| data), Ok(b"a".to_vec()), "{extension}");
    }
    for input in [
        &b"1;a\nb\r\na\r\n"[..],
        b"1;\0\r\n",
        b"1;\x7f\r\n",
        b"1;\x80\r\n",
        b"1;a\x0b\r\n",
        b"1;\r\n",
        b"1;a;\r\n",
        b"1;;a\r\n",
        b"1;=a\r\n",
        b"1;a=\r\n",
        b"1; a\r\n",
        b"1;a =b\r\n",
        b"1;a=b=c\r\n",
        b"1;a=\"\r\na\r\n",
        b"1;a=\"b\"c\r\n",
        b"1;a=b\"c\"\r\n",
        b"1;a=\"\\\r\n",
        b"1;a=\"\xe9\"\r\n",
    ] {
        assert_eq!(chunked(input), Err(BodyError::ChunkExtension), "{input:?}");
    }
    assert_eq!(chunked(b"1;a\r\rb"), Err(BodyError::ChunkSize));
    let extended = |bytes: usize| [b"1;", &vec![b'x'; bytes][..], b"\r\na\r\n"].concat();
    let max = EXTENSION_BYTES_MAX as usize;
    let outcome = |input: &[u8]| read(Framing::Chunked, LIMIT, input, 1000).map(|(data, ..)| data.len());
    assert_eq!(outcome(&extended(max)), Ok(1));
    assert_eq!(outcome(&extended(max + 1)), Err(BodyError::ChunkExtension));
    let fill = EXTENSION_BYTES_TOTAL_MAX as usize / max;
    assert_eq!(outcome(&extended(max).repeat(fill)), Ok(fill));
    assert_eq!(outcome(&[extended(max).repeat(fill), extended(1)].concat()), Err(BodyError::ChunkExtension));
}

#[test]
fn trailers_are_checked_bounded_and_dropped() {
    let input = b"1\r\na\r\n0\r\nX-Sum: 1\r\nEmpty:\r\n\r\nnext";
    assert_eq!(chunked(input), Ok((b"a".to_vec(), input.len() - 4, true)));
    for input in [
        &b"0\r\nX: 1\n\r\n"[..],
        b"0\r\n\n",
        b"0\r\nX : 1\r\n\r\n",
        b"0\r\n: 1\r\n\r\n",
        b"0\r\n x: 1\r\n\r\n",
        b"0\r\nX: 1\r\n y\r\n\r\n",
        b"0\r\nX: \0\r\n\r\n",
        b"0\r\nX: a\rb\r\n\r\n",
        b"0\r\nX\r\n\r\n",
        b"0\r\n\rX",
        b"0\r\nGET / HTTP/1.1\r\n\r\n",
    ] {
        assert_eq!(chunked(input), Err(BodyError::Trailer), "{:?}", String::from_utf8_lossy(input));
    }
    let trailer = |bytes: usize| [b"0\r\nx:", &vec![b'y'; bytes][..], b"\r\n\r\n"].concat();
    let fits = TRAILER_BYTES_MAX as usize - 6;
    assert!(read(Framing::Chunked, LIMIT, &trailer(fits), 999).is_ok());
    assert_eq!(read(Framing::Chunked, LIMIT, &trailer(fits + 1), 999), Err(BodyError::Trailer));
}

#[test]
fn a_cut_is_seen_at_every_byte_and_stays_an_error() {
    let whole = b"3\r\nabc\r\n0\r\nX: 1\r\n\r\n";
    for cut in 0..whole.len() {
        let mut reader = BodyReader::new(Framing::Chunked, LIMIT).expect("no length yet");
        let mut at = 0;
        while at < cut {
            at += reader.next(&whole[at..cut]).expect("valid").consumed;
        }
        assert_eq!(reader.finish_at_eof(), Err(BodyError::Cut), "cut at {cut}");
        assert_eq!(reader.next(&whole[cut..]), Err(BodyError::Cut));
    }
}

#[test]
fn an_error_stays() {
    let mut reader = BodyReader::new(Framing::Chunked, LIMIT).expect("no length yet");
    assert_eq!(reader.next(b"x"), Err(BodyError::ChunkSize));
    assert_eq!(reader.next(b"1\r\na\r\n"), Err(BodyError::ChunkSize));
    assert_eq!(reader.finish_at_eof(), Err(BodyError::ChunkSize));
    assert!(!reader.ended());
    assert_eq!((BodyError::TooLarge.status(), BodyError::Cut.status()), (413, 400));
}

#[test]
fn chunk_prefixes_are_hexadecimal() {
    let mut room = [0; 18];
    assert_eq!(chunk_prefix(1, &mut room), b"1\r\n");
    assert_eq!(chunk_prefix(15, &mut room), b"f\r\n");
    assert_eq!(chunk_prefix(16, &mut room), b"10\r\n");
    assert_eq!(chunk_prefix(0xabcde, &mut room), b"abcde\r\n");
    assert_eq!(chunk_prefix(usize::MAX, &mut room), b"ffffffffffffffff\r\n");
}

#[test]
#[should_panic(expected = "would end the message")]
fn an_empty_chunk_is_not_written_by_accident() {
    let _ = chunk_prefix(0, &mut [0; 18]);
}

/// Chunked text, mostly valid.
fn chunked_text() -> impl Strategy<Value = Vec<u8>> {
    let piece = proptest::sample::select(vec![
        "1\r\na\r\n",
        "a\r\n0123456789\r\n",
        "3;x=y\r\nabc\r\n",
        "0\r\n",
        "\r\n",
        "x: y\r\n",
        "5",
        "\n",
        "\r",
        ";",
        "0",
        "f",
    ]);
    proptest::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_written_in_chunks_reads_back(
        runs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..400), 0..8),
        step in 1_usize..500,
    ) {
        let mut text = Vec::new();
        for run in &runs {
            text.extend_from_slice(chunk_prefix(run.len(), &mut [0; 18]));
            text.extend_from_slice(run);
            text.extend_from_slice(CHUNK_END);
        }
        text.extend_from_slice(LAST_CHUNK);
        let end = text.len();
        text.extend_from_slice(b"HTTP/1.1 200 OK");
        prop_assert_eq!(read(Framing::Chunked, LIMIT, &text, step), Ok((runs.concat(), end, true)));
    }

    #[test]
    fn pieces_read_as_the_whole(text in chunked_text(), step in 1_usize..30) {
        prop_assert_eq!(
            read(Framing::Chunked, 20, &text, step),
            read(Framing::Chunked, 20, &text, text.len().max(1))
        );
    }

    #[test]
    fn hostile_bytes_never_panic(text in proptest::collection::vec(any::<u8>(), 0..200), step in 1_usize..30) {
        for framing in [Framing::Chunked, Framing::Length(50), Framing::UntilClose] {
            let _ = read(framing, 100, &text, step);
        }
        let _ = read(Framing::Chunked, 100, &[b"5;", &text[..]].concat(), step);
        let _ = read(Framing::Chunked, 100, &[b"0\r\nx:", &text[..]].concat(), step);
    }
}
