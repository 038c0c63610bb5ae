//! Any bytes as a content type, a host and a configuration.
//! `cargo +nightly fuzz run headers` (from `native/`).

#![no_main]

use gwanmun::config::Config;
use gwanmun::media::{media, Media};
use gwanmun::shard::shard_of;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Media::Form(Some(boundary)) = media(Some(bytes)) {
        assert!((1..=70).contains(&boundary.len()));
    }
    assert!(shard_of(bytes, 7) < 7);
    if let Ok(config) = Config::parse(bytes) {
        assert!(config.max_request_bytes > 0);
    }
});
