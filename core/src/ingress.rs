//! How callers' connections are taken in: what the listener shows of itself. Plain values of a snapshot; the port
//! itself is no part of them, for it cannot change without a restart, and these can.

use std::sync::Arc;

use crate::secret::Secret;
use crate::source::TrustedProxies;

/// How callers' connections are taken in.
#[derive(Clone, Debug, Default)]
pub struct Ingress {
    /// TLS, and nothing but TLS, on the data port.
    pub tls: Option<IngressTls>,
    /// Trusted proxies begin each connection with a PROXY header.
    pub proxy_protocol: bool,
    /// Whose word about the source of a call is taken.
    pub trusted_proxies: TrustedProxies,
}

/// Who the data port is, and whom it asks to prove who they are.
#[derive(Clone, Debug)]
pub struct IngressTls {
    /// Certificates in PEM, the gateway's own first.
    pub chain_pem: Arc<[u8]>,
    /// The private key of the first, PEM.
    pub key_pem: Secret,
    /// Authorities of client certificates, PEM. With them a client without a certificate of theirs is refused.
    pub client_ca_pem: Option<Arc<[u8]>>,
    /// When the first certificate ends, in seconds since 1970.
    pub expires_s: u64,
}

impl IngressTls {
    /// Whether both ask clients for the same proof.
    pub fn trusts_like(&self, other: &IngressTls) -> bool {
        self.client_ca_pem == other.client_ca_pem
    }

    /// Whether both are the same, to the byte.
    pub fn is_same(&self, other: &IngressTls) -> bool {
        self.trusts_like(other)
            && self.chain_pem == other.chain_pem
            && self.key_pem.expose() == other.key_pem.expose()
    }
}
