//! The proxy that connections to an origin go through. A plain value: whoever connects asks it for a tunnel.

use std::sync::Arc;

use super::Reach;
use crate::secret::Secret;

/// A proxy of HTTP that is asked for a tunnel (`CONNECT`) to an origin; TLS to the origin runs inside.
#[derive(Clone, Debug)]
pub struct ForwardProxy {
    /// Host name or literal address.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
    /// Both, as in a URL; without credentials.
    pub authority: Arc<str>,
    /// The whole value of `proxy-authorization`.
    pub authorization: Option<Secret>,
    /// Which addresses its name may resolve to.
    pub reach: Reach,
    /// What names it, for operators: the provider's own option, or a variable of the environment.
    pub named_by: &'static str,
}

impl ForwardProxy {
    /// Whether both are the same proxy, asked in the same way.
    pub fn is_same(&self, other: &ForwardProxy) -> bool {
        let secret = |it: &ForwardProxy| it.authorization.as_ref().map(|it| it.expose().to_owned());
        self.host == other.host
            && self.port == other.port
            && self.reach == other.reach
            && secret(self) == secret(other)
    }
}
