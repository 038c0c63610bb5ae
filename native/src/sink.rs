//! A file that lines are appended to, by a thread of its own: no request waits for a disk.
//!
//! Lines are written a tenth of a second after the first of them came, or when there are many. A file that was moved away is
//! begun anew. What cannot be written is lost and said so, as memory is bounded.

use std::collections::HashMap;
use std::fs::{metadata, File, OpenOptions};
use std::io::{Result, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use std::{mem, thread};

const MANY: usize = 64 * 1024;
const MOST: usize = 16 * 1024 * 1024;
const SOON: Duration = Duration::from_millis(100);
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// The end of a file that is written to. What was written is in the file soon after it has gone, too.
#[derive(Debug)]
pub struct Sink {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write, or reason to do so at once.
    work: Condvar,
    /// Everything is written.
    idle: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    lost: u64,
    writing: bool,
    hurry: bool,
    ended: bool,
}

impl Sink {
    /// The one sink of this process for a file. `tell` hears what goes wrong.
    pub fn shared(path: &str, tell: fn(&str)) -> Arc<Self> {
        static SINKS: Mutex<Option<HashMap<String, Weak<Sink>>>> = Mutex::new(None);
        let mut sinks = SINKS.lock().unwrap_or_else(PoisonError::into_inner);
        let sinks = sinks.get_or_insert_with(HashMap::new);
        if let Some(sink) = sinks.get(path).and_then(Weak::upgrade) {
            return sink;
        }
        sinks.retain(|_, sink| sink.strong_count() > 0);
        let sink = Self::to(path, tell);
        sinks.insert(path.to_owned(), Arc::downgrade(&sink));
        sink
    }

    /// A sink of its own. The file is made when there is something to write.
    pub fn to(path: &str, tell: fn(&str)) -> Arc<Self> {
        let shared = Arc::new(Shared::default());
        let mut writer = Writer { shared: Arc::clone(&shared), path: path.to_owned(), file: None, tell, broken: false };
        let started = thread::Builder::new().name("gwanmun_log".to_owned()).spawn(move || writer.run());
        if let Err(error) = started {
            tell(&format!("no thread for {path}: {error}; nothing is written to it"));
        }
        Arc::new(Self { shared })
    }

    /// Appends a line, which ends with a line feed.
    pub fn write(&self, line: &[u8]) {
        let mut state = self.shared.locked();
        let before = state.lines.len();
        if before + line.len() > MOST {
            state.lost += 1;
            return;
        }
        state.lines.extend_from_slice(line);
        if before == 0 || (before < MANY && before + line.len() >= MANY) {
            self.shared.work.notify_one();
        }
    }

    /// Waits until everything is in the file, for a second at most.
    pub fn flush(&self) {
        let mut state = self.shared.locked();
        state.hurry = true;
        self.shared.work.notify_one();
        let all = |state: &mut State| state.writing || !state.lines.is_empty();
        drop(self.shared.idle.wait_timeout_while(state, FLUSH_PATIENCE, all));
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.locked().ended = true;
        self.shared.work.notify_one();
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer {
    shared: Arc<Shared>,
    path: String,
    file: Option<File>,
    tell: fn(&str),
    /// Of a file that cannot be written it is told once.
    broken: bool,
}

impl Writer {
    fn run(&mut self) {
        let mut lines = Vec::new();
        while let Some(lost) = self.next(&mut lines) {
            let written = self.write(&lines);
            lines.clear();
            lines.shrink_to(2 * MANY);
            if lost > 0 {
                (self.tell)(&format!("{lost} lines for {} were lost, as they could not be written in time", self.path));
            }
            match written {
                Ok(()) => self.broken = false,
                Err(error) if !self.broken => {
                    self.broken = true;
                    (self.tell)(&format!("{} cannot be written: {error}; its lines are lost until it can", self.path));
                }
                Err(_) => {}
            }
        }
    }

    /// Waits for lines and takes them; `None` at the end. Gives how many were lost since the last.
    fn next(&self, lines: &mut Vec<u8>) -> Option<u64> {
        let mut state = self.shared.locked();
        state.writing = false;
        while state.lines.is_empty() {
            self.shared.idle.notify_all();
            state.hurry = false;
            if state.ended {
                return None;
            }
            state = self.shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let few = |state: &mut State| state.lines.len() < MANY && !state.hurry && !state.ended;
        let (mut state, _) =
            self.shared.work.wait_timeout_while(state, SOON, few).unwrap_or_else(PoisonError::into_inner);
        state.writing = true;
        mem::swap(&mut state.lines, lines);
        Some(mem::take(&mut state.lost))
    }

    fn write(&mut self, lines: &[u8]) -> Result<()> {
        if !self.file.as_ref().is_some_and(|file| self.is_still_there(file)) {
            self.file = None;
            self.file = Some(OpenOptions::new().create(true).append(true).open(&self.path)?);
        }
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(lines))
    }

    fn is_still_there(&self, file: &File) -> bool {
        match (file.metadata(), metadata(&self.path)) {
            (Ok(own), Ok(there)) => (own.dev(), own.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Sink, MANY, MOST};
    use crate::testing::TemporaryFile;
    use std::fs;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    fn within(seconds: u64, mut holds: impl FnMut() -> bool) -> bool {
        let until = Instant::now() + Duration::from_secs(seconds);
        while !holds() {
            if Instant::now() > until {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }

    #[test]
    fn lines_are_in_the_file_soon_and_in_order() {
        let file = TemporaryFile::new();
        let sink = Sink::to(file.path(), |problem| panic!("{problem}"));
        (0..10).for_each(|number| sink.write(format!("{number}\n").as_bytes()));
        assert!(within(10, || file.read() == b"0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n"), "{:?}", file.read());
    }

    #[test]
    fn what_was_written_before_the_end_is_not_lost() {
        let file = TemporaryFile::new();
        let sink = Sink::to(file.path(), |_| {});
        sink.write(b"last\n");
        drop(sink);
        assert!(within(10, || file.read() == b"last\n"));
    }

    #[test]
    fn a_file_that_was_moved_is_begun_anew() {
        let (file, moved) = (TemporaryFile::new(), TemporaryFile::new());
        let sink = Sink::to(file.path(), |_| {});
        sink.write(b"first\n");
        sink.flush();
        fs::rename(file.path(), moved.path()).unwrap();
        sink.write(b"second\n");
        sink.flush();
        assert_eq!((moved.read(), file.read()), (b"first\n".to_vec(), b"second\n".to_vec()));
    }

    #[test]
    fn threads_do_not_break_each_others_lines() {
        let file = TemporaryFile::new();
        let sink = Sink::to(file.path(), |_| {});
        let line = [b'x'; 1000];
        let threads = [(); 4].map(|()| {
            let sink = Arc::clone(&sink);
            std::thread::spawn(move || (0..MANY / 500).for_each(|_| sink.write(&[&line[..], b"\n"].concat())))
        });
        for thread in threads {
            thread.join().unwrap();
        }
        sink.flush();
        let written = file.read();
        let mut lines = written.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        assert_eq!(written.len(), 4 * (MANY / 500) * 1001);
        assert!(lines.all(|found| found == line));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_told_of_once() {
        static TOLD: AtomicUsize = AtomicUsize::new(0);
        let sink = Sink::to("/nowhere/log", |_| {
            TOLD.fetch_add(1, Ordering::SeqCst);
        });
        for _ in 0..3 {
            sink.write(b"line\n");
            sink.flush();
        }
        assert!(within(10, || TOLD.load(Ordering::SeqCst) == 1));
    }

    #[test]
    fn memory_is_bounded_and_losses_are_told() {
        static TOLD: AtomicUsize = AtomicUsize::new(0);
        let file = TemporaryFile::new();
        let sink = Sink::to(file.path(), |problem| {
            TOLD.fetch_add(usize::from(problem.starts_with("1 lines")), Ordering::SeqCst);
        });
        sink.write(&vec![b'x'; MOST + 1]);
        sink.write(b"short\n");
        assert!(within(10, || TOLD.load(Ordering::SeqCst) == 1 && file.read() == b"short\n"));
    }

    #[test]
    fn a_file_has_one_sink() {
        let (file, other) = (TemporaryFile::new(), TemporaryFile::new());
        let sink = Sink::shared(file.path(), |_| {});
        assert!(Arc::ptr_eq(&sink, &Sink::shared(file.path(), |_| {})));
        assert!(!Arc::ptr_eq(&sink, &Sink::shared(other.path(), |_| {})));
    }
}
