//! The one type that holds a provider credential. It cannot be printed, compared loosely or serialised, and knows how
//! to strike itself out of what a provider says.

use std::sync::Arc;

use memchr::memmem;
use zeroize::Zeroizing;

use crate::limits::SECRET_HIDDEN_BYTES_MIN;

/// Stands for each byte of a secret that was struck out: as long as it was, so that no length changes.
const HIDDEN: u8 = b'*';

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

    /// Whether [`Secret::hide_in`] would find anything in `text` to strike out.
    pub fn stands_in(&self, text: &[u8]) -> bool {
        let secret = self.expose().as_bytes();
        secret.len() >= SECRET_HIDDEN_BYTES_MIN && memmem::find(text, secret).is_some()
    }

    /// Strikes the secret out of `text`, wherever it stands in it as it is. Returns how many bytes at the end may be
    /// the beginning of one whose rest is still to come: they belong in front of the next piece.
    ///
    /// What is shorter than [`SECRET_HIDDEN_BYTES_MIN`] is no secret, and would be found in innocent words.
    pub fn hide_in(&self, text: &mut [u8]) -> usize {
        let secret = self.expose().as_bytes();
        if secret.len() < SECRET_HIDDEN_BYTES_MIN {
            return 0;
        }
        let mut from = 0;
        while let Some(at) = memmem::find(&text[from..], secret) {
            let end = from + at + secret.len();
            text[from + at..end].fill(HIDDEN);
            from = end;
        }
        let longest = (text.len() - from).min(secret.len() - 1);
        (1..=longest).rev().find(|length| text.ends_with(&secret[..*length])).unwrap_or(0)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Whoever gives [`Secret`] one of these traits does not get past the compiler: with it, there are two answers to what
/// `name` is.
mod cannot {
    use super::Secret;

    macro_rules! lack {
        ($($module:ident: $bound:path;)*) => {$(
            mod $module {
                use super::Secret;

                trait Ambiguous<Answer> {
                    fn name() {}
                }
                struct Yes;
                impl<T: ?Sized> Ambiguous<()> for T {}
                impl<T: ?Sized + $bound> Ambiguous<Yes> for T {}

                const _: fn() = || <Secret as Ambiguous<_>>::name();
            }
        )*};
    }

    lack! {
        be_shown: std::fmt::Display;
        be_text: AsRef<str>;
        be_bytes: AsRef<[u8]>;
        lend_text: std::borrow::Borrow<str>;
        be_dereferenced: std::ops::Deref;
        be_compared: PartialEq;
        be_ordered: PartialOrd;
        be_hashed: std::hash::Hash;
        become_text: Into<String>;
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

    #[test]
    fn it_is_struck_out_wherever_it_stands() {
        let secret = Secret::new("sk-canary".into());
        for (text, expect, open) in [
            ("", "", 0),
            ("nothing", "nothing", 0),
            ("sk-canary", "*********", 0),
            ("\"sk-canarysk-canary\" x", "\"******************\" x", 0),
            ("sk-sk-canary sk-canar", "sk-********* sk-canar", 8),
            ("sk-Canary s", "sk-Canary s", 1),
            ("sk-canarys", "*********s", 1),
        ] {
            let mut text = text.as_bytes().to_vec();
            assert_eq!(secret.stands_in(&text), expect.contains("*********"), "{expect}");
            assert_eq!(secret.hide_in(&mut text), open, "{expect}");
            assert!(!secret.stands_in(&text));
            assert_eq!(String::from_utf8_lossy(&text), expect);
        }
        let mut words = b"a key that is a word".to_vec();
        assert!(!Secret::new("key".into()).stands_in(&words));
        assert_eq!(Secret::new("key".into()).hide_in(&mut words), 0);
        assert_eq!(Secret::new(String::new()).hide_in(&mut words), 0);
        assert_eq!(words, b"a key that is a word");
    }

    /// As whoever passes on a long text in pieces does it.
    #[test]
    fn no_cut_between_pieces_lets_it_through() {
        let secret = Secret::new("aab-aab-aac".into());
        let text = b"x aab-aab-aab-aac aab-aab-aac aab-aab-aa";
        for cut in 0..text.len() {
            let mut passed = Vec::new();
            let mut held = Vec::new();
            for piece in [&text[..cut], &text[cut..]] {
                held.extend_from_slice(piece);
                let open = secret.hide_in(&mut held);
                passed.extend(held.drain(..held.len() - open));
            }
            passed.extend_from_slice(&held);
            assert_eq!(String::from_utf8_lossy(&passed), "x aab-*********** *********** aab-aab-aa", "{cut}");
        }
    }
}
