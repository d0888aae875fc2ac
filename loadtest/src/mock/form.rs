//! Forms (`multipart/form-data`, RFC 7578) of a body that was read whole. Decides what stands in which part; never what
//! it means.

use serde_json::{Map, Value};

use super::refusal::Refusal;

/// Parts of a form at most.
const PARTS_MAX: usize = 64;

/// A form.
#[derive(Debug)]
pub(crate) struct Form<'b> {
    parts: Vec<Part<'b>>,
}

/// One part.
#[derive(Debug)]
pub(crate) struct Part<'b> {
    name: String,
    /// A file has one.
    pub(crate) filename: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) content: &'b [u8],
}

impl<'b> Form<'b> {
    /// Reads a form.
    pub(crate) fn read(content_type: &str, body: &'b [u8]) -> Result<Form<'b>, Refusal> {
        let boundary = parameter(content_type, "boundary")
            .filter(|_| content_type.trim_start().to_ascii_lowercase().starts_with("multipart/form-data"))
            .ok_or_else(|| Refusal::invalid("The request body has to be multipart/form-data"))?;
        let delimiter = [b"--", boundary.as_bytes()].concat();
        let broken = || Refusal::invalid("The form cannot be read");
        let first = find(body, &delimiter).ok_or_else(broken)?;
        let mut rest = &body[first + delimiter.len()..];
        let between = [b"\r\n", &*delimiter].concat();
        let mut parts = Vec::new();
        while let Some(part) = rest.strip_prefix(b"\r\n") {
            let end = find(part, &between).ok_or_else(broken)?;
            let split = find(part, b"\r\n\r\n").filter(|&at| at <= end).ok_or_else(broken)?;
            let content = part.get(split + 4..end).unwrap_or_default();
            parts.push(Part::of(&part[..split], content).ok_or_else(broken)?);
            if parts.len() > PARTS_MAX {
                return Err(broken());
            }
            rest = &part[end + between.len()..];
        }
        if rest.starts_with(b"--") { Ok(Form { parts }) } else { Err(broken()) }
    }

    /// The part that is a file of this name, or the first of a list of that name.
    pub(crate) fn file(&self, name: &str) -> Option<&Part<'b>> {
        let is_it = |part: &&Part<'_>| part.name.strip_suffix("[]").unwrap_or(&part.name) == name;
        self.parts.iter().find(|part| part.filename.is_some() && is_it(part))
    }

    /// The text of a field.
    pub(crate) fn text(&self, name: &str) -> Option<&'b str> {
        let part = self.parts.iter().find(|part| part.filename.is_none() && part.name == name)?;
        std::str::from_utf8(part.content).ok()
    }

    /// All texts, as an object.
    pub(crate) fn texts(&self) -> Value {
        let texts = self.parts.iter().filter(|part| part.filename.is_none());
        let named = texts.filter_map(|part| {
            Some((part.name.clone(), Value::from(std::str::from_utf8(part.content).ok()?)))
        });
        Value::Object(named.collect::<Map<_, _>>())
    }
}

impl<'b> Part<'b> {
    fn of(head: &[u8], content: &'b [u8]) -> Option<Part<'b>> {
        let head = std::str::from_utf8(head).ok()?;
        let field = |name: &str| {
            let lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
            lines.filter(|(there, _)| there.trim().eq_ignore_ascii_case(name)).map(|it| it.1.trim()).next()
        };
        let disposition = field("content-disposition")?;
        Some(Part {
            name: parameter(disposition, "name")?,
            filename: parameter(disposition, "filename"),
            content_type: field("content-type").map(str::to_owned),
            content,
        })
    }
}

/// A parameter of a field's value, without its quotes.
fn parameter(value: &str, name: &str) -> Option<String> {
    let parameters = value.split(';').skip(1).filter_map(|it| it.split_once('='));
    let (_, value) = parameters.into_iter().find(|it| it.0.trim().eq_ignore_ascii_case(name))?;
    Some(value.trim().trim_matches('"').to_owned())
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    let first = *part.first()?;
    let mut from = 0;
    // Uploads are large: only where the first byte stands is there a comparison.
    while let Some(at) = text.get(from..)?.iter().position(|&byte| byte == first) {
        if text[from + at..].starts_with(part) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_whatever_they_hold() {
        let file = b"\r\n--other\r\n\r\nfile\0\xff\r\n--";
        let mut body =
            b"--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--b\r\n".to_vec();
        body.extend_from_slice(
            b"content-disposition: form-data; name=\"image[]\"; filename=\"a b.png\"\r\n\
              Content-Type: image/png\r\n\r\n",
        );
        body.extend_from_slice(file);
        body.extend_from_slice(b"\r\n--b--\r\n");
        let form = Form::read("multipart/form-data; boundary=\"b\"", &body).expect("a form");
        assert_eq!(
            (form.text("purpose"), form.text("image[]"), form.text("none")),
            (Some("batch"), None, None)
        );
        let part = form.file("image").expect("a file");
        assert_eq!(part.content, file);
        assert_eq!(
            (part.filename.as_deref(), part.content_type.as_deref()),
            (Some("a b.png"), Some("image/png"))
        );
        assert_eq!(form.texts(), serde_json::json!({"purpose": "batch"}));
        for cut in 1..body.len() - 3 {
            assert!(Form::read("multipart/form-data; boundary=b", &body[..cut]).is_err(), "{cut}");
        }
        assert!(Form::read("application/json", &body).is_err());
    }
}
