//! The real program in a process of its own: started, watched, told, ended. What it says is kept.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::client::{call, request};
use crate::time::wait_for;

/// How long the program may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running program; dropping it kills it.
pub struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `command`; what it says goes to `log`.
    #[track_caller]
    pub fn start(command: &mut Command, log: &Path) -> Program {
        let file = std::fs::File::create(log).expect("a file for the log");
        let child = command.stderr(Stdio::from(file)).spawn().expect("the program starts");
        Program { child, log: log.to_owned() }
    }

    /// `tidegate serve -c config` with further arguments.
    #[track_caller]
    pub fn serve(config: &Path, log: &Path, more: &[&str]) -> Program {
        let mut command = Command::new(crate::sdk::program("tidegate"));
        command.arg("serve").arg("-c").arg(config).args(more).stdin(Stdio::null()).stdout(Stdio::null());
        Program::start(&mut command, log)
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until its admin port says that it is ready.
    #[track_caller]
    pub fn wait_until_ready(&self, admin: SocketAddr) {
        wait_for("the program is ready", PATIENCE, || {
            TcpStream::connect(admin).is_ok() && call(admin, request("GET /readyz", &[], "")).status == 200
        });
    }

    /// Memory that it holds now, in bytes.
    #[track_caller]
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Descriptors that it has open.
    #[track_caller]
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }

    /// Sends it a signal.
    pub fn signal(&self, number: &str) {
        let pid = self.child.id().to_string();
        let told = Command::new("kill").arg(format!("-{number}")).arg(pid).status().expect("kill runs");
        assert!(told.success(), "the program runs");
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        wait_for("the program ends", limit, || !matches!(self.child.try_wait(), Ok(None)));
        self.child.wait().expect("a child")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln_log(&self.said());
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failed test shows what the program said")]
fn eprintln_log(said: &str) {
    eprintln!("the program said:\n{said}");
}

/// A driver as the configuration calls it.
pub fn io(driver: crate::IoChoice) -> &'static str {
    match driver {
        crate::IoChoice::Auto => "auto",
        crate::IoChoice::Epoll => "epoll",
        crate::IoChoice::IoUring => "io_uring",
    }
}
