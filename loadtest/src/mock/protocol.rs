//! The kinds of generating calls, by path: how a request of each is understood and its whole reply written. Decides
//! nothing about quotas, faults or the line.

use serde_json::Value;

use super::ask::{Ask, Naming, Product};
use super::config::ModelConfig;
use super::form::Form;
use super::generate::model_of;
use super::provider::Provider;
use super::refusal::{Dialect, Refusal};
use super::reply::Reply;
use super::{chat, embeddings, media, messages, responses};

/// A kind of generating call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Messages,
    Chat,
    Responses,
    Embeddings,
    Images,
    /// Images made of images, in a form.
    ImagesOfForm,
    Speech,
    /// Text made of sound, in a form.
    Transcript,
}

/// A request as it was read, and the bytes of it that are text.
pub(crate) struct Request {
    pub(crate) root: Value,
    pub(crate) text_bytes: usize,
}

impl Protocol {
    /// What is generated at a path.
    pub(crate) fn of_path(path: &str) -> Option<Protocol> {
        Some(match path {
            "/v1/messages" => Protocol::Messages,
            "/v1/chat/completions" => Protocol::Chat,
            "/v1/responses" => Protocol::Responses,
            "/v1/embeddings" => Protocol::Embeddings,
            "/v1/images/generations" => Protocol::Images,
            "/v1/images/edits" | "/v1/images/variations" => Protocol::ImagesOfForm,
            "/v1/audio/speech" => Protocol::Speech,
            "/v1/audio/transcriptions" | "/v1/audio/translations" => Protocol::Transcript,
            _ => return None,
        })
    }

    /// Whose errors and headers it has.
    pub(crate) fn dialect(self) -> Dialect {
        if self == Protocol::Messages { Dialect::Messages } else { Dialect::Chat }
    }

    /// Reads a body: JSON, or the texts of a form as an object.
    pub(crate) fn request(self, content_type: &str, body: &[u8]) -> Result<Request, Refusal> {
        match self {
            Protocol::ImagesOfForm | Protocol::Transcript => {
                let form = Form::read(content_type, body)?;
                let file = if self == Protocol::Transcript { "file" } else { "image" };
                if form.file(file).is_none() {
                    return Err(Refusal::invalid(format!("Missing required parameter: '{file}'.")));
                }
                let root = form.texts();
                let text_bytes = root.to_string().len();
                Ok(Request { root, text_bytes })
            }
            _ => match serde_json::from_slice(body) {
                Ok(root) => Ok(Request { root, text_bytes: body.len() }),
                Err(error) => Err(Refusal::invalid(format!("The request body is not valid JSON: {error}"))),
            },
        }
    }

    /// Understands a request, as the provider would.
    pub(crate) fn understand<'p>(
        self,
        provider: &'p Provider,
        root: &Value,
        version: Option<&str>,
    ) -> Result<(Ask, &'p ModelConfig), Refusal> {
        if self == Protocol::Messages {
            messages::check_version(version)?;
        }
        let model = model_of(provider, root, self.dialect())?;
        let ask = match self {
            Protocol::Messages => messages::read(root, version, model.tokens_max, false)?,
            Protocol::Chat => chat::read(root)?,
            Protocol::Responses => responses::read(root)?,
            Protocol::Embeddings => embeddings::read(root)?,
            Protocol::Images => media::read_images(root, true)?,
            Protocol::ImagesOfForm => media::read_images(root, false)?,
            Protocol::Speech => media::read_speech(root)?,
            Protocol::Transcript => media::read_transcript(root),
        };
        Ok((ask, model))
    }
}

/// A whole reply and its type.
pub(crate) fn whole(ask: &Ask, naming: &Naming<'_>, reply: &Reply) -> (&'static str, Vec<u8>) {
    const JSON: &str = "application/json";
    match &ask.product {
        Product::Message => (JSON, messages::whole(naming, reply)),
        Product::Completion => (JSON, chat::whole(naming, reply)),
        Product::Response(asked) => (JSON, responses::whole(naming, asked, reply)),
        Product::Vectors(vectors) => (JSON, embeddings::whole(naming, vectors)),
        Product::Images { count } => (JSON, media::images(naming, *count, reply)),
        Product::Sound => ("audio/mpeg", media::sound(reply)),
        Product::Transcript { plain: true } => ("text/plain; charset=utf-8", media::plain_transcript(reply)),
        Product::Transcript { plain: false } => (JSON, media::transcript(naming, reply)),
    }
}
