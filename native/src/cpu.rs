//! Runs the scanner's innermost loop in the widest vector instructions that this machine has.
//!
//! The library is built for any machine of its architecture. On aarch64 that includes good vectors; on x86-64 it means 16
//! bytes at a time, where nearly every machine could take 32 or 64.

#![allow(unsafe_code)] // a function for instructions that were detected is unsafe to call

use crate::scan::undoubted;
#[cfg(target_arch = "x86_64")]
use std::arch::{is_x86_feature_detected as has, x86_64::*};

/// Leading bytes of the text among which no quote ends a string, see `scan::undoubted`.
pub fn undoubted(text: &[u8]) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        // Machines that lack VBMI2 are those that lower their clock for 512 bits.
        if has!("avx512bw") && has!("avx512vbmi2") {
            // SAFETY: the machine has what the function is compiled for.
            return unsafe { with_avx512(text) };
        }
        if has!("avx2") {
            // SAFETY: as above.
            return unsafe { with_avx2(text) };
        }
    }
    undoubted::by_bytes(text)
}

// Here a comparison makes a word of bits, and to shift that takes less time than to read the bytes again, which the plain
// way does. (The compiler's AVX2 of the plain way has a third fewer instructions, but takes a third longer.)

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2(text: &[u8]) -> usize {
    undoubted::by_bits(text, |block, wanted| {
        let bits = |half: &[u8]| {
            assert_eq!(half.len(), 32);
            // SAFETY: the half has 32 bytes, and no alignment is asked for.
            let bytes = unsafe { _mm256_loadu_si256(half.as_ptr().cast()) };
            _mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(wanted as i8))) as u32
        };
        u64::from(bits(&block[..32])) | u64::from(bits(&block[32..])) << 32
    })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512bw")]
fn with_avx512(text: &[u8]) -> usize {
    undoubted::by_bits(text, |block, wanted| {
        // SAFETY: the block has 64 bytes, and no alignment is asked for.
        let bytes = unsafe { _mm512_loadu_epi8(block.as_ptr().cast()) };
        _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(wanted as i8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Chance;

    /// What each way that this machine can go says.
    fn answers(text: &[u8]) -> Vec<(&'static str, usize)> {
        let slow_bits = |block: &[u8; 64], wanted| (0..64).fold(0, |word, n| word | u64::from(block[n] == wanted) << n);
        let mut answers = vec![
            ("chosen", undoubted(text)),
            ("bytes", undoubted::by_bytes(text)),
            ("bits", undoubted::by_bits(text, slow_bits)),
        ];
        #[cfg(target_arch = "x86_64")]
        {
            if has!("avx2") {
                // SAFETY: the machine has what the function is compiled for.
                answers.push(("AVX2", unsafe { with_avx2(text) }));
            }
            if has!("avx512bw") {
                // SAFETY: as above.
                answers.push(("AVX-512", unsafe { with_avx512(text) }));
            }
        }
        answers
    }

    /// The same byte by byte.
    fn check(text: &[u8]) {
        let in_doubt = |at: &usize| text[*at] == b'"' && (text[*at - 1] != b'\\' || text[*at - 2] == b'\\');
        let passed = (2..text.len()).find(in_doubt).unwrap_or(text.len()) - 2;
        let expected = passed / undoubted::BLOCK * undoubted::BLOCK;
        for (way, found) in answers(text) {
            assert_eq!(found, expected, "{way}: {}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn every_way_passes_over_the_same_blocks() {
        let mut chance = Chance(1);
        for _ in 0..3000 {
            let mut text = vec![chance.of(b"a\\\""), chance.of(b"a\\\"")];
            for _ in 0..chance.below(300) {
                let pieces: &[&[u8]] = match chance.below(200) {
                    0 => &[b"a\"", b"\\\\\"", b"\\\\\\\"", b"\\"],
                    _ => &[b"\\\"", b"a\\\"", b"\\\\a", b"aa", b"\\n"],
                };
                text.extend(chance.of(pieces));
            }
            check(&text);
        }
    }

    #[test]
    fn one_quote_is_found_anywhere() {
        for length in [2, 3, 129, 130, 131, 257, 258, 259, 400] {
            for at in 2..length {
                for before in [&b"aa"[..], b"a\\", b"\\a", b"\\\\"] {
                    let mut text = vec![b'a'; length];
                    text[at - 2..at].copy_from_slice(before);
                    text[at] = b'"';
                    check(&text);
                }
            }
        }
    }
}
