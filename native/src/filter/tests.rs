//! Shards, and what a panic does.

use super::Filter;
use crate::config::Config;
use crate::stream::Flow;
use crate::testing::FakeStream;
use std::sync::Arc;

const JSON: (&str, &str) = ("content-type", "application/json");

fn filter(model_header: Option<&str>, shards: u32) -> Filter {
    let model_header = model_header.map(str::to_owned);
    Filter::new(Arc::new(Config { model_header, max_request_bytes: 1000, shards }))
}

#[test]
fn the_shard_is_set_over_what_the_client_sent() {
    let mut stream = FakeStream::post(&[JSON, ("x-gwanmun-shard", "99")]);
    assert_eq!(filter(None, 16).on_request_headers(&mut stream, false), Flow::Continue);
    // zlib.crc32(b"chat.example.com") % 16
    assert_eq!(stream.header("x-gwanmun-shard"), Some("10"));
    assert_eq!(stream.route_cleared, 1);
}

#[test]
fn without_shards_no_header_is_set() {
    let mut stream = FakeStream::post(&[JSON]);
    assert_eq!(filter(None, 0).on_request_headers(&mut stream, false), Flow::Continue);
    assert_eq!((stream.header("x-gwanmun-shard"), stream.route_cleared), (None, 0));
}

#[test]
fn a_panic_in_what_guards_refuses_the_request() {
    let mut stream = FakeStream { panics_in: "request_header", ..FakeStream::post(&[JSON]) };
    assert_eq!(filter(Some("x-model-id"), 0).on_request_headers(&mut stream, false), Flow::Answered);
    assert_eq!(stream.statuses(), [500]);

    let (mut filter, mut stream) = (filter(Some("x-model-id"), 0), FakeStream::post(&[JSON]));
    filter.on_request_headers(&mut stream, false);
    stream.panics_in = "received_bytes";
    assert_eq!(filter.on_request_body(&mut stream, true), Flow::Answered);
    assert_eq!(stream.statuses(), [500]);
}

#[test]
fn a_panic_in_reading_lets_the_request_pass_without_a_model() {
    let (mut filter, mut stream) = (filter(Some("x-model-id"), 0), FakeStream::post(&[JSON]));
    filter.on_request_headers(&mut stream, false);
    stream.received = vec![br#"{"model":"gpt-4","#.to_vec()];
    stream.panics_in = "for_each_received";
    assert_eq!(filter.on_request_body(&mut stream, false), Flow::Hold);
    stream.panics_in = "";
    stream.received = vec![br#""model":"llama"}"#.to_vec()];
    assert_eq!(filter.on_request_body(&mut stream, false), Flow::Hold);
    assert_eq!(filter.on_request_trailers(&mut stream), Flow::Continue);
    assert_eq!(stream.header("x-model-id"), None);
    assert_eq!(stream.metadata["body_problem"], "the request body could not be read");
}
