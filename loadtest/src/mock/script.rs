//! Scripted faults: which call meets which fault. Decides whether a rule applies to a call, and counts it down.
//! What a fault does on the line is done elsewhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Rules kept at most: a script that only grows would slow every call.
const RULES_MAX: usize = 10_000;

/// A fault and the calls that meet it. A call meets the first rule that applies to it, and only that one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Only calls with this key.
    #[serde(default)]
    pub key: Option<String>,
    /// Only calls of this organization.
    #[serde(default)]
    pub organization: Option<String>,
    /// Only calls of this model.
    #[serde(default)]
    pub model: Option<String>,
    /// Only calls of this path. Without it a fault of generating calls meets only these, and one of keys (401, 403)
    /// all.
    #[serde(default)]
    pub path: Option<String>,
    /// Only calls that ask for a stream (true), or for a whole reply (false).
    #[serde(default)]
    pub stream: Option<bool>,
    /// So many calls pass first.
    #[serde(default)]
    pub skip: u64,
    /// So many calls meet it; all if absent.
    #[serde(default)]
    pub count: Option<u64>,
    /// From so many ms after the rule was given.
    #[serde(default)]
    pub from_ms: Option<f64>,
    /// Until so many ms after the rule was given.
    #[serde(default)]
    pub until_ms: Option<f64>,
    /// What happens.
    pub fault: Fault,
}

impl Rule {
    /// A fault that every call meets; narrow it by setting fields.
    pub fn new(fault: Fault) -> Rule {
        Rule {
            key: None,
            organization: None,
            model: None,
            path: None,
            stream: None,
            skip: 0,
            count: None,
            from_ms: None,
            until_ms: None,
            fault,
        }
    }
}

/// What happens to a call. Events count from 0; a fault `at_event: k` comes before event k.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// 429, with `retry-after` if given.
    RateLimited {
        /// Seconds.
        #[serde(default)]
        retry_after_s: Option<u64>,
    },
    /// 429 with `error_code: ramp_limit_exceeded`.
    RampLimited {
        /// Seconds.
        #[serde(default)]
        retry_after_s: Option<u64>,
    },
    /// 429 that no waiting cures: `enforced_spend_limit_reached`, or `insufficient_quota`.
    SpendCap,
    /// 529; in the chat protocol 503.
    Overloaded {
        /// Seconds.
        #[serde(default)]
        retry_after_s: Option<u64>,
    },
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// Any status, with the usual error body or one of its own.
    Status {
        /// The status.
        status: u16,
        /// The error's type; the usual one of the status if absent.
        #[serde(default)]
        error_type: Option<String>,
        /// The error's message.
        #[serde(default)]
        message: Option<String>,
        /// The whole body, instead of an error.
        #[serde(default)]
        body: Option<String>,
        /// Further headers, `content-type` among them.
        #[serde(default)]
        headers: BTreeMap<String, String>,
    },
    /// An error event inside a 200. A whole reply becomes an error of the same type.
    ErrorEvent {
        /// Before this event; 1 is behind the start and before all content.
        at_event: u64,
        /// The error's type; `overloaded_error` if absent.
        #[serde(default)]
        error_type: Option<String>,
    },
    /// Silence, then it goes on. Before the head if neither place is given.
    Stall {
        /// Before this event of a stream.
        #[serde(default)]
        at_event: Option<u64>,
        /// Behind so many bytes of the body.
        #[serde(default)]
        at_byte: Option<u64>,
        /// How long, in ms.
        for_ms: u64,
    },
    /// The connection ends. Before the head if neither place is given.
    Cut {
        /// Before this event of a stream.
        #[serde(default)]
        at_event: Option<u64>,
        /// Behind so many bytes of the body.
        #[serde(default)]
        at_byte: Option<u64>,
        /// By a reset instead of an orderly end.
        #[serde(default)]
        reset: bool,
    },
    /// The request is read at this pace.
    SlowRead {
        /// Bytes a second.
        bytes_per_s: u64,
    },
    /// This call is slower than the others.
    Slow {
        /// To the first byte, in ms.
        first_ms: f64,
        /// Between events, in ms.
        #[serde(default)]
        event_ms: f64,
    },
}

impl Fault {
    /// Its name in the journal.
    pub fn name(&self) -> &'static str {
        match self {
            Fault::RateLimited { .. } => "rate_limited",
            Fault::RampLimited { .. } => "ramp_limited",
            Fault::SpendCap => "spend_cap",
            Fault::Overloaded { .. } => "overloaded",
            Fault::Unauthorized => "unauthorized",
            Fault::Forbidden => "forbidden",
            Fault::Status { .. } => "status",
            Fault::ErrorEvent { .. } => "error_event",
            Fault::Stall { .. } => "stall",
            Fault::Cut { .. } => "cut",
            Fault::SlowRead { .. } => "slow_read",
            Fault::Slow { .. } => "slow",
        }
    }

    /// Whether it is about the key and so meets every path.
    fn is_of_key(&self) -> bool {
        matches!(self, Fault::Unauthorized | Fault::Forbidden)
    }
}

/// The call that a rule is held against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) key: &'a str,
    pub(crate) organization: &'a str,
    pub(crate) model: &'a str,
    pub(crate) path: &'a str,
    pub(crate) stream: bool,
    /// Whether this is a call that generates.
    pub(crate) generates: bool,
}

/// The rules in force.
#[derive(Debug, Default)]
pub(crate) struct Script {
    rules: Vec<Live>,
}

#[derive(Debug)]
struct Live {
    rule: Rule,
    given_ms: f64,
    skip_left: u64,
    count_left: Option<u64>,
}

impl Script {
    /// Adds rules; false if there would be too many, and then none was added.
    pub(crate) fn add(&mut self, rules: Vec<Rule>, now_ms: f64) -> bool {
        self.rules.retain(|live| live.count_left != Some(0) && !live.is_over(now_ms));
        if self.rules.len() + rules.len() > RULES_MAX {
            return false;
        }
        self.rules.extend(rules.into_iter().map(|rule| Live {
            given_ms: now_ms,
            skip_left: rule.skip,
            count_left: rule.count,
            rule,
        }));
        true
    }

    /// Forgets all rules.
    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    /// The fault of this call, if it meets one.
    pub(crate) fn meet(&mut self, subject: &Subject<'_>, now_ms: f64) -> Option<Fault> {
        self.first(subject, now_ms, |fault| !matches!(fault, Fault::SlowRead { .. }))
    }

    /// The pace at which this request is read, in bytes a second, if a rule sets one. Asked before the body is there.
    pub(crate) fn read_pace(&mut self, subject: &Subject<'_>, now_ms: f64) -> Option<u64> {
        match self.first(subject, now_ms, |fault| matches!(fault, Fault::SlowRead { .. }))? {
            Fault::SlowRead { bytes_per_s } => Some(bytes_per_s),
            _ => None,
        }
    }

    fn first(&mut self, subject: &Subject<'_>, now_ms: f64, of_kind: fn(&Fault) -> bool) -> Option<Fault> {
        for live in &mut self.rules {
            if !of_kind(&live.rule.fault) || !live.applies(subject, now_ms) {
                continue;
            }
            if live.skip_left > 0 {
                live.skip_left -= 1;
                continue;
            }
            if let Some(left) = &mut live.count_left {
                *left -= 1;
            }
            return Some(live.rule.fault.clone());
        }
        None
    }
}

impl Live {
    fn applies(&self, subject: &Subject<'_>, now_ms: f64) -> bool {
        let rule = &self.rule;
        let is = |wanted: &Option<String>, there: &str| wanted.as_deref().is_none_or(|text| text == there);
        let of_path = match &rule.path {
            Some(path) => path == subject.path,
            None => subject.generates || rule.fault.is_of_key(),
        };
        self.count_left != Some(0)
            && of_path
            && is(&rule.key, subject.key)
            && is(&rule.organization, subject.organization)
            && is(&rule.model, subject.model)
            && rule.stream.is_none_or(|stream| stream == subject.stream)
            && rule.from_ms.is_none_or(|from_ms| now_ms - self.given_ms >= from_ms)
            && !self.is_over(now_ms)
    }

    fn is_over(&self, now_ms: f64) -> bool {
        self.rule.until_ms.is_some_and(|until_ms| now_ms - self.given_ms >= until_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject<'a>(key: &'a str, stream: bool) -> Subject<'a> {
        Subject { key, organization: "org", model: "m", path: "/v1/messages", stream, generates: true }
    }

    #[test]
    fn rules_skip_count_and_narrow() {
        let mut script = Script::default();
        let rule = Rule { key: Some("a".into()), skip: 1, count: Some(2), ..Rule::new(Fault::SpendCap) };
        assert!(script.add(vec![rule], 0.0));
        assert_eq!(script.meet(&subject("b", true), 0.0), None);
        let met: Vec<_> = (0..5).map(|_| script.meet(&subject("a", true), 0.0).is_some()).collect();
        assert_eq!(met, [false, true, true, false, false]);
    }

    #[test]
    fn windows_count_from_the_giving() {
        let mut script = Script::default();
        let rule = Rule {
            from_ms: Some(10.0),
            until_ms: Some(20.0),
            ..Rule::new(Fault::Overloaded { retry_after_s: None })
        };
        script.add(vec![rule], 100.0);
        let met: Vec<_> = [100.0, 109.0, 110.0, 119.0, 120.0]
            .into_iter()
            .map(|now_ms| script.meet(&subject("a", false), now_ms).is_some())
            .collect();
        assert_eq!(met, [false, false, true, true, false]);
    }

    #[test]
    fn faults_of_keys_meet_every_path_and_others_do_not() {
        let mut script = Script::default();
        script.add(vec![Rule::new(Fault::SpendCap), Rule::new(Fault::Unauthorized)], 0.0);
        let listing = Subject { path: "/v1/models", generates: false, ..subject("a", false) };
        assert_eq!(script.meet(&listing, 0.0), Some(Fault::Unauthorized));
        assert_eq!(script.meet(&subject("a", false), 0.0), Some(Fault::SpendCap));
    }
}
