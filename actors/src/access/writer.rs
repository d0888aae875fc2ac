//! The thread that writes the access log. It may be stuck on a disk or a pipe for as long as it likes: nobody waits
//! for it, and it has one job at a time. Decides nothing about lines.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use tokio::sync::mpsc;

use crate::config::AccessSink;

/// Who may read a file that is made here: who calls what is not for everyone.
const FILE_MODE: u32 = 0o640;

/// What is to be done.
#[derive(Debug)]
pub(super) struct Job {
    /// Whole lines.
    pub(super) text: Vec<u8>,
    /// Bytes of `text` that were written before.
    pub(super) from: usize,
    /// Open the sink anew before.
    pub(super) reopen: bool,
}

/// What was done.
#[derive(Debug)]
pub(super) struct Done {
    /// The job's text.
    pub(super) text: Vec<u8>,
    /// Bytes of it that are written by now.
    pub(super) written: usize,
    /// Lines that this job brought to their end.
    pub(super) lines: u64,
    /// Why it is not all of it.
    pub(super) error: Option<io::Error>,
}

/// The way to the thread. Dropping it ends the thread when its job is done.
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    done: mpsc::Receiver<Done>,
    busy: bool,
}

impl Writer {
    /// Starts the thread; it opens `sink` with its first job.
    pub(super) fn start(sink: AccessSink) -> io::Result<Writer> {
        let (jobs, mut to_do) = mpsc::channel::<Job>(1);
        let (finished, done) = mpsc::channel(1);
        std::thread::Builder::new().name("access-log".into()).spawn(move || {
            let mut output = None;
            while let Some(job) = to_do.blocking_recv() {
                let job = carry_out(job, &sink, &mut output);
                if finished.blocking_send(job).is_err() {
                    return;
                }
            }
        })?;
        Ok(Writer { jobs, done, busy: false })
    }

    /// Whether it has a job.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Gives it a job while it has none. The error: the thread is gone.
    pub(super) fn give(&mut self, job: Job) -> Result<(), Job> {
        self.jobs.try_send(job).map_err(mpsc::error::TrySendError::into_inner)?;
        self.busy = true;
        Ok(())
    }

    /// The job, if it is done.
    pub(super) fn try_take(&mut self) -> Option<Done> {
        let done = self.done.try_recv().ok()?;
        self.busy = false;
        Some(done)
    }

    /// The job, when it is done; `None` if the thread is gone.
    pub(super) async fn take(&mut self) -> Option<Done> {
        let done = self.done.recv().await?;
        self.busy = false;
        Some(done)
    }
}

fn carry_out(job: Job, sink: &AccessSink, output: &mut Option<File>) -> Done {
    let Job { text, mut from, reopen } = job;
    if reopen {
        *output = None;
        from = whole_line(&text, from);
    }
    let mut written = from;
    let error = write(&text, &mut written, sink, output).err();
    if error.is_some() {
        // Opened anew the next time: its disk may have been replaced.
        *output = None;
    }
    let lines = super::lines(&text[from..written]);
    Done { text, written, lines, error }
}

/// The end of a line that was torn stays behind with its beginning: another file begins with a whole one.
fn whole_line(text: &[u8], from: usize) -> usize {
    if from == 0 || text[from - 1] == b'\n' {
        return from;
    }
    text[from..].iter().position(|it| *it == b'\n').map_or(text.len(), |at| from + at + 1)
}

fn write(text: &[u8], written: &mut usize, sink: &AccessSink, output: &mut Option<File>) -> io::Result<()> {
    let file = match output {
        Some(file) => file,
        None => output.insert(open(sink)?),
    };
    while *written < text.len() {
        match file.write(&text[*written..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => *written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Files are appended to, so that who copies and truncates them to rotate loses nothing to a hole.
fn open(sink: &AccessSink) -> io::Result<File> {
    match sink {
        AccessSink::File(path) => OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path),
        // A handle of its own: without the buffer and the lock that prints share.
        AccessSink::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(text: &str, from: usize, reopen: bool) -> Job {
        Job { text: text.into(), from, reopen }
    }

    #[test]
    fn a_full_disk_says_so_and_is_tried_again() {
        let full = AccessSink::File("/dev/full".into());
        let mut output = None;
        let done = carry_out(job("one\ntwo\n", 0, true), &full, &mut output);
        assert_eq!((done.written, done.lines), (0, 0));
        assert_eq!(done.error.map(|it| it.kind()), Some(ErrorKind::StorageFull));
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let done = carry_out(job("one\ntwo\n", 0, false), &AccessSink::File(path.clone()), &mut output);
        assert_eq!((done.written, done.lines, done.error.is_none()), (8, 2, true));
        assert_eq!(std::fs::read_to_string(path).expect("written"), "one\ntwo\n");
    }

    #[test]
    fn another_file_begins_with_a_whole_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let sink = AccessSink::File(path.clone());
        let mut output = None;
        let done = carry_out(job("one\ntwo\nthree\n", 5, true), &sink, &mut output);
        assert_eq!((done.written, done.lines), (14, 1));
        let done = carry_out(job("four\nfive\n", 7, false), &sink, &mut output);
        assert_eq!(done.lines, 1, "the same file goes on in the middle of a line");
        assert_eq!(std::fs::read_to_string(path).expect("written"), "three\nve\n");
    }
}
