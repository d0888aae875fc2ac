//! What went wrong between two peers that wanted TLS, named by the check that failed.
//!
//! It decides which of a few words describes a rustls error, so that an operator reads "expired" and not a stack of
//! types. It never decides whether to try again.

use std::fmt;
use std::io;

use rustls::{CertificateError, Error};

/// The check that a TLS peer did not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsCheck {
    /// The certificate is outside of its period of validity, after its end or before its beginning.
    Expired,
    /// The certificate is for another name.
    WrongName,
    /// No root that we trust vouches for the certificate.
    UnknownIssuer,
    /// The peer, a client that was asked for a certificate, has none.
    NoCertificate,
    /// The peer ended the connection before the handshake was complete.
    Truncated,
    /// The peer does not speak TLS, or not as we do, or it refused us by an alert.
    Protocol,
    /// Anything else: a revoked or malformed certificate, a bad signature, a failure of ours.
    Other,
}

impl TlsCheck {
    /// A stable word for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            TlsCheck::Expired => "expired",
            TlsCheck::WrongName => "wrong_name",
            TlsCheck::UnknownIssuer => "unknown_issuer",
            TlsCheck::NoCertificate => "no_certificate",
            TlsCheck::Truncated => "truncated",
            TlsCheck::Protocol => "protocol",
            TlsCheck::Other => "other",
        }
    }

    /// The check behind a rustls error.
    pub(crate) fn of(error: &Error) -> TlsCheck {
        match error {
            Error::InvalidCertificate(reason) => TlsCheck::of_certificate(reason),
            Error::NoCertificatesPresented => TlsCheck::NoCertificate,
            Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::InvalidMessage(_)
            | Error::UnsupportedNameType
            | Error::DecryptError
            | Error::PeerIncompatible(_)
            | Error::PeerMisbehaved(_)
            | Error::PeerSentOversizedRecord
            | Error::AlertReceived(_)
            | Error::NoApplicationProtocol => TlsCheck::Protocol,
            _ => TlsCheck::Other,
        }
    }

    fn of_certificate(reason: &CertificateError) -> TlsCheck {
        match reason {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => TlsCheck::Expired,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsCheck::WrongName
            }
            CertificateError::UnknownIssuer => TlsCheck::UnknownIssuer,
            _ => TlsCheck::Other,
        }
    }
}

impl fmt::Display for TlsCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TlsCheck::Expired => "the certificate is outside of its period of validity",
            TlsCheck::WrongName => "the certificate is for another name",
            TlsCheck::UnknownIssuer => "the certificate's issuer is not trusted",
            TlsCheck::NoCertificate => "the peer has no certificate",
            TlsCheck::Truncated => "the peer ended the connection during the handshake",
            TlsCheck::Protocol => "the peer does not speak TLS as we do",
            TlsCheck::Other => "the peer could not be verified",
        })
    }
}

/// Why there is no TLS connection.
#[derive(Debug)]
pub enum ConnectError {
    /// The connection below TLS failed: refused, reset, unreachable.
    Io(io::Error),
    /// The peer was reached and a check of TLS failed.
    Tls {
        /// Which one.
        check: TlsCheck,
        /// The TLS library's own words; names and dates, never a secret.
        detail: String,
    },
}

impl ConnectError {
    pub(crate) fn tls(error: &Error) -> ConnectError {
        ConnectError::Tls { check: TlsCheck::of(error), detail: error.to_string() }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> ConnectError {
        ConnectError::Io(error)
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Io(error) => error.fmt(f),
            ConnectError::Tls { check, detail } => write!(f, "{check}: {detail}"),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConnectError::Io(error) => Some(error),
            ConnectError::Tls { .. } => None,
        }
    }
}
