//! `tidegate-mock`: a mock provider as a process. Reads its configuration, says where it listens, and runs until
//! killed.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tidegate_loadtest::mock::{Mock, MockConfig, MockHandle};
use tidegate_ring::{IoChoice, select};

/// A provider with true quotas, on loopback.
#[derive(Debug, Parser)]
#[command(name = "tidegate-mock")]
struct Arguments {
    /// Where to listen, a loopback address; overrides the file.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// The configuration as JSON; without it one key (sk-mock) without limits.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Write the address that it listens at to this file once it does.
    #[arg(long)]
    port_file: Option<PathBuf>,
    /// How to talk to the kernel: auto, io_uring or epoll.
    #[arg(long, default_value = "auto", value_parser = io_choice)]
    io: IoChoice,
}

#[expect(clippy::print_stderr, reason = "a command tells its user where it listens, or why it does not")]
fn main() -> ExitCode {
    match start(&Arguments::parse()) {
        Ok(mock) => {
            eprintln!("tidegate-mock: listening at {}", mock.base_url());
            mock.join();
            ExitCode::FAILURE
        }
        Err(what) => {
            eprintln!("tidegate-mock: {what}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> Result<MockHandle, String> {
    let mut config = match &arguments.config {
        Some(path) => {
            let at = path.display();
            let text = std::fs::read_to_string(path).map_err(|error| format!("{at}: {error}"))?;
            MockConfig::from_json(&text).map_err(|error| format!("{at}: {error}"))?
        }
        None => MockConfig::default(),
    };
    config.listen = arguments.listen.unwrap_or(config.listen);
    let selection = select(arguments.io).map_err(|error| error.to_string())?;
    let mock = Mock::start(config, selection.driver).map_err(|error| error.to_string())?;
    if let Some(path) = &arguments.port_file {
        write_port_file(path, mock.addr()).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(mock)
}

/// In one step, so that who waits for the file never reads half of it.
fn write_port_file(path: &std::path::Path, addr: SocketAddr) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, addr.to_string())?;
    std::fs::rename(beside, path)
}

fn io_choice(text: &str) -> Result<IoChoice, String> {
    match text {
        "auto" => Ok(IoChoice::Auto),
        "io_uring" => Ok(IoChoice::IoUring),
        "epoll" => Ok(IoChoice::Epoll),
        _ => Err("auto, io_uring or epoll".to_owned()),
    }
}
