//! `tidegate healthcheck`: asks the admin port of a running gateway whether it is ready, for containers and scripts
//! that have no HTTP client. Decides nothing: what ready means is the gateway's own judgement.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::{complain, say};

/// Where the admin port is without a file.
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4001);
/// Time to connect, and for each step of the conversation.
const STEP_TIMEOUT: Duration = Duration::from_secs(2);
/// The answer is a few hundred bytes; nothing longer is read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// What `healthcheck` takes.
#[derive(Debug, Args)]
pub(crate) struct HealthcheckArguments {
    /// The configuration that names the admin port; without it, the default port of this host is asked.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The admin port, instead of what the configuration says.
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
}

/// Exit code 0 and a line where the gateway is ready, else 1 and why not.
pub(crate) fn run(arguments: &HealthcheckArguments) -> ExitCode {
    match admin_address(arguments).and_then(ask) {
        Ok(ready) => {
            say(&ready);
            ExitCode::SUCCESS
        }
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

/// Whom to ask. A listener on every address of the host is asked on loopback.
fn admin_address(arguments: &HealthcheckArguments) -> Result<SocketAddr, String> {
    let mut address = match (arguments.admin, &arguments.config) {
        (Some(address), _) => address,
        (None, Some(file)) => tidegate_actors::admin_address(file).map_err(|error| error.to_string())?,
        (None, None) => ADMIN,
    };
    match address.ip() {
        IpAddr::V4(it) if it.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(it) if it.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    match address.port() {
        0 => Err("the admin port is chosen at each start (port 0): name it with --admin".into()),
        _ => Ok(address),
    }
}

/// What to say of a ready gateway; the error says why it is not, or could not be asked.
fn ask(admin: SocketAddr) -> Result<String, String> {
    let answer = fetch(admin).map_err(|error| format!("not ready: {admin} does not answer: {error}"))?;
    judge(admin, &answer)
}

fn fetch(admin: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, STEP_TIMEOUT)?;
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    stream.set_write_timeout(Some(STEP_TIMEOUT))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn judge(admin: SocketAddr, answer: &str) -> Result<String, String> {
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|it| it.get(..3)).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    match (status, body["ready"].as_bool(), body["why"].as_str()) {
        ("200", Some(true), _) => Ok(format!(
            "ready: {}, {} of {} workers, revision {}",
            body["driver"].as_str().unwrap_or("unknown driver"),
            body["workers"]["alive"],
            body["workers"]["count"],
            body["revision"],
        )),
        ("503", Some(false), Some(why)) => Err(format!("not ready: {why}")),
        _ => Err(format!("not ready: what answers at {admin} is not the admin port of a Tidegate")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(admin: Option<&str>) -> HealthcheckArguments {
        HealthcheckArguments { config: None, admin: admin.map(|it| it.parse().expect("an address")) }
    }

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        for (admin, expect) in [
            (None, "127.0.0.1:4001"),
            (Some("0.0.0.0:9"), "127.0.0.1:9"),
            (Some("[::]:9"), "[::1]:9"),
            (Some("10.1.2.3:9"), "10.1.2.3:9"),
        ] {
            let address = admin_address(&arguments(admin)).map(|it| it.to_string());
            assert_eq!(address.as_deref(), Ok(expect));
        }
        assert!(admin_address(&arguments(Some("127.0.0.1:0"))).is_err_and(|it| it.contains("--admin")));
    }

    #[test]
    fn only_a_gateway_that_calls_itself_ready_is_ready() {
        let ready = r#"{"ready":true,"driver":"epoll","workers":{"count":2,"alive":1},"revision":3}"#;
        let draining = r#"{"ready":false,"why":"draining"}"#;
        let stranger = "is not the admin port";
        for (answer, expect) in [
            (
                format!("HTTP/1.1 200 OK\r\na: b\r\n\r\n{ready}"),
                Ok("ready: epoll, 1 of 2 workers, revision 3"),
            ),
            (format!("HTTP/1.1 503 Service Unavailable\r\n\r\n{draining}"), Err("not ready: draining")),
            (format!("HTTP/1.1 200 OK\r\n\r\n{draining}"), Err(stranger)),
            (format!("HTTP/1.1 503 Service Unavailable\r\n\r\n{ready}"), Err(stranger)),
            ("HTTP/1.1 200 OK\r\n\r\n<html>".into(), Err(stranger)),
            ("HTTP/1.1 2".into(), Err(stranger)),
            (String::new(), Err(stranger)),
        ] {
            let judged = judge(ADMIN, &answer);
            match expect {
                Ok(line) => assert_eq!(judged.as_deref(), Ok(line), "{answer}"),
                Err(part) => {
                    assert!(judged.as_ref().is_err_and(|it| it.contains(part)), "{answer}: {judged:?}")
                }
            }
        }
    }
}
