//! When a certificate begins and ends, read out of its DER. Decides nothing else about it: whether it is believed is
//! TLS's. Pure; whatever the bytes are, the answer is a time or none.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Tag of a sequence.
const SEQUENCE: u8 = 0x30;
/// Tag of a certificate's version, which old ones leave out.
const VERSION: u8 = 0xa0;
/// Tag of a time with two digits of the year.
const UTC_TIME: u8 = 0x17;
/// Tag of a time with four digits of the year.
const GENERALIZED_TIME: u8 = 0x18;

/// A certificate's period of validity, in seconds since 1970, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) begins_s: i64,
    pub(super) ends_s: i64,
}

impl Validity {
    /// The period of a certificate in DER (RFC 5280 §4.1); `None` where it is not one.
    pub(super) fn of(der: &[u8]) -> Option<Validity> {
        let mut certificate = Elements(der).expect(SEQUENCE)?;
        let mut signed = certificate.expect(SEQUENCE)?;
        if signed.0.first() == Some(&VERSION) {
            signed.expect(VERSION)?;
        }
        // Serial number, algorithm, issuer.
        for _ in 0..3 {
            signed.next()?;
        }
        let mut validity = signed.expect(SEQUENCE)?;
        Some(Validity { begins_s: time(validity.next()?)?, ends_s: time(validity.next()?)? })
    }
}

/// DER elements that have not been read yet.
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    /// The next element: its tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], mut rest) = self.0.split_first_chunk::<2>()?;
        let mut length = usize::from(first);
        if first & 0x80 != 0 {
            // No element of a certificate is longer than three bytes can say.
            let (octets, behind) =
                rest.split_at_checked(usize::from(first & 0x7f)).filter(|it| it.0.len() <= 3)?;
            length = octets.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet));
            rest = behind;
        }
        let (content, behind) = rest.split_at_checked(length)?;
        self.0 = behind;
        Some((tag, content))
    }

    /// What is inside of the next element, which has this tag.
    fn expect(&mut self, tag: u8) -> Option<Elements<'a>> {
        self.next().filter(|it| it.0 == tag).map(|it| Elements(it.1))
    }
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, the only forms that certificates may have.
fn time((tag, text): (u8, &[u8])) -> Option<i64> {
    let digits = text.strip_suffix(b"Z").filter(|it| it.iter().all(u8::is_ascii_digit))?;
    let number = |digits: &[u8]| digits.iter().fold(0i16, |sum, it| sum * 10 + i16::from(it - b'0'));
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => match number(&digits[..2]) {
            year @ 50.. => (1900 + year, &digits[2..]),
            year => (2000 + year, &digits[2..]),
        },
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let part = |at: usize| number(&rest[2 * at..2 * at + 2]) as i8;
    let civil = DateTime::new(year, part(0), part(1), part(2), part(3), part(4), 0).ok()?;
    Some(TimeZone::UTC.to_timestamp(civil).ok()?.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_both_forms() {
        for (tag, text, expect) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "500101000000Z", Some(-631_152_000)),
            (GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000)),
            (GENERALIZED_TIME, "700101000000Z", None),
            (UTC_TIME, "701301000000Z", None),
            (UTC_TIME, "700101000000", None),
            (UTC_TIME, "7001010000+0Z", None),
            (UTC_TIME, "", None),
        ] {
            assert_eq!(time((tag, text.as_bytes())), expect, "{text}");
        }
    }

    #[test]
    fn periods_of_real_certificates() {
        let mut wanted = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).expect("a name");
        for (from, until) in [((1999, 1, 2), (2031, 12, 31)), ((2020, 5, 6), (2051, 1, 1))] {
            wanted.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
            wanted.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
            let key = rcgen::KeyPair::generate().expect("a key");
            let made = wanted.self_signed(&key).expect("a certificate");
            let expect = Validity {
                begins_s: wanted.not_before.unix_timestamp(),
                ends_s: wanted.not_after.unix_timestamp(),
            };
            assert_eq!(Validity::of(made.der()), Some(expect));
            // Cut anywhere, it has no period or still the same; it never panics.
            for end in 0..made.der().len() {
                let cut = Validity::of(&made.der()[..end]);
                assert_eq!(cut, None, "the outermost length no longer fits");
            }
        }
        assert_eq!(Validity::of(b"no certificate"), None);
        assert_eq!(Validity::of(&[SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
