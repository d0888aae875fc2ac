//! The way of log lines to standard error: a bounded queue and a thread, so that whoever logs never waits for whoever
//! reads. What finds no room is dropped, and told of when there is room again.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait.
const WAITING_MAX: usize = 1_024;
/// Time for the last lines at the end of the process.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// Where lines begin their way.
pub(super) struct Lines {
    queue: SyncSender<Item>,
    dropped: std::sync::Arc<AtomicU64>,
}

enum Item {
    Line(Vec<u8>),
    /// Everything before it was written: answer.
    Finish(SyncSender<()>),
}

/// Waits, when dropped, for the lines that are on their way.
pub(crate) struct Finish(SyncSender<Item>);

impl Lines {
    /// Starts the thread. `lost` makes the line that tells how many were dropped.
    pub(super) fn start(lost: fn(u64) -> String) -> io::Result<(Lines, Finish)> {
        let (queue, items) = sync_channel(WAITING_MAX);
        let lines = Lines { queue: queue.clone(), dropped: std::sync::Arc::default() };
        let dropped = lines.dropped.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || write_all(&items, &dropped, lost))?;
        Ok((lines, Finish(queue)))
    }
}

/// Ends never: the subscriber keeps its end of the queue as long as the process lives.
fn write_all(items: &Receiver<Item>, dropped: &AtomicU64, lost: fn(u64) -> String) {
    for item in items {
        // Whom should a failure to log be told?
        let _ = match item {
            Item::Line(line) => io::stderr().write_all(&line),
            Item::Finish(done) => done.send(()).map_err(io::Error::other),
        };
        let count = dropped.swap(0, Ordering::Relaxed);
        if count > 0 {
            let _ = writeln!(io::stderr(), "{}", lost(count));
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> &'a Lines {
        self
    }
}

impl Write for &Lines {
    /// Takes a line; the subscriber hands each over at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Item::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        let (done, finished) = sync_channel(1);
        if self.0.try_send(Item::Finish(done)).is_ok() {
            // A reader that is stuck loses them.
            let _ = finished.recv_timeout(FINISH_TIMEOUT);
        }
    }
}
