//! `log` and `access_log`: what is logged and where to.

use super::Check;
use crate::config::complaint::Spot;
use crate::config::logs::{AccessSink, LogFormat, LogLevel, LogSettings};
use crate::config::raw::{RawAccessLog, RawConfig, RawLogFormat, RawLogLevel};

/// What stands for standard output.
const STDOUT: &str = "stdout";

impl Check<'_> {
    pub(super) fn logs(&self, raw: &RawConfig) -> LogSettings {
        let log = raw.log.value();
        let level = match log.and_then(|it| it.level.value()) {
            Some(RawLogLevel::Error) => LogLevel::Error,
            Some(RawLogLevel::Warn) => LogLevel::Warn,
            Some(RawLogLevel::Info) | None => LogLevel::Info,
            Some(RawLogLevel::Debug) => LogLevel::Debug,
        };
        let format = match log.and_then(|it| it.format.value()) {
            Some(RawLogFormat::Text) | None => LogFormat::Text,
            Some(RawLogFormat::Json) => LogFormat::Json,
        };
        let access = raw.access_log.given().and_then(|(it, spot)| self.access_sink(it, spot));
        LogSettings { level, format, access }
    }

    fn access_sink(&self, raw: &RawAccessLog, owner: Spot) -> Option<AccessSink> {
        let hint = || "for example `to: stdout` or `to: /var/log/tidegate/access.log`".to_owned();
        if raw.to.is_absent() {
            self.notes.error(owner, "`access_log` does not say where `to`", hint());
        }
        let (to, spot) = self.text(&raw.to)?;
        match to.as_str() {
            STDOUT => return Some(AccessSink::Stdout),
            "stderr" => {
                let hint = "take `stdout`, or a file (`./stderr` for one of that name)".to_owned();
                self.notes.error(spot, "standard error carries the control plane's own log", hint);
                return None;
            }
            _ => {}
        }
        let path = self.surroundings.place(&to);
        if to.is_empty() || to.ends_with('/') || path.is_dir() {
            self.notes.error(spot, format!("`{}` is not a file", to.escape_debug()), hint());
            return None;
        }
        if !path.parent().is_some_and(|it| it.is_dir()) {
            let hint = "make it before the gateway starts, and let the gateway's user write there".to_owned();
            self.notes.warning(spot, "the access log's folder is not there", hint);
        }
        Some(AccessSink::File(path))
    }
}
