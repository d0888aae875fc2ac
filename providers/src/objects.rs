//! Files and batches, which a provider keeps for an account: what must be looked at in the bodies that make them, and
//! what replies say about them. Whose they are is decided elsewhere; here stands where to look, as data.

mod check;
mod list;

use std::borrow::Cow;

use tidegate_core::Family;
use tidegate_core::owner::ObjectKind;
use tidegate_wire::json;

pub use check::{Asked, BodyCheck, BodyRefusal, RefusalKind};
pub(crate) use check::{BodyForm, Look, Place, Shape, What};
pub use list::{Cursor, ListAsk, ListPage};

use crate::dialect::Dialect;
use crate::path::{Operation, OperationKind};
use crate::reading;

/// What a dialect says of files and batches.
#[derive(Debug)]
pub(crate) struct ObjectRules {
    /// The body that makes a file.
    pub(crate) file_body: BodyForm,
    /// The body that makes a batch.
    pub(crate) batch_body: BodyForm,
    /// Members of a batch that name files it made.
    pub(crate) linked_files: &'static [&'static str],
    /// A member that is a URL of the provider, and what its path begins with: told as a path, so clients come here.
    pub(crate) own_url: Option<(&'static str, &'static str)>,
    pub(crate) files: ListRules,
    pub(crate) batches: ListRules,
}

/// How a list is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListRules {
    /// The parameter that reads forwards from behind an id.
    pub(crate) after: &'static str,
    /// The parameter that reads backwards from in front of one.
    pub(crate) before: Option<&'static str>,
    /// Entries of a page unless asked otherwise.
    pub(crate) page_default: usize,
    /// Entries of a page at most.
    pub(crate) page_max: usize,
}

impl OperationKind {
    /// Whether it is about something that belongs to whoever made it.
    pub fn is_owned(self) -> bool {
        matches!(
            self,
            OperationKind::ObjectContent
                | OperationKind::ObjectCreate
                | OperationKind::ObjectDelete
                | OperationKind::ObjectDescribe
                | OperationKind::ObjectList
        )
    }

    /// Whether it is about something kept at the state account, and names no model.
    pub fn is_of_object(self) -> bool {
        self.is_owned() || self == OperationKind::Object
    }
}

impl Operation<'_> {
    /// What kind of thing an operation is about that [`OperationKind::is_owned`].
    pub fn object_kind(&self) -> ObjectKind {
        if self.family == Family::Batches { ObjectKind::Batch } else { ObjectKind::File }
    }
}

impl Dialect {
    /// What looks at the body of a request that makes a file or a batch, while it passes by.
    ///
    /// # Errors
    /// The body cannot be what it has to be.
    pub fn body_check(
        &self,
        operation: &Operation<'_>,
        content_type: Option<&[u8]>,
    ) -> Result<BodyCheck, BodyRefusal> {
        let form = match operation.object_kind() {
            ObjectKind::Batch => &self.objects.batch_body,
            ObjectKind::File => &self.objects.file_body,
        };
        BodyCheck::new(form, content_type)
    }

    /// The id of the object that a reply describes.
    pub fn object_id<'b>(&self, body: &'b [u8]) -> Option<Cow<'b, str>> {
        reading::text(reading::member(body, "id")?).filter(|it| !it.is_empty())
    }

    /// The id of the response that a stream is about, from its beginning: as much of it as was held. What follows the
    /// id there may be cut.
    pub fn response_id<'b>(&self, opening: &'b [u8]) -> Option<Cow<'b, str>> {
        self.object_id(opening.get(self.usage_object(opening)?..)?)
    }

    /// Calls `each` with the id of every file that the described batch has made.
    pub fn linked_files(&self, object: &[u8], each: &mut dyn FnMut(&str)) {
        for name in self.objects.linked_files {
            if let Some(id) = reading::member(object, name).and_then(reading::text) {
                each(&id);
            }
        }
    }

    /// Whether [`Dialect::write_object`] may change a description.
    pub fn rewrites_objects(&self) -> bool {
        self.objects.own_url.is_some()
    }

    /// Appends the description of an object as a caller gets it: URLs of the provider are told as paths, which clients
    /// resolve against the gateway. A client would send its virtual key to any other place.
    pub fn write_object(&self, out: &mut Vec<u8>, object: &[u8]) {
        let rewritten = self.objects.own_url.map(|(name, path)| (name, path, own_path(object, name, path)));
        let Some((name, _, value)) =
            rewritten.filter(|it| reading::member(object, it.0).is_some_and(|it| !json::is_null(it)))
        else {
            out.extend_from_slice(object);
            return;
        };
        out.push(b'{');
        for (at, (key, text)) in json::Members::new(object).flatten().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            list::write_key(out, key.raw());
            match (&value, key.is(name)) {
                (Some(path), true) => json::write_str(out, path),
                (None, true) => out.extend_from_slice(b"null"),
                (_, false) => out.extend_from_slice(text),
            }
        }
        out.push(b'}');
    }
}

/// The URL in a member, from where its path begins as it has to.
fn own_path(object: &[u8], name: &str, path: &str) -> Option<String> {
    let url = reading::text(reading::member(object, name)?)?;
    let at = url.find(path)?;
    url.get(at..).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use crate::{anthropic, openai};

    #[test]
    fn urls_of_the_provider_are_told_as_paths() {
        let told = |object: &str| {
            let mut out = Vec::new();
            anthropic::DIALECT.write_object(&mut out, object.as_bytes());
            String::from_utf8(out).expect("text")
        };
        assert_eq!(
            told(
                r#"{"id":"b1","results_url":"https://api.example/x/v1/messages/batches/b1/results","n":[1, 2]}"#
            ),
            r#"{"id":"b1","results_url":"/v1/messages/batches/b1/results","n":[1, 2]}"#
        );
        assert_eq!(told(r#"{"results_url":"https://elsewhere/","n":1}"#), r#"{"results_url":null,"n":1}"#);
        for same in [r#"{"results_url": null, "n":1}"#, r#"{ "id":"b1" }"#, "no object"] {
            assert_eq!(told(same), same);
        }
    }

    #[test]
    fn the_id_of_a_streamed_response_is_read_from_its_beginning() {
        let id = |text: &str| openai::DIALECT.response_id(text.as_bytes()).map(|it| it.into_owned());
        let created = "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\
                       \"response\":{\"object\":\"response\",\"id\":\"resp_1\",\"instructions\":\"";
        for rest in
            ["", "a", "a\"}}\n\nevent: response.in_progress\ndata: {\"response\":{\"id\":\"resp_2\"}}\n\n"]
        {
            assert_eq!(id(&format!("{created}{rest}")).as_deref(), Some("resp_1"), "{rest}");
        }
        for none in ["", ": comment\n\n", "data: {\"type\":\"response.created\",\"response\":{\"id\":7}}\n\n"]
        {
            assert_eq!(id(none), None, "{none}");
        }
    }

    #[test]
    fn ids_are_read() {
        let id = |body: &str| openai::DIALECT.object_id(body.as_bytes()).map(|it| it.into_owned());
        assert_eq!(id(r#"{"object":"file","id":"file-\u0031"}"#).as_deref(), Some("file-1"));
        for none in ["", "[]", r#"{"id":7}"#, r#"{"id":""}"#, r#"{"x":{"id":"a"}}"#] {
            assert_eq!(id(none), None, "{none}");
        }
        let mut linked = Vec::new();
        let batch = br#"{"id":"b","input_file_id":"i","output_file_id":"o","error_file_id":null}"#;
        openai::DIALECT.linked_files(batch, &mut |it| linked.push(it.to_owned()));
        assert_eq!(linked, ["o"]);
    }
}
