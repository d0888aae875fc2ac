//! Requests that a seed makes up by the grammar, with the deviations that have split readers before: names, white space,
//! line ends, lengths, codings, chunks, versions, and whole calls within bodies. Nothing here says what is right.

use super::Random;
use super::call::{BODY, call, key};

/// The bytes of one connection. Most of them are nearly well-formed.
pub fn connection(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = Vec::new();
    for _ in 0..1 + random.below(2) {
        request(&mut random, &mut bytes);
    }
    if random.once_in(2) {
        bytes.extend_from_slice(call("?smuggled").as_bytes());
    }
    if random.once_in(6) {
        damage(&mut random, &mut bytes);
    }
    bytes
}

fn request(random: &mut Random, bytes: &mut Vec<u8>) {
    let (body, in_chunks) = body(random);
    let end = line_end(random);
    let line = [
        rarely(random, "POST", &["GET", "PUT"]),
        rarely(random, " ", &[" ", " ", " ", " ", "  ", "\t"]),
        rarely(random, "/v1/messages", &["/v1/messages?a=b", "/v1/messages/", "http://gateway/v1/messages"]),
        rarely(random, " ", &[" ", " ", " ", " ", "  "]),
        rarely(random, "HTTP/1.1", &["HTTP/1.0", "HTTP/1.0", "HTTP/1.2", "http/1.1"]),
        end,
    ];
    bytes.extend_from_slice(line.concat().as_bytes());
    if !random.once_in(25) {
        bytes.extend_from_slice(format!("Host: gateway{end}").as_bytes());
    }
    bytes.extend_from_slice(key().as_bytes());
    let mut fields = framing(random, body.len(), in_chunks);
    if random.once_in(3) {
        fields.push(other_field(random).to_owned());
    }
    if random.once_in(4) {
        fields.reverse();
    }
    for field in fields {
        bytes.extend_from_slice(field.as_bytes());
        bytes.extend_from_slice(line_end(random).as_bytes());
    }
    bytes.extend_from_slice(line_end(random).as_bytes());
    bytes.extend_from_slice(&body);
}

/// The usual, or once in twelve one of the others.
fn rarely(random: &mut Random, usual: &'static str, others: &[&'static str]) -> &'static str {
    if random.once_in(12) { random.of(others) } else { usual }
}

fn line_end(random: &mut Random) -> &'static str {
    if random.once_in(150) { random.of(&["\n", "\r", "\r\r\n", "\n\r\n"]) } else { "\r\n" }
}

/// A body, and whether it is in chunks: what its head says is another matter.
fn body(random: &mut Random) -> (Vec<u8>, bool) {
    let text = match random.below(6) {
        0 => call("?smuggled"),
        1 => format!("0\r\n\r\n{}", call("?smuggled")),
        2 => String::new(),
        _ => BODY.to_owned(),
    };
    if random.once_in(2) {
        return (text.into_bytes(), false);
    }
    let mut bytes = Vec::new();
    for piece in text.as_bytes().chunks(8 + random.below(text.len().max(1))) {
        let size = chunk_size(random, piece.len());
        bytes.extend_from_slice(size.as_bytes());
        bytes.extend_from_slice(extension(random).as_bytes());
        bytes.extend_from_slice(chunk_line_end(random).as_bytes());
        bytes.extend_from_slice(piece);
        bytes.extend_from_slice(chunk_line_end(random).as_bytes());
    }
    bytes.extend_from_slice(rarely(random, "0", &["000", "0;x", "00000000000000000"]).as_bytes());
    bytes.extend_from_slice(chunk_line_end(random).as_bytes());
    if random.once_in(5) {
        bytes.extend_from_slice(
            random
                .of(&[
                    "x: y\r\n",
                    "Content-Length: 5\r\n",
                    "Transfer-Encoding: chunked\r\n",
                    "x : y\r\n",
                    "x: y\n",
                    "x: y\r\n z\r\n",
                    "GET /v1/models?smuggled HTTP/1.1\r\n",
                    ": y\r\n",
                ])
                .as_bytes(),
        );
    }
    bytes.extend_from_slice(chunk_line_end(random).as_bytes());
    (bytes, true)
}

fn chunk_size(random: &mut Random, bytes: usize) -> String {
    match random.below(90) {
        0 => format!("{bytes:X}"),
        1 => format!("000{bytes:x}"),
        2 => format!("0x{bytes:x}"),
        3 => format!(" {bytes:x}"),
        4 => format!("{bytes:x} "),
        5 => format!("{:x}", bytes + 1 + random.below(3)),
        6 => format!("{:x}", bytes.saturating_sub(1)),
        7 => format!("+{bytes:x}"),
        8 => format!("1{bytes:016x}"),
        9 => format!("{bytes:x}\t"),
        10 => format!("{bytes:x}g"),
        _ => format!("{bytes:x}"),
    }
}

fn extension(random: &mut Random) -> &'static str {
    if random.once_in(8) {
        random.of(&[
            ";a",
            ";a=b",
            ";a=\"b\"",
            ";",
            ";;",
            "; a",
            ";a=",
            ";a=\"b",
            ";a=\"\\\"\"",
            ";a\nb",
            ";\n",
            ";a\r",
            ";a=\"\r\n\"",
            ";\0",
            ";a=b;c=d",
        ])
    } else {
        ""
    }
}

fn chunk_line_end(random: &mut Random) -> &'static str {
    if random.once_in(80) { random.of(&["\n", "\r", "", "\r\r\n", "xx", "\n\n"]) } else { "\r\n" }
}

/// What the head says of its body: mostly the truth.
fn framing(random: &mut Random, body_bytes: usize, in_chunks: bool) -> Vec<String> {
    let length = |random: &mut Random| format!("{}{}", length_name(random), length_value(random, body_bytes));
    let coding = |random: &mut Random| format!("{}{}", coding_name(random), coding_value(random));
    match random.below(16) {
        0 => vec![length(random), coding(random)],
        1 => vec![length(random), length(random)],
        2 => vec![coding(random), coding(random)],
        3 => vec![coding(random)],
        4 => vec![length(random)],
        5 => Vec::new(),
        _ if in_chunks => vec![coding(random)],
        _ => vec![length(random)],
    }
}

fn length_name(random: &mut Random) -> &'static str {
    let others = [
        "content-length:",
        "Content-Length : ",
        "Content-Length:\t",
        " Content-Length: ",
        "Content_Length: ",
        "Content-Length\0: ",
        "Content-Length:\r\n ",
        "X: y\rContent-Length: ",
        "X: y\nContent-Length: ",
    ];
    rarely(random, "Content-Length: ", &others)
}

fn length_value(random: &mut Random, bytes: usize) -> String {
    match random.below(40) {
        0 => format!("+{bytes}"),
        1 => format!("{bytes}, {bytes}"),
        2 => format!("0x{bytes:x}"),
        3 => format!("00{bytes}"),
        4 => format!("{bytes} "),
        5 => format!("{bytes}.0"),
        6 => (bytes + 1 + random.below(4)).to_string(),
        7 => random.below(bytes.max(1)).to_string(),
        8 => format!("{}", (1_u128 << 64) + bytes as u128),
        9 => format!("-{bytes}"),
        10 => format!("{bytes} {bytes}"),
        11 => "0".to_owned(),
        _ => bytes.to_string(),
    }
}

fn coding_name(random: &mut Random) -> &'static str {
    let others = [
        "transfer-encoding:",
        "Transfer-Encoding : ",
        "Transfer-Encoding:\t",
        " Transfer-Encoding: ",
        "Transfer_Encoding: ",
        "Transfer-Encoding:\x0b",
        "Transfer-Encoding:\r\n ",
        "X: y\nTransfer-Encoding: ",
        "Transfer-Encoding\0: ",
        "\0Transfer-Encoding: ",
    ];
    rarely(random, "Transfer-Encoding: ", &others)
}

fn coding_value(random: &mut Random) -> &'static str {
    let others = [
        "Chunked",
        "chunked ",
        "chunked\t",
        "identity",
        "chunked, identity",
        "identity, chunked",
        "chunked, chunked",
        "gzip, chunked",
        "\"chunked\"",
        "chunked;a=b",
        "xchunked",
        "chunked,",
        ",chunked",
        "chunk",
        "",
        "chunked\u{a0}",
    ];
    rarely(random, "chunked", &others)
}

fn other_field(random: &mut Random) -> &'static str {
    random.of(&[
        "Connection: close",
        "Connection: keep-alive",
        "Connection: content-length",
        "Connection: transfer-encoding",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        "Connection: Upgrade\r\nUpgrade: websocket",
        "Expect: 100-continue",
        "Expect: 100-continu",
        "Host: other",
        "TE: trailers",
        "Trailer: x",
        "X: y\r\n z",
        "X\0: y",
        "X: \x01",
        "no colon",
        "Keep-Alive: timeout=1",
        "Proxy-Connection: close",
    ])
}

/// One byte taken out, put in or exchanged.
fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    let at = random.below(bytes.len());
    let byte = b"\r\n\0\t :;,0a\x0b\x7f\x80\xff"[random.below(14)];
    match random.below(3) {
        0 => drop(bytes.remove(at)),
        1 => bytes.insert(at, byte),
        _ => bytes[at] = byte,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::{End, read_requests};

    #[test]
    fn a_seed_makes_the_same_bytes_and_seeds_differ() {
        assert_eq!(connection(7), connection(7));
        let outcomes: Vec<_> = (0..2_000).map(|seed| read_requests([&connection(seed)[..]])).collect();
        let refused = outcomes.iter().filter(|it| matches!(it.end, End::Refused(..))).count();
        let accepted = outcomes.iter().filter(|it| !it.messages.is_empty()).count();
        assert!(refused > 600 && accepted > 700, "{refused} refused, {accepted} with a message");
    }
}
