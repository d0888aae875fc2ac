//! The real program as a process of its own under filters of system calls, or none, and free ports for it.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use seccompiler::BpfProgram;

use crate::sdk::program;
use crate::time::wait_for;

/// How long the program may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Ports below those that connections are given.
const PORTS: std::ops::Range<u16> = 18_000..32_000;

/// A running program; dropping it kills it.
pub struct Program(pub Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    /// Starts `tidegate serve` with the configuration in `file`, under `filters`.
    #[track_caller]
    pub fn serve(file: &Path, filters: &[BpfProgram]) -> Program {
        let mut command = Command::new(program("tidegate"));
        command.args([OsStr::new("serve"), OsStr::new("-c"), file.as_os_str()]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Program(confined(filters, move || command.spawn()))
    }

    /// Tells it to end.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().expect("kill runs");
        assert!(status.success(), "kill -s {name}");
    }
}

/// Runs the program to its end under `filters`.
#[track_caller]
pub fn run(arguments: &[&str], filters: &[BpfProgram]) -> Output {
    let mut command = Command::new(program("tidegate"));
    command.args(arguments);
    confined(filters, move || command.output())
}

/// Does something under filters: they belong to a thread that ends with this call, and to its children.
#[track_caller]
pub fn confined<T: Send + 'static>(
    filters: &[BpfProgram],
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> T {
    let filters = filters.to_vec();
    let thread = std::thread::spawn(move || {
        for filter in &filters {
            seccompiler::apply_filter(filter).expect("filters are allowed");
        }
        work()
    });
    thread.join().expect("the thread with the filters").expect("the program starts")
}

/// A loopback address whose port is free: one that the kernel gives to nobody who asks for any port, and that no other
/// call of this process returned.
pub fn free_address() -> SocketAddr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Tests of one run are processes with numbers near each other: their rows of ports begin far apart.
    let first = std::process::id().wrapping_mul(97);
    loop {
        let nth = first.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + (nth % u32::from(PORTS.end - PORTS.start)) as u16;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return listener.local_addr().expect("an address");
        }
    }
}

/// Waits until all of `addresses` take connections.
#[track_caller]
pub fn wait_until_open(addresses: &[SocketAddr]) {
    wait_for("the program listens", START_LIMIT, || {
        addresses.iter().all(|it| TcpStream::connect(it).is_ok())
    });
}
