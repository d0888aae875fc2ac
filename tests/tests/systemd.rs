//! The program as systemd starts it: sockets that were opened for it, and what it says of itself on the way. The part
//! of systemd is played by the test, as sd_listen_fds(3) and sd_notify(3) have it.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use tidegate_tests::client::{call, messages, request};
use tidegate_tests::messages as protocol;
use tidegate_tests::process::{Program, io};
use tidegate_tests::sdk::program;
use tidegate_tests::time::wait_for;
use tidegate_tests::upstream::Upstream;
use tidegate_tests::{IoChoice, both_drivers};

const PATIENCE: Duration = Duration::from_secs(30);

/// Moves its first two descriptors to where passed ones begin, and becomes the program. The shell has the number that
/// the program will have.
const PASS: &str = "export LISTEN_PID=$$; exec \"$0\" \"$@\" 3<&0 4<&1 0</dev/null 1>/dev/null";

fn config(folder: &tempfile::TempDir, upstream: &Upstream, driver: IoChoice) -> std::path::PathBuf {
    let path = folder.path().join("tidegate.yaml");
    // Ports that nobody could listen on: only the passed sockets can serve.
    let yaml = format!(
        "listen: 127.0.0.1:1\nadmin: {{ listen: 127.0.0.1:2 }}\nio: {driver}\nworkers: 2\nproviders:\n  mock: {{ kind: anthropic, base_url: \"{}\", keys: [{{ name: a, value: a }}] }}\n",
        upstream.url(),
        driver = io(driver)
    );
    std::fs::write(&path, yaml).expect("a file");
    path
}

/// The next thing that the program says, other than that it lives.
#[track_caller]
fn hear(socket: &UnixDatagram) -> String {
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    loop {
        let mut buffer = [0; 1024];
        let bytes = socket.recv(&mut buffer).expect("the program says something");
        let text = String::from_utf8_lossy(&buffer[..bytes]).into_owned();
        if text != "WATCHDOG=1" {
            return text;
        }
    }
}

both_drivers! {
    /// Callers and probes are served on the passed sockets; ready, reloading, stopping and the watchdog are told.
    fn sockets_are_passed_and_states_are_told(driver) {
        let upstream = Upstream::good("served");
        let folder = tempfile::tempdir().expect("a folder");
        let path = config(&folder, &upstream, driver);
        let (data, admin) = (TcpListener::bind("127.0.0.1:0").expect("a port"), TcpListener::bind("127.0.0.1:0").expect("a port"));
        let (data_at, admin_at) = (data.local_addr().expect("an address"), admin.local_addr().expect("an address"));
        let notify = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&notify).expect("a socket");
        let mut command = Command::new("sh");
        command.arg("-c").arg(PASS).arg(program("tidegate")).args(["serve", "-c"]).arg(&path);
        command.stdin(Stdio::from(OwnedFd::from(data))).stdout(Stdio::from(OwnedFd::from(admin)));
        command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", "data:admin").env("NOTIFY_SOCKET", &notify);
        command.env("WATCHDOG_USEC", "200000");
        // Came before anybody listened: the socket's queue is the program's from the start.
        let early = std::thread::spawn(move || call(data_at, messages(&protocol::request("claude-sonnet-5-5"))));
        let mut program = Program::start(&mut command, &folder.path().join("log"));
        drop(command);
        let ready = hear(&systemd);
        assert!(ready.starts_with("READY=1\n") && ready.contains(&data_at.to_string()), "{ready}");
        assert_eq!(early.join().expect("a caller").status, 200);
        assert_eq!(call(admin_at, request("GET /readyz", &[], "")).status, 200);
        let mut buffer = [0; 64];
        for _ in 0..3 {
            let bytes = systemd.recv(&mut buffer).expect("the watchdog is fed");
            assert_eq!(&buffer[..bytes], b"WATCHDOG=1");
        }
        program.signal("HUP");
        let reloading = hear(&systemd);
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        assert!(hear(&systemd).starts_with("READY=1\n"));
        program.signal("TERM");
        assert!(hear(&systemd).starts_with("STOPPING=1\n"));
        assert_eq!(program.wait(PATIENCE).code(), Some(0));
    }

    /// Sockets that are not what they are called are refused with a reason, and nothing is served.
    fn wrong_sockets_are_refused(driver) {
        let upstream = Upstream::good("never");
        let folder = tempfile::tempdir().expect("a folder");
        let path = config(&folder, &upstream, driver);
        let data = TcpListener::bind("127.0.0.1:0").expect("a port");
        let no_socket = std::fs::File::open(&path).expect("the file");
        for (names, why) in [("data:metrics", "metrics"), ("data:data", "not a listening TCP socket")] {
            let mut command = Command::new("sh");
            command.arg("-c").arg(PASS).arg(program("tidegate")).args(["serve", "-c"]).arg(&path);
            let handle = data.try_clone().expect("a handle");
            command.stdin(Stdio::from(OwnedFd::from(handle))).stdout(Stdio::from(no_socket.try_clone().expect("a handle")));
            command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", names);
            let mut program = Program::start(&mut command, &folder.path().join("log"));
            assert_eq!(program.wait(PATIENCE).code(), Some(1));
            assert!(program.said().contains(why), "{}", program.said());
        }
    }

    /// Each passed socket is judged, and not the first alone; so is what is open when a reload takes the keys away.
    fn open_sockets_are_judged(driver) {
        let upstream = Upstream::good("served");
        let folder = tempfile::tempdir().expect("a folder");
        let path = config(&folder, &upstream, driver);
        let start = |log: &str, data: &TcpListener, other: &TcpListener, names: &str| {
            let mut command = Command::new("sh");
            command.arg("-c").arg(PASS).arg(program("tidegate")).args(["serve", "-c"]).arg(&path);
            command.stdin(Stdio::from(OwnedFd::from(data.try_clone().expect("a handle"))));
            command.stdout(Stdio::from(OwnedFd::from(other.try_clone().expect("a handle"))));
            command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", names);
            Program::start(&mut command, &folder.path().join(log))
        };
        let near = TcpListener::bind("127.0.0.1:0").expect("a port");
        let wide = TcpListener::bind("0.0.0.0:0").expect("a port");
        let mut refused = start("refused", &near, &wide, "data:data");
        assert_eq!(refused.wait(PATIENCE).code(), Some(1));
        assert!(refused.said().contains("virtual_keys"), "{}", refused.said());

        let open = std::fs::read_to_string(&path).expect("the file");
        let key = "0123456789abcdef0123456789abcdef0123";
        std::fs::write(&path, format!("{open}virtual_keys: [{{ name: team, key: {key} }}]\n")).expect("a file");
        let guarded = start("guarded", &wide, &near, "data:admin");
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], wide.local_addr().expect("an address").port()));
        let ask = || call(address, messages(&protocol::request("claude-sonnet-5-5"))).status;
        assert_eq!(ask(), 401);
        std::fs::write(&path, &open).expect("a file");
        guarded.signal("HUP");
        wait_for("the reload is refused", PATIENCE, || guarded.said().contains("the old one stays"));
        assert_eq!(ask(), 401, "{}", guarded.said());
        assert!(!guarded.said().contains("`listen` changed"), "{}", guarded.said());
    }
}
