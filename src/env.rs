//! `tidegate env`: prints what a coding agent needs in its environment to call the gateway. Starts nothing, and never
//! prints a key: the lines name the variable that holds it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tidegate_actors::{AGENTS, AgentSetup};

use crate::check;

/// What `env` takes.
#[derive(Debug, Args)]
pub(crate) struct EnvArguments {
    /// The agent.
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(AGENTS.iter().map(|it| it.name)))]
    agent: String,
    /// Where the agent reaches the gateway; without it, the address that the file says, else the usual one.
    #[arg(long, value_name = "URL", value_parser = base_url)]
    url: Option<String>,
    /// The configuration whose address is meant.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The variable that holds the virtual key.
    #[arg(long, value_name = "NAME", default_value = "TIDEGATE_KEY", value_parser = variable)]
    key: String,
    /// The agent signs in by itself at the provider, whose `passthrough` is on: the virtual key travels beside that.
    #[arg(long)]
    passthrough: bool,
}

/// Exit code 0; 1 where the file cannot be read or the agent cannot pass its own sign-in through.
pub(crate) fn run(arguments: &EnvArguments) -> ExitCode {
    let Some(agent) = AGENTS.iter().find(|it| it.name == arguments.agent) else { return ExitCode::FAILURE };
    if arguments.passthrough && !agent.passes_through {
        crate::complain(&format!("{} cannot send a key of the gateway beside its own sign-in", agent.name));
        return ExitCode::FAILURE;
    }
    let url = match (&arguments.url, &arguments.config) {
        (Some(url), _) => url.clone(),
        (None, None) => "http://127.0.0.1:4000".to_owned(),
        (None, Some(file)) => match check::load(Some(file)) {
            Ok(checked) => {
                let scheme = if checked.draft.ingress.tls.is_some() { "https" } else { "http" };
                format!("{scheme}://{}", reachable(checked.settings.listen))
            }
            Err(complaints) => {
                crate::complain(&complaints.to_string());
                return ExitCode::FAILURE;
            }
        },
    };
    let setup =
        AgentSetup { base_url: &url, key_variable: &arguments.key, passthrough: arguments.passthrough };
    for line in agent.lines(&setup) {
        crate::say(&line);
    }
    ExitCode::SUCCESS
}

/// Where this host reaches a listener on all of its addresses.
fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen.ip().is_unspecified() {
        true => SocketAddr::from((Ipv4Addr::LOCALHOST, listen.port())),
        false => listen,
    }
}

/// An address that a shell takes between quotes as it is.
fn base_url(text: &str) -> Result<String, String> {
    let bare = text.trim_end_matches('/');
    let rest = bare.strip_prefix("http://").or_else(|| bare.strip_prefix("https://"));
    let plain = |it: u8| it.is_ascii_alphanumeric() || b".-:[]/_~".contains(&it);
    match rest {
        Some(rest) if !rest.is_empty() && rest.bytes().all(plain) => Ok(bare.to_owned()),
        _ => Err("expected http://HOST:PORT or https://HOST".to_owned()),
    }
}

/// A name of a variable that every shell takes.
fn variable(text: &str) -> Result<String, String> {
    let plain = |it: u8| it.is_ascii_alphanumeric() || it == b'_';
    let fits = text.bytes().all(plain) && text.bytes().next().is_some_and(|it| !it.is_ascii_digit());
    if fits { Ok(text.to_owned()) } else { Err("expected a name of letters, digits and `_`".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_shell_takes_as_it_is() {
        assert_eq!(base_url("http://127.0.0.1:4000/").as_deref(), Ok("http://127.0.0.1:4000"));
        assert_eq!(base_url("https://[::1]:4000").as_deref(), Ok("https://[::1]:4000"));
        for bad in ["", "http://", "ftp://a", "http://a$(b)", "http://a\"b", "http://a b", "a:4000"] {
            assert!(base_url(bad).is_err(), "{bad}");
        }
        assert!(variable("TIDEGATE_KEY").is_ok());
        for bad in ["", "1A", "A-B", "A}"] {
            assert!(variable(bad).is_err(), "{bad}");
        }
    }
}
