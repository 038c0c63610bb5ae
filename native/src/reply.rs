//! Answers that the module gives itself, in the shape of OpenAI's errors.
//!
//! What Envoy answers (no route, no healthy backend) is shaped by the listener's local reply configuration instead.

use serde_json::Value;

/// What the details of all these answers begin with, and of none that Envoy gives: the listener's local replies and `abi`
/// tell them apart by it.
pub const OWN_DETAILS: &str = "gwanmun_";

/// An answer to a request that is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u32,
    /// A JSON document.
    pub body: String,
    /// Envoy's response code details: one word for access logs.
    pub details: &'static str,
}

impl Reply {
    /// 413: the body is larger than `limit` bytes.
    #[must_use]
    pub fn too_large(limit: u64) -> Self {
        let message = format!("the request body is larger than the limit of {limit} bytes");
        Self::new(413, "gwanmun_request_too_large", &message, "invalid_request_error", "request_too_large")
    }

    /// 415: the body is compressed, so the model in it cannot be read.
    #[must_use]
    pub fn compressed(encoding: &str, model_header: &str) -> Self {
        let message = format!(
            "the model cannot be read from a body with content-encoding \"{encoding}\"; send the body uncompressed, or name the \
             model in the header {model_header}"
        );
        Self::new(
            415,
            "gwanmun_unsupported_content_encoding",
            &message,
            "invalid_request_error",
            "unsupported_content_encoding",
        )
    }

    /// 500: the module failed before it could decide.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(500, "gwanmun_internal_error", "the gateway failed on this request", "server_error", "internal_error")
    }

    fn new(status: u32, details: &'static str, message: &str, kind: &str, code: &str) -> Self {
        let message = Value::from(message);
        let body = format!(r#"{{"error":{{"message":{message},"type":"{kind}","param":null,"code":"{code}"}}}}"#);
        Self { status, body, details }
    }
}

#[cfg(test)]
mod tests {
    use super::{Reply, OWN_DETAILS};

    #[test]
    fn errors_have_openais_shape() {
        let reply = Reply::too_large(7);
        let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(reply.status, 413);
        assert_eq!(
            body,
            serde_json::json!({"error": {
                "message": "the request body is larger than the limit of 7 bytes",
                "type": "invalid_request_error", "param": null, "code": "request_too_large"
            }})
        );
    }

    #[test]
    fn the_details_tell_whose_answer_it_is() {
        for reply in [Reply::too_large(7), Reply::compressed("gzip", "x-model-id"), Reply::internal()] {
            assert!(reply.details.starts_with(OWN_DETAILS));
        }
    }

    #[test]
    fn what_a_client_sent_cannot_break_the_json() {
        let reply = Reply::compressed("gz\"ip\\", "x-model-id");
        let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
        assert!(body["error"]["message"].as_str().unwrap().contains("gz\"ip\\"));
    }
}
