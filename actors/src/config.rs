//! The configuration file: read, checked whole, and turned into a draft of a snapshot (ARCHITECTURE.md).
//!
//! Text becomes a tree with places, the tree becomes raw structs, and the check turns those into values in range or
//! complaints, all of them at once. Nothing outside of this module sees a raw value. It never publishes anything:
//! that is the configuration actor's.

mod admin;
mod check;
mod complaint;
mod duration;
mod field;
mod logs;
mod mask;
mod proxy;
mod raw;
mod reader;
mod secrets;
mod suggest;
mod tree;
mod url;
mod validity;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize as _;
use tidegate_core::Secret;
use tidegate_core::caller::digest;
use tidegate_core::snapshot::Draft;

use complaint::{Notes, Spot};
use field::{Entries, Field};
use raw::{RawConfig, RawKey, RawProvider};
use reader::Reader;
use secrets::{Host, Surroundings};
use tree::Shape;

pub use admin::admin_address;
pub(crate) use secrets::Outside;

pub use complaint::{Complaint, Complaints, Place, Severity};
pub use logs::{AccessSink, LogFormat, LogLevel, LogSettings};

/// Bytes of a configuration file: 100,000 virtual keys with generous lines.
const FILE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A configuration that may be used.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What a snapshot is built from.
    pub draft: Draft,
    /// What needs a restart to change.
    pub settings: Settings,
    /// What is logged and where to.
    pub logs: LogSettings,
    /// What works, but hardly as meant.
    pub warnings: Vec<Complaint>,
    /// For snippets; secrets in it are masked.
    text: Arc<str>,
    digest: [u8; 32],
    outside: Vec<Outside>,
    /// The listeners of the file, data and admin, whatever sockets are served.
    stated: (SocketAddr, SocketAddr),
}

/// What cannot change without a restart; a reload that changes it warns.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The data listener.
    pub listen: SocketAddr,
    /// The admin listener.
    pub admin: AdminSettings,
    /// The I/O driver asked for.
    pub io: IoSetting,
    /// Worker threads; `None` is as many as there are processors.
    pub workers: Option<usize>,
    /// Where the next process asks for the sockets and cells of this one.
    pub takeover: Option<PathBuf>,
    /// Where the owners of files and batches are written down.
    pub state_file: Option<PathBuf>,
}

/// The admin listener.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// Its address.
    pub listen: SocketAddr,
    /// What the API asks for.
    pub token: Option<Secret>,
}

/// The I/O driver asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoSetting {
    /// io_uring where the host allows it, else epoll.
    Auto,
    /// epoll.
    Epoll,
    /// io_uring or nothing.
    IoUring,
}

impl Checked {
    /// The warnings with the lines they are about, for a terminal when `styled`; empty without warnings.
    pub fn render_warnings(&self, styled: bool) -> String {
        complaint::render(&self.warnings, &self.text, styled)
    }

    /// Digest of the text it was read from, to tell whether a file has changed since.
    pub(crate) fn text_digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The files that it refers to, as they were read.
    pub(crate) fn outside(&self) -> &[Outside] {
        &self.outside
    }

    /// The listeners of the file, data and admin.
    pub(crate) fn stated_listeners(&self) -> (SocketAddr, SocketAddr) {
        self.stated
    }

    /// Takes other listeners than the file's, under the same rules. `given_by` is whose wish it is, for complaints.
    pub fn listen_on(
        &mut self,
        given_by: &str,
        listen: SocketAddr,
        admin: SocketAddr,
    ) -> Result<(), Complaints> {
        let notes = Notes::new(given_by);
        check::judge_listeners(
            &notes,
            (listen, Spot::default()),
            (admin, Spot::default()),
            check::Shelter::of(&self.draft),
        );
        if notes.failed() {
            return Err(Complaints::new(notes.into_list(), "".into()));
        }
        self.warnings.extend(notes.into_list());
        self.settings.listen = listen;
        self.settings.admin.listen = admin;
        Ok(())
    }
}

/// Reads and checks a file.
pub fn check_file(path: &Path) -> Result<Checked, Complaints> {
    check_file_noting(path).0
}

/// The same, with the files that it refers to, whatever came of it.
pub(crate) fn check_file_noting(path: &Path) -> (Result<Checked, Complaints>, Vec<Outside>) {
    let name = path.display().to_string();
    match read(path) {
        Ok(text) => check_on_host(&name, &text, folder_of(path)),
        Err(error) => (Err(Complaints::of(format!("cannot read {name}: {error}"))), Vec::new()),
    }
}

/// Checks a text; `name` stands where a file's would. Relative paths in it begin at the current folder.
pub fn check_text(name: &str, text: &str) -> Result<Checked, Complaints> {
    check_on_host(name, text, Path::new(".")).0
}

fn check_on_host(name: &str, text: &str, folder: &Path) -> (Result<Checked, Complaints>, Vec<Outside>) {
    let host = Host::new(folder);
    let checked = check(name, text, &host);
    let outside = host.into_outside();
    (checked.map(|it| Checked { outside: outside.clone(), ..it }), outside)
}

/// The configuration without a file: a provider for each dialect whose own variable holds a key, loopback only.
pub fn without_file() -> Result<Checked, Complaints> {
    from_environment(&Host::new(Path::new(".")))
}

/// The JSON Schema of the file, for editors.
pub fn schema() -> String {
    let schema = schemars::schema_for!(RawConfig);
    // A schema is a tree of strings and numbers, which always has a text.
    serde_json::to_string_pretty(&schema).unwrap_or_default()
}

/// Where relative paths in a file begin.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn read(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut content).map_err(|error| error.to_string())?;
    if content.len() > FILE_BYTES_MAX {
        return Err("the file is larger than 32 MiB".into());
    }
    String::from_utf8(content).map_err(|_| "the file is not UTF-8 text".into())
}

fn check(name: &str, text: &str, surroundings: &dyn Surroundings) -> Result<Checked, Complaints> {
    let notes = Notes::new(name);
    match read_raw(&notes, text) {
        Ok((raw, masked)) => finish(notes, &raw, surroundings, masked, digest(text.as_bytes())),
        Err(masked) => Err(Complaints::new(notes.into_list(), masked)),
    }
}

/// The file as it is written, and its text for snippets; that alone where it is no YAML. Mistakes are noted.
fn read_raw(notes: &Notes, text: &str) -> Result<(RawConfig, Arc<str>), Arc<str>> {
    let tree = match tree::parse(text) {
        Ok(tree) => tree,
        Err((spot, message)) => {
            notes.error(spot, format!("not acceptable YAML: {message}"), None);
            return Err(mask::mask_unread(text).into());
        }
    };
    let masked: Arc<str> = mask::mask(text, &tree).into();
    let raw = match &tree.shape {
        // An empty file is a configuration without anything; the check says what is missing.
        Shape::Null => RawConfig::default(),
        _ => {
            let reader = Reader { node: &tree, notes };
            RawConfig::deserialize(reader).unwrap_or_else(|mismatch| {
                reader.note(mismatch);
                RawConfig::default()
            })
        }
    };
    Ok((raw, masked))
}

fn from_environment(surroundings: &dyn Surroundings) -> Result<Checked, Complaints> {
    let mut raw = RawConfig::default();
    let mut providers = Vec::new();
    let mut variables = Vec::new();
    for dialect in tidegate_providers::ALL {
        variables.push(dialect.key_env);
        if surroundings.variable(dialect.key_env).is_none_or(|it| it.trim().is_empty()) {
            continue;
        }
        let key = RawKey {
            name: Field::Given("environment".into(), Spot::default()),
            value: Field::Given(format!("${{env:{}}}", dialect.key_env), Spot::default()),
            ..RawKey::default()
        };
        let keys = Field::Given(vec![Field::Given(key, Spot::default())], Spot::default());
        let provider = Field::Given(RawProvider { keys, ..RawProvider::default() }, Spot::default());
        providers.push((dialect.kind.to_owned(), Spot::default(), provider));
    }
    if providers.is_empty() {
        let variables = variables.join(", ");
        return Err(Complaints::of(format!(
            "there is no configuration file, and none of {variables} is set"
        )));
    }
    raw.providers = Field::Given(Entries(providers), Spot::default());
    finish(Notes::new("environment"), &raw, surroundings, "".into(), digest(b""))
}

fn finish(
    notes: Notes,
    raw: &RawConfig,
    surroundings: &dyn Surroundings,
    text: Arc<str>,
    digest: [u8; 32],
) -> Result<Checked, Complaints> {
    let (draft, logs, settings) = check::check(raw, &notes, surroundings);
    match settings.filter(|_| !notes.failed()) {
        Some(settings) => Ok(Checked {
            stated: (settings.listen, settings.admin.listen),
            draft,
            settings,
            logs,
            warnings: notes.into_list(),
            text,
            digest,
            outside: Vec::new(),
        }),
        None => Err(Complaints::new(notes.into_list(), text)),
    }
}
