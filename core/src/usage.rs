//! Tokens as integers, in the one shape that every dialect's usage is read into.

/// A count of tokens.
pub type Tokens = u64;

/// What a provider says a call used, in disjoint parts: total input is the sum of the three input fields.
///
/// Values in streams are cumulative; [`Usage::merge`] keeps the latest of each part that was stated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input that was neither read from nor written to a prompt cache.
    pub input_tokens: Option<Tokens>,
    /// Input written to a prompt cache.
    pub cache_write_tokens: Option<Tokens>,
    /// Input read from a prompt cache.
    pub cache_read_tokens: Option<Tokens>,
    /// Everything produced, reasoning included.
    pub output_tokens: Option<Tokens>,
}

impl Usage {
    /// Takes over each part that `later` states.
    pub fn merge(&mut self, later: Usage) {
        self.input_tokens = later.input_tokens.or(self.input_tokens);
        self.cache_write_tokens = later.cache_write_tokens.or(self.cache_write_tokens);
        self.cache_read_tokens = later.cache_read_tokens.or(self.cache_read_tokens);
        self.output_tokens = later.output_tokens.or(self.output_tokens);
    }

    /// True once the provider said anything about input.
    pub fn states_input(&self) -> bool {
        self.input_tokens.is_some() || self.cache_write_tokens.is_some() || self.cache_read_tokens.is_some()
    }

    /// Input that counts against an input limit: uncached input and cache writes (ARCHITECTURE.md).
    pub fn limited_input(&self) -> Tokens {
        self.input_tokens.unwrap_or(0).saturating_add(self.cache_write_tokens.unwrap_or(0))
    }

    /// All input, cache reads included.
    pub fn total_input(&self) -> Tokens {
        self.limited_input().saturating_add(self.cache_read_tokens.unwrap_or(0))
    }

    /// Output, zero where none was stated.
    pub fn output(&self) -> Tokens {
        self.output_tokens.unwrap_or(0)
    }
}

/// What a call is expected to use, before the provider says so (ARCHITECTURE.md).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Input tokens: body bytes times the ratio learned for the model.
    pub input_tokens: Tokens,
    /// Output tokens: what the model's calls produce as a rule, at most the caller's own maximum.
    pub output_tokens: Tokens,
}

impl Estimate {
    /// Input and output together.
    pub fn total(&self) -> Tokens {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}
