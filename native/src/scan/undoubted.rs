//! Passes over escaped quotes by the block: how many bytes, from the third on, have no quote that may end the string?
//!
//! A quote behind exactly one backslash ends none, whatever came before; that is nearly every quote in code. Any other is
//! in doubt, and its block has to be looked at. The same test twice, because machines differ in what is cheap. Loops
//! rather than iterators: what is not inlined into a function of `cpu` does not get its vector instructions.

/// Bytes that are tested together; counts are multiples of it.
pub const BLOCK: usize = 128;

/// With vectors of bytes, which the compiler makes of a loop without branches.
pub fn by_bytes(text: &[u8]) -> usize {
    let mut passed = 0;
    while let Some(window) = text[passed..].first_chunk() {
        if is_in_doubt(window) {
            break;
        }
        passed += BLOCK;
    }
    passed
}

fn is_in_doubt(window: &[u8; BLOCK + 2]) -> bool {
    let mut doubt = false;
    for index in 2..window.len() {
        let escaped_once = (window[index - 1] == b'\\') & (window[index - 2] != b'\\');
        doubt |= (window[index] == b'"') & !escaped_once;
    }
    doubt
}

/// With words of bits: bit n of `bits(block, wanted)` tells whether byte n is the one wanted. Each byte is read once.
#[cfg(any(test, target_arch = "x86_64"))]
#[inline(always)]
pub fn by_bits(text: &[u8], bits: impl Fn(&[u8; 64], u8) -> u64) -> usize {
    let mut before = u64::from(text[0] == b'\\') << 62 | u64::from(text[1] == b'\\') << 63;
    let mut in_doubt = |half: &[u8; 64]| {
        let backslashes = bits(half, b'\\');
        let escaped_once = (backslashes << 1 | before >> 63) & !(backslashes << 2 | before >> 62);
        before = backslashes;
        bits(half, b'"') & !escaped_once
    };
    let mut passed = 0;
    let (halves, _) = text[2..].as_chunks();
    for [first, second] in halves.as_chunks().0 {
        if in_doubt(first) | in_doubt(second) != 0 {
            break;
        }
        passed += BLOCK;
    }
    passed
}
