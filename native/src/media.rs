//! What a request's content type says about its body.

/// The kinds of bodies that the module tells apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Media {
    /// A JSON document.
    Json,
    /// A multipart form with its boundary, or `None` where no usable boundary is given.
    Form(Option<Vec<u8>>),
    /// No content type, or one that clients send without meaning it: the body's first byte decides.
    Unnamed,
    /// Anything else; such a body is never held.
    Other,
}

/// Longest boundary (RFC 2046, section 5.1.1).
const MAX_BOUNDARY_BYTES: usize = 70;

/// Reads a `content-type` header's value.
///
/// gRPC and Connect streams are not JSON documents even where their messages are JSON: holding one back until its end
/// would stop both sides.
#[must_use]
pub fn media(content_type: Option<&[u8]>) -> Media {
    let Some(value) = content_type.filter(|value| !value.trim_ascii().is_empty()) else {
        return Media::Unnamed;
    };
    let (essence, parameters) = split_once(value, b';');
    let essence = essence.trim_ascii().to_ascii_lowercase();
    if essence == b"multipart/form-data" {
        return Media::Form(boundary(parameters));
    }
    // `curl -d '{...}'` says the first, `fetch` with a string the second.
    if essence == b"application/x-www-form-urlencoded" || essence == b"text/plain" {
        return Media::Unnamed;
    }
    let streams = [&b"application/grpc"[..], b"application/connect+"];
    let json = essence == b"application/json" || essence.ends_with(b"+json");
    if json && !streams.iter().any(|stream| essence.starts_with(stream)) {
        return Media::Json;
    }
    Media::Other
}

fn boundary(parameters: &[u8]) -> Option<Vec<u8>> {
    let parameters = parameters_of(parameters)?;
    let mut found = parameters.iter().filter(|(name, _)| name == b"boundary");
    let (_, boundary) = found.next()?;
    let usable = (1..=MAX_BOUNDARY_BYTES).contains(&boundary.len())
        && boundary.iter().all(|byte| (b' '..=b'~').contains(byte) && *byte != b'\\');
    // Two boundaries are two readings of one body.
    (usable && found.next().is_none()).then(|| boundary.to_vec())
}

/// Splits `name=value; name="quoted value"` into lower-case names and values; `None` where it is malformed.
/// Backslashes in quoted values stay as they are, for parsers differ on them: a caller refuses those it minds.
pub(crate) fn parameters_of(text: &[u8]) -> Option<Vec<(Vec<u8>, &[u8])>> {
    let mut found = Vec::new();
    let mut rest = text.trim_ascii();
    while !rest.is_empty() {
        let (name, after) = split_once(rest, b'=');
        let name = name.trim_ascii();
        if name.is_empty() || name.iter().any(|byte| b"\"; \t".contains(byte)) {
            return None;
        }
        let after = after.trim_ascii_start();
        let (value, after) = match after.strip_prefix(b"\"") {
            Some(quoted) => {
                let end = end_of_quoted(quoted)?;
                let (between, after) = split_once(&quoted[end + 1..], b';');
                if !between.trim_ascii().is_empty() {
                    return None;
                }
                (&quoted[..end], after)
            }
            None => {
                let (value, after) = split_once(after, b';');
                (value.trim_ascii_end(), after)
            }
        };
        found.push((name.to_ascii_lowercase(), value));
        rest = after.trim_ascii_start();
    }
    Some(found)
}

fn end_of_quoted(quoted: &[u8]) -> Option<usize> {
    let mut escaped = false;
    quoted.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })
}

/// The bytes before and after the first `separator`; all and nothing where there is none.
pub(crate) fn split_once(text: &[u8], separator: u8) -> (&[u8], &[u8]) {
    match text.iter().position(|byte| *byte == separator) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::{media, parameters_of, Media};

    fn of(value: &str) -> Media {
        media(Some(value.as_bytes()))
    }

    fn form(boundary: &str) -> Media {
        Media::Form(Some(boundary.as_bytes().to_vec()))
    }

    #[test]
    fn json_by_any_name() {
        for value in
            ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json", " application/json "]
        {
            assert_eq!(of(value), Media::Json, "{value}");
        }
    }

    #[test]
    fn streams_of_messages_are_not_documents() {
        for value in [
            "application/grpc",
            "application/grpc+json",
            "application/grpc-web+json",
            "application/connect+json",
            "application/x-ndjson",
        ] {
            assert_eq!(of(value), Media::Other, "{value}");
        }
    }

    #[test]
    fn others_and_none() {
        assert_eq!(of("text/csv"), Media::Other);
        assert_eq!(of("multipart/mixed; boundary=x"), Media::Other);
        assert_eq!(of("Text/Plain; charset=utf-8"), Media::Unnamed);
        assert_eq!(of("application/x-www-form-urlencoded"), Media::Unnamed);
        assert_eq!(of("  "), Media::Unnamed);
        assert_eq!(media(None), Media::Unnamed);
    }

    #[test]
    fn boundaries() {
        assert_eq!(of("multipart/form-data; boundary=abc"), form("abc"));
        assert_eq!(of("Multipart/Form-Data; charset=utf-8; Boundary=\"a b;c=d\" ; x=y"), form("a b;c=d"));
        for value in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"",
            "multipart/form-data; boundary=\"a\\b\"",
            "multipart/form-data; boundary=\"a\" b",
            "multipart/form-data; boundary=a; boundary=b",
            "multipart/form-data; boundary=\u{e9}",
            &format!("multipart/form-data; boundary={}", "x".repeat(71)),
        ] {
            assert_eq!(of(value), Media::Form(None), "{value}");
        }
    }

    #[test]
    fn parameters() {
        let found = parameters_of(br#" name="model"; filename="a\"b;c" ; x = y "#).unwrap();
        let expected: [(Vec<u8>, &[u8]); 3] =
            [(b"name".to_vec(), b"model"), (b"filename".to_vec(), br#"a\"b;c"#), (b"x".to_vec(), b"y")];
        assert_eq!(found, expected);
        assert_eq!(parameters_of(b"name"), Some(vec![(b"name".to_vec(), &b""[..])]));
        assert_eq!(parameters_of(b"=x"), None);
    }
}
