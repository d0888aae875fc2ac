//! The real program as a process of its own, its configuration in a folder of its own, what it says in files.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cage::{self, free_address, wait_until_open};
use crate::sdk::program;
use crate::time::wait_for;

/// Longer than the program takes to end on a busy host.
const END_LIMIT: Duration = Duration::from_secs(30);

/// A program that runs; dropping it kills it.
pub struct Running {
    program: cage::Program,
    folder: tempfile::TempDir,
    data: SocketAddr,
    admin: SocketAddr,
}

impl Running {
    /// Starts `tidegate serve` with `yaml` and listeners of its own, and waits until it serves.
    pub fn serve(yaml: &str) -> Running {
        Running::serve_to(yaml, |said| File::create(said).expect("a file").into())
    }

    /// The same, with nobody who takes what it says on standard error.
    pub fn serve_unheard(yaml: &str) -> Running {
        Running::serve_to(yaml, |said| {
            File::create(said).expect("a file");
            Stdio::piped()
        })
    }

    fn serve_to(yaml: &str, stderr: impl FnOnce(PathBuf) -> Stdio) -> Running {
        let folder = tempfile::tempdir().expect("a folder");
        let (data, admin) = (free_address(), free_address());
        let stderr = stderr(folder.path().join("stderr"));
        let program = cage::Program(spawn(&folder, yaml, (data, admin), stderr));
        wait_until_open(&[data, admin]);
        Running { program, folder, data, admin }
    }

    /// Where callers connect.
    pub fn data(&self) -> SocketAddr {
        self.data
    }

    /// Where operators connect.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// A file in the configuration's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts another configuration in place of the one it runs with.
    pub fn configure(&self, yaml: &str) {
        write(&self.folder, yaml, self.data, self.admin);
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        self.program.signal(name);
    }

    /// Ends it in order; whether it says that all went well.
    pub fn end(&mut self) -> bool {
        self.signal("TERM");
        let mut status = None;
        wait_for("the program ends", END_LIMIT, || {
            status = self.program.0.try_wait().expect("a child");
            status.is_some()
        });
        status.is_some_and(|it| it.success())
    }

    /// What it said on standard output so far.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(self.path("stdout")).expect("a file")
    }

    /// What it said on standard error so far.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.path("stderr")).expect("a file")
    }
}

fn spawn(
    folder: &tempfile::TempDir,
    yaml: &str,
    (data, admin): (SocketAddr, SocketAddr),
    stderr: Stdio,
) -> Child {
    write(folder, yaml, data, admin);
    Command::new(program("tidegate"))
        .args(["serve", "--workers", "2", "-c"])
        .arg(folder.path().join("tidegate.yaml"))
        .env_remove("TIDEGATE_LOG")
        .stdin(Stdio::null())
        .stdout(File::create(folder.path().join("stdout")).expect("a file"))
        .stderr(stderr)
        .spawn()
        .expect("the program starts")
}

/// As editors do: a new file in place of the old.
fn write(folder: &tempfile::TempDir, yaml: &str, data: SocketAddr, admin: SocketAddr) {
    let beside = folder.path().join("tidegate.new");
    let text = format!("listen: {data}\nadmin: {{ listen: {admin} }}\n{yaml}");
    std::fs::write(&beside, text).expect("a file");
    std::fs::rename(&beside, folder.path().join("tidegate.yaml")).expect("in its place");
}
