//! Passes over escaped quotes by the block: how many bytes, from the third on, have no quote that may end the string?
//!
//! A quote behind exactly one backslash ends none, whatever came before; that is nearly every quote in code. Any other is
//! in doubt, and its block has to be looked at.

/// Bytes that are tested together; counts are multiples of it.
const BLOCK: usize = 128;

/// The compiler makes vector instructions of it.
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
