//! Why a head is refused. One variant a rule, so that a test, a log line and a metric can name the rule.

/// A head that is not acceptable. The connection it came on must be closed: where its message would have ended
/// is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// A line ends in a bare LF or holds a bare CR.
    BareLineEnd,
    /// A message that has no body by its status, or no right to one, states one (204 or 1xx with framing).
    BodyForbidden,
    /// `transfer-encoding` in an HTTP/1.0 message.
    CodingOn10,
    /// More than one `transfer-encoding` field.
    CodingRepeated,
    /// A transfer coding other than exactly `chunked`.
    CodingUnsupported,
    /// `connection` holds something that is not a list of tokens.
    ConnectionOption,
    /// `expect` asks for something other than `100-continue`.
    Expectation,
    /// A field name is empty, holds a byte that is not of a token, or is followed by a space.
    FieldName,
    /// A field value holds a control byte.
    FieldValue,
    /// More fields than the limit.
    FieldsTooMany,
    /// A field value goes on in a next line (obsolete folding).
    Folded,
    /// The head is longer than the limit.
    HeadTooLarge,
    /// The value of `host` cannot be a host.
    HostInvalid,
    /// HTTP/1.1 without `host`.
    HostMissing,
    /// More than one `host`.
    HostRepeated,
    /// Empty lines before the message (more than the one pair that is tolerated before a request).
    LeadingLines,
    /// `content-length` is not a plain number.
    LengthInvalid,
    /// More than one `content-length`, equal or not.
    LengthRepeated,
    /// `content-length` does not fit any message that could be meant.
    LengthTooLarge,
    /// Both `content-length` and `transfer-encoding`.
    LengthWithCoding,
    /// The request line or status line is not of its form.
    StartLine,
    /// A status outside 100 to 599.
    Status,
    /// A target that is not in origin form (`/path?query`), or holds a fragment or a byte no target may hold.
    Target,
    /// The request line did not end within the limit for a head.
    TargetTooLong,
    /// The peer switched protocols, which is never asked for.
    Upgraded,
    /// A version other than 1.0 and 1.1.
    Version,
}

impl Refusal {
    /// The status that answers a request refused for this. (A refused *reply* is an upstream failure instead.)
    pub const fn status(self) -> u16 {
        match self {
            Refusal::LengthTooLarge => 413,
            Refusal::TargetTooLong => 414,
            Refusal::Expectation => 417,
            Refusal::FieldsTooMany | Refusal::HeadTooLarge => 431,
            Refusal::CodingUnsupported => 501,
            Refusal::Version => 505,
            _ => 400,
        }
    }

    /// A stable machine-readable name, for logs, metrics and error bodies.
    pub const fn code(self) -> &'static str {
        match self {
            Refusal::BareLineEnd => "bare_line_end",
            Refusal::BodyForbidden => "body_forbidden",
            Refusal::CodingOn10 => "coding_on_1_0",
            Refusal::CodingRepeated => "coding_repeated",
            Refusal::CodingUnsupported => "coding_unsupported",
            Refusal::ConnectionOption => "connection_option",
            Refusal::Expectation => "expectation",
            Refusal::FieldName => "field_name",
            Refusal::FieldValue => "field_value",
            Refusal::FieldsTooMany => "fields_too_many",
            Refusal::Folded => "folded",
            Refusal::HeadTooLarge => "head_too_large",
            Refusal::HostInvalid => "host_invalid",
            Refusal::HostMissing => "host_missing",
            Refusal::HostRepeated => "host_repeated",
            Refusal::LeadingLines => "leading_lines",
            Refusal::LengthInvalid => "length_invalid",
            Refusal::LengthRepeated => "length_repeated",
            Refusal::LengthTooLarge => "length_too_large",
            Refusal::LengthWithCoding => "length_with_coding",
            Refusal::StartLine => "start_line",
            Refusal::Status => "status",
            Refusal::Target => "target",
            Refusal::TargetTooLong => "target_too_long",
            Refusal::Upgraded => "upgraded",
            Refusal::Version => "version",
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

impl std::error::Error for Refusal {}
