//! Lines for standard error, written by a thread of their own: whoever has something to say is never held up and
//! never fails, whatever became of the reader. What nobody takes is dropped and counted.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use onelane::api::LogLines;
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that wait to be written; what comes on top is dropped.
const WAITING_BYTES_MAX: usize = 256 * 1024;
/// How long a device that takes nothing right now is asked again for one line.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where lines go in the end.
pub(crate) type Sink = Box<dyn FnMut(&[u8]) -> io::Result<usize> + Send>;

/// The lines that wait. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    count: LogLines,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    is_writing: bool,
}

impl Lines {
    /// Begins to write lines to `sink`.
    pub(crate) fn start(mut sink: Sink) -> io::Result<Self> {
        let lines = Self::default();
        let shared = Arc::clone(&lines.shared);
        let thread = std::thread::Builder::new().name("log".to_owned());
        thread.spawn(move || {
            loop {
                let line = shared.next();
                if write_all(&mut sink, &line).is_err() {
                    shared.count.drop_some(1);
                }
                shared.waiting().is_writing = false;
                shared.changed.notify_all();
            }
        })?;
        Ok(lines)
    }

    /// Takes a line with its end.
    pub(crate) fn push(&self, line: &[u8]) {
        let mut waiting = self.shared.waiting();
        if waiting.bytes + line.len() > WAITING_BYTES_MAX {
            self.shared.count.drop_some(1);
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line.to_vec());
        drop(waiting);
        self.shared.changed.notify_all();
    }

    /// Waits until all is written, or for so long.
    pub(crate) fn flush(&self, patience: Duration) {
        let waiting = self.shared.waiting();
        let is_busy = |waiting: &mut Waiting| waiting.is_writing || !waiting.lines.is_empty();
        let wait = self
            .shared
            .changed
            .wait_timeout_while(waiting, patience, is_busy);
        drop(wait);
    }

    /// How many were dropped.
    pub(crate) fn count(&self) -> LogLines {
        self.shared.count.clone()
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Vec<u8> {
        let mut waiting = self.waiting();
        loop {
            if let Some(line) = waiting.lines.pop_front() {
                waiting.bytes -= line.len();
                waiting.is_writing = true;
                return line;
            }
            let woken = self.changed.wait(waiting);
            waiting = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn write_all(sink: &mut Sink, line: &[u8]) -> io::Result<()> {
    let began = Instant::now();
    let mut rest = line;
    while !rest.is_empty() {
        match sink(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Somebody else has set the terminal or pipe so.
            Err(error) if error.kind() == ErrorKind::WouldBlock && began.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// One event of the log.
pub(crate) struct Line(Lines);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Lines {
    type Writer = Line;

    fn make_writer(&'w self) -> Line {
        Line(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    #[test]
    fn what_a_reader_that_is_gone_would_get_is_dropped_and_counted() {
        for kind in [ErrorKind::BrokenPipe, ErrorKind::StorageFull] {
            let lines = Lines::start(Box::new(move |_| Err(kind.into()))).unwrap();
            for _ in 0..3 {
                lines.push(b"a line\n");
            }
            lines.flush(SOON);
            assert_eq!(lines.count().dropped(), 3);
        }
    }

    #[test]
    fn a_reader_that_does_not_read_holds_up_nobody() {
        let (go_on, stuck) = mpsc::channel::<()>();
        let (said, heard) = mpsc::channel();
        let sink = move |bytes: &[u8]| {
            let _ = stuck.recv();
            said.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        };
        let lines = Lines::start(Box::new(sink)).unwrap();
        let line = [b'x'; 1024];
        for _ in 0..4_096 {
            lines.push(&line);
        }
        // It ends without its reader, too.
        lines.flush(Duration::from_millis(1));
        let dropped = lines.count().dropped();
        let kept = (WAITING_BYTES_MAX / line.len()) as u64;
        assert!((4_096 - kept - 1..=4_096 - kept).contains(&dropped));
        drop(go_on);
        lines.flush(SOON);
        assert_eq!(heard.try_iter().count() as u64, 4_096 - dropped);
    }

    #[test]
    fn a_line_is_written_whole_however_small_the_pieces_are() {
        let (said, heard) = mpsc::channel();
        let mut asked = 0;
        let sink = move |bytes: &[u8]| {
            asked += 1;
            match asked % 3 {
                0 => Err(ErrorKind::Interrupted.into()),
                1 => Err(ErrorKind::WouldBlock.into()),
                _ => {
                    said.send(bytes[0]).unwrap();
                    Ok(1)
                }
            }
        };
        let lines = Lines::start(Box::new(sink)).unwrap();
        lines.push(b"whole\n");
        lines.flush(SOON);
        assert_eq!(heard.try_iter().collect::<Vec<u8>>(), b"whole\n");
    }
}
