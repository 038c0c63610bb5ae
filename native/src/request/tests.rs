//! What happens to requests, on streams made of values.

use super::Request;
use crate::config::Config;
use crate::stream::Flow;
use crate::testing::FakeStream;

const CHAT: &str = r#"{"model":"gpt-4","stream":true}"#;
const JSON: (&str, &str) = ("content-type", "application/json");
const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=b");

fn config(max_request_bytes: u64) -> Config {
    Config { model_header: Some("x-model-id".into()), max_request_bytes, shards: 0 }
}

/// Sends a request; gives back the stream, and the flow after the headers and after each piece.
fn send(headers: &[(&str, &str)], pieces: &[&str]) -> (FakeStream, Vec<Flow>) {
    send_limited(1000, headers, pieces)
}

fn send_limited(limit: u64, headers: &[(&str, &str)], pieces: &[&str]) -> (FakeStream, Vec<Flow>) {
    let (config, mut stream, mut request) = (config(limit), FakeStream::post(headers), Request::default());
    let mut flows = vec![request.on_headers(&config, &mut stream, pieces.is_empty())];
    for (index, piece) in pieces.iter().enumerate() {
        stream.received = vec![piece.as_bytes().to_vec()];
        flows.push(request.on_body(&config, &mut stream, index + 1 == pieces.len()));
    }
    (stream, flows)
}

fn metadata(stream: &FakeStream) -> Vec<(&str, &str)> {
    stream.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// Whether an answer that Envoy gives to a request with these headers is one of a model API.
fn is_ai(headers: &[(&str, &str)], pieces: &[&str]) -> bool {
    let (config, mut stream, mut request) = (config(1000), FakeStream::post(headers), Request::default());
    request.on_headers(&config, &mut stream, pieces.is_empty());
    for piece in pieces {
        stream.received = vec![piece.as_bytes().to_vec()];
        request.on_body(&config, &mut stream, false);
    }
    request.on_local_reply(&mut stream);
    stream.metadata.contains_key("ai")
}

#[test]
fn a_body_is_held_to_its_end() {
    let (stream, flows) = send(&[JSON], &[r#"{"model":"gpt-4","#, r#""stream":true"#, "}"]);
    assert_eq!(flows, [Flow::Hold, Flow::Hold, Flow::Hold, Flow::Continue]);
    assert_eq!(stream.header("x-model-id"), Some("gpt-4"));
    assert_eq!(metadata(&stream), [("stream", "true")]);
    assert_eq!((stream.route_cleared, stream.buffer_limit), (1, Some(1000)));
}

#[test]
fn an_explicit_model_holds_nothing() {
    let (stream, flows) = send(&[JSON, ("x-model-id", "llama")], &[CHAT, ""]);
    assert_eq!(flows, [Flow::Continue; 3]);
    assert_eq!(stream.header("x-model-id"), Some("llama"));
    assert!(stream.metadata.is_empty());
    assert_eq!((stream.route_cleared, stream.buffer_limit), (0, None));
}

#[test]
fn an_empty_explicit_model_is_none() {
    let (stream, _) = send(&[JSON, ("x-model-id", " ")], &[CHAT]);
    assert_eq!(stream.header("x-model-id"), Some("gpt-4"));
}

#[test]
fn other_requests_are_left_alone() {
    for headers in [&[("content-type", "text/csv")][..], &[JSON, (":method", "PUT")], &[JSON, (":method", "GET")]] {
        let (stream, flows) = send(headers, &[CHAT, ""]);
        assert_eq!(flows, [Flow::Continue; 3]);
        assert!(stream.metadata.is_empty());
    }
}

#[test]
fn answers_of_envoy_to_inference_requests_are_told_apart() {
    let with_model = [("x-model-id", "gpt-4"), (":method", "GET")];
    for headers in [&[JSON][..], &[FORM], &[("content-type", "multipart/form-data")], &with_model] {
        assert!(is_ai(headers, &[]) && is_ai(headers, &["{"]), "{headers:?}");
    }
    assert!(is_ai(&[], &["{"]));
    for headers in [&[("content-type", "text/csv")][..], &[JSON, (":method", "GET")], &[]] {
        assert!(!is_ai(headers, &[" ", "x"]), "{headers:?}");
    }
}

#[test]
fn without_a_content_type_the_first_byte_decides() {
    let (stream, flows) = send(&[], &["", " \r\n", " {", "\"model\":1.}"]);
    assert_eq!(flows, [Flow::Hold, Flow::Hold, Flow::Hold, Flow::Hold, Flow::Continue]);
    let problem = "the request body is not valid JSON (unexpected '}' at byte 15)";
    assert_eq!(metadata(&stream), [("body_problem", problem)]);
    let (stream, flows) = send(&[], &[" x", CHAT]);
    assert_eq!(flows, [Flow::Hold, Flow::Continue, Flow::Continue]);
    assert!(stream.metadata.is_empty());
    assert_eq!(send(&[], &[" "]).1, [Flow::Hold, Flow::Continue]);
    assert_eq!(send(&[], &[]).1, [Flow::Continue]);
}

#[test]
fn problems_are_told_and_change_nothing_else() {
    for (headers, pieces, problem) in [
        (&[JSON][..], &[][..], "the request body is empty"),
        (&[JSON], &["{}"], "the request body has no top-level \"model\""),
        (&[FORM], &["--b--"], "the request body has no form field \"model\""),
        (
            &[("content-type", "multipart/form-data")],
            &["--b--"],
            "the content-type of the multipart request has no usable boundary",
        ),
    ] {
        let (stream, flows) = send(headers, pieces);
        assert_eq!(flows.last(), Some(&Flow::Continue));
        assert_eq!(metadata(&stream), [("body_problem", problem)]);
        assert_eq!((stream.header("x-model-id"), stream.route_cleared), (None, 0));
    }
}

#[test]
fn a_declared_size_is_refused_at_once() {
    for headers in [&[JSON][..], &[FORM]] {
        let declared = |length| [headers, &[("content-length", length)]].concat();
        assert_eq!(send_limited(30, &declared("31"), &[CHAT]).0.statuses(), [413]);
        assert_eq!(send_limited(30, &declared("31"), &[CHAT]).1, [Flow::Answered; 2]);
        assert!(send_limited(30, &declared("30"), &["x"]).0.statuses().is_empty());
        // No number: Envoy's codec refuses it; here it declares nothing.
        assert!(send_limited(30, &declared("99999999999999999999"), &["x"]).0.statuses().is_empty());
    }
}

#[test]
fn a_size_that_was_not_declared_is_counted() {
    for headers in [&[JSON][..], &[FORM], &[]] {
        let (stream, flows) = send_limited(4, headers, &["    ", "{", "}"]);
        assert_eq!(stream.statuses(), [413], "{headers:?}");
        assert_eq!(flows[2..], [Flow::Answered, Flow::Answered]);
    }
}

#[test]
fn what_is_not_held_has_no_limit() {
    for headers in [
        &[("content-type", "text/csv")][..],
        &[("content-type", "multipart/form-data")],
        &[JSON, ("x-model-id", "gpt-4")],
        &[],
    ] {
        let declared = [headers, &[("content-length", "15")]].concat();
        for headers in [headers, &declared] {
            let (stream, flows) = send_limited(4, headers, &["more than four", "."]);
            assert!(stream.statuses().is_empty(), "{headers:?}");
            assert_eq!(flows[1..], [Flow::Continue, Flow::Continue]);
        }
    }
}

#[test]
fn a_first_byte_that_comes_late_does_not_pass_the_declared_size() {
    let (stream, flows) = send_limited(30, &[("content-length", "31")], &["{", "}"]);
    assert_eq!((stream.statuses(), flows), (vec![413], vec![Flow::Hold, Flow::Answered, Flow::Answered]));
}

#[test]
fn a_model_that_is_named_twice_is_the_first_or_none_if_that_is_empty() {
    for (first, end, flow) in [("gpt-4", true, Flow::Continue), (" ", false, Flow::Hold)] {
        let (config, mut stream) = (config(1000), FakeStream::post(&[JSON, ("x-model-id", first)]));
        stream.repeated = true;
        assert_eq!(Request::default().on_headers(&config, &mut stream, end), flow);
        let left = (stream.header("x-model-id"), stream.repeated, stream.route_cleared);
        assert_eq!(left, (Some(first.trim()), false, 1));
    }
}

#[test]
fn compressed_bodies_are_refused() {
    for encoding in ["gzip", "br", "identity, gzip", "\u{0}"] {
        let (stream, flows) = send(&[JSON, ("content-encoding", encoding)], &[CHAT]);
        assert_eq!((stream.statuses(), flows), (vec![415], vec![Flow::Answered, Flow::Answered]));
    }
    for encoding in ["", " Identity "] {
        assert_eq!(send(&[JSON, ("content-encoding", encoding)], &[CHAT]).0.header("x-model-id"), Some("gpt-4"));
    }
}

#[test]
fn trailers_end_a_body() {
    let (config, mut stream, mut request) = (config(1000), FakeStream::post(&[JSON]), Request::default());
    request.on_headers(&config, &mut stream, false);
    stream.received = vec![CHAT.into()];
    assert_eq!(request.on_body(&config, &mut stream, false), Flow::Hold);
    assert_eq!(request.on_end(&config, &mut stream), Flow::Continue);
    assert_eq!(stream.header("x-model-id"), Some("gpt-4"));
    assert_eq!(request.on_end(&config, &mut stream), Flow::Continue);
    assert_eq!(stream.route_cleared, 1);
}
