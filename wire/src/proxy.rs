//! The PROXY protocol's header, versions 1 and 2, by which a load balancer says before the first byte of a connection
//! whose it is (the `proxy-protocol.txt` of HAProxy).
//!
//! Decides what the header says and where it ends, and refuses what is none. Whether the sender may say such a thing is
//! not its concern, nor is what a version 2 header carries beside the addresses: that is skipped, within a bound.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a version 2 header begins with: bytes that no other protocol begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What a version 1 header begins with.
const WORD: &[u8; 6] = b"PROXY ";
/// Bytes of a version 1 header, its line end among them.
const LINE_BYTES_MAX: usize = 107;
/// Bytes of a version 2 header in front of its addresses.
const FIXED_BYTES: usize = 16;

/// How far parsing came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The header is there.
    Complete {
        /// How many bytes of the input it took; the connection's own begin behind them.
        header_bytes: usize,
        /// Whose connection it is. `None`: the sender's own (a check of its health), or it does not know.
        source: Option<IpAddr>,
    },
    /// What is there can still become a header: call again with more behind the same bytes.
    Partial,
}

/// Why bytes are no PROXY header. Nothing else may be read from the connection then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyRefusal {
    /// They begin like neither version.
    Beginning,
    /// It goes on beyond the bound.
    TooLong,
    /// A version 1 line of another form.
    Line,
    /// Another version than 1 and 2.
    Version,
    /// A command that there is not.
    Command,
    /// A family of addresses that there is not, or less room than its addresses take.
    Addresses,
}

impl fmt::Display for ProxyRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProxyRefusal::Beginning => "the connection does not begin with a PROXY header",
            ProxyRefusal::TooLong => "the PROXY header is too long",
            ProxyRefusal::Line => "the PROXY header is malformed",
            ProxyRefusal::Version => "the PROXY header is of an unknown version",
            ProxyRefusal::Command => "the PROXY header has an unknown command",
            ProxyRefusal::Addresses => "the PROXY header's addresses are malformed",
        })
    }
}

impl std::error::Error for ProxyRefusal {}

/// Parses the header at the front of `input`, which is at most `bytes_max` bytes long.
///
/// # Errors
/// The first rule that is broken.
pub fn parse(input: &[u8], bytes_max: usize) -> Result<ProxyHeader, ProxyRefusal> {
    if begins(input, SIGNATURE) {
        parse_v2(input, bytes_max)
    } else if begins(input, WORD) {
        parse_v1(input, bytes_max.min(LINE_BYTES_MAX))
    } else {
        Err(ProxyRefusal::Beginning)
    }
}

/// Whether `input` begins with `start`, or is as yet too short to tell.
fn begins(input: &[u8], start: &[u8]) -> bool {
    let common = input.len().min(start.len());
    input[..common] == start[..common]
}

fn parse_v1(input: &[u8], bytes_max: usize) -> Result<ProxyHeader, ProxyRefusal> {
    let window = &input[..input.len().min(bytes_max)];
    let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
        return if input.len() < bytes_max { Ok(ProxyHeader::Partial) } else { Err(ProxyRefusal::TooLong) };
    };
    let line = window[..end].strip_suffix(b"\r").ok_or(ProxyRefusal::Line)?;
    let text =
        line.get(WORD.len()..).and_then(|it| std::str::from_utf8(it).ok()).ok_or(ProxyRefusal::Line)?;
    Ok(ProxyHeader::Complete { header_bytes: end + 1, source: source_of_line(text)? })
}

/// The source of `TCP4 source destination port port`; what follows UNKNOWN says nothing.
fn source_of_line(text: &str) -> Result<Option<IpAddr>, ProxyRefusal> {
    let mut parts = text.split(' ');
    let family = parts.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let mut address = || -> Option<IpAddr> {
        let part = parts.next()?;
        match family {
            "TCP4" => part.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => part.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let source = address().ok_or(ProxyRefusal::Line)?;
    address().ok_or(ProxyRefusal::Line)?;
    let ports = [parts.next(), parts.next()];
    if ports.into_iter().all(|it| it.is_some_and(is_port)) && parts.next().is_none() {
        Ok(Some(source.to_canonical()))
    } else {
        Err(ProxyRefusal::Line)
    }
}

fn is_port(text: &str) -> bool {
    let plain = text.bytes().all(|it| it.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    plain && text.parse::<u16>().is_ok()
}

fn parse_v2(input: &[u8], bytes_max: usize) -> Result<ProxyHeader, ProxyRefusal> {
    let Some((fixed, rest)) = input.split_at_checked(FIXED_BYTES) else { return Ok(ProxyHeader::Partial) };
    let (version, command, family) = (fixed[12] >> 4, fixed[12] & 0xf, fixed[13]);
    if version != 2 {
        return Err(ProxyRefusal::Version);
    }
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED_BYTES + length > bytes_max {
        return Err(ProxyRefusal::TooLong);
    }
    let own = match command {
        0 => true,
        1 => false,
        _ => return Err(ProxyRefusal::Command),
    };
    let Some(addresses) = rest.get(..length) else { return Ok(ProxyHeader::Partial) };
    let source = if own { None } else { source_of_block(family, addresses)? };
    Ok(ProxyHeader::Complete { header_bytes: FIXED_BYTES + length, source })
}

/// The source in a block of addresses: source, destination, ports, then whatever the sender adds.
fn source_of_block(family: u8, block: &[u8]) -> Result<Option<IpAddr>, ProxyRefusal> {
    let (bytes, is_ip) = match family {
        0x00 => (0, false),
        0x11 => (12, true),
        0x21 => (36, true),
        // Datagrams, and sockets of one host: there is no address that this connection would be from.
        0x12 => (12, false),
        0x22 => (36, false),
        0x31 | 0x32 => (216, false),
        _ => return Err(ProxyRefusal::Addresses),
    };
    if block.len() < bytes {
        return Err(ProxyRefusal::Addresses);
    }
    if !is_ip {
        return Ok(None);
    }
    let v4 = || block.first_chunk::<4>().map(|it| IpAddr::from(*it));
    let v6 = || block.first_chunk::<16>().map(|it| IpAddr::from(*it));
    Ok(if family == 0x11 { v4() } else { v6() }.map(|it| it.to_canonical()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 1024;

    fn complete(header_bytes: usize, source: Option<&str>) -> Result<ProxyHeader, ProxyRefusal> {
        let source = source.map(|it| it.parse().expect("an address of a test"));
        Ok(ProxyHeader::Complete { header_bytes, source })
    }

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([command, family]);
        header.extend((block.len() as u16).to_be_bytes());
        header.extend(block);
        header
    }

    fn block_v4() -> Vec<u8> {
        vec![203, 0, 113, 7, 10, 0, 0, 1, 0x9c, 0x40, 0x01, 0xbb]
    }

    #[test]
    fn lines_of_version_1() {
        for (line, source) in [
            ("PROXY TCP4 203.0.113.7 10.0.0.1 40000 443\r\n", Some("203.0.113.7")),
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Some("255.255.255.255")),
            ("PROXY TCP6 2001:db8::7 ::1 0 443\r\n", Some("2001:db8::7")),
            ("PROXY TCP6 ::ffff:203.0.113.7 ::1 1 443\r\n", Some("203.0.113.7")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff:f...f:ffff what ever 1 2\r\n", None),
        ] {
            let with_more = format!("{line}GET / HTTP/1.1\r\n");
            assert_eq!(parse(with_more.as_bytes(), MAX), complete(line.len(), source), "{line}");
        }
    }

    #[test]
    fn lines_that_are_none() {
        use ProxyRefusal::*;
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_BYTES_MAX));
        for (line, refusal) in [
            ("GET / HTTP/1.1\r\n", Beginning),
            ("PROXYTCP4 1.1.1.1 2.2.2.2 1 2\r\n", Beginning),
            ("proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n", Beginning),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n", Line),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", Line),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n", Line),
            ("PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n", Line),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n", Line),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n", Line),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n", Line),
            ("PROXY TCP4 01.1.1.1 2.2.2.2 1 2\r\n", Line),
            ("PROXY TCP4 ::1 ::1 1 2\r\n", Line),
            ("PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n", Line),
            ("PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n", Line),
            ("PROXY \r\n", Line),
            (&long, TooLong),
        ] {
            assert_eq!(parse(line.as_bytes(), MAX), Err(refusal), "{line}");
        }
    }

    #[test]
    fn blocks_of_version_2() {
        let v4 = block_v4();
        let mut v6: Vec<u8> = "2001:db8::7".parse::<Ipv6Addr>().expect("an address").octets().to_vec();
        v6.extend([0; 20]);
        let with_extras = [&v4[..], &[0x20, 0, 5, 1, 2, 3, 4, 5]].concat();
        for (header, source) in [
            (v2(0x21, 0x11, &v4), Some("203.0.113.7")),
            (v2(0x21, 0x11, &with_extras), Some("203.0.113.7")),
            (v2(0x21, 0x21, &v6), Some("2001:db8::7")),
            (v2(0x21, 0x00, b"anything"), None),
            (v2(0x21, 0x12, &v4), None),
            (v2(0x21, 0x31, &[7; 216]), None),
            (v2(0x20, 0x11, &v4), None),
            (v2(0x20, 0xff, b""), None),
        ] {
            let with_more = [&header[..], b"\x16\x03\x01"].concat();
            assert_eq!(parse(&with_more, MAX), complete(header.len(), source), "{header:?}");
        }
    }

    #[test]
    fn blocks_that_are_none() {
        use ProxyRefusal::*;
        for (header, refusal) in [
            (v2(0x11, 0x11, &block_v4()), Version),
            (v2(0x22, 0x11, &block_v4()), Command),
            (v2(0x21, 0x11, &block_v4()[..11]), Addresses),
            (v2(0x21, 0x21, &[0; 35]), Addresses),
            (v2(0x21, 0x31, &[0; 215]), Addresses),
            (v2(0x21, 0x13, &block_v4()), Addresses),
            (v2(0x21, 0x41, &block_v4()), Addresses),
            (v2(0x21, 0x11, &[0; MAX]), TooLong),
        ] {
            assert_eq!(parse(&header, MAX), Err(refusal), "{header:?}");
        }
        // A length that nobody may announce is refused before its bytes come.
        assert_eq!(parse(&v2(0x21, 0x11, &[0; 0xffff])[..FIXED_BYTES], MAX), Err(TooLong));
    }

    #[test]
    fn any_beginning_of_a_header_is_partial() {
        let line = b"PROXY TCP6 2001:db8::7 ::1 1 443\r\n".to_vec();
        for header in [line, v2(0x21, 0x11, &block_v4())] {
            for end in 0..header.len() {
                assert_eq!(parse(&header[..end], MAX), Ok(ProxyHeader::Partial), "{end}");
            }
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_end_in_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300), start in 0..3) {
            let input = match start {
                0 => bytes,
                1 => [&WORD[..], &bytes].concat(),
                _ => [&SIGNATURE[..], &bytes].concat(),
            };
            match parse(&input, 200) {
                Ok(ProxyHeader::Complete { header_bytes, .. }) => prop_assert!(header_bytes <= input.len().min(200)),
                Ok(ProxyHeader::Partial) => prop_assert!(input.len() < 200),
                Err(_) => {}
            }
        }
    }
}
