//! `tls`, `proxy_protocol` and `trusted_proxies`: a certificate that can be shown, the key that belongs to it, whom
//! clients must be known to, and whose word about the source of a call is taken.

use std::net::IpAddr;
use std::sync::Arc;

use tidegate_core::Secret;
use tidegate_core::ingress::{Ingress, IngressTls};
use tidegate_core::limits::TRUSTED_PROXIES_MAX;
use tidegate_core::source::{Network, TrustedProxies};
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::Check;
use crate::config::complaint::Spot;
use crate::config::field::Field;
use crate::config::raw::{RawConfig, RawTls};
use crate::config::validity::Validity;

/// A PEM file with certificates.
pub(super) struct Certificates {
    path: String,
    spot: Spot,
    pub(super) pem: Arc<[u8]>,
    list: Vec<CertificateDer<'static>>,
}

impl Check<'_> {
    /// How callers' connections are taken in. Without what is wrong, which was complained about.
    pub(super) fn ingress(&self, raw: &RawConfig) -> Ingress {
        let proxy_protocol = raw.proxy_protocol.given();
        let networks = self.networks(&raw.trusted_proxies);
        if let Some((true, spot)) = proxy_protocol
            && networks.is_empty()
            && !matches!(raw.trusted_proxies, Field::Broken(_))
        {
            let hint = "name the addresses of the load balancers in `trusted_proxies`".to_owned();
            self.notes.error(spot, "nobody is trusted to send a PROXY header", hint);
        }
        Ingress {
            tls: raw.tls.given().and_then(|(tls, spot)| self.tls(tls, spot)),
            proxy_protocol: proxy_protocol.is_some_and(|it| *it.0),
            trusted_proxies: TrustedProxies::new(networks),
        }
    }

    fn networks(&self, field: &Field<Vec<Field<String>>>) -> Vec<Network> {
        let Some((list, spot)) = field.given() else { return Vec::new() };
        self.bounded(list.len(), TRUSTED_PROXIES_MAX, "trusted proxies", spot);
        list.iter().filter_map(|it| self.network(it)).collect()
    }

    /// An address, or a network as `address/bits`.
    fn network(&self, field: &Field<String>) -> Option<Network> {
        let (text, spot) = self.text(field)?;
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text.as_str(), None),
        };
        let address = address.parse::<IpAddr>().ok();
        let bits = bits.map(|it| it.parse::<u8>().ok());
        let network = match (address, bits) {
            (Some(address), None) => Some(Network::only(address.to_canonical())),
            (Some(address), Some(Some(bits))) => Network::new(address, bits),
            _ => None,
        };
        match &network {
            Some(network) if network.is_everything() => {
                let hint = "name the proxies alone: others can say that they are anybody".to_owned();
                self.notes.warning(spot, format!("`{text}` trusts everybody"), hint);
            }
            Some(_) => {}
            None => {
                let hint =
                    "for example 192.0.2.7 or 10.0.0.0/8, with no bit set behind the prefix".to_owned();
                self.notes.error(spot, format!("`{text}` is neither an address nor a network"), hint);
            }
        }
        network
    }

    fn tls(&self, raw: &RawTls, spot: Spot) -> Option<IngressTls> {
        for (field, name) in [(&raw.cert_file, "cert_file"), (&raw.key_file, "key_file")] {
            if field.is_absent() {
                let hint = "give `cert_file` and `key_file`, both in PEM form".to_owned();
                self.notes.error(spot, format!("`tls` has no `{name}`"), hint);
            }
        }
        let client_ca_pem = self.client_authorities(&raw.client_ca_file);
        let chain = self.certificate_file(&raw.cert_file);
        let key = self.key_file(&raw.key_file);
        let (chain, (key_pem, key, key_path, key_spot)) = chain.zip(key)?;
        let signing = match aws_lc_rs::sign::any_supported_type(&key) {
            Ok(signing) => signing,
            Err(error) => {
                let hint = "an ECDSA P-256, RSA or Ed25519 key".to_owned();
                self.notes.error(key_spot, format!("the key in `{key_path}` cannot be used: {error}"), hint);
                return None;
            }
        };
        if CertifiedKey::new(chain.list.clone(), signing).keys_match().is_err() {
            let message = format!(
                "the key in `{key_path}` does not belong to the first certificate in `{}`",
                chain.path
            );
            let hint =
                "the gateway's own certificate stands first, then those that lead to a root".to_owned();
            self.notes.error(key_spot, message, hint);
            return None;
        }
        let expires_s = self.judge_validity(&chain)?;
        Some(IngressTls { chain_pem: chain.pem, key_pem, client_ca_pem, expires_s })
    }

    fn judge_validity(&self, chain: &Certificates) -> Option<u64> {
        let Some(validity) = chain.list.first().and_then(|it| Validity::of(it)) else {
            self.notes.error(chain.spot, format!("the certificate in `{}` has no end", chain.path), None);
            return None;
        };
        let now_s = self.surroundings.wall_s().cast_signed();
        let what = if now_s > validity.ends_s {
            "has expired"
        } else if now_s < validity.begins_s {
            "is not valid yet"
        } else {
            return Some(validity.ends_s.max(0).cast_unsigned());
        };
        let hint = "clients will refuse it; a renewed one is taken when the file changes".to_owned();
        self.notes.warning(chain.spot, format!("the certificate in `{}` {what}", chain.path), hint);
        Some(validity.ends_s.max(0).cast_unsigned())
    }

    fn client_authorities(&self, field: &Field<String>) -> Option<Arc<[u8]>> {
        let given = self.certificate_file(field)?;
        let mut roots = RootCertStore::empty();
        for certificate in given.list {
            if let Err(error) = roots.add(certificate) {
                let message = format!("a certificate in `{}` cannot be an authority: {error}", given.path);
                self.notes.error(given.spot, message, None);
                return None;
            }
        }
        Some(given.pem)
    }

    pub(super) fn certificate_file(&self, field: &Field<String>) -> Option<Certificates> {
        let (path, spot) = self.text(field)?;
        let pem = self.outside(&path, spot)?;
        let list: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match list {
            Ok(list) if !list.is_empty() => Some(Certificates { path, spot, pem: pem.into(), list }),
            _ => {
                self.notes.error(spot, format!("`{path}` holds no certificate in PEM form"), None);
                None
            }
        }
    }

    fn key_file(&self, field: &Field<String>) -> Option<(Secret, PrivateKeyDer<'static>, String, Spot)> {
        let (path, spot) = self.text(field)?;
        let text = String::from_utf8(self.outside(&path, spot)?).unwrap_or_default();
        match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
            Ok(key) => Some((Secret::new(text), key, path, spot)),
            Err(_) => {
                let hint = text
                    .contains("ENCRYPTED")
                    .then(|| "it is locked with a pass phrase, which the gateway never asks for".to_owned());
                self.notes.error(spot, format!("`{path}` holds no private key in PEM form"), hint);
                None
            }
        }
    }

    /// The content of a file that the configuration names.
    fn outside(&self, path: &str, spot: Spot) -> Option<Vec<u8>> {
        self.surroundings
            .file(path)
            .map_err(|error| self.notes.error(spot, format!("cannot read `{path}`: {error}"), None))
            .ok()
    }
}
