//! What a filter may ask of Envoy about its HTTP stream. `abi` implements it; tests have a stream made of values.

use crate::reply::Reply;

/// Namespace of the dynamic metadata that the module writes.
pub const NAMESPACE: &str = "gwanmun";

/// One HTTP stream inside Envoy, as seen by one filter.
pub trait Stream {
    /// The first value of a request header; pseudo headers included. `name` is in lower case.
    fn request_header(&self, name: &str) -> Option<&[u8]>;

    /// The first value of a request header, and how many there are.
    fn request_header_values(&self, name: &str) -> (Option<&[u8]>, usize);

    /// Replaces all values of a request header.
    fn set_request_header(&mut self, name: &str, value: &[u8]);

    /// Makes Envoy choose the route again when it needs one.
    fn clear_route_cache(&mut self);

    /// Lets Envoy hold this many bytes of body, where its limit is lower.
    fn raise_buffer_limit(&mut self, bytes: u64);

    /// Bytes of request body that came with this call.
    fn received_bytes(&self) -> u64;

    /// Gives the request body that came with this call to `read`, piece by piece, in order.
    fn for_each_received(&self, read: &mut dyn FnMut(&[u8]));

    /// Writes dynamic metadata for access logs, local replies and later filters.
    fn set_metadata_bool(&mut self, key: &str, value: bool);

    /// Writes dynamic metadata for access logs, local replies and later filters.
    fn set_metadata_text(&mut self, key: &str, value: &str);

    /// Answers the request here; nothing of it goes upstream any more.
    fn reply(&mut self, reply: &Reply);
}

/// What Envoy does with a request's headers, body or trailers after a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// They go on, and what was held goes before them.
    Continue,
    /// They are held.
    Hold,
    /// They are dropped: the request was answered here.
    Answered,
}
