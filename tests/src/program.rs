//! The real program as a process of its own, its configuration in a folder of its own, what it says in files.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cage::{self, free_address};
use crate::sdk::program;
use crate::time::wait_for;

/// Longer than the program takes to start on a busy host.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Longer than the program takes to end on a busy host.
const END_LIMIT: Duration = Duration::from_secs(30);

/// A program that runs; dropping it kills it.
pub struct Running {
    program: cage::Program,
    folder: tempfile::TempDir,
    data: SocketAddr,
    admin: SocketAddr,
    token: Option<String>,
}

impl Running {
    /// Starts `tidegate serve` with `yaml` and listeners of its own, and waits until it serves.
    pub fn serve(yaml: &str) -> Running {
        Running::serve_to(yaml, None, &[], |said| File::create(said).expect("a file").into())
    }

    /// The same, with a token for the admin port and further variables of the environment.
    pub fn serve_guarded(yaml: &str, token: &str, environment: &[(&str, String)]) -> Running {
        Running::serve_to(yaml, Some(token), environment, |said| File::create(said).expect("a file").into())
    }

    /// The same, with nobody who takes what it says on standard error.
    pub fn serve_unheard(yaml: &str) -> Running {
        Running::serve_to(yaml, None, &[], |said| {
            File::create(said).expect("a file");
            Stdio::piped()
        })
    }

    fn serve_to(
        yaml: &str,
        token: Option<&str>,
        environment: &[(&str, String)],
        stderr: impl FnOnce(PathBuf) -> Stdio,
    ) -> Running {
        let folder = tempfile::tempdir().expect("a folder");
        let (data, admin, token) = (free_address(), free_address(), token.map(str::to_owned));
        let stderr = stderr(folder.path().join("stderr"));
        write(&folder, &with_listeners(yaml, data, admin, token.as_deref()));
        let program = cage::Program(spawn(&folder, environment, stderr));
        let mut running = Running { program, folder, data, admin, token };
        wait_for("the program listens", START_LIMIT, || {
            let ended = running.program.0.try_wait().expect("a child");
            assert!(ended.is_none(), "the program ended: {ended:?}\n{}", running.stderr());
            [data, admin].iter().all(|it| TcpStream::connect(it).is_ok())
        });
        running
    }

    /// Where callers connect.
    pub fn data(&self) -> SocketAddr {
        self.data
    }

    /// Where operators connect.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The folder of the configuration.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// A file in the configuration's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts another configuration in place of the one it runs with.
    pub fn configure(&self, yaml: &str) {
        self.replace(&with_listeners(yaml, self.data, self.admin, self.token.as_deref()));
    }

    /// Puts another text in place of its configuration, as it is.
    pub fn replace(&self, text: &str) {
        write(&self.folder, text);
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

fn spawn(folder: &tempfile::TempDir, environment: &[(&str, String)], stderr: Stdio) -> Child {
    Command::new(program("tidegate"))
        .args(["serve", "--workers", "2", "-c"])
        .arg(folder.path().join("tidegate.yaml"))
        .env_remove("TIDEGATE_LOG")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(File::create(folder.path().join("stdout")).expect("a file"))
        .stderr(stderr)
        .spawn()
        .expect("the program starts")
}

fn with_listeners(yaml: &str, data: SocketAddr, admin: SocketAddr, token: Option<&str>) -> String {
    let token = token.map(|it| format!(", token: \"{it}\"")).unwrap_or_default();
    format!("listen: {data}\nadmin: {{ listen: {admin}{token} }}\n{yaml}")
}

/// As editors do: a new file in place of the old.
fn write(folder: &tempfile::TempDir, text: &str) {
    let beside = folder.path().join("tidegate.new");
    std::fs::write(&beside, text).expect("a file");
    std::fs::rename(&beside, folder.path().join("tidegate.yaml")).expect("in its place");
}
