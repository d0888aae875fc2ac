//! Looks at a body while it passes by: every model, file and endpoint that it names is asked about, and the first that
//! may not be named stops it. Holds a bounded part of the body and knows no caller.
//!
//! A stream that went out cannot be taken back, but it can be left unfinished: whoever passes the body on feeds each
//! piece here before it goes out, and calls [`BodyCheck::finish`] before the last one does. A body that is refused has
//! then never reached the provider whole.

use tidegate_core::limits::{FILES_NAMED_MAX, MODEL_NAME_BYTES_MAX};
use tidegate_wire::follow::{Follow, FollowError, ITEM, OTHER, Seen};
use tidegate_wire::form::{self, FormError, FormSearch};

/// What a body has to be.
#[derive(Debug)]
pub(crate) enum BodyForm {
    /// Whatever the provider takes; it names nothing.
    Unread,
    /// One object.
    Object(&'static Shape),
    /// A form with a file. If its field has the value, each line of the file is an object.
    FormOfLines { field: &'static str, value: &'static str, file: &'static str, lines: &'static Shape },
}

/// Where an object names what has to be asked about.
#[derive(Debug)]
pub(crate) struct Shape {
    /// The names in the paths.
    pub(crate) names: &'static [&'static str],
    pub(crate) looks: &'static [Look],
    /// Where the calls are that it holds.
    pub(crate) item: &'static [u8],
    /// What each of them must name.
    pub(crate) needs: &'static [What],
}

/// One place to look.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) place: Place,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum Place {
    /// This path from the outermost object.
    At(&'static [u8]),
    /// Under this name, as a string or in an array, at any depth.
    Under(u8),
}

/// What a string names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Endpoint,
    File,
    Model,
    Response,
}

/// What a body asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    /// The path of an operation.
    Endpoint(&'a str),
    /// A file by its id.
    File(&'a str),
    /// A model.
    Model(&'a str),
    /// A stored response by its id.
    Response(&'a str),
}

/// Why a body must not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// It is not what it has to be.
    Malformed,
    /// It names an operation that may not be had.
    Endpoint,
    /// It names a file that may not be had.
    File,
    /// It names a model that may not be had.
    Model,
    /// It names a stored response that may not be had.
    Response,
}

/// A body that must not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyRefusal {
    /// Why.
    pub kind: RefusalKind,
    /// What it is about, and in which of its calls.
    pub text: String,
}

/// Looks at one body.
#[derive(Debug)]
pub struct BodyCheck(Kind);

#[derive(Debug)]
enum Kind {
    Unread,
    Object(Reader),
    Form {
        search: FormSearch,
        value: &'static str,
        lines: Reader,
        /// What is wrong with the lines, should they turn out to matter: the field may follow them.
        wrong: Option<BodyRefusal>,
    },
}

#[derive(Debug)]
struct Reader {
    shape: &'static Shape,
    follow: Follow,
    items: Items,
}

/// What was seen of the calls in a body.
#[derive(Debug, Default)]
struct Items {
    /// Calls that ended.
    ended: u64,
    /// One bit for each kind of thing that the present call has named.
    named: u8,
    /// Files that the present call has named.
    files: usize,
}

impl BodyCheck {
    pub(super) fn new(form: &BodyForm, content_type: Option<&[u8]>) -> Result<BodyCheck, BodyRefusal> {
        Ok(BodyCheck(match *form {
            BodyForm::Unread => Kind::Unread,
            BodyForm::Object(shape) => {
                let follow = Follow::object(shape.names, MODEL_NAME_BYTES_MAX);
                Kind::Object(Reader { shape, follow, items: Items::default() })
            }
            BodyForm::FormOfLines { field, value, file, lines } => {
                let boundary = content_type.and_then(form::boundary);
                let boundary = boundary.ok_or_else(|| malformed("it has to be `multipart/form-data`"))?;
                let search = FormSearch::new(boundary, field, MODEL_NAME_BYTES_MAX).showing(file);
                let follow = Follow::lines(lines.names, MODEL_NAME_BYTES_MAX);
                let lines = Reader { shape: lines, follow, items: Items::default() };
                Kind::Form { search, value, lines, wrong: None }
            }
        }))
    }

    /// Takes the next piece of the body before it goes out. `may` says whether what is asked for may be had.
    ///
    /// # Errors
    /// The piece must not go out, nor anything after it.
    pub fn feed(&mut self, piece: &[u8], may: &mut dyn FnMut(Asked<'_>) -> bool) -> Result<(), BodyRefusal> {
        match &mut self.0 {
            Kind::Unread => Ok(()),
            Kind::Object(reader) => reader.feed(piece, may),
            Kind::Form { search, value, lines, wrong } => {
                search.feed_showing(piece, &mut |content| {
                    if wrong.is_none() {
                        *wrong = lines.feed(content, may).err();
                    }
                })?;
                match wrong {
                    Some(wrong) if search.found().is_some_and(|it| it.0 == *value) => Err(wrong.clone()),
                    _ => Ok(()),
                }
            }
        }
    }

    /// The body ended; its last piece is not out yet.
    ///
    /// # Errors
    /// It must not go out.
    pub fn finish(&self) -> Result<(), BodyRefusal> {
        match &self.0 {
            Kind::Unread => Ok(()),
            Kind::Object(reader) => Ok(reader.follow.finish()?),
            Kind::Form { search, value, lines, wrong } => {
                let stated = search.found().filter(|_| search.is_over());
                let (stated, _) = stated.ok_or_else(|| malformed("a field of the form is missing"))?;
                match wrong {
                    _ if stated != *value => Ok(()),
                    Some(wrong) => Err(wrong.clone()),
                    None => Ok(lines.follow.finish()?),
                }
            }
        }
    }
}

impl Reader {
    fn feed(&mut self, piece: &[u8], may: &mut dyn FnMut(Asked<'_>) -> bool) -> Result<(), BodyRefusal> {
        let Reader { shape, follow, items } = self;
        follow.feed(piece, &mut |path, seen| match seen {
            Seen::Closed if path == shape.item => items.end(shape),
            Seen::Closed => Ok(()),
            Seen::Text(text) => shape.looked_at(path).map_or(Ok(()), |what| items.ask(what, text, may)),
            Seen::Unreadable if shape.looked_at(path).is_some() => {
                Err(malformed(format!("{} names something that cannot be a name", items.place())))
            }
            Seen::Unreadable => Ok(()),
        })
    }
}

impl Shape {
    fn looked_at(&self, path: &[u8]) -> Option<What> {
        let nearest = path.iter().rev().find(|&&it| it != ITEM).copied().unwrap_or(OTHER);
        let is = |look: &&Look| match look.place {
            Place::At(at) => at == path,
            Place::Under(name) => name == nearest,
        };
        self.looks.iter().find(is).map(|it| it.what)
    }
}

impl Items {
    fn ask(
        &mut self,
        what: What,
        text: &str,
        may: &mut dyn FnMut(Asked<'_>) -> bool,
    ) -> Result<(), BodyRefusal> {
        self.named |= 1 << what as u8;
        let (asked, kind) = match what {
            What::Endpoint => (Asked::Endpoint(text), RefusalKind::Endpoint),
            What::File => (Asked::File(text), RefusalKind::File),
            What::Model => (Asked::Model(text), RefusalKind::Model),
            What::Response => (Asked::Response(text), RefusalKind::Response),
        };
        if what == What::File {
            self.files += 1;
            if self.files > FILES_NAMED_MAX {
                return Err(malformed(format!("{} names too many files", self.place())));
            }
        }
        if may(asked) {
            return Ok(());
        }
        Err(BodyRefusal { kind, text: format!("{text} ({})", self.place()) })
    }

    fn end(&mut self, shape: &Shape) -> Result<(), BodyRefusal> {
        if let Some(missing) = shape.needs.iter().find(|it| self.named & (1 << **it as u8) == 0) {
            let missing = match missing {
                What::Endpoint => "endpoint",
                What::File => "file",
                What::Model => "model",
                What::Response => "response",
            };
            return Err(malformed(format!("{} names no {missing}", self.place())));
        }
        *self = Items { ended: self.ended + 1, ..Items::default() };
        Ok(())
    }

    /// The present call, for people: they count from one.
    fn place(&self) -> String {
        format!("request {}", self.ended + 1)
    }
}

impl From<FollowError> for BodyRefusal {
    fn from(error: FollowError) -> BodyRefusal {
        malformed(error.to_string())
    }
}

impl From<FormError> for BodyRefusal {
    fn from(error: FormError) -> BodyRefusal {
        malformed(error.to_string())
    }
}

fn malformed(text: impl Into<String>) -> BodyRefusal {
    BodyRefusal { kind: RefusalKind::Malformed, text: text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anthropic, openai};

    const FORM: Option<&[u8]> = Some(b"multipart/form-data; boundary=b");

    fn judged(
        dialect: &'static crate::Dialect,
        path: &str,
        body: &str,
        step: usize,
    ) -> Result<(), BodyRefusal> {
        let operation = dialect.operation("POST", path).expect("an operation");
        let mut check = dialect.body_check(&operation, FORM)?;
        let mut may = |asked: Asked<'_>| match asked {
            Asked::Model(name) => name.starts_with("ok"),
            Asked::File(id) | Asked::Response(id) => id == "mine",
            Asked::Endpoint(path) => path == "/v1/chat/completions",
        };
        for piece in body.as_bytes().chunks(step) {
            check.feed(piece, &mut may)?;
        }
        check.finish()
    }

    fn refused(kind: RefusalKind, text: &str) -> Result<(), BodyRefusal> {
        Err(BodyRefusal { kind, text: text.to_owned() })
    }

    #[test]
    fn each_request_of_a_batch_is_asked_about() {
        let batch = |second: &str| {
            let first = r#"{"custom_id":"a","params":{"model":"ok-1","messages":[{"model":"no"}]}}"#;
            format!(r#"{{"requests":[{first},{{"custom_id":"b","params":{second}}}]}}"#)
        };
        let judged = |second: &str| judged(&anthropic::DIALECT, "/v1/messages/batches", &batch(second), 7);
        assert_eq!(judged(r#"{"model":"ok-2"}"#), Ok(()));
        assert_eq!(judged(r#"{"model":"no"}"#), refused(RefusalKind::Model, "no (request 2)"));
        assert_eq!(judged(r#"{"model":"ok-2","model":"no"}"#), refused(RefusalKind::Model, "no (request 2)"));
        assert_eq!(judged(r#"{"mod\u0065l":"n\u006f"}"#), refused(RefusalKind::Model, "no (request 2)"));
        assert_eq!(judged("{}"), refused(RefusalKind::Malformed, "request 2 names no model"));
        let file =
            r#"{"model":"ok","messages":[{"content":[{"source":{"type":"file","file_id":"theirs"}}]}]}"#;
        assert_eq!(judged(file), refused(RefusalKind::File, "theirs (request 2)"));
        assert_eq!(judged(&file.replace("theirs", "mine")), Ok(()));
    }

    /// The client decides which part comes first.
    #[test]
    fn each_line_of_a_file_is_asked_about_where_it_is_a_batch() {
        let purpose =
            |it: &str| format!("--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\n{it}\r\n");
        let file = |it: &str| {
            format!("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n{it}\r\n")
        };
        let line = |model: &str, url: &str| {
            format!(r#"{{"custom_id":"c","url":"{url}","body":{{"model":"{model}"}}}}"#)
        };
        let chat = "/v1/chat/completions";
        let good = format!("{}\n{}\n", line("ok-1", chat), line("ok-2", chat));
        let bad = format!("{good}{}", line("no", chat));
        for step in [1, 5, 64, 4_000] {
            let judged = |parts: &[String]| {
                judged(&openai::DIALECT, "/v1/files", &format!("{}--b--\r\n", parts.concat()), step)
            };
            for swap in [false, true] {
                let both =
                    |first: String, second: String| if swap { [second, first] } else { [first, second] };
                assert_eq!(judged(&both(purpose("batch"), file(&good))), Ok(()));
                let wrong = refused(RefusalKind::Model, "no (request 3)");
                assert_eq!(judged(&both(purpose("batch"), file(&bad))), wrong, "steps of {step}, {swap}");
                assert_eq!(judged(&both(purpose("user_data"), file(&bad))), Ok(()), "another purpose");
                let elsewhere = refused(RefusalKind::Endpoint, "/v1/files (request 1)");
                assert_eq!(judged(&both(purpose("batch"), file(&line("ok", "/v1/files")))), elsewhere);
            }
            let continued =
                |id: &str| line("ok", chat).replace("}}", &format!(r#","previous_response_id":"{id}"}}}}"#));
            assert_eq!(judged(&[purpose("batch"), file(&continued("mine"))]), Ok(()));
            let another = refused(RefusalKind::Response, "theirs (request 1)");
            assert_eq!(judged(&[purpose("batch"), file(&continued("theirs"))]), another);
            assert!(judged(&[file(&good)]).is_err(), "no purpose");
            assert!(judged(&[purpose("batch"), file(&good), file(&bad)]).is_err(), "two files");
        }
    }

    #[test]
    fn a_batch_of_a_file_is_made_by_its_owner() {
        let judged = |body: &str| judged(&openai::DIALECT, "/v1/batches", body, 3);
        assert_eq!(judged(r#"{"input_file_id":"mine","endpoint":"/v1/chat/completions"}"#), Ok(()));
        assert_eq!(
            judged(r#"{"endpoint":"/v1/chat/completions","input_file_id":"mine","input_file_id":"theirs"}"#),
            refused(RefusalKind::File, "theirs (request 1)")
        );
        assert_eq!(judged("{}"), refused(RefusalKind::Malformed, "request 1 names no file"));
        assert!(judged(r#"{"input_file_id":"mine","endpoint":"/v1/files"}"#).is_err());
    }
}
