//! Other readers of HTTP on loopback, as they come from the distribution: nginx and HAProxy in front of an upstream that
//! tells what it heard, and Node's own server. Each test starts its own, in a folder of its own.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cage::{free_address, wait_until_open};
use crate::framing::{Message, read_replies};
use crate::say;
use crate::time::now;
use crate::upstream::{Heard, Upstream, whole};

/// A neighbour that runs; dropping it ends it.
pub struct Neighbour {
    /// Its name.
    pub name: &'static str,
    /// Where it takes requests for the upstream that echoes.
    pub echo: SocketAddr,
    /// Where it takes requests for the address that it was given, if it was given one.
    pub chain: Option<SocketAddr>,
    child: Child,
    _folder: tempfile::TempDir,
    _upstream: Option<Upstream>,
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a neighbour made of a connection's bytes.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The requests that were passed on or answered: target line and body.
    pub heard: Vec<(String, Vec<u8>)>,
    /// The statuses of all answers.
    pub statuses: Vec<u16>,
    /// It closed the connection; otherwise it waits for more.
    pub closed: bool,
}

/// The field in which a neighbour marks what it passes along a chain.
pub const CHAIN_FIELD: &str = "x-client-request-id";

/// The neighbours that are installed; a line on standard error for each that is not. Each passes requests on to `chain` too.
pub fn all(chain: Option<SocketAddr>) -> Vec<Neighbour> {
    [nginx(chain), haproxy(chain), node()].into_iter().flatten().collect()
}

/// nginx, if it is installed.
pub fn nginx(chain: Option<SocketAddr>) -> Option<Neighbour> {
    let upstream = Upstream::start(echo);
    let (listen, listen_chain) = (free_address(), free_address());
    let server = |listen: SocketAddr, to: SocketAddr| {
        format!(
            "server {{ listen {listen}; location / {{ proxy_pass http://{to}; proxy_http_version 1.1; \
             proxy_ignore_client_abort on; proxy_set_header Host g; proxy_set_header {CHAIN_FIELD} nginx; }} }}\n"
        )
    };
    let to_chain = chain.map(|to| server(listen_chain, to)).unwrap_or_default();
    let kinds =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|it| format!("{it}_temp_path {it};\n"));
    let config = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr crit;\nevents {{ worker_connections 512; }}\n\
         http {{ access_log off; keepalive_requests 1000000; underscores_in_headers on;\n{}{}{to_chain}}}\n",
        kinds.concat(),
        server(listen, upstream.address()),
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, config).expect("a file");
    let mut command = Command::new(program("nginx")?);
    command.arg("-p").arg(folder.path()).arg("-c").arg(&file).args(["-e", "stderr"]);
    Some(start("nginx", &mut command, folder, upstream, (listen, chain.map(|_| listen_chain))))
}

/// HAProxy, if it is installed.
pub fn haproxy(chain: Option<SocketAddr>) -> Option<Neighbour> {
    let upstream = Upstream::start(echo);
    let (listen, listen_chain) = (free_address(), free_address());
    let pair = |name: &str, listen: SocketAddr, to: SocketAddr| {
        format!(
            "frontend {name}\n  bind {listen}\n  http-request set-header {CHAIN_FIELD} haproxy\n  default_backend to-{name}\n\
             backend to-{name}\n  server one {to}\n"
        )
    };
    let to_chain = chain.map(|to| pair("chain", listen_chain, to)).unwrap_or_default();
    let config = format!(
        "global\n  maxconn 512\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n{}{to_chain}",
        pair("echo", listen, upstream.address())
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("haproxy.cfg");
    std::fs::write(&file, config).expect("a file");
    let mut command = Command::new(program("haproxy")?);
    command.arg("-q").arg("-db").arg("-f").arg(&file);
    Some(start("haproxy", &mut command, folder, upstream, (listen, chain.map(|_| listen_chain))))
}

/// Node's server, if it is installed.
pub fn node() -> Option<Neighbour> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("framing/echo.js");
    let mut command = Command::new(program("node")?);
    let mut child = command.arg(script).stdout(Stdio::piped()).spawn().expect("node starts");
    let mut line = String::new();
    let mut said = BufReader::new(child.stdout.take().expect("piped"));
    said.read_line(&mut line).expect("node says its port");
    let echo = SocketAddr::from(([127, 0, 0, 1], line.trim().parse().expect("a port")));
    let folder = tempfile::tempdir().expect("a folder");
    Some(Neighbour { name: "node", echo, chain: None, child, _folder: folder, _upstream: None })
}

fn start(
    name: &'static str,
    command: &mut Command,
    folder: tempfile::TempDir,
    upstream: Upstream,
    (echo, chain): (SocketAddr, Option<SocketAddr>),
) -> Neighbour {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
    let upstream = Some(upstream);
    let neighbour = Neighbour { name, echo, chain, child, _folder: folder, _upstream: upstream };
    let addresses: Vec<SocketAddr> = std::iter::once(echo).chain(chain).collect();
    wait_until_open(&addresses);
    neighbour
}

/// Where a program is; Debian keeps servers out of a user's path.
fn program(name: &str) -> Option<String> {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let found = folders.iter().map(|it| format!("{it}/{name}")).find(|it| Path::new(it).is_file());
    if found.is_none() {
        say(&format!("SKIPPED: {name} is not installed (`cargo xtask test` as root installs it)"));
    }
    found
}

/// The answer of an upstream that tells what it heard.
pub fn echo(heard: &Heard) -> Vec<crate::Step> {
    let line = heard.head.lines().next().unwrap_or_default();
    let line = line.rsplit_once(' ').map_or(line, |it| it.0);
    whole(200, &[], &format!("ECHO {} {} .", hex(line.as_bytes()), hex(&heard.body)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|it| format!("{it:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

/// Target line and body that an echo tells of.
pub fn echoed(body: &[u8]) -> Option<(String, Vec<u8>)> {
    let text = std::str::from_utf8(body).ok()?.strip_prefix("ECHO ")?.strip_suffix(" .")?;
    let (line, body) = text.split_once(' ')?;
    Some((String::from_utf8_lossy(&from_hex(line)?).into_owned(), from_hex(body)?))
}

/// Sends `bytes` on a connection of its own and tells what came of it. A server that says nothing for `patience` waits.
pub fn view(address: SocketAddr, bytes: &[u8], patience: Duration) -> View {
    let (replies, closed) = exchange(address, bytes, patience);
    let finals: Vec<&Message> = replies.iter().filter(|it| !it.line.starts_with('1')).collect();
    View {
        heard: finals.iter().filter_map(|it| echoed(&it.body)).collect(),
        statuses: finals.iter().filter_map(|it| it.line.parse().ok()).collect(),
        closed,
    }
}

/// Sends `bytes` on a connection of its own: the replies, and whether it was closed.
pub fn exchange(address: SocketAddr, bytes: &[u8], patience: Duration) -> (Vec<Message>, bool) {
    let mut socket = TcpStream::connect(address).expect("it listens");
    let _ = socket.set_nodelay(true);
    // What was refused early may be closed before all of it was sent.
    let _ = socket.write_all(bytes);
    let (mut received, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    let until = now() + Duration::from_secs(20);
    let closed = loop {
        let _ = socket.set_read_timeout(Some(patience));
        match socket.read(&mut buffer) {
            Ok(0) => break true,
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => break !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
        assert!(now() < until, "replies without an end");
    };
    let _ = socket.shutdown(Shutdown::Both);
    (read_replies([&received[..]], closed).messages, closed)
}
