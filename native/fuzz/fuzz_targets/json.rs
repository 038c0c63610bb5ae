//! Any bytes as a JSON body: chunks do not change the reading, and what serde_json accepts is accepted alike.
//! `cargo +nightly fuzz run json` (from `native/`).

#![no_main]

use gwanmun::problem::Problem;
use gwanmun::scan::{Reading, Scanner};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fn read<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Reading {
    let mut scanner = Scanner::default();
    chunks.for_each(|chunk| scanner.feed(chunk));
    scanner.finish()
}

fuzz_target!(|input: (u8, &[u8])| {
    let (size, body) = (usize::from(input.0) + 1, input.1);
    let reading = read(std::iter::once(body));
    assert_eq!(read(body.chunks(size)), reading);
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        match reading.model {
            Ok(model) => assert_eq!(value["model"], Value::String(model)),
            Err(problem) => assert!(!matches!(problem, Problem::NotJson(_) | Problem::Empty)),
        }
    }
});
