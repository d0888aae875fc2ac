//! The one type that holds a provider credential. It cannot be printed, compared loosely or serialised.

use std::sync::Arc;

use zeroize::Zeroizing;

/// A provider credential. `Debug` shows only that there is one; the text is zeroed when the last clone goes.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// Takes ownership of the text of a credential.
    pub fn new(text: String) -> Secret {
        Secret(Arc::new(Zeroizing::new(text)))
    }

    /// The text itself. Callers put it into one header of one request to the origin it belongs to, nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_show_the_text() {
        let secret = Secret::new("sk-canary".into());
        assert!(!format!("{secret:?} {secret:#?}").contains("canary"));
    }
}
