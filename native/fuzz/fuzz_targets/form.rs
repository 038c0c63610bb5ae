//! Any bytes as a multipart form: chunks do not change the reading.
//! `cargo +nightly fuzz run form` (from `native/`).

#![no_main]

use gwanmun::multipart::Form;
use gwanmun::scan::Reading;
use libfuzzer_sys::fuzz_target;

fn read<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Reading {
    let mut form = Form::new(b"b");
    chunks.for_each(|chunk| form.feed(chunk));
    form.finish()
}

fuzz_target!(|input: (u8, &[u8])| {
    let (size, body) = (usize::from(input.0) + 1, input.1);
    assert_eq!(read(body.chunks(size)), read(std::iter::once(body)));
});
