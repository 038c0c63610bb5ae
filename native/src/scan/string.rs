//! Finds where strings end. Escapes matter only for that: whether a quote follows an odd number of backslashes.

use crate::cpu;
use memchr::memchr_iter;

#[derive(Debug, PartialEq, Eq)]
pub enum StringEnd {
    At(usize),
    Later { escaped: bool },
}

/// Finds the quote that ends a string; `escaped`: the first byte follows a backslash.
///
/// Only quotes are searched for, and the backslashes before each are counted, each run once. Prose then goes by at
/// memory speed. Where one escaped quote follows another, as in code, blocks are tested as wholes instead.
pub fn end_of_string(chunk: &[u8], escaped: bool) -> StringEnd {
    const MANY: usize = 4;
    let start = usize::from(escaped);
    let text = &chunk[start..];
    for (escapes, quote) in memchr_iter(b'"', text).enumerate() {
        if !is_escaped(text, quote) {
            return StringEnd::At(start + quote);
        }
        if escapes == MANY {
            return end_among_escapes(text, quote + 1)
                .map_or_else(|| later(text), |quote| StringEnd::At(start + quote));
        }
    }
    later(text)
}

fn later(text: &[u8]) -> StringEnd {
    StringEnd::Later { escaped: is_escaped(text, text.len()) }
}

fn is_escaped(text: &[u8], at: usize) -> bool {
    text[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// The first quote from `from` on that no backslash escapes. `from` is at least 2.
fn end_among_escapes(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += cpu::undoubted(&text[at - 2..]);
        let (rest, escaped) = (&text[at..], is_escaped(text, at));
        let Some(block) = rest.first_chunk() else {
            return end_in(&padded(rest), escaped).map(|quote| at + quote);
        };
        if let Some(quote) = end_in(block, escaped) {
            return Some(at + quote);
        }
        at += block.len();
    }
}

fn padded(rest: &[u8]) -> [u8; 64] {
    let mut block = [0; 64];
    block[..rest.len()].copy_from_slice(rest);
    block
}

/// The first quote in a block that no backslash escapes; `escaped`: the first byte follows one.
///
/// All quotes are looked at together, as bits of a word. A run of backslashes escapes what is behind it where one of the
/// two is at an even bit and the other at an odd one: <https://arxiv.org/abs/1902.08318>, section 3.1.1.
fn end_in(block: &[u8; 64], escaped: bool) -> Option<usize> {
    const EVEN: u64 = 0x5555_5555_5555_5555;
    let first = u64::from(escaped);
    let backslashes = bits(block, b'\\') & !first;
    let starts = backslashes & !(backslashes << 1);
    let behind = backslashes << 1 & !backslashes;
    // The sum carries the first bit of a run to the bit behind it.
    let behind_even_start = behind & backslashes.wrapping_add(starts & EVEN);
    let escaped = behind & (behind_even_start ^ EVEN) | first;
    let ends = bits(block, b'"') & !escaped;
    (ends != 0).then_some(ends.trailing_zeros() as usize)
}

/// Bit n tells whether byte n is `wanted`.
fn bits(block: &[u8; 64], wanted: u8) -> u64 {
    let flags = block.map(|byte| u8::from(byte == wanted));
    // The product brings the lowest bits of eight bytes together in its highest byte.
    let pack = |eight| u64::from_le_bytes(eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    flags.as_chunks().0.iter().rev().fold(0, |word, eight| word << 8 | pack(*eight))
}
