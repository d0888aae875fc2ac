//! Asks a running mock over its control door, from a thread that may block. Decides nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::MockError;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One exchange on a connection of its own.
pub(crate) fn ask<T: DeserializeOwned>(
    addr: SocketAddr,
    method: &str,
    name: &str,
    body: &str,
) -> Result<T, MockError> {
    let (head, answer) = exchange(addr, method, name, body).map_err(MockError::Io)?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(MockError::Config(String::from_utf8_lossy(&answer).into_owned()));
    }
    serde_json::from_slice(&answer).map_err(|error| MockError::Answer(error.to_string()))
}

fn exchange(addr: SocketAddr, method: &str, name: &str, body: &str) -> std::io::Result<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&addr, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let length = body.len();
    write!(
        stream,
        "{method} /_mock/{name} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let body = answer.split_off(end);
    Ok((String::from_utf8_lossy(&answer).into_owned(), body))
}
