//! The access log: what Envoy knows of a request or a connection that has ended, as a line of JSON.
//!
//! Envoy's own formatter takes a request fifteen thousand instructions for the same line, an eighth of what the proxy does
//! for it altogether. A field that there is nothing for is `null`. Deliberately absent: where lines go (`sink`).

use crate::count::{Counts, Outcome};
use crate::sink::Sink;
use json::{Clock, Line};
use serde_json::{Map, Value};
use std::sync::{Arc, Mutex, PoisonError};

mod json;

/// An IP address and a port.
pub type Address<'a> = (&'a [u8], u32);

/// What is known of anything that has ended. Times are in nanoseconds, from its start but for the first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ended<'a> {
    /// When it began, since 1970.
    pub start: i64,
    /// When it ended.
    pub duration: Option<i64>,
    /// The client's end of the connection.
    pub client: Option<Address<'a>>,
    /// The backend that it went to.
    pub cluster: Option<&'a [u8]>,
    /// The backend's endpoint that it went to.
    pub upstream: Option<Address<'a>>,
    /// Envoy's response flags, a bit for each.
    pub flags: u64,
    /// Bytes of body, or of the connection, from the client.
    pub bytes_received: u64,
    /// The same to the client.
    pub bytes_sent: u64,
}

/// What is known of a request besides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// The header `x-request-id`.
    pub id: Option<&'a [u8]>,
    /// GET, POST and so on.
    pub method: Option<&'a [u8]>,
    /// The host that it was for.
    pub authority: Option<&'a [u8]>,
    /// As the client sent it.
    pub path: Option<&'a [u8]>,
    /// The model, from the header that the listener has for it.
    pub model: Option<&'a [u8]>,
    /// Why the body did not say which model is meant.
    pub body_problem: Option<&'a [u8]>,
    /// The route that took it.
    pub route: Option<&'a [u8]>,
    /// The status of the answer; 0 where there was none.
    pub code: u32,
    /// Where the answer comes from.
    pub details: Option<&'a [u8]>,
    /// How often it was sent to a backend.
    pub attempts: u32,
    /// When the last attempt began to be sent.
    pub sent: Option<i64>,
    /// When its answer began.
    pub first_byte: Option<i64>,
    /// When its answer ended.
    pub last_byte: Option<i64>,
}

/// What is known of a connection besides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connection<'a> {
    /// The host that the client asked for by TLS.
    pub server_name: Option<&'a [u8]>,
    /// Why TLS to the backend failed.
    pub failure: Option<&'a [u8]>,
}

/// What a listener's log is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of HTTP requests. `model_header` carries the model's name, in lower case; `None`: lines have no model.
    Requests {
        /// See above.
        model_header: Option<String>,
    },
    /// Of TCP connections, with the listener's name.
    Connections {
        /// See above.
        listener: String,
    },
}

/// The configuration of one listener's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whose file the lines go to.
    pub path: String,
    /// What they are of.
    pub kind: Kind,
}

impl Config {
    /// Reads the configuration of the log of that name from JSON.
    ///
    /// # Errors
    /// A sentence that names what is wrong.
    pub fn parse(name: &[u8], json: &[u8]) -> Result<Self, String> {
        let mut fields: Map<String, Value> =
            serde_json::from_slice(json).map_err(|error| format!("configuration is not a JSON object: {error}"))?;
        let mut text = |name: &str| match fields.remove(name) {
            Some(Value::String(text)) => Ok(text),
            None => Err(format!("{name}: it is missing")),
            Some(other) => Err(format!("{name}: {other} is not a text")),
        };
        let path = text("path")?;
        let kind = match name {
            b"requests" => {
                let header = text("model_header")?;
                Kind::Requests { model_header: (!header.is_empty()).then_some(header) }
            }
            b"connections" => Kind::Connections { listener: text("listener")? },
            other => {
                let other = String::from_utf8_lossy(other);
                return Err(format!("unknown logger_name \"{other}\"; known are requests and connections"));
            }
        };
        match fields.keys().next() {
            Some(unknown) => Err(format!("unknown field \"{unknown}\"")),
            None => Ok(Self { path, kind }),
        }
    }
}

/// The log of one listener on one thread.
#[derive(Debug)]
pub struct Logger {
    config: Arc<Config>,
    sink: Arc<Sink>,
    counts: Arc<Mutex<Counts>>,
    clock: Clock,
    line: Vec<u8>,
}

impl Logger {
    /// A log that writes to `sink` and counts in `counts`, which is this thread's.
    #[must_use]
    pub fn new(config: Arc<Config>, sink: Arc<Sink>, counts: Arc<Mutex<Counts>>) -> Self {
        Self { config, sink, counts, clock: Clock::default(), line: Vec::with_capacity(1024) }
    }

    /// What it is of.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.config.kind
    }

    /// A request has ended.
    pub fn request(&mut self, ended: &Ended<'_>, request: &Request<'_>) {
        if let Some(cluster) = ended.cluster {
            let outcome = Outcome {
                code: request.code,
                duration: since(request.sent, request.last_byte),
                first_byte: since(request.sent, request.first_byte),
            };
            self.counts.lock().unwrap_or_else(PoisonError::into_inner).add(cluster, outcome);
        }
        let mut line = Line::begin(&mut self.line);
        line.ended(ended, &mut self.clock);
        line.text(b",\"request_id\":", request.id);
        line.text(b",\"method\":", request.method);
        line.text(b",\"authority\":", request.authority);
        line.text(b",\"path\":", request.path.map(without_query));
        line.text(b",\"route\":", request.route);
        line.number(b",\"code\":", u64::from(request.code));
        line.word(b",\"details\":", request.details);
        line.number(b",\"attempts\":", u64::from(request.attempts));
        line.milliseconds(b",\"first_byte_ms\":", request.first_byte);
        if matches!(self.config.kind, Kind::Requests { model_header: Some(_) }) {
            line.text(b",\"model\":", request.model);
            line.text(b",\"body_problem\":", request.body_problem);
        }
        line.end();
        self.sink.write(&self.line);
    }

    /// A connection has ended.
    pub fn connection(&mut self, ended: &Ended<'_>, connection: &Connection<'_>) {
        let mut line = Line::begin(&mut self.line);
        line.ended(ended, &mut self.clock);
        if let Kind::Connections { listener } = &self.config.kind {
            line.text(b",\"listener\":", Some(listener.as_bytes()));
        }
        line.text(b",\"server_name\":", connection.server_name);
        line.text(b",\"failure\":", connection.failure);
        line.end();
        self.sink.write(&self.line);
    }

    /// Waits until what was written is in the file.
    pub fn flush(&self) {
        self.sink.flush();
    }
}

fn since(begin: Option<i64>, end: Option<i64>) -> Option<u64> {
    u64::try_from(end? - begin?).ok()
}

fn without_query(path: &[u8]) -> &[u8] {
    path.split(|byte| *byte == b'?').next().unwrap_or_default()
}

#[cfg(test)]
mod tests;
