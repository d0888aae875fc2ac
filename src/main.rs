//! The binary: one file a command. Joins the planes and holds no logic of its own.

#![forbid(unsafe_code)]

mod check;
mod completions;
mod demo;
mod env;
mod healthcheck;
mod log;
mod man;
mod process;
mod schema;
mod serve;
mod systemd;
mod takeover;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An AI gateway: many provider keys behind one address.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a configuration file: every mistake at once, with its place and a hint.
    Check(check::CheckArguments),
    /// Print completions of this command line for a shell.
    Completions(completions::CompletionsArguments),
    /// Show what the gateway does, against mock providers in this process: no keys, no file, no network.
    Demo(demo::DemoArguments),
    /// Print what a coding agent needs to call this gateway, as lines for a shell: `eval "$(tidegate env NAME)"`.
    Env(env::EnvArguments),
    /// Ask a running gateway whether it is ready.
    Healthcheck(healthcheck::HealthcheckArguments),
    /// Print the manual page.
    Man,
    /// Print the JSON Schema of the configuration file, for editors.
    Schema,
    /// Run the gateway. Without a file it takes keys from the providers' usual environment variables.
    Serve(serve::ServeArguments),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments, Cli::command()),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Env(arguments) => env::run(&arguments),
        Command::Healthcheck(arguments) => healthcheck::run(&arguments),
        Command::Man => man::run(Cli::command()),
        Command::Schema => schema::run(),
        Command::Serve(arguments) => serve::run(&arguments),
    }
}

/// Prints a line to standard output. A closed pipe is the reader's choice, not an error.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints a line to standard error.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
