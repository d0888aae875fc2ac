//! Runs another program to its end: no stdin, its output shown line by line as it comes and handed to whoever counts.
//! Never judges the output; only the exit status and the time limit decide.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crate::progress::{now, say};

/// No step of this project takes longer; one that does hangs.
const LIMIT: Duration = Duration::from_secs(45 * 60);
/// Lines that may wait to be shown before the program waits for us.
const LINES_WAITING_MAX: usize = 1_024;
/// A longer line is shown in pieces.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// A `cargo` command that runs at the root of the workspace.
pub(crate) fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root).args(arguments);
    command
}

/// Runs the program and shows its output; `read` sees each line too.
pub(crate) fn run(command: &mut Command, read: impl FnMut(&str)) -> Result<(), String> {
    run_within(command, LIMIT, read)
}

/// Runs the program without looking at its output.
pub(crate) fn run_shown(command: &mut Command) -> Result<(), String> {
    run(command, |_| {})
}

/// Whether the program is there and answers at all; nothing is shown.
pub(crate) fn answers(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The program's standard output; its standard error is shown only if it fails.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let shown = words(command);
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{shown}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{shown}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    String::from_utf8(output.stdout).map_err(|e| format!("{shown}: {e}"))
}

fn run_within(command: &mut Command, limit: Duration, mut read: impl FnMut(&str)) -> Result<(), String> {
    let shown = words(command);
    say(&format!("   {shown}"));
    let begun = now();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("{shown}: {e}"))?;
    let lines = lines_of(&mut child);
    loop {
        match lines.recv_timeout(limit.saturating_sub(begun.elapsed())) {
            Ok(line) => {
                say(&line);
                read(&line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!(
                    "{shown}: ended after {} minutes without a result",
                    limit.as_secs() / 60
                ));
            }
        }
    }
    let status = child.wait().map_err(|e| format!("{shown}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{shown}: {status}")) }
}

/// Both streams of the program, in the order in which their lines arrive.
fn lines_of(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = sync_channel(LINES_WAITING_MAX);
    if let Some(stdout) = child.stdout.take() {
        forward(stdout, sender.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        forward(stderr, sender);
    }
    receiver
}

/// A thread that ends with the stream, or when nobody listens any more.
fn forward(stream: impl Read + Send + 'static, sender: SyncSender<String>) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line);
            if sender.send(text.trim_end_matches(['\n', '\r']).to_owned()).is_err() {
                return;
            }
        }
    });
}

/// The command as a person would type it.
fn words(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn lines_of_both_streams_are_read_and_a_failure_is_one() {
        let mut seen = Vec::new();
        let ended = run(&mut shell("echo out; echo err >&2; exit 3"), |line| seen.push(line.to_owned()));
        seen.sort();
        assert_eq!(seen, ["err", "out"]);
        assert!(ended.expect_err("exit 3").contains("3"));
    }

    #[test]
    fn standard_input_is_empty() {
        assert_eq!(output(&mut shell("cat; echo end")), Ok("end\n".into()));
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let ended = run_within(&mut shell("exec sleep 600"), Duration::from_millis(50), |_| {});
        assert!(ended.expect_err("hangs").contains("without a result"));
    }

    #[test]
    fn a_missing_program_is_a_complaint_and_no_panic() {
        assert!(run_shown(&mut Command::new("no-such-program-anywhere")).is_err());
        assert!(!answers(&mut Command::new("no-such-program-anywhere")));
    }
}
