//! The check of a suspect key: the cheapest authenticated call of its dialect, to the address that was published for
//! its origin, through its proxy where it has one. Follows no redirect, reads no body, sends the key nowhere else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper::Method;
use hyper::body::Bytes;
use hyper::header::{HOST, HeaderName, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tidegate_core::Secret;
use tidegate_core::snapshot::{DialectId, ForwardProxy, Origin};
use tidegate_providers::Dialect;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::board::Board;

/// Time for the whole check.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a check found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The provider takes the key.
    Usable,
    /// The provider refuses the key, with this status.
    Refused(u16),
    /// Nothing was found out; for the log.
    Unclear(String),
}

/// What is asked about.
pub(crate) struct Subject<'a> {
    pub(crate) dialect: DialectId,
    pub(crate) origin: &'a Origin,
    pub(crate) secret: &'a Secret,
}

/// Asks the provider whether it takes the key.
pub(crate) async fn probe(board: &Board, subject: &Subject<'_>) -> Finding {
    match tokio::time::timeout(PROBE_TIMEOUT, ask(board, subject)).await {
        Ok(Ok(status)) => judge(status),
        Ok(Err(reason)) => Finding::Unclear(reason),
        Err(_) => Finding::Unclear(format!("no answer within {} s", PROBE_TIMEOUT.as_secs())),
    }
}

fn judge(status: u16) -> Finding {
    match status {
        200..=299 => Finding::Usable,
        401 | 403 => Finding::Refused(status),
        // A limit is counted for keys that are known.
        429 => Finding::Usable,
        _ => Finding::Unclear(format!("status {status}")),
    }
}

async fn ask(board: &Board, subject: &Subject<'_>) -> Result<u16, String> {
    let origin = subject.origin;
    let addresses = origin.addresses.load_full();
    let stream = connect(&addresses).await?;
    match &origin.proxy {
        None => ask_on(stream, board, subject).await,
        Some(proxy) => ask_on(tunnel(stream, proxy, origin).await?, board, subject).await,
    }
}

async fn ask_on(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    board: &Board,
    subject: &Subject<'_>,
) -> Result<u16, String> {
    let origin = subject.origin;
    if !origin.tls {
        return send(stream, subject).await;
    }
    let roots = board.roots.get_or_init(async || Arc::new(host_roots())).await;
    let connector = TlsConnector::from(Arc::new(tls_config(roots, origin.ca_pem.as_deref())?));
    let name = ServerName::try_from(origin.host.to_string())
        .map_err(|_| "the host has no name for TLS".to_owned())?;
    let stream = connector.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
    send(stream, subject).await
}

async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, String> {
    let mut last = "no address is known".to_owned();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = format!("connect {address}: {error}"),
        }
    }
    Err(last)
}

/// The way to the origin through a proxy.
async fn tunnel(
    stream: TcpStream,
    proxy: &ForwardProxy,
    origin: &Origin,
) -> Result<TokioIo<Upgraded>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("proxy {}: {error}", proxy.authority);
    let target = origin.connect_target();
    let mut request = hyper::Request::builder().method(Method::CONNECT).uri(&target).header(HOST, &target);
    if let Some(authorization) = &proxy.authorization {
        let mut value = HeaderValue::from_str(authorization.expose()).map_err(|error| failed(&error))?;
        value.set_sensitive(true);
        request = request.header(PROXY_AUTHORIZATION, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    // Ends with the tunnel, or with the sender where there is none.
    tokio::spawn(connection.with_upgrades());
    let reply = sender.send_request(request).await.map_err(|error| failed(&error))?;
    if !reply.status().is_success() {
        return Err(failed(&reply.status()));
    }
    hyper::upgrade::on(reply).await.map(TokioIo::new).map_err(|error| failed(&error))
}

fn host_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn tls_config(roots: &RootCertStore, ca_pem: Option<&[u8]>) -> Result<ClientConfig, String> {
    let mut roots = roots.clone();
    if let Some(pem) = ca_pem {
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).flatten());
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    subject: &Subject<'_>,
) -> Result<u16, String> {
    let request = request(subject)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let reply = sender.send_request(request).await;
    // One question, one connection: what follows the head of the reply is not read.
    driver.abort();
    Ok(reply.map_err(|error| error.to_string())?.status().as_u16())
}

fn request(subject: &Subject<'_>) -> Result<hyper::Request<Empty<Bytes>>, String> {
    let dialect: &Dialect = tidegate_providers::dialect(subject.dialect);
    let (method, path) = dialect.health_probe();
    let credential = dialect.credential();
    let value = format!("{}{}", credential.prefix, subject.secret.expose());
    let mut value =
        HeaderValue::from_str(&value).map_err(|_| "the key cannot stand in a header".to_owned())?;
    value.set_sensitive(true);
    let mut request = hyper::Request::builder()
        .method(method)
        .uri(format!("{}{path}", subject.origin.base_path))
        .header(HOST, &*subject.origin.authority)
        .header(USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        .header(HeaderName::from_static(credential.name), value);
    if let Some((name, value)) = dialect.version_field() {
        request = request.header(name, value);
    }
    request.body(Empty::new()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_what_they_say_of_a_key() {
        for (status, expect) in [
            (200, Some(Finding::Usable)),
            (429, Some(Finding::Usable)),
            (401, Some(Finding::Refused(401))),
            (403, Some(Finding::Refused(403))),
            (301, None),
            (404, None),
            (500, None),
            (529, None),
        ] {
            match expect {
                Some(expect) => assert_eq!(judge(status), expect, "{status}"),
                None => assert!(matches!(judge(status), Finding::Unclear(_)), "{status}"),
            }
        }
    }
}
