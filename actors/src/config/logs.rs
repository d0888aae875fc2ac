//! What is logged and where to, as checked values. Decides nothing.

use std::path::PathBuf;

/// The logs of a configuration. All but the format changes with a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// What the control plane's log leaves out.
    pub level: LogLevel,
    /// How its lines look; fixed at the start.
    pub format: LogFormat,
    /// Where each call leaves a line; `None` is nowhere.
    pub access: Option<AccessSink>,
}

/// The least important lines that are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// What needs an operator.
    Error,
    /// What may need one.
    Warn,
    /// What the gateway does.
    #[default]
    Info,
    /// Why it does so.
    Debug,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessSink {
    /// Standard output.
    Stdout,
    /// A file that is appended to.
    File(PathBuf),
}

impl std::fmt::Display for AccessSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AccessSink::Stdout => f.write_str("standard output"),
            AccessSink::File(path) => path.display().fmt(f),
        }
    }
}
