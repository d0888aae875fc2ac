//! `tidegate check`: reads a configuration as `serve` would, says everything that is wrong with it, starts nothing.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tidegate_actors::{Checked, Complaints};

/// What `check` takes.
#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// The file; without it, the environment is checked as `serve` without a file would use it.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Exit code 0 where the configuration can be served, 1 where it cannot.
pub(crate) fn run(arguments: &CheckArguments) -> ExitCode {
    match load(arguments.config.as_ref()) {
        Ok(checked) => {
            warn(&checked);
            let draft = &checked.draft;
            let keys: usize =
                draft.providers.iter().flat_map(|it| &it.accounts).map(|it| it.keys.len()).sum();
            crate::say(&format!(
                "ok: {} providers, {keys} keys, {} models, {} virtual keys",
                draft.providers.len(),
                draft.models.len(),
                draft.callers.len(),
            ));
            ExitCode::SUCCESS
        }
        Err(complaints) => {
            crate::complain(&complaints.render(std::io::stderr().is_terminal()));
            ExitCode::FAILURE
        }
    }
}

/// The configuration in `file`, else what the environment gives.
pub(crate) fn load(file: Option<&PathBuf>) -> Result<Checked, Complaints> {
    match file {
        Some(file) => tidegate_actors::check_file(file),
        None => tidegate_actors::without_file(),
    }
}

/// Shows what is not wrong but unwise.
pub(crate) fn warn(checked: &Checked) {
    let warnings = checked.render_warnings(std::io::stderr().is_terminal());
    if !warnings.is_empty() {
        crate::complain(&warnings);
    }
}
