//! `tidegate completions`: prints the completions of the command line for a shell, made from the same description as
//! the help.

use std::process::ExitCode;

use clap::{Args, Command, ValueEnum};
use clap_complete::Shell as Generator;

/// What `completions` takes.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// The shell.
    shell: Shell,
}

/// Shells that the package installs completions for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Fish,
    Zsh,
}

/// Exit code 0.
pub(crate) fn run(arguments: &CompletionsArguments, mut command: Command) -> ExitCode {
    let shell = match arguments.shell {
        Shell::Bash => Generator::Bash,
        Shell::Fish => Generator::Fish,
        Shell::Zsh => Generator::Zsh,
    };
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut text);
    crate::say(String::from_utf8_lossy(&text).trim_end());
    ExitCode::SUCCESS
}
