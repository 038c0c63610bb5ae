//! A short text collected byte by byte, bounded whatever the body does; and what a model's name may be.

use crate::problem::{Problem, Unusable};

/// The longest text that is kept, in bytes; also the longest model name.
pub const LIMIT: usize = 1024;

/// A text in the making. Past `LIMIT` bytes it only remembers that it was too long.
#[derive(Debug, Default)]
pub struct Text {
    bytes: Vec<u8>,
    too_long: bool,
    high_surrogate: Option<u16>,
    lone_surrogate: bool,
}

impl Text {
    /// Empties the text and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.too_long = false;
        self.high_surrogate = None;
        self.lone_surrogate = false;
    }

    /// Whether nothing more will be kept.
    pub fn is_full(&self) -> bool {
        self.too_long
    }

    /// Adds bytes as they are.
    pub fn push(&mut self, bytes: &[u8]) {
        self.lone_surrogate |= self.high_surrogate.take().is_some();
        if self.bytes.len() + bytes.len() > LIMIT {
            self.too_long = true;
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Adds the UTF-16 code unit of a `\uXXXX` escape; the two halves of a pair come one after the other.
    pub fn push_unit(&mut self, unit: u16) {
        let before = self.high_surrogate.take();
        if (0xd800..0xdc00).contains(&unit) {
            self.lone_surrogate |= before.is_some();
            self.high_surrogate = Some(unit);
            return;
        }
        for decoded in char::decode_utf16(before.into_iter().chain([unit])) {
            match decoded {
                Ok(character) => self.push(character.encode_utf8(&mut [0; 4]).as_bytes()),
                Err(_) => self.lone_surrogate = true,
            }
        }
    }

    /// Whether the whole text is `expected`.
    pub fn is(&self, expected: &[u8]) -> bool {
        self.is_whole() && !self.too_long && self.bytes == expected
    }

    /// The text as a model's name.
    pub fn model(&mut self) -> Result<String, Problem> {
        let unusable = |why| Err(Problem::ModelUnusable(why));
        if self.too_long {
            return unusable(Unusable::TooLong);
        }
        if !self.is_whole() {
            return unusable(Unusable::NotUnicode);
        }
        let Ok(name) = String::from_utf8(std::mem::take(&mut self.bytes)) else {
            return unusable(Unusable::NotUnicode);
        };
        if name.is_empty() {
            return unusable(Unusable::Empty);
        }
        if name.bytes().any(|byte| byte.is_ascii_control()) {
            return unusable(Unusable::Control);
        }
        if name.starts_with(' ') || name.ends_with(' ') {
            return unusable(Unusable::Padded);
        }
        Ok(name)
    }

    fn is_whole(&self) -> bool {
        !self.lone_surrogate && self.high_surrogate.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::{Text, LIMIT};
    use crate::problem::{Problem, Unusable};

    fn model(bytes: &[u8]) -> Result<String, Problem> {
        let mut text = Text::default();
        text.push(bytes);
        text.model()
    }

    fn units(units: &[u16]) -> Result<String, Problem> {
        let mut text = Text::default();
        for unit in units {
            text.push_unit(*unit);
        }
        text.model()
    }

    #[test]
    fn names_that_are_header_values_pass() {
        for name in ["gpt-4", "meta-llama/Llama-3.1-8B", "모델", "a b", &"m".repeat(LIMIT)] {
            assert_eq!(model(name.as_bytes()).as_deref(), Ok(name));
        }
    }

    #[test]
    fn others_are_problems() {
        for (bytes, why) in [
            (&b""[..], Unusable::Empty),
            (b"a\nb", Unusable::Control),
            (b"a\0", Unusable::Control),
            (b"a\x7f", Unusable::Control),
            (b" a", Unusable::Padded),
            (b"a ", Unusable::Padded),
            (b"\xff", Unusable::NotUnicode),
            (&[b'm'; LIMIT + 1], Unusable::TooLong),
        ] {
            assert_eq!(model(bytes), Err(Problem::ModelUnusable(why)));
        }
    }

    #[test]
    fn surrogates_come_in_pairs() {
        assert_eq!(units(&[0x41, 0xd83d, 0xde00, 0x42]).as_deref(), Ok("A😀B"));
        for broken in [&[0xd83d][..], &[0xde00], &[0xd83d, 0x41], &[0xd83d, 0xd83d, 0xde00], &[0xde00, 0xd83d]] {
            assert_eq!(units(broken), Err(Problem::ModelUnusable(Unusable::NotUnicode)), "{broken:x?}");
        }
        let mut text = Text::default();
        text.push_unit(0xd83d);
        text.push(b"a");
        assert_eq!(text.model(), Err(Problem::ModelUnusable(Unusable::NotUnicode)));
    }
}
