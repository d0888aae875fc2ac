//! Reads the vectors of Node's parser: what each sends, and what that parser makes of it. Their format is Markdown with a
//! block of bytes and a log of what was found in them.

use super::reading::{End, Reading, read_replies, read_requests};

/// One vector.
#[derive(Clone, Debug)]
pub struct Case {
    /// File and headings.
    pub name: String,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether they are requests.
    pub requests: bool,
    /// Whether a leniency that is off by default was on: the strict answer is a refusal.
    pub lenient: bool,
    /// Whether the connection ends behind the bytes.
    pub finished: bool,
    /// The bodies of the messages that were complete.
    pub bodies: Vec<Vec<u8>>,
    /// It was refused.
    pub refused: bool,
    /// The parser gave the rest to another protocol.
    pub upgraded: bool,
}

/// The vectors of a file.
///
/// # Panics
/// Where the file is not of the format.
pub fn cases(file: &str, text: &str) -> Vec<Case> {
    let mut all: Vec<Case> = Vec::new();
    let mut headings: Vec<(usize, &str)> = Vec::new();
    let (mut meta, mut bytes) = (String::new(), None);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let level = line.bytes().take_while(|it| *it == b'#').count();
        if level > 0 {
            headings.retain(|it| it.0 < level);
            headings.push((level, line.trim_start_matches('#').trim()));
        } else if let Some(json) = line.strip_prefix("<!-- meta=") {
            // What a later note leaves out, an earlier one has said.
            let json = json.trim_end_matches("-->").trim();
            meta = if json.contains("\"type\"") { json.to_owned() } else { format!("{meta}{json}") };
        } else if line.starts_with("```http") || line.starts_with("```url") {
            let block: Vec<&str> = lines.by_ref().take_while(|it| !it.starts_with("```")).collect();
            bytes = line.starts_with("```http").then(|| unescaped(&block.join("\n")));
        } else if line.starts_with("```log") {
            let log: Vec<&str> = lines.by_ref().take_while(|it| !it.starts_with("```")).collect();
            let Some(bytes) = bytes.take() else { continue };
            let headings: Vec<&str> = headings.iter().map(|it| it.1).collect();
            let mut name = format!("{file}: {}", headings.join(", "));
            let repeated = all.iter().filter(|it| it.name.starts_with(&name)).count();
            if repeated > 0 {
                name.push_str(&format!(" ({})", repeated + 1));
            }
            all.push(case(name, &meta, bytes, &log));
        }
    }
    all
}

fn case(name: String, meta: &str, bytes: Vec<u8>, log: &[&str]) -> Case {
    let kind = meta.split("\"type\"").nth(1).and_then(|it| it.split('"').nth(1)).unwrap_or_default();
    assert!(kind.starts_with("request") || kind.starts_with("response"), "{name}: {meta}");
    let (mut bodies, mut body) = (Vec::new(), Vec::new());
    let (mut refused, mut upgraded) = (false, false);
    for line in log {
        let number = |mark: &str| -> Option<usize> {
            let rest = line.split(mark).nth(1)?;
            rest.split(|it: char| !it.is_ascii_digit()).next()?.parse().ok()
        };
        if line.contains(" message complete") {
            bodies.push(std::mem::take(&mut body));
        } else if line.contains("span[body]") {
            let (at, length) = (number("off=").expect("an offset"), number("len=").expect("a length"));
            body.extend_from_slice(&bytes[at..at + length]);
        } else if line.contains(" error code=") {
            // What stands behind a pause was not looked at.
            upgraded |= line.contains("Upgrade") && line.contains("Pause");
            refused |= !line.contains("ause");
        }
    }
    Case {
        name,
        bytes,
        requests: kind.starts_with("request"),
        lenient: kind.contains("lenient"),
        finished: kind.ends_with("-finish"),
        bodies,
        refused,
        upgraded,
    }
}

/// As their own tool reads a block: line ends are CRLF, an escaped line end is none, and a few escapes.
fn unescaped(block: &str) -> Vec<u8> {
    let text = block.replace("\\\n", "").replace('\n', "\r\n");
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let (byte, taken) = match (first, behind) {
            (b'\\', [b'r', ..]) => (b'\r', 2),
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b't', ..]) => (b'\t', 2),
            (b'\\', [b'f', ..]) => (0x0c, 2),
            (b'\\', [b'x', high, low, ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).expect("two digits");
                (u8::from_str_radix(digits, 16).expect("two digits"), 4)
            }
            _ => (first, 1),
        };
        bytes.push(byte);
        rest = &rest[taken..];
    }
    bytes
}

impl Case {
    /// What our readers make of it. The vectors have no `Host`, which would be all that there is to say: requests get one.
    pub fn reading(&self) -> Reading {
        if !self.requests {
            return read_replies([&self.bytes[..]], self.finished);
        }
        let mut bytes = self.bytes.clone();
        let mut reading = read_requests([&bytes[..]]);
        while reading.end == End::Refused(400, "host_missing") {
            let start = reading.messages.last().map_or(0, |it| it.end);
            let line = bytes[start..].windows(3).position(|it| it[0] != b'\r' && &it[1..] == b"\r\n");
            let at = start + line.expect("a request line ended") + 3;
            bytes.splice(at..at, *b"Host: vectors\r\n");
            reading = read_requests([&bytes[..]]);
        }
        reading
    }

    /// How we differ from the parser; `None`: not at all.
    pub fn difference(&self) -> Option<String> {
        let Reading { messages, end } = self.reading();
        let refusal = match end {
            End::Refused(_, code) => Some(code),
            _ => None,
        };
        if self.lenient {
            // Whatever the leniency accepts is to be refused, or not to be read.
            return match end {
                End::Refused(..) | End::Closed => None,
                End::More { .. } => Some("accepts what is marked lenient".into()),
            };
        }
        let both = messages.iter().zip(&self.bodies);
        if both.clone().any(|(ours, theirs)| ours.body != *theirs) {
            return Some("other bodies".into());
        }
        match (messages.len().cmp(&self.bodies.len()), refusal) {
            (std::cmp::Ordering::Greater, _) => Some("accepts more".into()),
            (_, Some(code)) if !self.refused => Some(format!("refuses {code}")),
            (std::cmp::Ordering::Less, Some(code)) => Some(format!("refuses earlier, {code}")),
            (std::cmp::Ordering::Less, None) => Some("accepts less".into()),
            (std::cmp::Ordering::Equal, None) if self.refused && end != End::Closed => Some("waits".into()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# A\n\n## `b`\n\n<!-- meta={\"type\": \"request\"} -->\n```http\nPOST / HTTP/1.1\nTransfer-Encoding: \\\nchunked\n\n1\nx\n0\n\n\n```\n\n```log\noff=0 message begin\noff=50 len=1 span[body]=\"x\"\noff=58 message complete\n```\n";

    #[test]
    fn a_vector_is_read_with_its_log() {
        let all = cases("f.md", TEXT);
        assert_eq!(all.len(), 1);
        let case = &all[0];
        assert_eq!(case.name, "f.md: A, `b`");
        assert_eq!(case.bytes, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n");
        assert_eq!(case.bodies, [b"x".to_vec()]);
        assert_eq!(case.difference(), None);
        let other = Case { bodies: vec![b"y".to_vec()], ..case.clone() };
        assert_eq!(other.difference().as_deref(), Some("other bodies"));
        let fewer = Case { bodies: Vec::new(), refused: true, ..case.clone() };
        assert_eq!(fewer.difference().as_deref(), Some("accepts more"));
    }
}
