//! Answers that are errors: status, type, wording and body in both protocols. Decides how an error looks, never whether
//! there is one.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::script::Fault;

/// Which protocol a call speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Messages,
    Chat,
}

/// An error instead of a reply.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// Why, in the journal.
    pub(crate) reason: Box<str>,
    pub(crate) error_type: String,
    pub(crate) message: Box<str>,
    pub(crate) code: Option<&'static str>,
    pub(crate) param: Option<&'static str>,
    pub(crate) retry_after_s: Option<u64>,
    /// What a script adds.
    pub(crate) scripted: Option<Box<Scripted>>,
}

/// What only a script gives an error.
#[derive(Clone, Debug)]
pub(crate) struct Scripted {
    /// A whole body instead of the usual one.
    pub(crate) body: Option<String>,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Refusal {
    pub(crate) fn new(status: u16, reason: &str, message: impl Into<String>) -> Refusal {
        Refusal {
            status,
            reason: reason.into(),
            error_type: type_of(status).to_owned(),
            message: message.into().into_boxed_str(),
            code: None,
            param: None,
            retry_after_s: None,
            scripted: None,
        }
    }

    /// 400 with this wording.
    pub(crate) fn invalid(message: impl Into<String>) -> Refusal {
        Refusal::new(400, "invalid_request", message)
    }

    pub(crate) fn unauthorized(dialect: Dialect, presented: bool) -> Refusal {
        let message = match (dialect, presented) {
            (Dialect::Messages, true) => "invalid x-api-key",
            (Dialect::Messages, false) => "x-api-key header is required",
            (Dialect::Chat, true) => "Incorrect API key provided.",
            (Dialect::Chat, false) => "You didn't provide an API key.",
        };
        Refusal { code: code_in(dialect, "invalid_api_key"), ..Refusal::new(401, "unauthorized", message) }
    }

    pub(crate) fn forbidden() -> Refusal {
        Refusal::new(403, "forbidden", "Your API key does not have permission to use the specified resource.")
    }

    pub(crate) fn unknown_model(dialect: Dialect, model: &str) -> Refusal {
        let message = match dialect {
            Dialect::Messages => format!("model: {model}"),
            Dialect::Chat => format!("The model `{model}` does not exist or you do not have access to it."),
        };
        Refusal { code: code_in(dialect, "model_not_found"), ..Refusal::new(404, "not_found", message) }
    }

    pub(crate) fn unknown_path() -> Refusal {
        Refusal::new(404, "not_found", "Not Found")
    }

    /// 429 for lack of what is named.
    pub(crate) fn no_room(dialect: Dialect, lacking: &str, wait_s: f64, retry_after: bool) -> Refusal {
        let what = lacking.replace('_', " ");
        let message = match dialect {
            Dialect::Messages => {
                format!("This request would exceed your organization's rate limit of {what} per minute.")
            }
            Dialect::Chat => {
                format!("Rate limit reached for {what} per min. Please try again in {:.3}s.", wait_s)
            }
        };
        Refusal {
            retry_after_s: retry_after.then(|| (wait_s.ceil() as u64).max(1)),
            code: code_in(dialect, "rate_limit_exceeded"),
            ..Refusal::new(429, lacking, message)
        }
    }

    /// What a scripted fault answers, if it answers in place of the reply.
    pub(crate) fn of_fault(fault: &Fault, dialect: Dialect) -> Option<Refusal> {
        let chat = dialect == Dialect::Chat;
        let mut refusal = match fault {
            Fault::RateLimited { retry_after_s } => Refusal {
                retry_after_s: *retry_after_s,
                code: code_in(dialect, "rate_limit_exceeded"),
                ..Refusal::new(429, "", "This request would exceed your rate limit.")
            },
            Fault::RampLimited { retry_after_s } => Refusal {
                retry_after_s: *retry_after_s,
                code: Some(if chat { "slow_down" } else { "ramp_limit_exceeded" }),
                ..Refusal::new(429, "", "Your usage has grown too fast. Please ramp up more slowly.")
            },
            Fault::SpendCap => Refusal {
                code: Some(if chat { "insufficient_quota" } else { "enforced_spend_limit_reached" }),
                ..Refusal::new(429, "", "You have reached your spend limit.")
            },
            Fault::Overloaded { retry_after_s } => Refusal {
                retry_after_s: *retry_after_s,
                code: code_in(dialect, "server_is_overloaded"),
                ..Refusal::new(if chat { 503 } else { 529 }, "", "Overloaded")
            },
            Fault::Unauthorized => Refusal::unauthorized(dialect, true),
            Fault::Forbidden => Refusal::forbidden(),
            Fault::Status { status, error_type, message, body, headers } => {
                let mut refusal = Refusal::new(*status, "", message.as_deref().unwrap_or("Scripted error"));
                refusal.error_type = error_type.clone().unwrap_or(refusal.error_type);
                refusal.scripted = Some(Box::new(Scripted { body: body.clone(), headers: headers.clone() }));
                refusal
            }
            Fault::ErrorEvent { .. }
            | Fault::Stall { .. }
            | Fault::Cut { .. }
            | Fault::SlowRead { .. }
            | Fault::Slow { .. } => return None,
        };
        refusal.reason = format!("scripted_{}", fault.name()).into();
        Some(refusal)
    }

    /// The error of this type as the whole answer of a call.
    pub(crate) fn of_type(error_type: &str, dialect: Dialect) -> Refusal {
        let overloaded = if dialect == Dialect::Chat { 503 } else { 529 };
        let status = match error_type {
            "overloaded_error" => overloaded,
            "rate_limit_error" => 429,
            "timeout_error" => 504,
            "invalid_request_error" => 400,
            _ => 500,
        };
        let message = if status == overloaded { "Overloaded" } else { "Internal server error" };
        Refusal { error_type: error_type.to_owned(), ..Refusal::new(status, "scripted_error_event", message) }
    }

    /// The error object of this protocol.
    pub(crate) fn object(&self, dialect: Dialect, request_id: Option<&str>) -> Value {
        match dialect {
            Dialect::Messages => {
                let mut error = json!({"type": self.error_type, "message": self.message});
                if let Some(code) = self.code {
                    error["details"] = json!({"error_code": code});
                }
                let mut object = json!({"type": "error", "error": error});
                if let Some(id) = request_id {
                    object["request_id"] = Value::from(id);
                }
                object
            }
            Dialect::Chat => json!({"error": {
                "message": self.message,
                "type": self.chat_type(),
                "param": self.param,
                "code": self.code,
            }}),
        }
    }

    fn chat_type(&self) -> &str {
        match (self.status, self.code) {
            (_, Some("insufficient_quota")) => "insufficient_quota",
            (429, _) if &*self.reason == "requests" => "requests",
            (429, _) => "tokens",
            (500..=599, _) => "server_error",
            _ => "invalid_request_error",
        }
    }
}

/// A code that only the chat protocol has.
fn code_in(dialect: Dialect, code: &'static str) -> Option<&'static str> {
    (dialect == Dialect::Chat).then_some(code)
}

fn type_of(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        500..=599 => "api_error",
        _ => "invalid_request_error",
    }
}
