//! gwanmun's module for Envoy: what the data plane needs and Envoy's own filters do badly or cannot do.
//!
//! From the outside in: `abi` speaks Envoy's C interface, and has all `unsafe` but that of `cpu`, which chooses vector
//! instructions; `stream` names what a filter may ask of Envoy; `filter` is one HTTP stream and keeps panics inside the
//! module; `request` decides about the request; `scan`, `multipart` and `media` read bytes; `config`, `problem`, `reply`
//! and `shard` are values. Of what has ended, `log` writes the line, `sink` brings it to a file, and `count` counts.
//!
//! Everything but `abi` is tested without Envoy. Deliberately absent: threads and files but for `sink`'s, clocks, and any
//! allocation that grows with the size of a body.

#![deny(unsafe_code)]
#![warn(missing_docs)]

// Envoy provides the other half of this interface when it loads the library; test binaries have no Envoy to link with.
#[cfg(not(any(test, fuzzing)))]
mod abi;

pub mod config;
pub mod count;
mod cpu;
pub mod filter;
pub mod log;
pub mod media;
pub mod multipart;
pub mod problem;
pub mod reply;
pub mod request;
pub mod scan;
pub mod shard;
pub mod sink;
pub mod stream;
mod text;

#[cfg(test)]
mod testing;
