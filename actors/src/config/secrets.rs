//! `${env:NAME}`, `${env:NAME:-default}` and `${file:/path}` in values of the file. The only place that reads the
//! environment. Never logs, and keeps of what it read
//! no more than a digest, to tell whether a file has changed since.

use std::cell::RefCell;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use tidegate_core::caller::digest;

use crate::clock;

/// Bytes of a file that a value or a certificate list may have.
const OUTSIDE_BYTES_MAX: u64 = 1024 * 1024;

/// What a configuration may refer to outside of its own file.
pub(super) trait Surroundings {
    /// A variable of the environment; `None` where it is not set or not text.
    fn variable(&self, name: &str) -> Option<String>;
    /// A file, by a path that is relative to the configuration's folder. The error is for people.
    fn file(&self, path: &str) -> Result<Vec<u8>, String>;
    /// Where a file of this path is, whether it exists or not; relative paths begin at the configuration's folder.
    fn place(&self, path: &str) -> PathBuf;
    /// Seconds since 1970 by the host's clock.
    fn wall_s(&self) -> u64;
}

/// A file that a configuration refers to, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outside {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Of its content; `None` where it could not be read.
    pub(crate) digest: Option<[u8; 32]>,
}

impl Outside {
    /// Whether its content is another one now.
    pub(crate) fn has_changed(&self) -> bool {
        read_bounded(&self.path).ok().map(|it| digest(&it)) != self.digest
    }
}

/// The process and the host it runs on.
pub(super) struct Host {
    folder: PathBuf,
    /// What was read so far; bounded by what one configuration can name.
    read: RefCell<Vec<Outside>>,
}

impl Host {
    /// Relative paths begin at `folder`.
    pub(super) fn new(folder: &Path) -> Host {
        Host { folder: folder.to_owned(), read: RefCell::default() }
    }

    /// The files that were asked for, each once.
    pub(super) fn into_outside(self) -> Vec<Outside> {
        self.read.into_inner()
    }
}

impl Surroundings for Host {
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the environment")]
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> Result<Vec<u8>, String> {
        let path = self.folder.join(path);
        let content = read_bounded(&path);
        let mut read = self.read.borrow_mut();
        if !read.iter().any(|it| it.path == path) {
            read.push(Outside { path, digest: content.as_ref().ok().map(|it| digest(it)) });
        }
        content
    }

    fn place(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    fn wall_s(&self) -> u64 {
        clock::wall_ms() / 1000
    }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut content = Vec::new();
    file.take(OUTSIDE_BYTES_MAX + 1).read_to_end(&mut content).map_err(|error| error.to_string())?;
    match content.len() as u64 > OUTSIDE_BYTES_MAX {
        true => Err("the file is larger than 1 MiB".into()),
        false => Ok(content),
    }
}

/// A value with its references replaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) text: String,
    /// Nothing in it came from outside of the file.
    pub(super) literal: bool,
}

/// Why a reference could not be resolved, and what to do.
pub(super) struct Unresolved {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// Replaces the references in a value.
pub(super) fn resolve(value: &str, surroundings: &dyn Surroundings) -> Result<Resolved, Unresolved> {
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    let mut literal = true;
    while let Some(at) = rest.find("${") {
        text.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let Some(end) = inner.find('}') else {
            return Err(Unresolved { message: "`${` without its `}`".into(), hint: None });
        };
        text.push_str(&reference(&inner[..end], surroundings)?);
        literal = false;
        rest = &inner[end + 1..];
    }
    text.push_str(rest);
    Ok(Resolved { text, literal })
}

fn reference(inner: &str, surroundings: &dyn Surroundings) -> Result<String, Unresolved> {
    if let Some(rest) = inner.strip_prefix("env:") {
        let (name, default) = match rest.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (rest, None),
        };
        let well_named = |it: u8| it.is_ascii_alphanumeric() || it == b'_';
        if name.is_empty() || !name.bytes().all(well_named) {
            let message = "a name of the environment has letters, digits and `_` only".to_owned();
            return Err(Unresolved { message, hint: None });
        }
        // As in a shell, `:-` stands in for an empty variable, too.
        let found = surroundings.variable(name).filter(|it| !it.is_empty());
        return found.or_else(|| default.map(str::to_owned)).ok_or_else(|| Unresolved {
            message: format!("the environment variable `{name}` is not set, or empty"),
            hint: Some(format!("export it, or write `${{env:{name}:-default}}`")),
        });
    }
    if let Some(path) = inner.strip_prefix("file:") {
        let content = surroundings
            .file(path)
            .map_err(|error| Unresolved { message: format!("cannot read `{path}`: {error}"), hint: None })?;
        let content = String::from_utf8(content)
            .map_err(|_| Unresolved { message: format!("`{path}` is not UTF-8 text"), hint: None })?;
        // Editors and secret stores end a file with a newline that is no part of the secret.
        return Ok(content.trim_end_matches(['\n', '\r']).to_owned());
    }
    Err(Unresolved {
        message: "only `${env:NAME}`, `${env:NAME:-default}` and `${file:/path}` are references".into(),
        hint: None,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Variables and files that a test gives.
    #[derive(Default)]
    pub(in crate::config) struct Given {
        pub(in crate::config) variables: HashMap<String, String>,
        pub(in crate::config) files: HashMap<String, Vec<u8>>,
        pub(in crate::config) wall_s: u64,
    }

    impl Surroundings for Given {
        fn variable(&self, name: &str) -> Option<String> {
            self.variables.get(name).cloned()
        }
        fn file(&self, path: &str) -> Result<Vec<u8>, String> {
            self.files.get(path).cloned().ok_or_else(|| "no such file".into())
        }
        fn place(&self, path: &str) -> PathBuf {
            path.into()
        }
        fn wall_s(&self) -> u64 {
            self.wall_s
        }
    }

    fn given() -> Given {
        let mut given = Given::default();
        given.variables.insert("KEY".into(), "sk-1".into());
        given.variables.insert("EMPTY".into(), String::new());
        given.files.insert("/run/key".into(), b"sk-2\n".to_vec());
        given.files.insert("/run/bytes".into(), vec![0xff]);
        given
    }

    #[test]
    fn references_are_replaced_wherever_they_stand() {
        for (value, text, literal) in [
            ("plain", "plain", true),
            ("${env:KEY}", "sk-1", false),
            ("a-${env:KEY}-b", "a-sk-1-b", false),
            ("${env:NONE:-other}", "other", false),
            ("${env:EMPTY:-other}", "other", false),
            ("${env:NONE:-}", "", false),
            ("${file:/run/key}", "sk-2", false),
            ("$ {x} $5", "$ {x} $5", true),
        ] {
            let resolved = resolve(value, &given()).ok();
            assert_eq!(resolved, Some(Resolved { text: text.into(), literal }), "{value}");
        }
    }

    #[test]
    fn broken_references_say_why() {
        for (value, message) in [
            ("${env:NONE}", "`NONE` is not set"),
            ("${env:EMPTY}", "`EMPTY` is not set, or empty"),
            ("${env:}", "letters, digits"),
            ("${env:KEY", "without its"),
            ("${KEY}", "are references"),
            ("${file:/none}", "no such file"),
            ("${file:/run/bytes}", "not UTF-8"),
        ] {
            let error = resolve(value, &given()).err().map(|it| it.message).unwrap_or_default();
            assert!(error.contains(message), "{value}: {error}");
        }
    }
}
