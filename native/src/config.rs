//! The filter's configuration: a small JSON object from the control plane, read once per listener.
//!
//! Unknown fields are errors, so that a control plane and a module that do not belong together are noticed when the
//! configuration is loaded and not by its effects.

use serde_json::{Map, Value};

/// What the `inference` filter does on one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Request header that carries the model's name, in lower case. `None`: bodies are not read at all.
    pub model_header: Option<String>,
    /// Largest request body, in bytes, of an inference request.
    pub max_request_bytes: u64,
    /// Number of route shards; 0 sets no shard header.
    pub shards: u32,
}

const DEFAULT_MODEL_HEADER: &str = "x-model-id";
const DEFAULT_MAX_REQUEST_BYTES: u64 = 32 * 1024 * 1024;
const FIELDS: [&str; 3] = ["model_header", "max_request_bytes", "shards"];

impl Config {
    /// Reads the configuration from JSON; absent fields take their defaults.
    ///
    /// # Errors
    /// A sentence that names the field, the value and what would be accepted.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let value: Value =
            serde_json::from_slice(json).map_err(|error| format!("configuration is not JSON: {error}"))?;
        let Value::Object(fields) = value else {
            return Err(format!("configuration is {value}, not a JSON object"));
        };
        if let Some(unknown) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            return Err(format!("unknown field \"{unknown}\"; known are {}", FIELDS.join(", ")));
        }
        Ok(Self {
            model_header: model_header(&fields)?,
            max_request_bytes: max_request_bytes(&fields)?,
            shards: shards(&fields)?,
        })
    }
}

fn model_header(fields: &Map<String, Value>) -> Result<Option<String>, String> {
    match fields.get("model_header") {
        None => Ok(Some(DEFAULT_MODEL_HEADER.to_owned())),
        Some(Value::String(name)) if name.is_empty() => Ok(None),
        Some(Value::String(name)) if name.bytes().all(is_token) => Ok(Some(name.to_ascii_lowercase())),
        Some(other) => Err(format!(
            "model_header: {other} is not a header name such as \"{DEFAULT_MODEL_HEADER}\", nor \"\" for none"
        )),
    }
}

fn max_request_bytes(fields: &Map<String, Value>) -> Result<u64, String> {
    match fields.get("max_request_bytes") {
        None => Ok(DEFAULT_MAX_REQUEST_BYTES),
        Some(value) => whole_number(value).filter(|bytes| *bytes > 0).ok_or_else(|| {
            format!("max_request_bytes: {value} is not a number of bytes such as {DEFAULT_MAX_REQUEST_BYTES}")
        }),
    }
}

fn shards(fields: &Map<String, Value>) -> Result<u32, String> {
    match fields.get("shards") {
        None => Ok(0),
        Some(value) => whole_number(value)
            .and_then(|count| u32::try_from(count).ok())
            .ok_or_else(|| format!("shards: {value} is not a count such as 16, nor 0 for none")),
    }
}

/// A JSON number without a fraction. A `google.protobuf.Struct` carries every number as a double and may print
/// 33554432 as 3.3554432e7, so the notation does not matter.
fn whole_number(value: &Value) -> Option<u64> {
    const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;
    value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        let whole = number.fract() == 0.0 && (0.0..=LARGEST_EXACT).contains(&number);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // `whole` has looked
        whole.then_some(number as u64)
    })
}

/// The characters of a header name (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn absent_fields_take_their_defaults() {
        let expected = Config { model_header: Some("x-model-id".into()), max_request_bytes: 33_554_432, shards: 0 };
        assert_eq!(Config::parse(b"{}"), Ok(expected));
    }

    #[test]
    fn every_field_is_read() {
        let json = br#"{"model_header": "X-Model", "max_request_bytes": 3.3554432e7, "shards": 16}"#;
        let expected = Config { model_header: Some("x-model".into()), max_request_bytes: 33_554_432, shards: 16 };
        assert_eq!(Config::parse(json), Ok(expected));
    }

    #[test]
    fn an_empty_header_name_turns_reading_off() {
        assert_eq!(Config::parse(br#"{"model_header": ""}"#).unwrap().model_header, None);
    }

    #[test]
    fn mistakes_are_named() {
        for (json, expected) in [
            (&b"{"[..], "not JSON"),
            (b"[]", "not a JSON object"),
            (br#"{"shard": 1}"#, "unknown field \"shard\""),
            (br#"{"model_header": "a b"}"#, "\"a b\" is not a header name"),
            (br#"{"model_header": ":path"}"#, "\":path\" is not a header name"),
            (br#"{"model_header": 7}"#, "7 is not a header name"),
            (br#"{"max_request_bytes": 0}"#, "0 is not a number of bytes"),
            (br#"{"max_request_bytes": 1.5}"#, "1.5 is not a number of bytes"),
            (br#"{"shards": -1}"#, "-1 is not a count"),
            (br#"{"shards": 4294967296}"#, "4294967296 is not a count"),
        ] {
            let message = Config::parse(json).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }
}
