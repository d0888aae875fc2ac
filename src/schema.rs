//! `tidegate schema`: prints the JSON Schema of the configuration file, for editors. Reads and checks no file.

use std::process::ExitCode;

/// Exit code 0.
pub(crate) fn run() -> ExitCode {
    crate::say(&tidegate_actors::schema());
    ExitCode::SUCCESS
}
