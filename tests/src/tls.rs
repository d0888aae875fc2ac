//! Certificates that a test gives out, and clients that trust them or prove who they are.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

/// A certificate and its key, both PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The chain, its own certificate first.
    pub chain_pem: String,
    /// The private key.
    pub key_pem: String,
}

/// An authority of a test's own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// A new one with a name of its own.
    pub fn named(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("signed").pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for a name.
    pub fn issue(&self, name: &str) -> Identity {
        self.issue_with(name, |_| {})
    }

    /// A certificate for a name, changed before it is signed.
    pub fn issue_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { chain_pem: certificate.pem(), key_pem: key.serialize_pem() }
    }
}

impl Identity {
    /// Writes both into a folder, as editors and renewals do: new files in place of the old.
    pub fn write(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let put = |name: &str, text: &str| {
            let mut beside = tempfile::NamedTempFile::new_in(folder).expect("a file");
            beside.write_all(text.as_bytes()).expect("written");
            let path = folder.join(name);
            beside.persist(&path).expect("in its place");
            path
        };
        (put("cert.pem", &self.chain_pem), put("key.pem", &self.key_pem))
    }
}

/// What a client trusts, who it is, and the sessions it may resume.
#[derive(Clone)]
pub struct Trust {
    config: Arc<ClientConfig>,
}

impl Trust {
    /// Trusts `authority`, speaks TLS 1.3 and 1.2.
    pub fn new(authority: &Authority) -> Trust {
        Trust::with(authority, &[&TLS13, &TLS12], None)
    }

    /// Trusts `authority`, speaks TLS 1.2 alone.
    pub fn tls12(authority: &Authority) -> Trust {
        Trust::with(authority, &[&TLS12], None)
    }

    /// Trusts `authority` and proves to be `identity`.
    pub fn proving(authority: &Authority, identity: &Identity) -> Trust {
        Trust::with(authority, &[&TLS13, &TLS12], Some(identity))
    }

    /// Offers these protocols (ALPN).
    pub fn offering(mut self, protocols: &[&str]) -> Trust {
        let config = Arc::make_mut(&mut self.config);
        config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        self
    }

    fn with(
        authority: &Authority,
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<&Identity>,
    ) -> Trust {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("PEM");
        roots.add(root).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(it) => {
                let chain = CertificateDer::pem_slice_iter(it.chain_pem.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(it.key_pem.as_bytes()).expect("PEM");
                let chain = chain.collect::<Result<_, _>>().expect("PEM");
                builder.with_client_auth_cert(chain, key).expect("an identity")
            }
        };
        config.resumption = Resumption::in_memory_sessions(16);
        Trust { config: Arc::new(config) }
    }

    /// A session with a server that proves to be `localhost`.
    pub(crate) fn session(&self) -> ClientConnection {
        let name = ServerName::try_from("localhost").expect("a name");
        ClientConnection::new(self.config.clone(), name).expect("a client")
    }
}
