//! Whom we trust and who we are: the settings of a TLS client and of a TLS server, checked when they are made.
//!
//! A server offers TLS 1.2 and 1.3 with forward secrecy and authenticated encryption alone, no early data, and
//! resumption by tickets whose keys turn every six hours; what it remembers beside them has a bound.
//!
//! It reads PEM text and, if asked, the host's root store; both at start or reload, on the control plane. It never
//! makes a connection and has no setting that weakens verification.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The one protocol that we speak over TLS.
const ALPN: &[u8] = b"http/1.1";
/// Sessions kept for resumption by one `ClientTls`; a server name holds up to eight tickets.
const SESSIONS_MAX: usize = 256;
/// Sessions that one `ServerTls` remembers for TLS 1.2 clients that take no ticket; about 1 KiB each.
const SERVER_SESSIONS_MAX: usize = 1_024;

/// The roots that a client trusts.
#[derive(Clone, Copy)]
pub enum Roots<'a> {
    /// The host's root store.
    Native,
    /// The host's root store and these certificates (PEM).
    NativeAnd {
        /// One or more certificates.
        ca_pem: &'a [u8],
    },
    /// These certificates (PEM) and nothing else.
    Only {
        /// One or more certificates.
        ca_pem: &'a [u8],
    },
}

/// Why TLS settings cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum TlsSetupError {
    /// The host's root store yields no certificate; why, in its own words.
    NoNativeRoots(String),
    /// The given roots hold no certificate or an unreadable one.
    BadRoots(String),
    /// The certificate chain cannot be read.
    BadChain(String),
    /// The private key cannot be read or does not fit the chain. The text never quotes it.
    BadKey(String),
    /// The cryptography refuses; a fault of the build.
    Crypto(String),
}

impl fmt::Display for TlsSetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, detail) = match self {
            TlsSetupError::NoNativeRoots(detail) => ("the host's root store has no certificate", detail),
            TlsSetupError::BadRoots(detail) => ("the root certificates cannot be used", detail),
            TlsSetupError::BadChain(detail) => ("the certificate chain cannot be used", detail),
            TlsSetupError::BadKey(detail) => ("the private key cannot be used", detail),
            TlsSetupError::Crypto(detail) => ("TLS cannot be set up", detail),
        };
        write!(f, "{what}: {detail}")
    }
}

impl std::error::Error for TlsSetupError {}

/// What a TLS client needs to connect: the roots, and the sessions it may resume. Cheap to clone, shared by threads.
#[derive(Clone)]
pub struct ClientTls(Arc<ClientConfig>);

impl ClientTls {
    /// Trusts `roots`. Reads the host's root store if they say so, so call it where blocking is allowed.
    ///
    /// # Errors
    /// [`TlsSetupError::NoNativeRoots`] and [`TlsSetupError::BadRoots`].
    pub fn new(roots: &Roots<'_>) -> Result<ClientTls, TlsSetupError> {
        let store = Arc::new(root_store(roots)?);
        let mut config = ClientConfig::builder_with_details(provider(), Arc::new(WorkerClock))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsSetupError::Crypto(error.to_string()))?
            .with_root_certificates(store)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        Ok(ClientTls(Arc::new(config)))
    }

    pub(super) fn config(&self) -> &Arc<ClientConfig> {
        &self.0
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}

/// Who a TLS server is, and whom it asks to prove who they are. All PEM.
#[derive(Clone, Copy)]
pub struct ServerIdentity<'a> {
    /// Its own certificate first, then those that lead to a root.
    pub chain_pem: &'a [u8],
    /// The private key of the first certificate.
    pub key_pem: &'a [u8],
    /// Authorities of client certificates. With them, a client without a certificate of theirs is refused.
    pub client_ca_pem: Option<&'a [u8]>,
}

/// What a TLS server needs to accept: its chain and its key. Cheap to clone, shared by threads.
#[derive(Clone)]
pub struct ServerTls(Arc<ServerConfig>);

impl ServerTls {
    /// An identity that asks no client for a certificate.
    ///
    /// # Errors
    /// [`TlsSetupError::BadChain`] and [`TlsSetupError::BadKey`].
    pub fn new(chain_pem: &[u8], key_pem: &[u8]) -> Result<ServerTls, TlsSetupError> {
        ServerTls::of(&ServerIdentity { chain_pem, key_pem, client_ca_pem: None })
    }

    /// The server with this identity.
    ///
    /// # Errors
    /// [`TlsSetupError::BadChain`], [`TlsSetupError::BadKey`], and [`TlsSetupError::BadRoots`] for the authorities of
    /// client certificates.
    pub fn of(identity: &ServerIdentity<'_>) -> Result<ServerTls, TlsSetupError> {
        let chain = certificates(identity.chain_pem).map_err(TlsSetupError::BadChain)?;
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem)
            .map_err(|error| TlsSetupError::BadKey(error.to_string()))?;
        let crypto = |error: rustls::Error| TlsSetupError::Crypto(error.to_string());
        let mut config = ServerConfig::builder_with_details(provider(), Arc::new(WorkerClock))
            .with_safe_default_protocol_versions()
            .map_err(crypto)?
            .with_client_cert_verifier(client_verifier(identity.client_ca_pem)?)
            .with_single_cert(chain, key)
            .map_err(|error| TlsSetupError::BadKey(error.to_string()))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // The stronger suite where both know it, whatever the client puts first.
        config.ignore_client_order = true;
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(crypto)?;
        config.session_storage = ServerSessionMemoryCache::new(SERVER_SESSIONS_MAX);
        Ok(ServerTls(Arc::new(config)))
    }

    /// The same, with the sessions of `before`: who has a ticket of the old one resumes with it here. Only for one that
    /// trusts the same client authorities: what a client proved to the old one is not asked for again.
    pub fn resuming(self, before: &ServerTls) -> ServerTls {
        let mut config = ServerConfig::clone(&self.0);
        config.ticketer = Arc::clone(&before.0.ticketer);
        config.session_storage = Arc::clone(&before.0.session_storage);
        ServerTls(Arc::new(config))
    }

    pub(super) fn config(&self) -> &Arc<ServerConfig> {
        &self.0
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls")
    }
}

/// The name that a server's certificate must be for: a DNS name or an IP address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerName(rustls::pki_types::ServerName<'static>);

/// A host that is neither a DNS name nor an IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidName;

impl ServerName {
    /// From the host of a URL; an IPv6 address with or without its brackets.
    ///
    /// # Errors
    /// [`InvalidName`].
    pub fn parse(host: &str) -> Result<ServerName, InvalidName> {
        let unbracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(address) = unbracketed {
            let address: std::net::Ipv6Addr = address.parse().map_err(|_| InvalidName)?;
            return Ok(ServerName(IpAddr::V6(address).into()));
        }
        rustls::pki_types::ServerName::try_from(host.to_owned()).map(ServerName).map_err(|_| InvalidName)
    }

    pub(super) fn as_rustls(&self) -> rustls::pki_types::ServerName<'static> {
        self.0.clone()
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_str())
    }
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("neither a DNS name nor an IP address")
    }
}

impl std::error::Error for InvalidName {}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn client_verifier(ca_pem: Option<&[u8]>) -> Result<Arc<dyn ClientCertVerifier>, TlsSetupError> {
    let Some(ca_pem) = ca_pem else { return Ok(Arc::new(NoClientAuth)) };
    let roots = Arc::new(root_store(&Roots::Only { ca_pem })?);
    WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| TlsSetupError::BadRoots(error.to_string()))
}

fn root_store(roots: &Roots<'_>) -> Result<RootCertStore, TlsSetupError> {
    let mut store = RootCertStore::empty();
    if !matches!(roots, Roots::Only { .. }) {
        let native = rustls_native_certs::load_native_certs();
        // Hosts carry the odd certificate that no modern parser takes; the others still count.
        store.add_parsable_certificates(native.certs);
        if store.is_empty() && matches!(roots, Roots::Native) {
            let why = native.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            return Err(TlsSetupError::NoNativeRoots(if why.is_empty() {
                "none found".to_owned()
            } else {
                why
            }));
        }
    }
    if let Roots::NativeAnd { ca_pem } | Roots::Only { ca_pem } = roots {
        for certificate in certificates(ca_pem).map_err(TlsSetupError::BadRoots)? {
            store.add(certificate).map_err(|error| TlsSetupError::BadRoots(error.to_string()))?;
        }
    }
    Ok(store)
}

/// All certificates of a PEM text; one at least.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| error.to_string())?;
    if all.is_empty() { Err("no certificate in the text".to_owned()) } else { Ok(all) }
}

/// Certificates are judged by the worker's wall clock, which is virtual in the simulated arm.
#[derive(Debug)]
struct WorkerClock;

impl TimeProvider for WorkerClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_millis(crate::wall_ms())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_or_addresses() {
        for host in ["api.example.com", "localhost", "127.0.0.1", "::1", "[::1]", "[2001:db8::7]"] {
            assert!(ServerName::parse(host).is_ok(), "{host}");
        }
        for host in ["", "a b", "[::1", "[127.0.0.1]", "http://x", "x:443", "-", "a..b"] {
            assert_eq!(ServerName::parse(host), Err(InvalidName), "{host}");
        }
        assert_eq!(ServerName::parse("[::1]"), ServerName::parse("::1"));
    }

    #[test]
    fn text_without_certificates_is_refused() {
        let refused = |pem: &[u8]| ClientTls::new(&Roots::Only { ca_pem: pem }).err();
        assert!(matches!(refused(b""), Some(TlsSetupError::BadRoots(_))));
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(refused(broken), Some(TlsSetupError::BadRoots(_))));
        assert!(matches!(ServerTls::new(b"", b"").err(), Some(TlsSetupError::BadChain(_))));
    }

    #[test]
    fn a_key_that_does_not_fit_its_chain_is_refused() {
        let one = rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("a certificate");
        let other = rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("a certificate");
        let key = other.signing_key.serialize_pem();
        let refused = ServerTls::new(one.cert.pem().as_bytes(), key.as_bytes()).err();
        assert!(matches!(refused, Some(TlsSetupError::BadKey(_))), "{refused:?}");
        let refused = ServerTls::new(one.cert.pem().as_bytes(), b"no key").err();
        assert!(matches!(refused, Some(TlsSetupError::BadKey(_))), "{refused:?}");
    }
}
