//! Which fields cross the gateway, by name (ARCHITECTURE.md). An allow-list towards providers, a deny-list towards
//! callers. Values are re-validated where heads are written; fields named by `Connection` are dropped there too.

/// Which fields of callers a dialect's upstream gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForwardRules {
    /// Beginnings of names, beside [`SHARED_PREFIXES`].
    pub(crate) prefixes: &'static [&'static str],
    /// Names, beside [`SHARED_NAMES`].
    pub(crate) names: &'static [&'static str],
    /// Names that a prefix would let through but that select a credential or whom to bill.
    pub(crate) withheld: &'static [&'static str],
}

/// What every dialect's SDK sends about itself.
const SHARED_PREFIXES: &[&str] = &["x-stainless-"];
/// What every dialect passes on.
const SHARED_NAMES: &[&str] =
    &["accept", "content-type", "idempotency-key", "user-agent", "x-client-request-id"];

/// Hop-by-hop fields (RFC 9110 §7.6.1) and the length, which belongs to the message on each side.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Cookies of a provider are for the gateway's account, not for a caller.
const COOKIES: &[&str] = &["set-cookie", "set-cookie2"];
/// Whose account answered, in any dialect: compatible servers mix them.
const ACCOUNT_IDENTITY: &[&str] =
    &["anthropic-organization-id", "anthropic-workspace-id", "openai-organization", "openai-project"];
/// The gateway's own fields: an upstream must not be able to speak for it.
const OWN_PREFIX: &str = "x-tidegate-";

impl ForwardRules {
    /// Whether a caller's field goes upstream beside the caller's own credential: what selects whom to bill is the
    /// caller's affair then.
    pub(crate) fn forwards_with_own_credential(&self, name: &str) -> bool {
        self.forwards(name) || self.withheld.contains(&name)
    }

    /// Whether a caller's field with this lower-case name goes upstream.
    pub(crate) fn forwards(&self, name: &str) -> bool {
        let named = SHARED_NAMES.contains(&name) || self.names.contains(&name);
        let begun = || SHARED_PREFIXES.iter().chain(self.prefixes).any(|it| name.starts_with(it));
        (named || begun()) && !self.withheld.contains(&name)
    }
}

/// Whether a field speaks about one connection or one message on it, and is made anew on each side.
pub fn is_hop_by_hop(field_name_lower: &str) -> bool {
    HOP_BY_HOP.contains(&field_name_lower)
}

/// Whether an upstream's field with this lower-case name goes back to a caller.
pub(crate) fn returns(name: &str, expose_routing: bool) -> bool {
    !is_hop_by_hop(name)
        && !COOKIES.contains(&name)
        && !name.starts_with(OWN_PREFIX)
        && (expose_routing || !ACCOUNT_IDENTITY.contains(&name))
}

#[cfg(test)]
mod tests {
    use crate::{anthropic, openai};

    /// Field name, towards an Anthropic upstream, towards an OpenAI upstream.
    const OUT: &[(&str, bool, bool)] = &[
        ("accept", true, true),
        ("accept-encoding", false, false),
        ("anthropic-beta", true, false),
        ("anthropic-dangerous-direct-browser-access", true, false),
        ("anthropic-user-profile-id", false, false),
        ("anthropic-version", true, false),
        ("anthropic-workspace-id", false, false),
        ("api-key", false, false),
        ("authorization", false, false),
        ("connection", false, false),
        ("content-encoding", false, false),
        ("content-length", false, false),
        ("content-type", true, true),
        ("cookie", false, false),
        ("expect", false, false),
        ("forwarded", false, false),
        ("host", false, false),
        ("idempotency-key", true, true),
        ("openai-beta", false, true),
        ("openai-organization", false, false),
        ("openai-project", false, false),
        ("origin", false, false),
        ("proxy-authorization", false, false),
        ("referer", false, false),
        ("te", false, false),
        ("transfer-encoding", false, false),
        ("user-agent", true, true),
        ("via", false, false),
        ("x-api-key", false, false),
        ("x-app", true, false),
        ("x-claude-code-agent-id", true, false),
        ("x-claude-code-session-id", true, false),
        ("x-client-request-id", true, true),
        ("x-custom", false, false),
        ("x-forwarded-for", false, false),
        ("x-real-ip", false, false),
        ("x-stainless-lang", true, true),
        ("x-stainless-retry-count", true, true),
        ("x-tidegate-provider", false, false),
    ];

    /// Field name, returned, returned with `expose_routing`.
    const BACK: &[(&str, bool, bool)] = &[
        ("anthropic-organization-id", false, true),
        ("anthropic-ratelimit-requests-limit", true, true),
        ("anthropic-ratelimit-unified-status", true, true),
        ("anthropic-workspace-id", false, true),
        ("cf-ray", true, true),
        ("connection", false, false),
        ("content-length", false, false),
        ("content-type", true, true),
        ("date", true, true),
        ("keep-alive", false, false),
        ("openai-organization", false, true),
        ("openai-processing-ms", true, true),
        ("openai-project", false, true),
        ("proxy-authenticate", false, false),
        ("proxy-connection", false, false),
        ("request-id", true, true),
        ("retry-after", true, true),
        ("set-cookie", false, false),
        ("te", false, false),
        ("trailer", false, false),
        ("transfer-encoding", false, false),
        ("upgrade", false, false),
        ("x-ratelimit-limit-requests", true, true),
        ("x-request-id", true, true),
        ("x-should-retry", true, true),
        ("x-tidegate-account", false, false),
        ("x-tidegate-request-id", false, false),
    ];

    #[test]
    fn fields_out_are_exactly_the_list() {
        for &(name, to_anthropic, to_openai) in OUT {
            assert_eq!(anthropic::DIALECT.forwards(name), to_anthropic, "{name} to Anthropic");
            assert_eq!(openai::DIALECT.forwards(name), to_openai, "{name} to OpenAI");
        }
    }

    #[test]
    fn fields_back_are_all_but_the_list() {
        for dialect in crate::ALL {
            for &(name, plain, exposed) in BACK {
                assert_eq!(dialect.returns(name, false), plain, "{name}");
                assert_eq!(dialect.returns(name, true), exposed, "{name} exposed");
            }
        }
    }

    #[test]
    fn fields_of_an_account_s_limits_are_known() {
        for (name, of_anthropic, of_openai) in [
            ("anthropic-ratelimit-requests-remaining", true, false),
            ("anthropic-ratelimit-unified-status", true, false),
            ("anthropic-priority-input-tokens-limit", true, false),
            ("anthropic-fast-output-tokens-limit", true, false),
            ("x-ratelimit-remaining-tokens", false, true),
            ("anthropic-version", false, false),
            ("retry-after", false, false),
        ] {
            assert_eq!(anthropic::DIALECT.is_limit_field(name), of_anthropic, "{name}");
            assert_eq!(openai::DIALECT.is_limit_field(name), of_openai, "{name}");
        }
    }
}
