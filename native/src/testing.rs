//! For tests: a stream made of values, and seeded chance.

use crate::reply::Reply;
use crate::stream::Stream;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An HTTP stream without Envoy. What the filter did is in the public fields.
#[derive(Debug, Default)]
pub struct FakeStream {
    pub headers: BTreeMap<String, Vec<u8>>,
    pub received: Vec<Vec<u8>>,
    pub metadata: BTreeMap<String, String>,
    pub replies: Vec<Reply>,
    /// Whether every header has two values.
    pub repeated: bool,
    pub route_cleared: usize,
    pub buffer_limit: Option<u64>,
    /// The method of `Stream` that panics.
    pub panics_in: &'static str,
}

impl FakeStream {
    /// A POST with these headers besides the pseudo headers.
    pub fn post(headers: &[(&str, &str)]) -> Self {
        let pseudo = [(":method", "POST"), (":authority", "chat.example.com"), (":path", "/")];
        let headers = pseudo.iter().chain(headers).map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        Self { headers: headers.collect(), ..Self::default() }
    }

    /// The header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| std::str::from_utf8(value).unwrap())
    }

    /// The statuses of the replies sent.
    pub fn statuses(&self) -> Vec<u32> {
        self.replies.iter().map(|reply| reply.status).collect()
    }

    fn enter(&self, method: &str) {
        assert_ne!(self.panics_in, method, "a panic for a test");
    }
}

impl Stream for FakeStream {
    fn request_header(&self, name: &str) -> Option<&[u8]> {
        self.enter("request_header");
        self.headers.get(name).map(Vec::as_slice)
    }

    fn request_header_values(&self, name: &str) -> (Option<&[u8]>, usize) {
        let first = self.request_header(name);
        (first, usize::from(first.is_some()) * if self.repeated { 2 } else { 1 })
    }

    fn set_request_header(&mut self, name: &str, value: &[u8]) {
        self.repeated = false;
        self.headers.insert(name.to_owned(), value.to_vec());
    }

    fn clear_route_cache(&mut self) {
        self.route_cleared += 1;
    }

    fn raise_buffer_limit(&mut self, bytes: u64) {
        self.buffer_limit = Some(bytes);
    }

    fn received_bytes(&self) -> u64 {
        self.enter("received_bytes");
        self.received.iter().map(|chunk| chunk.len() as u64).sum()
    }

    fn for_each_received(&self, read: &mut dyn FnMut(&[u8])) {
        self.enter("for_each_received");
        self.received.iter().for_each(|chunk| read(chunk));
    }

    fn set_metadata_bool(&mut self, key: &str, value: bool) {
        self.set_metadata_text(key, &value.to_string());
    }

    fn set_metadata_text(&mut self, key: &str, value: &str) {
        self.metadata.insert(key.to_owned(), value.to_owned());
    }

    fn reply(&mut self, reply: &Reply) {
        self.replies.push(reply.clone());
    }
}

/// Seeded chance (SplitMix64): the same cases on every machine.
#[derive(Debug)]
pub struct Chance(pub u64);

impl Chance {
    /// A number in `0..below`.
    pub fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % below as u64) as usize
    }

    /// One of the choices.
    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// The bytes in pieces of random length, empty ones included.
    pub fn chunks<'a>(&mut self, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let longest = self.of(&[1, 3, 20, 200]);
        let mut chunks = Vec::new();
        while !bytes.is_empty() {
            let (chunk, rest) = bytes.split_at(self.below(longest + 1).min(bytes.len()));
            chunks.push(chunk);
            bytes = rest;
        }
        chunks
    }

    /// The bytes with a few of them replaced, removed or repeated.
    pub fn mutate(&mut self, bytes: &[u8], alphabet: &[u8]) -> Vec<u8> {
        let mut mutated = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(mutated.len().max(1));
            match self.below(4) {
                _ if mutated.is_empty() => {}
                0 => mutated[at] = self.of(alphabet),
                1 => mutated.insert(at, self.of(alphabet)),
                2 => drop(mutated.remove(at)),
                _ => {
                    let until = at + self.below(mutated.len() - at) + 1;
                    let piece = mutated[at..until].to_vec();
                    mutated.extend(piece);
                }
            }
        }
        mutated
    }
}

/// A file that is not there yet, and goes with the value.
pub struct TemporaryFile {
    path: String,
}

impl TemporaryFile {
    pub fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("gwanmun-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        Self { path: path.to_str().unwrap().to_owned() }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is in it; nothing where it is not there.
    pub fn read(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap_or_default()
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
