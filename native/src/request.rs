//! The request side of one stream: finds out which model is meant, and refuses what it cannot read.
//!
//! A body is held only while the model must come from it, and then to its end: a second `model` key after the first
//! could otherwise pass a route that the first one chose. The size limit is for what is held; the rest goes on as it
//! comes and costs no memory. What the listener needs to shape its own answers goes into
//! dynamic metadata (`ai`, `stream`, `body_problem`), and no earlier than it is needed: each entry costs a request more
//! than all the rest of the module does to one with a model header.

use crate::config::Config;
use crate::media::{media, Media};
use crate::multipart::Form;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::scan::{Reading, Scanner};
use crate::stream::{Flow, Stream};
use std::panic::{catch_unwind, AssertUnwindSafe};

/// What is known of one request so far.
#[derive(Debug, Default)]
pub struct Request {
    body: Body,
    /// Whether it is an inference request, as far as is known.
    ai: bool,
    /// Bytes of body so far; counted while it is held only.
    seen: u64,
}

#[derive(Debug, Default)]
enum Body {
    /// It goes on as it comes: no inference request as far as the module can tell, or the model is known.
    #[default]
    Passing,
    /// Held until its first byte tells whether it is JSON.
    Undecided(Scanner),
    /// Held until its end.
    Held(Reader),
    /// The request was answered here.
    Answered,
}

#[derive(Debug)]
enum Reader {
    Json(Scanner),
    Form(Form),
    /// Reading it has failed. The request is routed as one without a model.
    Broken,
}

impl Request {
    /// The headers have arrived; `end`: there is no body.
    pub fn on_headers(&mut self, config: &Config, stream: &mut impl Stream, end: bool) -> Flow {
        let Some(model_header) = &config.model_header else {
            return Flow::Continue;
        };
        let (first, count) = stream.request_header_values(model_header);
        let named = first.is_some_and(|value| !value.trim_ascii().is_empty());
        if count > 1 {
            // Routes, policies and backends could each take another one for the model: from here on there is one.
            let model = String::from_utf8_lossy(first.unwrap_or_default().trim_ascii()).into_owned();
            stream.set_request_header(model_header, model.as_bytes());
            stream.clear_route_cache();
        }
        // An empty one is none.
        if named {
            self.ai = true;
            return Flow::Continue;
        }
        if stream.request_header(":method") != Some(b"POST") {
            return Flow::Continue;
        }
        let media = media(stream.request_header("content-type"));
        match (media, end) {
            (Media::Other, _) | (Media::Unnamed, true) => Flow::Continue,
            (Media::Json | Media::Form(_), true) => {
                self.ai = true;
                tell(stream, Problem::Empty);
                Flow::Continue
            }
            (Media::Json, false) => self.hold(config, stream, Reader::Json(Scanner::default())),
            (Media::Form(Some(boundary)), false) => self.hold(config, stream, Reader::Form(Form::new(&boundary))),
            (Media::Form(None), false) => {
                self.ai = true;
                tell(stream, Problem::NoBoundary);
                Flow::Continue
            }
            (Media::Unnamed, false) => {
                stream.raise_buffer_limit(config.max_request_bytes);
                self.body = Body::Undecided(Scanner::default());
                Flow::Hold
            }
        }
    }

    /// A piece of the body has arrived; `end`: it is the last.
    pub fn on_body(&mut self, config: &Config, stream: &mut impl Stream, end: bool) -> Flow {
        if matches!(self.body, Body::Undecided(_)) {
            self.decide(config, stream);
        }
        match self.body {
            Body::Passing => return Flow::Continue,
            Body::Answered => return Flow::Answered,
            Body::Undecided(_) | Body::Held(_) => {}
        }
        self.seen += stream.received_bytes();
        if self.seen > config.max_request_bytes {
            return self.answer(stream, &Reply::too_large(config.max_request_bytes));
        }
        if let Body::Held(reader) = &mut self.body {
            reader.read(stream);
        }
        if end {
            return self.on_end(config, stream);
        }
        Flow::Hold
    }

    /// The request is over, by its last piece of body or by trailers.
    pub fn on_end(&mut self, config: &Config, stream: &mut impl Stream) -> Flow {
        let reading = match std::mem::take(&mut self.body) {
            Body::Held(reader) => reader.finish(),
            Body::Answered => {
                self.body = Body::Answered;
                return Flow::Answered;
            }
            _ => return Flow::Continue,
        };
        if reading.stream {
            stream.set_metadata_bool("stream", true);
        }
        match (&reading.model, &config.model_header) {
            (Ok(model), Some(header)) => {
                stream.set_request_header(header, model.as_bytes());
                stream.clear_route_cache();
            }
            (Ok(_), None) => {}
            (Err(problem), _) => tell(stream, *problem),
        }
        Flow::Continue
    }

    /// Envoy answers the request itself, and is about to shape the answer.
    pub fn on_local_reply(&self, stream: &mut impl Stream) {
        if self.ai {
            stream.set_metadata_bool("ai", true);
        }
    }

    fn hold(&mut self, config: &Config, stream: &mut impl Stream, reader: Reader) -> Flow {
        self.ai = true;
        if let Some(reply) = compressed(config, stream).or_else(|| declared_too_large(config, stream)) {
            return self.answer(stream, &reply);
        }
        stream.raise_buffer_limit(config.max_request_bytes);
        self.body = Body::Held(reader);
        Flow::Hold
    }

    /// Without a content type the first byte that is no white space tells whether the body is meant to be JSON.
    fn decide(&mut self, config: &Config, stream: &mut impl Stream) {
        let mut first = None;
        stream.for_each_received(&mut |chunk| {
            first = first.or_else(|| chunk.iter().copied().find(|byte| !byte.is_ascii_whitespace()));
        });
        match (first, std::mem::take(&mut self.body)) {
            (Some(b'{'), Body::Undecided(scanner)) => {
                self.hold(config, stream, Reader::Json(scanner));
            }
            (None, Body::Undecided(mut scanner)) => {
                stream.for_each_received(&mut |chunk| scanner.feed(chunk));
                self.body = Body::Undecided(scanner);
            }
            _ => {}
        }
    }

    fn answer(&mut self, stream: &mut impl Stream, reply: &Reply) -> Flow {
        self.body = Body::Answered;
        stream.reply(reply);
        Flow::Answered
    }
}

impl Reader {
    /// Reading only tunes: should it panic, the request goes on without a model.
    fn read(&mut self, stream: &impl Stream) {
        let read = catch_unwind(AssertUnwindSafe(|| {
            stream.for_each_received(&mut |chunk| match self {
                Self::Json(scanner) => scanner.feed(chunk),
                Self::Form(form) => form.feed(chunk),
                Self::Broken => {}
            });
        }));
        if read.is_err() {
            *self = Self::Broken;
        }
    }

    fn finish(self) -> Reading {
        let broken = Reading { model: Err(Problem::Internal), stream: false };
        match self {
            Self::Json(scanner) => catch_unwind(AssertUnwindSafe(|| scanner.finish())).unwrap_or(broken),
            Self::Form(form) => catch_unwind(AssertUnwindSafe(|| form.finish())).unwrap_or(broken),
            Self::Broken => broken,
        }
    }
}

fn declared_too_large(config: &Config, stream: &impl Stream) -> Option<Reply> {
    let length = std::str::from_utf8(stream.request_header("content-length")?).ok()?;
    let length: u64 = length.parse().ok()?;
    (length > config.max_request_bytes).then(|| Reply::too_large(config.max_request_bytes))
}

/// A compressed body is not read: a broken or endless one would have to be told from a good one before it goes on.
fn compressed(config: &Config, stream: &impl Stream) -> Option<Reply> {
    const LONGEST_SHOWN: usize = 64;
    let encoding = stream.request_header("content-encoding")?.trim_ascii();
    if encoding.is_empty() || encoding.eq_ignore_ascii_case(b"identity") {
        return None;
    }
    let shown = String::from_utf8_lossy(&encoding[..encoding.len().min(LONGEST_SHOWN)]);
    Some(Reply::compressed(&shown, config.model_header.as_deref().unwrap_or_default()))
}

fn tell(stream: &mut impl Stream, problem: Problem) {
    stream.set_metadata_text("body_problem", &problem.to_string());
}

#[cfg(test)]
mod tests;
