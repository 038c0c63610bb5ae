//! One HTTP stream through the `inference` filter. Panics end here: what guards fails closed with a 500, what tunes
//! fails open (see `request`).

use crate::config::Config;
use crate::reply::Reply;
use crate::request::Request;
use crate::shard::{shard_of, SHARD_HEADER};
use crate::stream::{Flow, Stream};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

/// The name that Envoy's configuration gives this filter.
pub const FILTER_NAME: &str = "inference";

/// State of one stream.
#[derive(Debug)]
pub struct Filter {
    config: Arc<Config>,
    request: Request,
}

impl Filter {
    /// A filter for a new stream.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self { config, request: Request::default() }
    }

    /// The request's headers have arrived; `end`: there is no body.
    pub fn on_request_headers(&mut self, stream: &mut impl Stream, end: bool) -> Flow {
        closed(stream, |stream| {
            if self.config.shards > 0 {
                let shard = shard_of(stream.request_header(":authority").unwrap_or_default(), self.config.shards);
                stream.set_request_header(SHARD_HEADER, shard.to_string().as_bytes());
                stream.clear_route_cache();
            }
            self.request.on_headers(&self.config, stream, end)
        })
    }

    /// A piece of the request's body has arrived; `end`: it is the last.
    pub fn on_request_body(&mut self, stream: &mut impl Stream, end: bool) -> Flow {
        closed(stream, |stream| self.request.on_body(&self.config, stream, end))
    }

    /// The request's trailers have arrived.
    pub fn on_request_trailers(&mut self, stream: &mut impl Stream) -> Flow {
        closed(stream, |stream| self.request.on_end(&self.config, stream))
    }

    /// Envoy answers the request itself. What is told here tunes the answer: a panic leaves it as it is.
    pub fn on_local_reply(&self, stream: &mut impl Stream) {
        let _ = catch_unwind(AssertUnwindSafe(|| self.request.on_local_reply(stream)));
    }
}

/// Runs a hook that guards. Were a panic to let the request through, the size limit could be passed by causing one.
fn closed<S: Stream>(stream: &mut S, hook: impl FnOnce(&mut S) -> Flow) -> Flow {
    if let Ok(flow) = catch_unwind(AssertUnwindSafe(|| hook(stream))) {
        return flow;
    }
    stream.reply(&Reply::internal());
    Flow::Answered
}

#[cfg(test)]
mod tests;
