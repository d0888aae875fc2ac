//! A generating call from its parsed request to the last byte of its reply: the fault it meets, validation, the quota,
//! the reply. The order is the provider's: credential, then script, then the request's own mistakes, then quotas.

use serde_json::Value;
use tidegate_ring::{Conn, wall_ms};
use tidegate_wire::head::{InvalidField, ResponseWriter};

use super::ask::{Ask, Naming, Product};
use super::config::{Draw, ModelConfig, OrganizationConfig};
use super::headers::{Identity, write_identity, write_levels};
use super::journal::{CallRecord, Ending};
use super::line::{Incident, IncidentKind, Line, Place, cut, pause};
use super::protocol::{self, Protocol, Request};
use super::provider::{PoolName, Provider};
use super::quota::{Levels, Need};
use super::random::{self, Random};
use super::refusal::{Dialect, Refusal};
use super::reply::{Reply, Wish};
use super::script::{Fault, Subject};
use super::{chat, files, messages, prompt, responses, stored};

/// Tokens that a chat call takes of the joint bucket if it sets no limit.
const CHAT_TOKENS_ASSUMED: u64 = 16;

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    KeepAlive,
    Close,
    /// It has been ended already, by an end or a reset that must stay what it is.
    Drop,
}

/// A call whose caller is known.
pub(crate) struct Call<'a> {
    pub(crate) provider: &'a Provider,
    pub(crate) conn: &'a Conn,
    pub(crate) dialect: Dialect,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// Behind the question mark; empty if there is none.
    pub(crate) query: &'a str,
    pub(crate) content_type: &'a str,
    pub(crate) version: Option<&'a str>,
    pub(crate) key: &'a str,
    pub(crate) organization_at: usize,
    pub(crate) organization: &'a OrganizationConfig,
    pub(crate) request_id: &'a str,
    pub(crate) number: u64,
    pub(crate) keep_alive: bool,
    pub(crate) body: &'a [u8],
}

/// A call that was not let in.
struct Denied {
    refusal: Refusal,
    levels: Option<Levels>,
}

/// A call that was let in.
struct Admitted<'a> {
    ask: Ask,
    model: &'a ModelConfig,
    pool: PoolName,
    levels: Levels,
    input_tokens: u64,
    /// Taken of the joint bucket.
    taken: u64,
    random: Random,
}

impl Call<'_> {
    /// Serves the call.
    pub(crate) async fn serve(&self, protocol: Protocol) -> After {
        let request = match protocol.request(self.content_type, self.body) {
            Ok(request) => request,
            Err(refusal) => return self.refuse(self.record("", false), refusal, None).await,
        };
        let root = &request.root;
        let model = root.get("model").and_then(Value::as_str).unwrap_or_default();
        let stream = root.get("stream").and_then(Value::as_bool).unwrap_or(false);
        let mut record = self.record(model, stream);
        let fault = self.provider.meet(&self.subject(model, stream));
        record.fault = fault.as_ref().map(|fault| fault.name().to_owned());
        if let Some(refusal) = fault.as_ref().and_then(|fault| Refusal::of_fault(fault, self.dialect)) {
            return self.refuse(record, refusal, None).await;
        }
        match self.admit(protocol, &request) {
            Ok(admitted) => self.reply(record, admitted, fault).await,
            Err(denied) => self.refuse(record, denied.refusal, denied.levels).await,
        }
    }

    fn subject<'a>(&'a self, model: &'a str, stream: bool) -> Subject<'a> {
        Subject {
            key: self.key,
            organization: &self.organization.id,
            model,
            path: self.path,
            stream,
            generates: true,
        }
    }

    fn record(&self, model: &str, stream: bool) -> CallRecord {
        CallRecord {
            at_ms: self.provider.now_ms(),
            ended_ms: None,
            key: self.key.to_owned(),
            organization: self.organization.id.clone(),
            model: model.to_owned(),
            path: self.path.to_owned(),
            stream,
            status: 0,
            refused: None,
            fault: None,
            mark: None,
            input_tokens: 0,
            output_tokens: 0,
            ending: Ending::Open,
        }
    }

    /// Judges the request and takes its part of the quota.
    fn admit(&self, protocol: Protocol, request: &Request) -> Result<Admitted<'_>, Box<Denied>> {
        let config = &self.provider.config;
        let Request { root, text_bytes } = request;
        let (ask, model) =
            self.understand(protocol, root).map_err(|refusal| Box::new(Denied { refusal, levels: None }))?;
        let mut random = Random::new(random::hash(config.seed, self.body));
        let unit = random.unit();
        let input_tokens =
            prompt::input_tokens(*text_bytes, root, config.bytes_per_token, config.token_spread, unit);
        let reserved = match self.dialect {
            Dialect::Messages => 0,
            Dialect::Chat => ask.tokens_max.unwrap_or(CHAT_TOKENS_ASSUMED),
        };
        let taken = input_tokens.saturating_add(reserved);
        let pool = self.provider.pool_name(self.organization_at, model.class());
        let need = Need { input_tokens: input_tokens as f64, tokens: taken as f64 };
        let (outcome, levels) = self.provider.admit(&pool, need);
        match outcome {
            Ok(()) => Ok(Admitted { ask, model, pool, levels, input_tokens, taken, random }),
            Err(no_room) => {
                let retry_after = self.organization.retry_after;
                let lacking = no_room.lacking.name();
                let refusal = Refusal::no_room(self.dialect, lacking, no_room.wait_s, retry_after);
                Err(Box::new(Denied { refusal, levels: Some(levels) }))
            }
        }
    }

    /// Understands a request, and looks whether what it names is there.
    fn understand(&self, protocol: Protocol, root: &Value) -> Result<(Ask, &ModelConfig), Refusal> {
        let (ask, model) = protocol.understand(self.provider, root, self.version)?;
        files::check_named(self, root)?;
        if let Product::Response(asked) = &ask.product {
            stored::check_previous(self, asked)?;
        }
        Ok((ask, model))
    }

    async fn reply(&self, mut record: CallRecord, admitted: Admitted<'_>, fault: Option<Fault>) -> After {
        let Admitted { ask, model, pool, levels, input_tokens, taken, mut random } = admitted;
        record.input_tokens = input_tokens;
        record.mark = ask.prompt.marks.first().cloned();
        let open = self.provider.enter(record);
        let wish = self.wish(&ask, &mut random);
        let reply = Reply::new(&wish, &mut random);
        let naming =
            Naming { model: &model.id, number: self.number, created_s: wall_ms() / 1000, input_tokens };
        if let Product::Response(asked) = &ask.product {
            stored::keep(self, &naming, asked, &reply, self.provider.config.latency.work_ms);
        }
        let mut produced = 0;
        let mut sent = |tokens| {
            produced += tokens;
            self.provider.produce(&open, &pool, tokens);
        };
        let (status, ending) = self.send(&ask, &naming, &reply, &levels, fault, &mut random, &mut sent).await;
        let unsettled = (input_tokens + produced) as f64 - taken as f64;
        self.provider.end(&open, &pool, status, ending, unsettled);
        match ending {
            Ending::Failed if status == 200 || status == 0 => After::Drop,
            Ending::Complete | Ending::Failed if self.keep_alive => After::KeepAlive,
            _ => After::Close,
        }
    }

    fn wish(&self, ask: &Ask, random: &mut Random) -> Wish {
        let output = &self.provider.config.output;
        Wish {
            prompt: ask.prompt.clone(),
            tokens_max: ask.tokens_max,
            tokens_drawn: (output.tokens.at(random.unit()).round() as u64).max(1),
            tokens_per_event: usize::try_from(output.tokens_per_event).unwrap_or(1),
            tools: ask.tools.clone(),
            thinking: ask.thinking,
        }
    }

    /// Sends the reply with the fault it meets; the status that was sent, 0 if none was.
    #[expect(clippy::too_many_arguments, reason = "the parts of one reply, each made in its own place")]
    async fn send(
        &self,
        ask: &Ask,
        naming: &Naming<'_>,
        reply: &Reply,
        levels: &Levels,
        fault: Option<Fault>,
        random: &mut Random,
        sent: &mut dyn FnMut(u64),
    ) -> (u16, Ending) {
        let latency = self.provider.config.latency;
        let (first_ms, event_ms) = match fault {
            Some(Fault::Slow { first_ms, event_ms }) => (Draw::Fixed(first_ms), Draw::Fixed(event_ms)),
            _ => (latency.first_ms, latency.event_ms),
        };
        if !pause(self.conn, first_ms.at(random.unit())).await {
            return (0, Ending::Left);
        }
        let incident =
            fault.as_ref().and_then(|fault| Incident::of(fault, |kind| self.error_event(&ask.product, kind)));
        if let Some(Incident { place: Place::BeforeHead, kind }) = &incident {
            match kind {
                IncidentKind::Stall { for_ms } if pause(self.conn, *for_ms as f64).await => {}
                IncidentKind::Cut { reset } => {
                    cut(self.conn, *reset);
                    return (0, Ending::Failed);
                }
                _ => return (0, Ending::Left),
            }
        }
        if ask.stream {
            let events = match &ask.product {
                Product::Message => messages::events(naming, reply, ask.prompt.extra_event),
                Product::Response(asked) => responses::events(naming, asked, reply),
                _ => chat::events(naming, reply, ask.include_usage),
            };
            let head =
                self.head(200, None, Some(levels), &[("content-type", "text/event-stream; charset=utf-8")]);
            let line = Line::new(self.conn, head, incident, sent);
            return (200, line.events(&events, || event_ms.at(random.unit())).await);
        }
        if let Some(Fault::ErrorEvent { error_type, .. }) = &fault {
            let refusal = Refusal::of_type(error_type.as_deref().unwrap_or("overloaded_error"), self.dialect);
            return (
                refusal.status,
                self.send_refusal(&refusal, Some(levels)).await.map_or(Ending::Left, |()| Ending::Failed),
            );
        }
        let pieces = reply.blocks.iter().map(|block| block.pieces().len()).sum::<usize>();
        let body_ms = (0..pieces.min(10_000)).map(|_| event_ms.at(random.unit())).sum();
        if !pause(self.conn, body_ms).await {
            return (0, Ending::Left);
        }
        let (media_type, body) = protocol::whole(ask, naming, reply);
        let head = self.head(200, Some(body.len()), Some(levels), &[("content-type", media_type)]);
        (200, Line::new(self.conn, head, incident, sent).whole(&body, reply.output_tokens).await)
    }

    fn error_event(&self, product: &Product, error_type: &str) -> Vec<u8> {
        let refusal = Refusal::of_type(error_type, self.dialect);
        match product {
            Product::Message => messages::error_event(&refusal),
            Product::Response(_) => responses::error_event(&refusal),
            _ => chat::error_event(&refusal),
        }
    }

    /// Answers with an error and enters the call as refused.
    pub(crate) async fn refuse(
        &self,
        mut record: CallRecord,
        refusal: Refusal,
        levels: Option<Levels>,
    ) -> After {
        record.status = refusal.status;
        record.refused = Some(refusal.reason.to_string());
        record.ending = Ending::Complete;
        record.ended_ms = Some(self.provider.now_ms());
        self.provider.enter_ended(record, true);
        match self.send_refusal(&refusal, levels.as_ref()).await {
            Ok(()) if self.keep_alive => After::KeepAlive,
            _ => After::Close,
        }
    }

    /// Answers a call that generates nothing with an error.
    pub(crate) async fn refuse_other(&self, record: CallRecord, refusal: &Refusal) -> After {
        self.provider.enter_ended(record, false);
        match self.send_refusal(refusal, None).await {
            Ok(()) if self.keep_alive => After::KeepAlive,
            _ => After::Close,
        }
    }

    async fn send_refusal(&self, refusal: &Refusal, levels: Option<&Levels>) -> std::io::Result<()> {
        let identity = self.identity();
        send_refusal(self.conn, &identity, refusal, levels, self.keep_alive, false).await
    }

    fn identity(&self) -> Identity<'_> {
        Identity { dialect: self.dialect, request_id: self.request_id, organization: Some(self.organization) }
    }

    fn head(
        &self,
        status: u16,
        length: Option<usize>,
        levels: Option<&Levels>,
        fields: &[(&str, &str)],
    ) -> Vec<u8> {
        head(&self.identity(), status, length, levels, fields, self.keep_alive)
    }
}

/// The whole reply to a call that came with others, as JSON: beside all quotas.
pub(crate) fn reply_to(call: &Call<'_>, protocol: Protocol, root: &Value) -> Result<Value, Refusal> {
    let (ask, model) = call.understand(protocol, root)?;
    if ask.stream {
        return Err(Refusal::invalid("stream: a call of a batch cannot be a stream"));
    }
    let (config, text) = (&call.provider.config, root.to_string());
    let mut random = Random::new(random::hash(config.seed, text.as_bytes()));
    let unit = random.unit();
    let input_tokens =
        prompt::input_tokens(text.len(), root, config.bytes_per_token, config.token_spread, unit);
    let reply = Reply::new(&call.wish(&ask, &mut random), &mut random);
    let (number, created_s) = (call.provider.next_number(), wall_ms() / 1000);
    let naming = Naming { model: &model.id, number, created_s, input_tokens };
    let (_, body) = protocol::whole(&ask, &naming, &reply);
    serde_json::from_slice(&body).map_err(|error| Refusal::new(500, "internal", error.to_string()))
}

/// The model that a request names.
pub(crate) fn model_of<'a>(
    provider: &'a Provider,
    root: &Value,
    dialect: Dialect,
) -> Result<&'a ModelConfig, Refusal> {
    match root.get("model") {
        None if dialect == Dialect::Chat => Err(Refusal::invalid("you must provide a model parameter")),
        None => Err(Refusal::invalid("model: Field required")),
        Some(model) => {
            let id =
                model.as_str().ok_or_else(|| Refusal::invalid("model: Input should be a valid string"))?;
            provider.model(id).ok_or_else(|| Refusal::unknown_model(dialect, id))
        }
    }
}

/// Sends an error; without its body if the request's method was HEAD.
pub(crate) async fn send_refusal(
    conn: &Conn,
    identity: &Identity<'_>,
    refusal: &Refusal,
    levels: Option<&Levels>,
    keep_alive: bool,
    head_method: bool,
) -> std::io::Result<()> {
    let scripted = refusal.scripted.as_deref();
    let body = match scripted.and_then(|scripted| scripted.body.clone()) {
        Some(body) => body,
        None => refusal.object(identity.dialect, Some(identity.request_id)).to_string(),
    };
    let retry_after = refusal.retry_after_s.map(|seconds| seconds.to_string());
    let mut fields: Vec<(&str, &str)> = Vec::new();
    for (name, value) in scripted.into_iter().flat_map(|scripted| &scripted.headers) {
        fields.push((name, value));
    }
    if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        fields.push(("content-type", "application/json"));
    }
    if let Some(seconds) = &retry_after {
        fields.push(("retry-after", seconds));
    }
    let head = head(identity, refusal.status, Some(body.len()), levels, &fields, keep_alive);
    let body = if head_method { &[] } else { body.as_bytes() };
    conn.send(&[&head, body]).await
}

/// A reply's head; in chunks if no length is given. A field that cannot stand in a head (a script can hold anything) is
/// left out.
pub(crate) fn head(
    identity: &Identity<'_>,
    status: u16,
    length: Option<usize>,
    levels: Option<&Levels>,
    fields: &[(&str, &str)],
    keep_alive: bool,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let mut writer = ResponseWriter::new(&mut out, status);
    let skip = |_: InvalidField| ();
    let framed = match length {
        Some(bytes) => writer.content_length(bytes as u64),
        None => writer.chunked(),
    };
    framed.unwrap_or_else(skip);
    write_identity(&mut writer, identity).unwrap_or_else(skip);
    if let Some(levels) = levels {
        write_levels(&mut writer, identity, levels).unwrap_or_else(skip);
    }
    for (name, value) in fields {
        writer.field(name, value.as_bytes()).unwrap_or_else(skip);
    }
    if !keep_alive {
        writer.field("connection", b"close").unwrap_or_else(skip);
    }
    writer.finish();
    out
}
