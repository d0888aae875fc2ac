//! A mock provider and the gateway in front of it, each a process of its own, so that the memory, descriptors and
//! processor time of one can be read without the other's; and what the gateway says of itself.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tidegate_loadtest::load::{LoadConfig, Target};
use tidegate_loadtest::mock::MockConfig;

use crate::IoChoice;
use crate::cage::free_address;
use crate::client::{call, request};
use crate::process::{Program, io};
use crate::sdk::program;
use crate::time::wait_for;

/// The key that callers present.
pub const KEY: &str = "vk-rig-0123456789-0123456789-0123456789";
/// Makes it a virtual key; its limits are looked at and never met. Without this every key is accepted.
pub const KEYED: &str = "virtual_keys: [{ name: rig, key: vk-rig-0123456789-0123456789-0123456789, \
    limits: { rpm: 50000000, tpm: 1000000000 } }]";
/// The model that they ask for.
pub const MODEL: &str = "claude-sonnet-5-5";

const PATIENCE: Duration = Duration::from_secs(30);

/// See the module. Dropping it ends both.
pub struct Rig {
    /// The gateway.
    pub gateway: Program,
    /// The provider.
    pub mock: Program,
    data: SocketAddr,
    admin: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Rig {
    /// Starts both; `more` is put at the end of the gateway's configuration.
    #[track_caller]
    pub fn start(driver: IoChoice, mock: MockConfig, more: &str) -> Rig {
        Rig::beside(driver, mock, "", more)
    }

    /// The same, with lines of `providers:` for others than the mock.
    #[track_caller]
    pub fn beside(driver: IoChoice, mock: MockConfig, providers: &str, more: &str) -> Rig {
        let folder = tempfile::tempdir().expect("a folder");
        let (upstream, data, admin) = (free_address(), free_address(), free_address());
        let mock = start_mock(folder.path(), MockConfig { listen: upstream, ..mock });
        let config = folder.path().join("tidegate.yaml");
        let yaml = format!(
            r#"
listen: {data}
admin: {{ listen: {admin} }}
io: {io}
providers:
  mock: {{ kind: anthropic, base_url: "http://{upstream}", keys: [{{ name: a, value: sk-mock }}] }}
{providers}
{more}
"#,
            io = io(driver),
        );
        std::fs::write(&config, yaml).expect("a file");
        let gateway = Program::serve(&config, &folder.path().join("gateway.log"), &["--workers", "2"]);
        gateway.wait_until_ready(admin);
        Rig { gateway, mock, data, admin, _folder: folder }
    }

    /// Where callers connect.
    pub fn data(&self) -> SocketAddr {
        self.data
    }

    /// A load against it, to be narrowed.
    pub fn load(&self) -> LoadConfig {
        let target = Target { addr: self.data, keys: vec![KEY.to_owned()], model: MODEL.to_owned() };
        LoadConfig::new(target)
    }

    /// The sum of a metric's series; none where it has none yet.
    #[track_caller]
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = call(self.admin, request("GET /metrics", &[], "")).text();
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        let value =
            |line: &str| line.rsplit(' ').next().and_then(|it| it.parse::<f64>().ok()).expect("a number");
        text.lines().filter(of_name).map(value).reduce(|sum, it| sum + it)
    }

    /// Waits until nothing is held for any caller: no connection, no permit, no hold at a quota, no byte of a body.
    #[track_caller]
    pub fn wait_until_all_is_home(&self) {
        let always = ["tidegate_connections_open", "tidegate_calls_in_flight", "tidegate_body_memory_bytes"];
        for name in always {
            wait_for(name, PATIENCE, || self.metric(name) == Some(0.0));
        }
        // Series of quotas are there once a call has used one.
        let name = "tidegate_quota_in_flight";
        wait_for(name, PATIENCE, || self.metric(name).is_none_or(|it| it == 0.0));
    }

    /// Ends the gateway in order, which must go well.
    #[track_caller]
    pub fn end(mut self) {
        self.gateway.signal("TERM");
        let status = self.gateway.wait(PATIENCE);
        assert!(status.success(), "{status}: {}", self.gateway.said());
    }
}

#[track_caller]
fn start_mock(folder: &Path, config: MockConfig) -> Program {
    let (file, port) = (folder.join("mock.json"), folder.join("mock.port"));
    std::fs::write(&file, serde_json::to_string(&config).expect("JSON")).expect("a file");
    let mut command = Command::new(program("tidegate-mock"));
    command.arg("--config").arg(&file).arg("--port-file").arg(&port);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mock = Program::start(&mut command, &folder.join("mock.log"));
    wait_for("the provider listens", PATIENCE, || port.exists());
    mock
}
