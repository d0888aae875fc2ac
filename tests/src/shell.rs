//! A reader's shell: one bash in a folder of its own, which types the commands of a page one after another and keeps
//! its variables and background jobs between them. Everything it started ends with it.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::time::{now, pause_ms};

/// How long one command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// A running shell.
pub struct Shell {
    bash: Child,
    folder: tempfile::TempDir,
    /// Where its outputs go, apart from what the reader sees.
    notes: tempfile::TempDir,
    typed: usize,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// What it printed, both streams.
    pub said: String,
}

impl Shell {
    /// Starts one that finds `programs` by their names, and nothing of the environment of the test.
    #[track_caller]
    pub fn start(programs: &[PathBuf]) -> Shell {
        let (folder, notes) =
            (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        for program in programs {
            let name = program.file_name().expect("a program has a name");
            std::os::unix::fs::symlink(program, notes.path().join(name)).expect("a link");
        }
        let bash = Command::new("bash")
            .args(["--noprofile", "--norc"])
            .current_dir(folder.path())
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", notes.path().display()))
            .env("HOME", folder.path())
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("bash starts");
        Shell { bash, folder, notes, typed: 0 }
    }

    /// The reader's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Types a command and waits until the next one could be typed.
    #[track_caller]
    pub fn run(&mut self, command: &str) -> Ended {
        self.typed += 1;
        let note = |kind: &str| self.notes.path().join(format!("{}.{kind}", self.typed));
        let (typed, said, code) = (note("typed"), note("said"), note("code"));
        std::fs::write(&typed, command).expect("a file");
        // The code is written in one step: who waits for it never reads half of it.
        let line = format!(
            "eval \"$(cat '{0}')\" >'{1}' 2>&1 </dev/null; echo $? >'{2}.new'; mv '{2}.new' '{2}'\n",
            typed.display(),
            said.display(),
            code.display()
        );
        let stdin = self.bash.stdin.as_mut().expect("piped");
        stdin.write_all(line.as_bytes()).and_then(|()| stdin.flush()).expect("bash reads");
        let until = now() + COMMAND_LIMIT;
        let said = || String::from_utf8_lossy(&std::fs::read(&said).unwrap_or_default()).into_owned();
        loop {
            if let Ok(code) = std::fs::read_to_string(&code) {
                return Ended { code: code.trim().parse().expect("a number"), said: said() };
            }
            assert!(now() < until, "within {COMMAND_LIMIT:?}: {command}\n{}", said());
            pause_ms(2);
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // The shell leads a group of its own, so that its jobs go with it.
        let group = format!("-{}", self.bash.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.bash.wait();
    }
}
