//! How a dialect reads the fields of a head without knowing how heads are stored, and which credentials a caller
//! presented. Reads only; it never decides whether a credential is good.

use tidegate_core::limits::CREDENTIAL_BYTES_MAX;

/// The fields of a request or reply head. Names compare without regard to case.
pub trait Fields {
    /// The value of the first field with this name, which is given in lower case.
    fn get(&self, name: &str) -> Option<&[u8]>;

    /// Calls `f` with each field as sent, in order.
    fn each(&self, f: &mut dyn FnMut(&str, &[u8]));
}

/// Fields as a plain list: of a reply that was kept, or of a test.
#[derive(Clone, Copy, Debug)]
pub struct FieldList<'a>(pub &'a [(&'a str, &'a [u8])]);

impl Fields for FieldList<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|it| it.0.eq_ignore_ascii_case(name)).map(|it| it.1)
    }

    fn each(&self, f: &mut dyn FnMut(&str, &[u8])) {
        for (name, value) in self.0 {
            f(name, value);
        }
    }
}

/// The field of a key of the gateway where the others carry a credential of the caller's own.
pub const GATEWAY_KEY: &str = "x-tidegate-key";
/// Fields that carry a credential for a provider.
pub const CREDENTIALS: [&str; 2] = ["authorization", "x-api-key"];

/// What the caller presented as its key of the gateway: [`GATEWAY_KEY`] alone where it is there, since the others are
/// for the provider then; else `x-api-key`, then `Authorization: Bearer`. SDKs differ in which they use and some
/// clients send both, so every one is tried.
///
/// Empty values and values above [`CREDENTIAL_BYTES_MAX`] are no credentials.
pub fn presented_credentials<F: Fields + ?Sized>(fields: &F) -> impl Iterator<Item = &[u8]> {
    let own = fields.get(GATEWAY_KEY).map(<[u8]>::trim_ascii);
    let plain = fields.get("x-api-key").map(<[u8]>::trim_ascii).filter(|_| own.is_none());
    let bearer = fields.get("authorization").and_then(bearer_token).filter(|_| own.is_none());
    [own, plain, bearer].into_iter().flatten().filter(|it| !it.is_empty() && it.len() <= CREDENTIAL_BYTES_MAX)
}

/// Whether the caller brings a credential for a provider.
pub fn brings_credential<F: Fields + ?Sized>(fields: &F) -> bool {
    CREDENTIALS.iter().any(|it| fields.get(it).is_some_and(|value| !value.trim_ascii().is_empty()))
}

/// The token of `Bearer <token>`; the scheme is compared without regard to case (RFC 9110 §11.1).
fn bearer_token(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer";
    let value = value.trim_ascii();
    let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
    let separated = rest.first().is_some_and(|it| *it == b' ' || *it == b'\t');
    (scheme.eq_ignore_ascii_case(SCHEME) && separated).then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presented(fields: &[(&str, &[u8])]) -> Vec<Vec<u8>> {
        presented_credentials(&FieldList(fields)).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn both_places_of_a_credential_are_read() {
        assert_eq!(presented(&[("X-Api-Key", b"one")]), [b"one"]);
        assert_eq!(presented(&[("Authorization", b"Bearer two")]), [b"two"]);
        assert_eq!(presented(&[("authorization", b"bearer   two ")]), [b"two"]);
        assert_eq!(presented(&[("authorization", b"Bearer two"), ("x-api-key", b"one")]), [b"one", b"two"]);
    }

    #[test]
    fn with_a_key_of_the_gateway_the_other_fields_are_for_the_provider() {
        let both =
            [("X-Tidegate-Key", &b"mine"[..]), ("authorization", b"Bearer theirs"), ("x-api-key", b"more")];
        assert_eq!(presented(&both), [b"mine"]);
        assert!(brings_credential(&FieldList(&both)) && !brings_credential(&FieldList(&both[..1])));
        assert!(
            presented(&[("x-tidegate-key", b""), ("x-api-key", b"key")]).is_empty(),
            "not even an empty one"
        );
        assert!(!brings_credential(&FieldList(&[("authorization", b"  ")])));
    }

    #[test]
    fn what_is_no_credential_is_not_presented() {
        assert!(presented(&[]).is_empty());
        assert!(presented(&[("x-api-key", b"  ")]).is_empty());
        for value in [&b"Basic abc"[..], b"Bearer", b"Bearer ", b"Bearertoken", b"", b"B"] {
            assert!(presented(&[("authorization", value)]).is_empty(), "{value:?}");
        }
        let long = vec![b'k'; CREDENTIAL_BYTES_MAX + 1];
        assert!(presented(&[("x-api-key", &long)]).is_empty());
        assert_eq!(presented(&[("x-api-key", &long[1..])]).len(), 1);
    }

    #[test]
    fn a_list_is_read_by_name_and_in_order() {
        let list = FieldList(&[("A", b"1"), ("b", b"2"), ("a", b"3")]);
        assert_eq!(list.get("a"), Some(&b"1"[..]));
        assert_eq!(list.get("c"), None);
        let mut seen = Vec::new();
        list.each(&mut |name, value| seen.push((name.to_owned(), value.to_vec())));
        assert_eq!(seen.len(), 3);
        assert_eq!(seen[2], ("a".to_owned(), b"3".to_vec()));
    }
}
