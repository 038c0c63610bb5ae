//! Takes the fields `model` and `stream` from a multipart form (audio transcriptions) while it arrives.
//!
//! Strict on purpose: a form that two parsers could read differently is a problem and chooses no route. Bytes of other
//! parts are only searched for the next boundary; memory is one part's headers and one short field.

use crate::media::{parameters_of, split_once};
use crate::problem::{Place, Problem, SyntaxError, Unexpected};
use crate::scan::Reading;
use crate::text::Text;
use memchr::memchr;

/// Most bytes that one part's headers may have.
pub const MAX_HEADER_BYTES: usize = 8192;

/// A form being read.
#[derive(Debug)]
pub struct Form {
    state: State,
    /// Line break, two dashes, boundary: what ends a part.
    delimiter: Vec<u8>,
    /// Bytes of the delimiter seen so far.
    matched: usize,
    offset: u64,
    /// The header line being read, and the bytes of this part's headers before it.
    line: Vec<u8>,
    header_bytes: usize,
    part: Part,
    text: Text,
    model: Option<Result<String, Problem>>,
    stream: bool,
    error: Option<SyntaxError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Content,
    AfterDelimiter,
    LastDash,
    Padding,
    DelimiterLineFeed,
    Header,
    Epilogue,
    Failed,
}

/// What the headers say about the part being read.
#[derive(Debug, Default)]
struct Part {
    slot: Slot,
    disposed: bool,
    is_file: bool,
    is_encoded: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Slot {
    Model,
    Stream,
    #[default]
    Other,
}

impl Form {
    /// A form whose parts are divided by `boundary`.
    #[must_use]
    pub fn new(boundary: &[u8]) -> Self {
        Self {
            state: State::Content,
            delimiter: [b"\r\n--", boundary].concat(),
            // The first boundary needs no line break before it. What comes before it belongs to no part.
            matched: 2,
            offset: 0,
            line: Vec::new(),
            header_bytes: 0,
            part: Part::default(),
            text: Text::default(),
            model: None,
            stream: false,
            error: None,
        }
    }

    /// Reads the next bytes of the body.
    pub fn feed(&mut self, chunk: &[u8]) {
        let mut at = 0;
        while at < chunk.len() {
            let read = match self.state {
                State::Failed | State::Epilogue => break,
                State::Content => self.content(&chunk[at..]),
                State::Header => self.header(&chunk[at..]),
                _ => self.around_delimiter(chunk[at]),
            };
            match read {
                Ok(taken) => at += taken,
                Err(Wrong { what, after }) => self.fail(what, at + after),
            }
        }
        self.offset += chunk.len() as u64;
    }

    /// The body is over.
    #[must_use]
    pub fn finish(self) -> Reading {
        let model = match (self.error, self.state, self.model) {
            (Some(error), ..) => Err(Problem::NotForm(error)),
            (None, State::Epilogue, Some(model)) => model,
            (None, State::Epilogue, None) => Err(Problem::NoModel(Place::FormField)),
            (None, ..) if self.offset == 0 => Err(Problem::Empty),
            (None, ..) => Err(Problem::NotForm(SyntaxError { what: Unexpected::End, at: self.offset })),
        };
        Reading { model, stream: self.stream }
    }

    fn fail(&mut self, what: Unexpected, at: usize) {
        self.state = State::Failed;
        self.error = Some(SyntaxError { what, at: self.offset + at as u64 });
    }

    /// A part's content, up to a delimiter. The delimiter's only carriage return is its first byte, so a mismatch can
    /// only begin anew with the byte that did not match.
    fn content(&mut self, chunk: &[u8]) -> Result<usize, Wrong> {
        if self.matched == 0 {
            let plain = memchr(b'\r', chunk).unwrap_or(chunk.len());
            if self.part.slot != Slot::Other {
                self.text.push(&chunk[..plain]);
            }
            self.matched = usize::from(plain < chunk.len());
            return Ok(plain + self.matched);
        }
        if chunk[0] == self.delimiter[self.matched] {
            self.matched += 1;
            if self.matched == self.delimiter.len() {
                self.end_part().map_err(|what| Wrong { what, after: 0 })?;
                self.matched = 0;
                self.state = State::AfterDelimiter;
            }
            return Ok(1);
        }
        if self.part.slot != Slot::Other {
            self.text.push(&self.delimiter[..self.matched]);
        }
        self.matched = 0;
        Ok(0)
    }

    fn end_part(&mut self) -> Result<(), Unexpected> {
        let part = std::mem::take(&mut self.part);
        if part.slot != Slot::Other && part.is_encoded {
            return Err(Unexpected::Header);
        }
        match part.slot {
            Slot::Model if self.model.is_some() => self.model = Some(Err(Problem::ModelTwice)),
            Slot::Model if part.is_file => self.model = Some(Err(Problem::ModelNotText)),
            Slot::Model => self.model = Some(self.text.model()),
            Slot::Stream => self.stream = [&b"true"[..], b"True"].iter().any(|yes| self.text.is(yes)),
            Slot::Other => {}
        }
        self.text.clear();
        Ok(())
    }

    fn around_delimiter(&mut self, byte: u8) -> Result<usize, Wrong> {
        self.state = match (self.state, byte) {
            (State::AfterDelimiter, b'-') => State::LastDash,
            (State::LastDash, b'-') => State::Epilogue,
            (State::AfterDelimiter | State::Padding, b' ' | b'\t') => State::Padding,
            (State::AfterDelimiter | State::Padding, b'\r') => State::DelimiterLineFeed,
            (State::DelimiterLineFeed, b'\n') => {
                self.header_bytes = 0;
                State::Header
            }
            _ => return Err(Wrong { what: Unexpected::Byte(byte), after: 0 }),
        };
        Ok(1)
    }

    fn header(&mut self, chunk: &[u8]) -> Result<usize, Wrong> {
        let found = memchr(b'\n', chunk);
        let taken = found.map_or(chunk.len(), |feed| feed + 1);
        let room = MAX_HEADER_BYTES - self.header_bytes;
        if taken > room {
            return Err(Wrong { what: Unexpected::LongHeader, after: room });
        }
        self.header_bytes += taken;
        self.line.extend_from_slice(&chunk[..taken]);
        if found.is_some() {
            let line = std::mem::take(&mut self.line);
            self.end_line(&line).ok_or(Wrong { what: Unexpected::Header, after: taken - 1 })?;
        }
        Ok(taken)
    }

    fn end_line(&mut self, line: &[u8]) -> Option<()> {
        match line.strip_suffix(b"\r\n")? {
            b"" => self.state = State::Content,
            header => self.part.read_header(header)?,
        }
        Some(())
    }
}

/// A mistake, and how many bytes after the first of the piece being read it is.
struct Wrong {
    what: Unexpected,
    after: usize,
}

impl Part {
    /// `None`: malformed, or with more than one reading.
    fn read_header(&mut self, line: &[u8]) -> Option<()> {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (line[..colon].to_ascii_lowercase(), line[colon + 1..].trim_ascii());
        if name.is_empty() || name.iter().any(|byte| byte.is_ascii_whitespace()) || line.contains(&b'\r') {
            return None;
        }
        match name.as_slice() {
            b"content-disposition" if self.disposed => None,
            b"content-disposition" => self.dispose(value),
            b"content-transfer-encoding" => {
                let plain = [&b"7bit"[..], b"8bit", b"binary"];
                self.is_encoded = !plain.contains(&value.to_ascii_lowercase().as_slice());
                Some(())
            }
            _ => Some(()),
        }
    }

    fn dispose(&mut self, value: &[u8]) -> Option<()> {
        self.disposed = true;
        let (kind, parameters) = split_once(value, b';');
        if !kind.trim_ascii().eq_ignore_ascii_case(b"form-data") {
            return None;
        }
        let parameters = parameters_of(parameters)?;
        let mut names = parameters.iter().filter(|(name, _)| name == b"name");
        let (_, name) = names.next()?;
        // RFC 7578, section 4.2: `name*` is not used in forms; who reads it anyway would see another field.
        let ambiguous =
            names.next().is_some() || name.contains(&b'\\') || parameters.iter().any(|(name, _)| name == b"name*");
        if ambiguous {
            return None;
        }
        self.is_file = parameters.iter().any(|(name, _)| name.starts_with(b"filename"));
        self.slot = match *name {
            b"model" => Slot::Model,
            b"stream" => Slot::Stream,
            _ => Slot::Other,
        };
        Some(())
    }
}

#[cfg(test)]
mod tests;
