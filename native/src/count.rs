//! How requests ended and how long backends took for them: what Envoy's own counts by status say, for a tenth of their price.
//!
//! Each thread counts for itself, so that no request waits for another one; who asks for the sum takes the threads one by
//! one. Deliberately absent: whatever Envoy counts cheaply (connections, retries, timeouts).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::{Display, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Upper bounds of the buckets, in milliseconds: first bytes come in milliseconds, whole generations take minutes.
const BOUNDS_MS: [f64; 17] =
    [1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 3e5, 1.8e6];

/// How one request ended. Times are in nanoseconds, from when it began to be sent to the backend.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The status of the answer; 0 where there was none.
    pub code: u32,
    /// Until the answer ended.
    pub duration: Option<u64>,
    /// Until the answer began.
    pub first_byte: Option<u64>,
}

/// Counts by backend.
#[derive(Debug, Default)]
pub struct Counts {
    backends: HashMap<Box<[u8]>, Backend>,
}

#[derive(Debug, Default)]
struct Backend {
    /// Few of them: a list is faster than a map.
    codes: Vec<(u32, u64)>,
    duration: Histogram,
    first_byte: Histogram,
}

#[derive(Debug, Default)]
struct Histogram {
    /// By bound; what is above all of them is last.
    buckets: [u64; BOUNDS_MS.len() + 1],
    nanoseconds: u64,
}

impl Counts {
    /// Counts a request.
    pub fn add(&mut self, backend: &[u8], outcome: Outcome) {
        // A request's backend is mostly known already, and looking it up then needs no copy of its name.
        if let Some(known) = self.backends.get_mut(backend) {
            return known.add(outcome);
        }
        self.backends.entry(backend.into()).or_default().add(outcome);
    }

    fn merge(&mut self, other: &Self) {
        for (name, backend) in &other.backends {
            let own = self.backends.entry(name.clone()).or_default();
            backend.codes.iter().for_each(|(code, count)| *own.code(*code) += count);
            own.duration.merge(&backend.duration);
            own.first_byte.merge(&backend.first_byte);
        }
    }

    /// As Prometheus reads it.
    #[must_use]
    pub fn text(&self) -> String {
        let sorted: BTreeMap<String, &Backend> =
            self.backends.iter().map(|(name, backend)| (label(name), backend)).collect();
        let mut out = String::new();
        head(
            &mut out,
            "gwanmun_backend_requests_total",
            "counter",
            "Requests by the status of their answer; 0: the client left first.",
        );
        for (name, backend) in &sorted {
            for (code, count) in &backend.codes {
                line(
                    &mut out,
                    format_args!("gwanmun_backend_requests_total{{backend=\"{name}\",code=\"{code}\"}} {count}"),
                );
            }
        }
        let durations = sorted.iter().map(|(name, backend)| (name.as_str(), &backend.duration));
        histogram(
            &mut out,
            "gwanmun_backend_request_seconds",
            "From sending a request until its answer ended.",
            durations,
        );
        let first_bytes = sorted.iter().map(|(name, backend)| (name.as_str(), &backend.first_byte));
        histogram(
            &mut out,
            "gwanmun_backend_first_byte_seconds",
            "From sending a request until its answer began.",
            first_bytes,
        );
        out
    }
}

impl Backend {
    fn add(&mut self, outcome: Outcome) {
        *self.code(outcome.code) += 1;
        outcome.duration.into_iter().for_each(|nanoseconds| self.duration.add(nanoseconds));
        outcome.first_byte.into_iter().for_each(|nanoseconds| self.first_byte.add(nanoseconds));
    }

    fn code(&mut self, code: u32) -> &mut u64 {
        let index = self.codes.iter().position(|(known, _)| *known == code).unwrap_or_else(|| {
            self.codes.push((code, 0));
            self.codes.len() - 1
        });
        &mut self.codes[index].1
    }
}

impl Histogram {
    fn add(&mut self, nanoseconds: u64) {
        let milliseconds = nanoseconds as f64 / 1e6;
        self.buckets[BOUNDS_MS.iter().take_while(|bound| milliseconds > **bound).count()] += 1;
        self.nanoseconds += nanoseconds;
    }

    fn merge(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(own, count)| *own += count);
        self.nanoseconds += other.nanoseconds;
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    line(out, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
}

fn histogram<'a>(out: &mut String, name: &str, help: &str, all: impl Iterator<Item = (&'a str, &'a Histogram)>) {
    head(out, name, "histogram", help);
    for (backend, found) in all {
        let mut so_far = 0;
        for (bound, count) in BOUNDS_MS.iter().zip(found.buckets) {
            so_far += count;
            line(out, format_args!("{name}_bucket{{backend=\"{backend}\",le=\"{}\"}} {so_far}", bound / 1e3));
        }
        so_far += found.buckets[BOUNDS_MS.len()];
        line(out, format_args!("{name}_bucket{{backend=\"{backend}\",le=\"+Inf\"}} {so_far}"));
        line(out, format_args!("{name}_sum{{backend=\"{backend}\"}} {}", found.nanoseconds as f64 / 1e9));
        line(out, format_args!("{name}_count{{backend=\"{backend}\"}} {so_far}"));
    }
}

fn line(out: &mut String, text: impl Display) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{text}");
}

fn label(name: &[u8]) -> String {
    String::from_utf8_lossy(name).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The counts of all threads of this process, of backends that there are.
#[derive(Debug, Default)]
pub struct Registry {
    threads: Mutex<Vec<Arc<Mutex<Counts>>>>,
    /// `None`: Envoy does not tell.
    there: Mutex<Option<HashSet<Box<[u8]>>>>,
}

impl Registry {
    /// The registry of this process.
    pub fn global() -> &'static Self {
        static GLOBAL: Registry = Registry { threads: Mutex::new(Vec::new()), there: Mutex::new(None) };
        &GLOBAL
    }

    /// New counts for one thread.
    pub fn thread(&self) -> Arc<Mutex<Counts>> {
        let counts = Arc::new(Mutex::new(Counts::default()));
        locked(&self.threads).push(Arc::clone(&counts));
        counts
    }

    /// From now on only backends of which Envoy has told that they are there are counted.
    pub fn follow(&self) {
        locked(&self.there).get_or_insert_with(HashSet::new);
    }

    /// A backend is there.
    pub fn added(&self, backend: &[u8]) {
        if let Some(there) = locked(&self.there).as_mut() {
            there.insert(backend.into());
        }
    }

    /// A backend has gone, and its counts with it: those of all that ever were would be ever more.
    pub fn removed(&self, backend: &[u8]) {
        if let Some(there) = locked(&self.there).as_mut() {
            there.remove(backend);
        }
        locked(&self.threads).iter().for_each(|counts| {
            locked(counts).backends.remove(backend);
        });
    }

    /// The sum of all threads, as Prometheus reads it.
    pub fn text(&self) -> String {
        let mut sum = Counts::default();
        let there = locked(&self.there);
        for counts in locked(&self.threads).iter() {
            let mut counts = locked(counts);
            // A request that was under way when its backend went has brought it back.
            if let Some(there) = there.as_ref() {
                counts.backends.retain(|name, _| there.contains(name));
            }
            sum.merge(&counts);
        }
        sum.text()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Counts, Outcome, Registry};

    fn outcome(code: u32) -> Outcome {
        Outcome { code, duration: Some(30_000_000), first_byte: None }
    }

    #[test]
    fn times_are_in_the_bucket_of_the_next_bound() {
        let mut counts = Counts::default();
        for nanoseconds in [999_999, 1_000_000, 1_000_001, 3_600_000_000_000] {
            counts.add(b"a", Outcome { code: 200, duration: Some(nanoseconds), first_byte: None });
        }
        let text = counts.text();
        for (bound, count) in [("0.001", 2), ("0.0025", 3), ("1800", 3), ("+Inf", 4)] {
            let expected = format!("gwanmun_backend_request_seconds_bucket{{backend=\"a\",le=\"{bound}\"}} {count}\n");
            assert!(text.contains(&expected), "{expected} is not in {text}");
        }
        assert!(text.contains("gwanmun_backend_request_seconds_count{backend=\"a\"} 4\n"), "{text}");
    }

    #[test]
    fn threads_are_added_up() {
        let registry = Registry::default();
        for codes in [[200, 503], [200, 200]] {
            let counts = registry.thread();
            for code in codes {
                counts.lock().unwrap().add(b"ai/\"gpt\"", outcome(code));
            }
        }
        let text = registry.text();
        assert!(text.contains("requests_total{backend=\"ai/\\\"gpt\\\"\",code=\"200\"} 3\n"), "{text}");
        assert!(text.contains("code=\"503\"} 1\n"), "{text}");
        assert!(text.contains("request_seconds_sum{backend=\"ai/\\\"gpt\\\"\"} 0.12\n"), "{text}");
    }

    #[test]
    fn what_has_gone_is_forgotten_even_if_a_request_ends_later() {
        let registry = Registry::default();
        let counts = registry.thread();
        registry.follow();
        for backend in [&b"stays"[..], b"goes"] {
            registry.added(backend);
            counts.lock().unwrap().add(backend, outcome(200));
        }
        registry.removed(b"goes");
        counts.lock().unwrap().add(b"goes", outcome(200));
        let text = registry.text();
        assert!(text.contains("stays") && !text.contains("goes"), "{text}");
        assert_eq!(counts.lock().unwrap().backends.len(), 1);
    }
}
