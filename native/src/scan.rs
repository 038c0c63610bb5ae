//! Takes `model` and `stream` from a JSON body while it arrives: one pass, any chunking, no copy of the body.
//!
//! The scanner checks the whole grammar of RFC 8259 outside of strings, because a body that a model server could read
//! differently must not choose a route. Strings that are not kept are only followed to their end: their escapes and
//! UTF-8 are the model server's business, no reading of them moves their end, and prompts are nearly all of a body.
//!
//! Memory is a few hundred bytes whatever the body does. Deliberately absent: values other than the two.

use crate::problem::{Place, Problem, SyntaxError, Unexpected};
use crate::text::Text;
use string::{end_of_string, StringEnd};

mod string;
pub(crate) mod undoubted;

/// Deepest nesting that is followed. Python's parser, which vLLM uses, gives up a little earlier.
pub const MAX_DEPTH: usize = 1024;

/// What a body says about the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The model, or why there is none.
    pub model: Result<String, Problem>,
    /// Whether the client asked for a stream of events.
    pub stream: bool,
}

/// A JSON document being read.
#[derive(Debug)]
pub struct Scanner {
    state: State,
    /// Open arrays and objects; bit n of `objects` tells whether the one at depth n + 1 is an object.
    depth: usize,
    objects: [u64; MAX_DEPTH / 64],
    /// Bytes of the chunks before this one.
    offset: u64,
    /// What the value that comes next, or is being read, belongs to.
    slot: Slot,
    /// The string being read is a key.
    is_key: bool,
    text: Text,
    /// What is left of the literal being read.
    literal: &'static [u8],
    model: Option<Result<String, Problem>>,
    stream: bool,
    error: Option<SyntaxError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Value,
    FirstElement,
    FirstKey,
    Key,
    Colon,
    After,
    End,
    /// In a string that is not kept; `escaped`: its next byte follows a backslash.
    Skip {
        escaped: bool,
    },
    Keep,
    KeepEscape,
    KeepHex {
        digits: u8,
        unit: u16,
    },
    Number(Number),
    Literal,
    Failed,
}

/// The part of a number that was read last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    E,
    ESign,
    Exponent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Model,
    Stream,
    Other,
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            state: State::Value,
            depth: 0,
            objects: [0; MAX_DEPTH / 64],
            offset: 0,
            slot: Slot::Other,
            is_key: false,
            text: Text::default(),
            literal: b"",
            model: None,
            stream: false,
            error: None,
        }
    }
}

impl Scanner {
    /// Reads the next bytes of the body.
    pub fn feed(&mut self, chunk: &[u8]) {
        let mut at = 0;
        while at < chunk.len() {
            match self.state {
                State::Failed => break,
                State::Skip { escaped } => match end_of_string(&chunk[at..], escaped) {
                    StringEnd::At(quote) => {
                        at += quote + 1;
                        self.end_string();
                    }
                    StringEnd::Later { escaped } => {
                        self.state = State::Skip { escaped };
                        break;
                    }
                },
                State::Number(Number::Integer) if chunk[at].is_ascii_digit() => {
                    at += chunk[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                }
                _ => match self.step(chunk[at]) {
                    Step::Taken => at += 1,
                    Step::Again => {}
                    Step::Wrong(what) => self.fail(what, at),
                },
            }
        }
        self.offset += chunk.len() as u64;
    }

    /// The body is over.
    pub fn finish(mut self) -> Reading {
        if matches!(self.state, State::Number(part) if part.is_complete()) {
            self.end_value();
        }
        let model = match (self.error, self.state, self.model) {
            (Some(error), ..) => Err(Problem::NotJson(error)),
            (None, State::End, Some(model)) => model,
            (None, State::End, None) => Err(Problem::NoModel(Place::TopLevel)),
            (None, ..) if self.offset == 0 => Err(Problem::Empty),
            (None, ..) => Err(Problem::NotJson(SyntaxError { what: Unexpected::End, at: self.offset })),
        };
        Reading { model, stream: self.stream }
    }

    fn fail(&mut self, what: Unexpected, at: usize) {
        self.state = State::Failed;
        self.error = Some(SyntaxError { what, at: self.offset + at as u64 });
    }

    fn step(&mut self, byte: u8) -> Step {
        match self.state {
            State::Keep | State::KeepEscape | State::KeepHex { .. } => self.keep(byte),
            State::Number(part) => return self.number(part, byte),
            State::Literal => self.read_literal(byte),
            _ if matches!(byte, b' ' | b'\n' | b'\r' | b'\t') => Ok(()),
            State::Value => self.begin_value(byte),
            State::FirstElement if byte == b']' => self.close(),
            State::FirstElement => self.begin_value(byte),
            State::FirstKey if byte == b'}' => self.close(),
            State::FirstKey | State::Key if byte == b'"' => self.begin_key(),
            State::Colon if byte == b':' => self.go(State::Value),
            State::After => self.after(byte),
            _ => Err(Unexpected::Byte(byte)),
        }
        .into()
    }

    fn go(&mut self, state: State) -> Result<(), Unexpected> {
        self.state = state;
        Ok(())
    }

    fn begin_value(&mut self, byte: u8) -> Result<(), Unexpected> {
        match self.slot {
            Slot::Model if byte != b'"' => self.see_model(Err(Problem::ModelNotText)),
            // The last one counts, as in Python.
            Slot::Stream => self.stream = byte == b't',
            _ => {}
        }
        match byte {
            b'"' => {
                self.is_key = false;
                self.begin_string(self.slot == Slot::Model)
            }
            b'{' => self.open(true),
            b'[' => self.open(false),
            b'-' => self.go(State::Number(Number::Minus)),
            b'0' => self.go(State::Number(Number::Zero)),
            b'1'..=b'9' => self.go(State::Number(Number::Integer)),
            b't' => self.begin_literal(b"rue"),
            b'f' => self.begin_literal(b"alse"),
            b'n' => self.begin_literal(b"ull"),
            _ => Err(Unexpected::Byte(byte)),
        }
    }

    fn begin_key(&mut self) -> Result<(), Unexpected> {
        self.is_key = true;
        self.begin_string(self.depth == 1)
    }

    fn begin_string(&mut self, keep: bool) -> Result<(), Unexpected> {
        self.text.clear();
        self.go(if keep { State::Keep } else { State::Skip { escaped: false } })
    }

    fn end_string(&mut self) {
        if self.is_key {
            self.slot = match self.depth {
                1 if self.text.is(b"model") => Slot::Model,
                1 if self.text.is(b"stream") => Slot::Stream,
                _ => Slot::Other,
            };
            self.state = State::Colon;
            return;
        }
        if self.slot == Slot::Model {
            let model = self.text.model();
            self.see_model(model);
        }
        self.end_value();
    }

    fn see_model(&mut self, model: Result<String, Problem>) {
        self.model = Some(if self.model.is_none() { model } else { Err(Problem::ModelTwice) });
    }

    fn end_value(&mut self) {
        self.slot = Slot::Other;
        self.state = if self.depth == 0 { State::End } else { State::After };
    }

    fn open(&mut self, object: bool) -> Result<(), Unexpected> {
        if self.depth == MAX_DEPTH {
            return Err(Unexpected::Depth);
        }
        let (word, bit) = (self.depth / 64, 1 << (self.depth % 64));
        if object {
            self.objects[word] |= bit;
        } else {
            self.objects[word] &= !bit;
        }
        self.depth += 1;
        self.slot = Slot::Other;
        self.go(if object { State::FirstKey } else { State::FirstElement })
    }

    fn close(&mut self) -> Result<(), Unexpected> {
        self.depth -= 1;
        self.end_value();
        Ok(())
    }

    fn in_object(&self) -> bool {
        let top = self.depth - 1;
        self.objects[top / 64] >> (top % 64) & 1 == 1
    }

    fn after(&mut self, byte: u8) -> Result<(), Unexpected> {
        match (byte, self.in_object()) {
            (b',', true) => self.go(State::Key),
            (b',', false) => self.go(State::Value),
            (b'}', true) | (b']', false) => self.close(),
            _ => Err(Unexpected::Byte(byte)),
        }
    }

    fn keep(&mut self, byte: u8) -> Result<(), Unexpected> {
        match (self.state, byte) {
            (State::Keep, b'"') => {
                self.end_string();
                return Ok(());
            }
            (State::Keep, b'\\') => return self.go(State::KeepEscape),
            (State::Keep, 0..=0x1f) => return Err(Unexpected::Byte(byte)),
            (State::Keep, _) => self.text.push(&[byte]),
            (State::KeepEscape, b'u') => return self.go(State::KeepHex { digits: 0, unit: 0 }),
            (State::KeepEscape, _) => self.text.push(&[unescaped(byte).ok_or(Unexpected::Byte(byte))?]),
            (State::KeepHex { digits, unit }, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(Unexpected::Byte(byte))?;
                let unit = unit << 4 | digit as u16;
                if digits < 3 {
                    return self.go(State::KeepHex { digits: digits + 1, unit });
                }
                self.text.push_unit(unit);
            }
            (state, _) => unreachable!("{state:?} keeps no text"),
        }
        // What is too long to be kept need not be looked at either.
        self.go(if self.text.is_full() { State::Skip { escaped: false } } else { State::Keep })
    }

    fn number(&mut self, part: Number, byte: u8) -> Step {
        match part.next(byte) {
            Some(next) => self.go(State::Number(next)).into(),
            None if part.is_complete() => {
                self.end_value();
                Step::Again
            }
            None => Step::Wrong(Unexpected::Byte(byte)),
        }
    }

    fn begin_literal(&mut self, rest: &'static [u8]) -> Result<(), Unexpected> {
        self.literal = rest;
        self.go(State::Literal)
    }

    fn read_literal(&mut self, byte: u8) -> Result<(), Unexpected> {
        match self.literal {
            [only] if *only == byte => self.end_value(),
            [first, rest @ ..] if *first == byte => self.literal = rest,
            _ => return Err(Unexpected::Byte(byte)),
        }
        Ok(())
    }
}

enum Step {
    Taken,
    /// The byte ended something and now begins something else.
    Again,
    Wrong(Unexpected),
}

impl From<Result<(), Unexpected>> for Step {
    fn from(result: Result<(), Unexpected>) -> Self {
        match result {
            Ok(()) => Self::Taken,
            Err(what) => Self::Wrong(what),
        }
    }
}

impl Number {
    fn next(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Minus, b'0') => Some(Self::Zero),
            (Self::Minus, b'1'..=b'9') | (Self::Integer, b'0'..=b'9') => Some(Self::Integer),
            (Self::Zero | Self::Integer, b'.') => Some(Self::Point),
            (Self::Point | Self::Fraction, b'0'..=b'9') => Some(Self::Fraction),
            (Self::Zero | Self::Integer | Self::Fraction, b'e' | b'E') => Some(Self::E),
            (Self::E, b'+' | b'-') => Some(Self::ESign),
            (Self::E | Self::ESign | Self::Exponent, b'0'..=b'9') => Some(Self::Exponent),
            _ => None,
        }
    }

    fn is_complete(self) -> bool {
        matches!(self, Self::Zero | Self::Integer | Self::Fraction | Self::Exponent)
    }
}

fn unescaped(byte: u8) -> Option<u8> {
    match byte {
        b'"' | b'\\' | b'/' => Some(byte),
        b'b' => Some(0x08),
        b'f' => Some(0x0c),
        b'n' => Some(b'\n'),
        b'r' => Some(b'\r'),
        b't' => Some(b'\t'),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
