use super::{Config, Connection, Ended, Kind, Logger, Request};
use crate::count::Counts;
use crate::sink::Sink;
use crate::testing::TemporaryFile;
use serde_json::{json, Value};
use std::sync::{Arc, Mutex};

const SECOND: i64 = 1_000_000_000;

fn requests(model_header: Option<&str>) -> Kind {
    Kind::Requests { model_header: model_header.map(str::to_owned) }
}

fn logged(kind: Kind, log: impl FnOnce(&mut Logger)) -> (Value, Arc<Mutex<Counts>>) {
    let file = TemporaryFile::new();
    let counts = Arc::new(Mutex::new(Counts::default()));
    let config = Arc::new(Config { path: file.path().to_owned(), kind });
    let mut logger = Logger::new(config, Sink::to(file.path(), |_| {}), Arc::clone(&counts));
    log(&mut logger);
    logger.flush();
    (serde_json::from_slice(&file.read()).unwrap(), counts)
}

#[test]
fn a_request_is_a_line_with_all_that_is_known_of_it() {
    let ended = Ended {
        start: 1_796_097_634 * SECOND,
        duration: Some(2 * SECOND),
        client: Some((b"::1", 5000)),
        cluster: Some(b"ai/gpt:8000"),
        upstream: Some((b"10.0.0.1", 8001)),
        flags: 1 << 2 | 1 << 15,
        bytes_received: 12,
        bytes_sent: 345,
    };
    let request = Request {
        id: Some(b"id-1"),
        method: Some(b"POST"),
        authority: Some(b"me"),
        path: Some(b"/v1/chat?key=secret"),
        model: Some(b"gpt-4"),
        route: Some(b"HTTPRoute/ai/gpt/0/0"),
        code: 200,
        details: Some(b"via upstream"),
        attempts: 2,
        first_byte: Some(SECOND / 2),
        ..Request::default()
    };
    let (line, _) = logged(requests(Some("x-model-id")), |logger| logger.request(&ended, &request));
    let expected = json!({
        "time": "2026-12-01T04:00:34.000Z", "client": "[::1]:5000", "cluster": "ai/gpt:8000", "upstream": "10.0.0.1:8001",
        "flags": "UT,URX", "bytes_received": 12, "bytes_sent": 345, "duration_ms": 2000, "request_id": "id-1",
        "method": "POST", "authority": "me", "path": "/v1/chat", "route": "HTTPRoute/ai/gpt/0/0", "code": 200,
        "details": "via_upstream", "attempts": 2, "first_byte_ms": 500, "model": "gpt-4", "body_problem": null,
    });
    assert_eq!(line, expected);
}

#[test]
fn what_is_not_known_is_null() {
    let (line, _) = logged(requests(None), |logger| logger.request(&Ended::default(), &Request::default()));
    let nulls: Vec<&String> =
        line.as_object().unwrap().iter().filter(|(_, value)| value.is_null()).map(|(name, _)| name).collect();
    let expected = [
        "authority",
        "client",
        "cluster",
        "details",
        "duration_ms",
        "first_byte_ms",
        "method",
        "path",
        "request_id",
        "route",
        "upstream",
    ];
    assert_eq!(nulls, expected);
    assert_eq!(line["flags"], "-");
}

#[test]
fn a_connection_is_a_line_of_its_own_kind() {
    let connection = Connection { server_name: Some(b"a.example"), failure: None };
    let (line, _) = logged(Kind::Connections { listener: "tcp".to_owned() }, |logger| {
        logger.connection(&Ended::default(), &connection)
    });
    assert_eq!(
        (&line["listener"], &line["server_name"], &line["failure"]),
        (&json!("tcp"), &json!("a.example"), &Value::Null)
    );
    assert_eq!(line.get("code"), None);
}

#[test]
fn requests_are_counted_by_their_backend() {
    let ended = Ended { cluster: Some(b"ai/gpt:8000"), ..Ended::default() };
    let request = Request {
        code: 200,
        sent: Some(SECOND),
        first_byte: Some(2 * SECOND),
        last_byte: Some(4 * SECOND),
        ..Request::default()
    };
    let (_, counts) = logged(requests(None), |logger| logger.request(&ended, &request));
    let text = counts.lock().unwrap().text();
    assert!(text.contains("gwanmun_backend_requests_total{backend=\"ai/gpt:8000\",code=\"200\"} 1\n"), "{text}");
    assert!(text.contains("gwanmun_backend_request_seconds_sum{backend=\"ai/gpt:8000\"} 3\n"), "{text}");
    assert!(text.contains("gwanmun_backend_first_byte_seconds_sum{backend=\"ai/gpt:8000\"} 1\n"), "{text}");
}

#[test]
fn mistakes_of_the_configuration_are_named() {
    for (name, json, expected) in [
        ("requests", "[]", "not a JSON object"),
        ("requests", "{}", "path: it is missing"),
        ("requests", r#"{"path": 1}"#, "path: 1 is not a text"),
        ("requests", r#"{"path": "log", "listener": "tcp"}"#, "model_header: it is missing"),
        ("connections", r#"{"path": "log", "listener": "tcp", "model_header": ""}"#, "unknown field \"model_header\""),
        ("others", r#"{"path": "log"}"#, "unknown logger_name \"others\""),
    ] {
        let message = Config::parse(name.as_bytes(), json.as_bytes()).unwrap_err();
        assert!(message.contains(expected), "{message}");
    }
    let read = |name: &[u8], json: &[u8]| Config::parse(name, json).unwrap().kind;
    assert_eq!(read(b"requests", br#"{"path": "log", "model_header": "x-model"}"#), requests(Some("x-model")));
    assert_eq!(read(b"requests", br#"{"path": "log", "model_header": ""}"#), requests(None));
    let tcp = Kind::Connections { listener: "tcp".to_owned() };
    assert_eq!(read(b"connections", br#"{"path": "log", "listener": "tcp"}"#), tcp);
}
