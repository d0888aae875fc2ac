//! The fields of a head in a form that is reused from message to message: one copy of the head's bytes, and small
//! ranges into it. It knows what a field may hold, and not what any field means.

use httparse::Header;

use super::{HEAD_BYTES_CEILING, Refusal};

/// Where one field lies in the head. 16 bits are enough: `HEAD_BYTES_CEILING`.
#[derive(Clone, Copy, Debug)]
struct FieldRange {
    name_start: u16,
    name_end: u16,
    value_start: u16,
    value_end: u16,
}

/// The bytes of one head and where its fields are.
#[derive(Debug, Default)]
pub(super) struct FieldTable {
    bytes: Vec<u8>,
    fields: Vec<FieldRange>,
}

impl FieldTable {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
    }

    /// Copies the head and notes its fields, which must lie in it.
    pub(super) fn fill(&mut self, head: &[u8], parsed: &[Header<'_>]) -> Result<(), Refusal> {
        if head.len() > HEAD_BYTES_CEILING {
            return Err(Refusal::HeadTooLarge);
        }
        self.clear();
        self.bytes.extend_from_slice(head);
        for field in parsed {
            let (name_start, name_end) = range_in(head, field.name.as_bytes());
            let (value_start, value_end) = range_in(head, trim(field.value));
            self.fields.push(FieldRange { name_start, name_end, value_start, value_end });
        }
        Ok(())
    }

    /// The head as it was received.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    /// Text of the head that was checked to be ASCII when it was parsed.
    pub(super) fn text(&self, start: u16, end: u16) -> &str {
        std::str::from_utf8(self.slice(start, end)).unwrap_or_default()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        self.fields.iter().map(|field| {
            (self.text(field.name_start, field.name_end), self.slice(field.value_start, field.value_end))
        })
    }

    pub(super) fn first(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Lets `change` write over the bytes of each value; none gets longer or shorter.
    pub(super) fn each_value(&mut self, mut change: impl FnMut(&mut [u8])) {
        for field in &self.fields {
            let value = usize::from(field.value_start)..usize::from(field.value_end);
            self.bytes.get_mut(value).into_iter().for_each(&mut change);
        }
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.fields.iter().filter_map(move |field| {
            let found = self.slice(field.name_start, field.name_end);
            found
                .eq_ignore_ascii_case(name.as_bytes())
                .then(|| self.slice(field.value_start, field.value_end))
        })
    }

    /// True if a `connection` field names `name`.
    pub(super) fn connection_names(&self, name: &str) -> bool {
        self.all("connection")
            .flat_map(|value| value.split(|&byte| byte == b','))
            .any(|option| trim(option).eq_ignore_ascii_case(name.as_bytes()))
    }

    fn slice(&self, start: u16, end: u16) -> &[u8] {
        self.bytes.get(usize::from(start)..usize::from(end)).unwrap_or_default()
    }
}

/// Where `part`, a slice of `whole`, lies in it. A slice of something else comes out empty, never wrong.
pub(super) fn range_in(whole: &[u8], part: &[u8]) -> (u16, u16) {
    let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
    let inside = start <= whole.len() && part.len() <= whole.len() - start;
    match (u16::try_from(start), u16::try_from(start.wrapping_add(part.len()))) {
        (Ok(start), Ok(end)) if inside => (start, end),
        _ => (0, 0),
    }
}

/// Without spaces and tabs at both ends.
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// RFC 9110 §5.6.2: at least one `tchar` and nothing else.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_tchar(byte))
}

pub(super) fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 §5.5, as strict as may be: visible bytes, space, tab and `obs-text`; no control byte.
pub(super) fn is_field_value(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}

/// Origin form: begins with a slash; visible ASCII only; no fragment.
pub(super) fn is_origin_form(target: &[u8]) -> bool {
    target.first() == Some(&b'/') && target.iter().all(|&byte| byte.is_ascii_graphic() && byte != b'#')
}
