//! A tunnel through a proxy: one `CONNECT` out, one reply head in (RFC 9110 §9.3.6). Decides what the proxy's answer
//! means; never sends it anything but the origin's name and the proxy's own credentials.

use tidegate_core::limits;
use tidegate_core::snapshot::{ForwardProxy, Origin};
use tidegate_core::verdict::ProxyFailure;
use tidegate_ring::Conn;
use tidegate_wire::head::{HeadLimits, Parse, RequestKind, ResponseHead};
use zeroize::Zeroize as _;

use crate::inbound::Source;

const HEAD_LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: limits::HEAD_BYTES_MAX, fields_max: limits::HEAD_FIELDS_MAX };

/// Why there is no tunnel, with words for the log.
pub(super) type NoTunnel = (ProxyFailure, String);

/// Makes a connection to a proxy one to the origin. The caller sets a deadline around it.
pub(super) async fn open(conn: Conn, proxy: &ForwardProxy, origin: &Origin) -> Result<Conn, NoTunnel> {
    let broken = |detail: String| (ProxyFailure::Broken, detail);
    let mut request = request(proxy, origin);
    let sent = conn.send(&[&request]).await;
    request.zeroize();
    sent.map_err(|error| broken(error.to_string()))?;
    let mut source = Source::default();
    let status = read_status(&conn, &mut source).await.map_err(broken)?;
    match status {
        // The origin of a tunnel speaks second: bytes that nobody asked for are the proxy's own.
        200..=299 if source.is_empty() => Ok(conn),
        200..=299 => Err(broken("it goes on behind its answer".into())),
        407 => Err((ProxyFailure::Credentials, "status 407".into())),
        502..=504 => Err((ProxyFailure::OriginUnreached, format!("status {status}"))),
        _ => Err((ProxyFailure::Refused, format!("status {status}"))),
    }
}

fn request(proxy: &ForwardProxy, origin: &Origin) -> Vec<u8> {
    let target = origin.connect_target();
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n").into_bytes();
    if let Some(authorization) = &proxy.authorization {
        request.extend_from_slice(b"proxy-authorization: ");
        request.extend_from_slice(authorization.expose().as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    request
}

/// The status of the final reply. Whatever fields say, a reply that opens a tunnel has no body.
async fn read_status(conn: &Conn, source: &mut Source) -> Result<u16, String> {
    let mut head = ResponseHead::default();
    let mut interim = 0;
    loop {
        match head.parse(source.bytes(), &HEAD_LIMITS, RequestKind { head_method: true }) {
            Ok(Parse::Complete { head_bytes }) => {
                source.consume(head_bytes);
                if !head.is_interim() {
                    return Ok(head.status());
                }
                interim += 1;
                if interim > limits::INTERIM_MAX {
                    return Err("too many interim replies".into());
                }
                head.clear();
            }
            Ok(Parse::Partial) => match source.fill(conn).await {
                Ok(true) => {}
                Ok(false) => return Err("it closed the connection".into()),
                Err(error) => return Err(error.to_string()),
            },
            Err(refusal) => return Err(format!("its answer is not HTTP: {}", refusal.code())),
        }
    }
}
