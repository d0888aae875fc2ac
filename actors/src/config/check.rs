//! From raw values to values in range, or complaints: the whole file in one run, however much of it is wrong.
//!
//! One file a section; this one holds what they share, the top level, and the rules that join sections.

mod callers;
mod ingress;
mod keys;
mod limits;
mod logs;
mod models;
mod providers;
mod state;
mod timeouts;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use tidegate_core::Secret;
use tidegate_core::limits::VIRTUAL_KEY_CHARS_MIN;
use tidegate_core::snapshot::Draft;

use super::complaint::{Notes, Spot};
use super::field::Field;
use super::raw::{RawConfig, RawIo, RawTakeover};
use super::secrets::{Surroundings, resolve};
use super::{AdminSettings, IoSetting, LogSettings, Settings};

/// Where callers are served unless the file says otherwise.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4000);
/// Where operators and probes are served unless the file says otherwise.
pub(super) const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4001);
/// More workers than any host has processors are a slip of the hand.
const WORKERS_MAX: u64 = 1_024;
/// Bytes of a Unix socket's path: what the kernel takes, less what a name beside it needs while it is made.
const SOCKET_PATH_BYTES_MAX: usize = 96;
/// Bytes of a name that the operator chooses.
const NAME_BYTES_MAX: usize = 128;
/// Further request headers that may be forwarded.
const FORWARD_HEADERS_MAX: usize = 64;
/// Request headers that no configuration forwards: credentials, and what belongs to one connection or message.
const NEVER_FORWARDED: [&str; 19] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-api-key",
    "x-tidegate-key",
];

/// What a section's check needs beside its raw values.
pub(super) struct Check<'a> {
    pub(super) notes: &'a Notes,
    pub(super) surroundings: &'a dyn Surroundings,
}

/// Checks the whole file. Without settings, or with errors noted, the result must not be used.
pub(super) fn check(
    raw: &RawConfig,
    notes: &Notes,
    surroundings: &dyn Surroundings,
) -> (Draft, LogSettings, Option<Settings>) {
    let check = Check { notes, surroundings };
    let providers = check.providers(raw);
    let models = check.models(raw, &providers);
    let callers = check.callers(raw, &providers);
    let logs = check.logs(raw);
    let draft = Draft {
        providers,
        models,
        callers,
        models_only: raw.models_only.value().copied().unwrap_or(false),
        expose_routing: raw.expose_routing.value().copied().unwrap_or(false),
        access_log: logs.access.is_some(),
        decompress: check.decompress(&raw.decompress),
        forward_headers: check.forward_headers(&raw.forward_headers),
        ingress: check.ingress(raw),
        objects_max: check.objects_max(&raw.state),
        responses_max: check.responses_max(&raw.state),
        unknown_responses: state::unknown_responses(&raw.state),
    };
    let shelter = Shelter {
        open: raw.virtual_keys.value().is_none_or(Vec::is_empty),
        plain: raw.tls.is_absent() && draft.ingress.trusted_proxies.is_empty(),
    };
    let settings = check.settings(raw, shelter);
    (draft, logs, settings)
}

impl Check<'_> {
    fn settings(&self, raw: &RawConfig, shelter: Shelter) -> Option<Settings> {
        let listen = self.address(&raw.listen, LISTEN);
        let admin = raw.admin.value();
        let admin_listen = match admin {
            Some(admin) => self.address(&admin.listen, ADMIN_LISTEN),
            None => Some((ADMIN_LISTEN, Spot::default())),
        };
        let token = admin.and_then(|it| self.token(&it.token));
        let workers = self.workers(&raw.workers);
        let takeover = self.takeover(&raw.takeover);
        let (listen, admin_listen) = listen.zip(admin_listen)?;
        judge_listeners(self.notes, listen, admin_listen, shelter);
        let has_token = admin.is_some_and(|it| !it.token.is_absent());
        if !admin_listen.0.ip().is_loopback() && !has_token {
            let hint = "set `admin.token` if it is wanted there; /livez, /readyz and /metrics answer without";
            self.notes.warning(admin_listen.1, "the admin API is off on this address", hint.to_owned());
        }
        let io = match raw.io.value() {
            Some(RawIo::Auto) | None => IoSetting::Auto,
            Some(RawIo::IoUring) => IoSetting::IoUring,
            Some(RawIo::Epoll) => IoSetting::Epoll,
        };
        let admin = AdminSettings { listen: admin_listen.0, token };
        let state_file = self.state_file(raw);
        Some(Settings { listen: listen.0, admin, io, workers, takeover, state_file })
    }

    fn token(&self, field: &Field<String>) -> Option<Secret> {
        let (token, spot) = self.secret(field, "the admin token")?;
        if token.chars().count() < VIRTUAL_KEY_CHARS_MIN {
            let message = format!("the admin token is shorter than {VIRTUAL_KEY_CHARS_MIN} characters");
            self.notes.warning(spot, message, "use a long random one".to_owned());
        }
        Some(Secret::new(token))
    }

    /// The address that a field gives, and its place; the default where the field is absent.
    pub(super) fn address(&self, field: &Field<String>, default: SocketAddr) -> Option<(SocketAddr, Spot)> {
        if field.is_absent() {
            return Some((default, Spot::default()));
        }
        let (text, spot) = self.text(field)?;
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.clone(),
        };
        match numeric.parse() {
            Ok(address) => Some((address, spot)),
            Err(_) => {
                let hint = format!("for example {default}");
                self.notes.error(spot, format!("`{text}` is not an address with a port"), hint);
                None
            }
        }
    }

    fn workers(&self, field: &Field<u64>) -> Option<usize> {
        let (&workers, spot) = field.given()?;
        if !(1..=WORKERS_MAX).contains(&workers) {
            self.notes.error(spot, format!("workers must be from 1 to {WORKERS_MAX}"), None);
        }
        Some(workers as usize)
    }

    fn takeover(&self, field: &Field<RawTakeover>) -> Option<PathBuf> {
        let (takeover, spot) = field.given()?;
        if takeover.socket.is_absent() {
            let hint = "for example `socket: /run/tidegate/takeover.sock`".to_owned();
            self.notes.error(spot, "`takeover` has no `socket`", hint);
            return None;
        }
        let (path, spot) = self.text(&takeover.socket)?;
        let fits = path.starts_with('/') && path.len() <= SOCKET_PATH_BYTES_MAX && !path.contains('\0');
        if !fits {
            let hint = format!("an absolute path of at most {SOCKET_PATH_BYTES_MAX} bytes");
            self.notes.error(spot, format!("`{}` cannot be a socket's path", path.escape_debug()), hint);
        }
        Some(PathBuf::from(path))
    }

    fn decompress(&self, field: &Field<bool>) -> bool {
        if let Some((true, spot)) = field.given() {
            let hint = "leave it out; coded request bodies are answered with 415".to_owned();
            self.notes.error(spot, "decoding request bodies is not supported", hint);
        }
        false
    }

    fn forward_headers(&self, field: &Field<Vec<Field<String>>>) -> Vec<String> {
        let Some((list, spot)) = field.given() else { return Vec::new() };
        if list.len() > FORWARD_HEADERS_MAX {
            self.notes.error(spot, format!("more than {FORWARD_HEADERS_MAX} headers"), None);
        }
        let mut names: Vec<String> = Vec::with_capacity(list.len());
        for (name, spot) in list.iter().filter_map(Field::given) {
            let lower = name.to_ascii_lowercase();
            let token = |it: u8| it.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&it);
            if lower.is_empty() || lower.len() > NAME_BYTES_MAX || !lower.bytes().all(token) {
                self.notes.error(spot, format!("`{}` is not a header name", name.escape_debug()), None);
            } else if NEVER_FORWARDED.contains(&lower.as_str()) {
                let message =
                    format!("`{lower}` is never forwarded: it belongs to the caller's own connection");
                self.notes.error(spot, message, None);
            } else if names.contains(&lower) {
                self.notes.error(spot, format!("`{lower}` is given twice"), None);
            } else {
                names.push(lower);
            }
        }
        names
    }

    /// A text with its references replaced.
    fn text(&self, field: &Field<String>) -> Option<(String, Spot)> {
        self.resolved(field).map(|(text, _, spot)| (text, spot))
    }

    fn resolved(&self, field: &Field<String>) -> Option<(String, bool, Spot)> {
        let (value, spot) = field.given()?;
        match resolve(value, self.surroundings) {
            Ok(resolved) => Some((resolved.text, resolved.literal, spot)),
            Err(error) => {
                self.notes.error(spot, error.message, error.hint);
                None
            }
        }
    }

    /// A secret that can stand in a header. Warns of one that stands in the file itself.
    fn secret(&self, field: &Field<String>, what: &str) -> Option<(String, Spot)> {
        let (text, literal, spot) = self.resolved(field)?;
        if text.is_empty() {
            self.notes.error(spot, format!("{what} is empty"), None);
            return None;
        }
        if text.len() > tidegate_core::limits::CREDENTIAL_BYTES_MAX
            || !text.bytes().all(|it| it.is_ascii_graphic())
        {
            let hint = "visible ASCII without spaces, at most 1024 characters".to_owned();
            self.notes.error(spot, format!("{what} cannot be sent in a header"), hint);
            return None;
        }
        if literal {
            let hint = "use `${env:NAME}` or `${file:/path}`".to_owned();
            self.notes.warning(spot, format!("{what} stands in the file itself"), hint);
        }
        Some((text, spot))
    }

    /// A name that the operator chose, where it may be one. `owner` is what misses it.
    fn name(&self, field: &Field<String>, what: &str, owner: Spot) -> Option<(String, Spot)> {
        match field {
            Field::Absent => {
                self.notes.error(owner, format!("{what} has no `name`"), None);
                None
            }
            Field::Broken(_) => None,
            Field::Given(name, spot) => self.name_fits(name, *spot).then(|| (name.clone(), *spot)),
        }
    }

    fn name_fits(&self, name: &str, spot: Spot) -> bool {
        let fits = !name.is_empty()
            && name.len() <= NAME_BYTES_MAX
            && name.trim() == name
            && !name.chars().any(char::is_control);
        if !fits {
            let hint = format!("1 to {NAME_BYTES_MAX} bytes without control characters or spaces around");
            self.notes.error(spot, format!("`{}` cannot be a name", name.escape_debug()), hint);
        }
        fits
    }

    /// Complains once where there are more of something than the gateway can hold.
    fn bounded(&self, count: usize, max: usize, what: &str, spot: Spot) {
        if count > max {
            self.notes.error(spot, format!("{count} {what} are more than the {max} that are possible"), None);
        }
    }
}

/// What stands between the data listener and whoever reaches it.
#[derive(Clone, Copy)]
pub(super) struct Shelter {
    /// There are no virtual keys.
    pub(super) open: bool,
    /// There is no TLS, nor a proxy in front that may end it.
    pub(super) plain: bool,
}

impl Shelter {
    /// That of a draft without mistakes.
    pub(super) fn of(draft: &Draft) -> Shelter {
        let ingress = &draft.ingress;
        Shelter {
            open: draft.callers.is_empty(),
            plain: ingress.tls.is_none() && ingress.trusted_proxies.is_empty(),
        }
    }
}

/// The rules that bind the two listeners and what shelters the data port.
pub(super) fn judge_listeners(
    notes: &Notes,
    (listen, spot): (SocketAddr, Spot),
    (admin, admin_spot): (SocketAddr, Spot),
    shelter: Shelter,
) {
    if shelter.open && !listen.ip().is_loopback() {
        let hint = "add `virtual_keys`, or listen on 127.0.0.1".to_owned();
        notes.error(
            spot,
            format!("anyone who reaches {listen} could spend the keys: it is open to others"),
            hint,
        );
    }
    if !shelter.open && shelter.plain && !listen.ip().is_loopback() {
        let hint =
            "give `tls` a certificate, or leave it to a proxy in front and name that in `trusted_proxies`";
        notes.warning(spot, "virtual keys and prompts cross the network without TLS", hint.to_owned());
    }
    let same_host = listen.ip() == admin.ip() || listen.ip().is_unspecified() || admin.ip().is_unspecified();
    if listen.port() != 0 && listen.port() == admin.port() && same_host {
        notes.error(
            admin_spot.max(spot),
            format!("`listen` and `admin.listen` are both port {}", listen.port()),
            None,
        );
    }
}
