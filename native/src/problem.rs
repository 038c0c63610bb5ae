//! What can be wrong with a request body, as a sentence for the person who sent it.
//!
//! A problem never stops a request by itself: it is routed by whatever else the routes say, and only where nothing
//! matches does the sentence become the answer (`body_problem` in the dynamic metadata).

use std::fmt;

/// Where a kind of body keeps the model's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A key of the JSON document's outermost object.
    TopLevel,
    /// A field of a multipart form.
    FormField,
}

/// Why no model could be taken from a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// There is not a single byte.
    Empty,
    /// The text is not JSON.
    NotJson(SyntaxError),
    /// The body is not the multipart form that its content type promises.
    NotForm(SyntaxError),
    /// The content type names no boundary, so the form cannot be taken apart.
    NoBoundary,
    /// Nothing is called `model`.
    NoModel(Place),
    /// Two things are called `model`: the proxy and the model server could disagree on which one counts.
    ModelTwice,
    /// `model` is a number, an object, a file.
    ModelNotText,
    /// `model` is text, but not a usable name.
    ModelUnusable(Unusable),
    /// The module failed on this body. A defect; the log has more.
    Internal,
}

/// Why a text is no model name. What is one must also be a header value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// No characters.
    Empty,
    /// More than `text::LIMIT` bytes.
    TooLong,
    /// A control character, which no header may carry.
    Control,
    /// Spaces around it, which HTTP/1 would drop.
    Padded,
    /// Not UTF-8, or half a surrogate pair.
    NotUnicode,
}

/// The first place where a body breaks its grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// What is there.
    pub what: Unexpected,
    /// Bytes before it, from the start of the body.
    pub at: u64,
}

/// What was found instead of what the grammar asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unexpected {
    /// The body is over.
    End,
    /// This byte.
    Byte(u8),
    /// One level of nesting more than `scan::MAX_DEPTH`.
    Depth,
    /// The header section of a form's part that is longer than `multipart::MAX_HEADER_BYTES`.
    LongHeader,
    /// A header of a form's part that is malformed, or that could be read in two ways.
    Header,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the request body is empty"),
            Self::NotJson(error) => write!(f, "the request body is not valid JSON ({error})"),
            Self::NotForm(error) => write!(f, "the request body is not a valid multipart form ({error})"),
            Self::NoBoundary => f.write_str("the content-type of the multipart request has no usable boundary"),
            Self::NoModel(Place::TopLevel) => f.write_str("the request body has no top-level \"model\""),
            Self::NoModel(Place::FormField) => f.write_str("the request body has no form field \"model\""),
            Self::ModelTwice => f.write_str("\"model\" appears twice in the request body"),
            Self::ModelNotText => f.write_str("\"model\" in the request body is not a string"),
            Self::ModelUnusable(why) => write!(f, "\"model\" in the request body {why}"),
            Self::Internal => f.write_str("the request body could not be read"),
        }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("is empty"),
            Self::TooLong => write!(f, "is longer than {} bytes", crate::text::LIMIT),
            Self::Control => f.write_str("contains a control character"),
            Self::Padded => f.write_str("starts or ends with a space"),
            Self::NotUnicode => f.write_str("is not valid Unicode"),
        }
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at;
        match self.what {
            Unexpected::End => write!(f, "unexpected end at byte {at}"),
            Unexpected::Byte(byte @ b' '..=b'~') => write!(f, "unexpected '{}' at byte {at}", char::from(byte)),
            Unexpected::Byte(byte) => write!(f, "unexpected 0x{byte:02x} at byte {at}"),
            Unexpected::Depth => write!(f, "more than {} levels of nesting at byte {at}", crate::scan::MAX_DEPTH),
            Unexpected::LongHeader => {
                write!(f, "more than {} bytes of part headers at byte {at}", crate::multipart::MAX_HEADER_BYTES)
            }
            Unexpected::Header => write!(f, "malformed part header before byte {at}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, Problem, SyntaxError, Unexpected, Unusable};

    #[test]
    fn sentences_read_well() {
        let at_17 = |what| SyntaxError { what, at: 17 };
        for (problem, sentence) in [
            (Problem::Empty, "the request body is empty"),
            (
                Problem::NotJson(at_17(Unexpected::End)),
                "the request body is not valid JSON (unexpected end at byte 17)",
            ),
            (
                Problem::NotJson(at_17(Unexpected::Byte(b'}'))),
                "the request body is not valid JSON (unexpected '}' at byte 17)",
            ),
            (
                Problem::NotJson(at_17(Unexpected::Byte(0))),
                "the request body is not valid JSON (unexpected 0x00 at byte 17)",
            ),
            (Problem::NoModel(Place::TopLevel), "the request body has no top-level \"model\""),
            (Problem::NoModel(Place::FormField), "the request body has no form field \"model\""),
            (Problem::ModelTwice, "\"model\" appears twice in the request body"),
            (Problem::ModelNotText, "\"model\" in the request body is not a string"),
            (Problem::ModelUnusable(Unusable::TooLong), "\"model\" in the request body is longer than 1024 bytes"),
        ] {
            assert_eq!(problem.to_string(), sentence);
        }
    }
}
