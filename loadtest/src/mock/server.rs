//! Connections: requests are read one after another, kept byte for byte, and handed to what serves their path. Decides
//! who may call at all; it never judges a body.

use std::rc::Rc;

use serde_json::Value;
use tidegate_ring::tls::ServerTls;
use tidegate_ring::{
    Chunk, Conn, Listener, Signal, deadline, fresh_now_ns, now_ns, race, sleep_until, spawn,
};
use tidegate_wire::body::BodyReader;
use tidegate_wire::head::{HeadLimits, Parse, RequestHead};

use super::config::{KeyState, OrganizationConfig};
use super::control;
use super::generate::{After, Call, send_refusal};
use super::headers::Identity;
use super::journal::{CallRecord, Ending};
use super::protocol::Protocol;
use super::provider::{Caller, Provider};
use super::refusal::{Dialect, Refusal};
use super::script::{Fault, Subject};
use super::{batches, files, listing, stored};

const HEAD_LIMITS: HeadLimits = HeadLimits { head_bytes_max: 65_535, fields_max: 256 };
/// How long a TLS handshake may take.
const HANDSHAKE_NS: u64 = 10_000_000_000;
/// How long accepting rests when descriptors are used up.
const ACCEPT_REST_NS: u64 = 20_000_000;

/// Serves until `stop` fires.
pub(crate) async fn serve(provider: Rc<Provider>, listener: Listener, tls: Option<ServerTls>, stop: Signal) {
    let accept_all = async {
        loop {
            match listener.accept().await {
                Ok(conn) => take(&provider, conn, tls.clone()),
                Err(_) => sleep_until(fresh_now_ns() + ACCEPT_REST_NS).await,
            }
        }
    };
    race(stop.wait(), accept_all).await;
}

/// Counts a connection for as long as it is open, however it ends.
struct Counted(Rc<Provider>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count(|books| books.connections_open -= 1);
    }
}

fn take(provider: &Rc<Provider>, conn: Conn, tls: Option<ServerTls>) {
    let mut open = 0;
    provider.count(|books| open = books.connections_open);
    if open >= provider.config.connections_max as u64 {
        provider.count(|books| books.connections_refused += 1);
        return;
    }
    provider.count(|books| {
        books.connections += 1;
        books.connections_open += 1;
    });
    let counted = Counted(Rc::clone(provider));
    let task = async move {
        let conn = match tls {
            Some(tls) => match deadline(now_ns() + HANDSHAKE_NS, Conn::accept_tls(conn, &tls)).await {
                Ok(Ok(conn)) => conn,
                _ => return,
            },
            None => conn,
        };
        Connection::new(&counted.0, conn).run().await;
    };
    spawn(task).detach();
}

/// One connection and what it owns for its requests.
struct Connection<'a> {
    provider: &'a Provider,
    conn: Conn,
    head: RequestHead,
    input: Input,
    body: Vec<u8>,
}

/// What was received and not yet used.
#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    at: usize,
}

impl Input {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn push(&mut self, chunk: &Chunk) {
        self.bytes.drain(..self.at.min(self.bytes.len()));
        self.at = 0;
        self.bytes.extend_from_slice(chunk);
    }
}

/// Why a request cannot be read.
enum Unread {
    /// The caller is gone.
    Gone,
    /// It is answered with this status, and the connection ends.
    Refused(u16),
}

impl<'a> Connection<'a> {
    fn new(provider: &'a Provider, conn: Conn) -> Connection<'a> {
        Connection { provider, conn, head: RequestHead::default(), input: Input::default(), body: Vec::new() }
    }

    async fn run(mut self) {
        loop {
            match self.read_request().await {
                Ok(head_bytes) => match self.dispatch(&head_bytes).await {
                    After::KeepAlive => {}
                    After::Close => return self.conn.shutdown_write(),
                    After::Drop => return,
                },
                Err(Unread::Gone) => return,
                Err(Unread::Refused(status)) => {
                    self.refuse_unread(status).await;
                    return;
                }
            }
        }
    }

    /// Reads one request; its head's bytes are returned, its body is in `self.body`.
    async fn read_request(&mut self) -> Result<Vec<u8>, Unread> {
        let head_bytes = self.read_head().await?;
        let pace = self.read_pace();
        if self.head.expects_continue() && self.input.rest().is_empty() {
            self.conn.send(&[b"HTTP/1.1 100 Continue\r\n\r\n"]).await.map_err(|_| Unread::Gone)?;
        }
        self.read_body(pace).await?;
        Ok(head_bytes)
    }

    async fn read_head(&mut self) -> Result<Vec<u8>, Unread> {
        self.head.clear();
        loop {
            match self.head.parse(self.input.rest(), &HEAD_LIMITS) {
                Ok(Parse::Complete { head_bytes: consumed }) => {
                    let head_bytes = self.input.rest().get(..consumed).unwrap_or_default().to_vec();
                    self.input.at += consumed;
                    return Ok(head_bytes);
                }
                Ok(Parse::Partial) => self.fill().await?,
                Err(refusal) => return Err(Unread::Refused(refusal.status())),
            }
        }
    }

    fn read_pace(&self) -> Option<u64> {
        let caller = self.provider.caller(&self.head);
        let organization = caller.holder.and_then(|(at, _)| self.provider.organization(at));
        let path = self.head.path();
        let subject = Subject {
            key: &caller.key,
            organization: organization.map_or("", |organization| &organization.id),
            model: "",
            path,
            stream: false,
            generates: Protocol::of_path(path).is_some(),
        };
        self.provider.read_pace(&subject)
    }

    async fn read_body(&mut self, pace: Option<u64>) -> Result<(), Unread> {
        self.body.clear();
        let limit = self.provider.config.body_bytes_max;
        let mut reader =
            BodyReader::new(self.head.framing(), limit).map_err(|error| Unread::Refused(error.status()))?;
        while !reader.ended() {
            if self.input.rest().is_empty() {
                self.fill().await?;
            }
            let rest = self.input.rest();
            let step = reader.next(rest).map_err(|error| Unread::Refused(error.status()))?;
            let data = rest.get(step.data.clone()).unwrap_or_default();
            self.body.extend_from_slice(data);
            let data_bytes = data.len() as u64;
            self.input.at += step.consumed;
            if let Some(bytes_per_s) = pace {
                let pause_ns = data_bytes.saturating_mul(1_000_000_000) / bytes_per_s.max(1);
                sleep_until(now_ns().saturating_add(pause_ns)).await;
            }
        }
        Ok(())
    }

    async fn fill(&mut self) -> Result<(), Unread> {
        let chunk = self.conn.recv().await.map_err(|_| Unread::Gone)?;
        if chunk.is_empty() {
            return Err(Unread::Gone);
        }
        self.input.push(&chunk);
        Ok(())
    }

    async fn refuse_unread(&self, status: u16) {
        self.provider.count(|books| books.malformed += 1);
        let refusal = Refusal::new(status, "malformed", "The request could not be read.");
        let id = request_id(self.provider.next_number());
        let identity = Identity { dialect: Dialect::Messages, request_id: &id, organization: None };
        if send_refusal(&self.conn, &identity, &refusal, None, false, false).await.is_ok() {
            self.conn.shutdown_write();
            // What is still on its way is read and dropped for a moment: a close over unread bytes would be a
            // reset, and
            // the answer lost with it.
            let until_ns = now_ns() + 200_000_000;
            let drain = async { while self.conn.recv().await.is_ok_and(|chunk| !chunk.is_empty()) {} };
            let _ = deadline(until_ns, drain).await;
        }
    }

    async fn dispatch(&self, head_bytes: &[u8]) -> After {
        let path = self.head.path();
        if let Some(rest) = path.strip_prefix("/_mock/") {
            return control::serve(self.provider, &self.conn, &self.head, rest, &self.body).await;
        }
        self.provider.keep(head_bytes, &self.body);
        let number = self.provider.next_number();
        let id = request_id(number);
        let caller = self.provider.caller(&self.head);
        let version = self.version();
        let dialect = dialect_of(path, version.is_some());
        let (organization_at, organization) = match self.authorize(&caller, dialect) {
            Ok(holder) => holder,
            Err(refusal) => return self.refuse(&caller, dialect, &id, refusal).await,
        };
        let call = Call {
            provider: self.provider,
            conn: &self.conn,
            dialect,
            method: self.head.method(),
            path,
            query: self.head.query().unwrap_or_default(),
            content_type: self.text_field("content-type").unwrap_or_default(),
            version,
            key: &caller.key,
            organization_at,
            organization,
            request_id: &id,
            number,
            keep_alive: self.head.keep_alive(),
            body: &self.body,
        };
        match self.serve(&call).await {
            Some(after) => after,
            None => self.refuse(&caller, dialect, &id, Refusal::unknown_path()).await,
        }
    }

    /// Hands a call to what serves its path, if anything does.
    async fn serve(&self, call: &Call<'_>) -> Option<After> {
        let (method, path) = (call.method, call.path);
        if let Some(protocol) = Protocol::of_path(path)
            && method == "POST"
        {
            return Some(call.serve(protocol).await);
        }
        let below =
            |stem: &str| path.strip_prefix(stem).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        if let Some(rest) = below("/v1/files") {
            return Some(files::serve(call, rest).await);
        }
        if let Some(rest) = below("/v1/messages/batches").or_else(|| below("/v1/batches")) {
            return Some(batches::serve(call, rest).await);
        }
        Some(match (method, path) {
            ("POST", "/v1/messages/count_tokens") => listing::count_tokens(call).await,
            ("POST", "/v1/responses/input_tokens") => listing::input_tokens(call).await,
            ("GET", "/v1/models") => listing::models(call).await,
            ("GET", _) if path.starts_with("/v1/models/") => listing::model(call).await,
            _ => stored::serve(call, path.strip_prefix("/v1/responses/")?).await,
        })
    }

    fn version(&self) -> Option<&str> {
        self.text_field("anthropic-version")
    }

    /// A field as text; empty if it is none.
    fn text_field(&self, name: &str) -> Option<&str> {
        self.head.field(name).map(|value| std::str::from_utf8(value).unwrap_or_default())
    }

    /// Whether the caller may call.
    fn authorize(
        &self,
        caller: &Caller,
        dialect: Dialect,
    ) -> Result<(usize, &'a OrganizationConfig), Refusal> {
        let path = self.head.path();
        if !path.starts_with("/v1/") {
            return Err(Refusal::unknown_path());
        }
        let presented = !caller.key.is_empty();
        let Some((at, state)) = caller.holder else { return Err(Refusal::unauthorized(dialect, presented)) };
        let Some(organization) = self.provider.organization(at) else {
            return Err(Refusal::unauthorized(dialect, presented));
        };
        match state {
            KeyState::Active => {}
            KeyState::Invalid => return Err(Refusal::unauthorized(dialect, true)),
            KeyState::Forbidden => return Err(Refusal::forbidden()),
        }
        let workspace = self.head.field("anthropic-workspace-id");
        if workspace.is_some_and(|id| !organization.workspaces.iter().any(|known| known.as_bytes() == id)) {
            return Err(Refusal::forbidden());
        }
        if Protocol::of_path(path).is_none() {
            self.meet_elsewhere(caller, organization, dialect)?;
        }
        Ok((at, organization))
    }

    /// The script, for calls that generate nothing.
    fn meet_elsewhere(
        &self,
        caller: &Caller,
        organization: &OrganizationConfig,
        dialect: Dialect,
    ) -> Result<(), Refusal> {
        let subject = Subject {
            key: &caller.key,
            organization: &organization.id,
            model: "",
            path: self.head.path(),
            stream: false,
            generates: false,
        };
        let fault: Option<Fault> = self.provider.meet(&subject);
        match fault.and_then(|fault| Refusal::of_fault(&fault, dialect)) {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }

    /// Refuses a call before it was looked into.
    async fn refuse(&self, caller: &Caller, dialect: Dialect, id: &str, refusal: Refusal) -> After {
        let organization = caller.holder.and_then(|(at, _)| self.provider.organization(at));
        let path = self.head.path();
        let now_ms = self.provider.now_ms();
        let root: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let record = CallRecord {
            at_ms: now_ms,
            ended_ms: Some(now_ms),
            key: caller.key.clone(),
            organization: organization.map_or_else(String::new, |organization| organization.id.clone()),
            model: root.get("model").and_then(Value::as_str).unwrap_or_default().to_owned(),
            path: path.to_owned(),
            stream: root.get("stream").and_then(Value::as_bool).unwrap_or(false),
            status: refusal.status,
            refused: Some(refusal.reason.to_string()),
            fault: refusal.reason.strip_prefix("scripted_").map(str::to_owned),
            mark: None,
            input_tokens: 0,
            output_tokens: 0,
            ending: Ending::Complete,
        };
        self.provider.enter_ended(record, Protocol::of_path(path).is_some());
        let identity = Identity { dialect, request_id: id, organization };
        let (keep_alive, head_method) = (self.head.keep_alive(), self.head.method() == "HEAD");
        match send_refusal(&self.conn, &identity, &refusal, None, keep_alive, head_method).await {
            Ok(()) if keep_alive => After::KeepAlive,
            _ => After::Close,
        }
    }
}

/// What is spoken: by the path, else by whether the request names a version.
fn dialect_of(path: &str, has_version: bool) -> Dialect {
    match Protocol::of_path(path) {
        Some(protocol) => protocol.dialect(),
        None if has_version || path.starts_with("/v1/messages/") => Dialect::Messages,
        None => Dialect::Chat,
    }
}

fn request_id(number: u64) -> String {
    format!("req_mock{number:016x}")
}
