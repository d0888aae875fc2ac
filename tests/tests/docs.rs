//! The pages for operators, typed as they stand: each command is run in a reader's folder, and what the page shows of its
//! output has to come. In place of the providers is a mock; ports 4000 and 4001 become free ones, and come back as
//! themselves in what is compared. What needs a container engine, systemd or a provider is read only: as shell, and
//! for commands and options of the program that do not exist.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tidegate_loadtest::mock::{Mock, MockConfig, MockHandle, OrganizationConfig};
use tidegate_tests::IoChoice;
use tidegate_tests::cage::{self, free_address};
use tidegate_tests::page::{self, Step, is_promised};
use tidegate_tests::say;
use tidegate_tests::sdk::program as built;
use tidegate_tests::shell::Shell;
use tidegate_tests::time::{now, pause_ms};

/// Programs that a command may begin with: nothing else is run, whatever a page says.
const PROGRAMS: [&str; 13] = [
    "cat", "chmod", "curl", "export", "grep", "head", "kill", "mkdir", "mv", "openssl", "printf", "tidegate",
    "wait",
];
/// These only look: a reader would look again, so what they promise may come a moment later.
const LOOKING: [&str; 5] = ["cat", "curl", "grep", "tail", "tidegate healthcheck"];
/// How long a reader goes on looking.
const LOOK_LIMIT: Duration = Duration::from_secs(15);
/// What stands for the rest of a key on the pages, and what is typed for it.
const KEY_REST: (&str, &str) = ("-…", "-0123456789");
/// Keys of the pages, without their rest, one organization a line.
const KEYS: [&[&str]; 4] = [&["sk-ant"], &["sk-ant-acme-1", "sk-ant-acme-2"], &["sk-ant-beta-1"], &["sk-eu"]];
/// The providers of the pages.
const PROVIDERS: [&str; 2] = ["https://api.anthropic.com", "https://eu.example.com"];

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn steps(name: &str) -> Vec<Step> {
    let text = std::fs::read_to_string(docs().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    page::steps(&text).unwrap_or_else(|error| panic!("{name}, {error}"))
}

/// The pages that hold commands or files.
fn pages() -> BTreeSet<String> {
    let names = std::fs::read_dir(docs()).expect("a folder").map(|it| it.expect("an entry").file_name());
    let names = names.map(|it| it.to_string_lossy().into_owned()).filter(|it| it.ends_with(".md"));
    names.filter(|it| !steps(it).is_empty()).collect()
}

/// The addresses of the pages, and those that take their place.
struct Places {
    data: SocketAddr,
    admin: SocketAddr,
    provider: String,
}

impl Places {
    fn of(mock: &MockHandle) -> Places {
        Places { data: free_address(), admin: free_address(), provider: mock.base_url() }
    }

    /// What a page says, as it is typed here.
    fn typed(&self, text: &str) -> String {
        let ports = [(":4000", self.data.port()), (":4001", self.admin.port())];
        let text =
            ports.iter().fold(text.to_owned(), |text, (page, port)| text.replace(page, &format!(":{port}")));
        let text = PROVIDERS.iter().fold(text, |text, provider| text.replace(provider, &self.provider));
        text.replace(KEY_REST.0, KEY_REST.1)
    }

    /// What was printed here, as a page would say it.
    fn printed(&self, text: &str) -> String {
        let text = text.replace(&format!(":{}", self.data.port()), ":4000");
        text.replace(&format!(":{}", self.admin.port()), ":4001").replace(&self.provider, PROVIDERS[0])
    }
}

fn mock() -> MockHandle {
    let key = |it: &&str| format!("{it}{}", KEY_REST.1);
    let organizations = KEYS.iter().map(|keys| {
        let keys: Vec<String> = keys.iter().map(key).collect();
        OrganizationConfig::new(&keys[0], &keys.iter().map(String::as_str).collect::<Vec<&str>>())
    });
    let config = MockConfig { organizations: organizations.collect(), ..MockConfig::default() };
    let driver = tidegate_gateway::select(IoChoice::Auto).expect("a driver").driver;
    Mock::start(config, driver).expect("a mock provider")
}

/// Types a page. Returns how many commands ran, and how many were only read.
#[track_caller]
fn type_page(name: &str) -> (usize, usize) {
    let mock = mock();
    let places = Places::of(&mock);
    let mut shell = Shell::start(&[built("tidegate")]);
    let (mut ran, mut only_read) = (0, 0);
    for step in steps(name) {
        match step {
            Step::File { name: file, text } => {
                // Written anew in one step, as editors do.
                let path = shell.folder().join(file);
                std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
                let beside = path.with_extension("new~");
                std::fs::write(&beside, places.typed(&text)).expect("a file");
                std::fs::rename(beside, path).expect("a file");
            }
            Step::Command(command) if command.needs.is_some() => {
                read_only(name, &command);
                only_read += 1;
            }
            Step::Command(command) => {
                run(name, &command, &places, &mut shell);
                ran += 1;
            }
        }
    }
    say(&format!("docs/{name}: {ran} commands ran, {only_read} were only read"));
    (ran, only_read)
}

#[track_caller]
fn run(page: &str, command: &page::Command, places: &Places, shell: &mut Shell) {
    let at = format!("docs/{page}:{}: {}", command.line, command.text);
    let begins = |words: &&&str| command.text == **words || command.text.starts_with(&format!("{words} "));
    let known = PROGRAMS.iter().chain(&LOOKING).find(begins);
    assert!(known.is_some(), "{at}\nis not among the programs that a page's test may run");
    // A request with a body does something: it is typed once.
    let looks = LOOKING.iter().any(|it| begins(&it)) && !command.text.contains(" --json ");
    let until = now() + LOOK_LIMIT;
    loop {
        let ended = shell.run(&places.typed(&command.text));
        let said = places.printed(&ended.said);
        if ended.code == command.exit && is_promised(&command.output, &said) {
            return;
        }
        if !looks || now() > until {
            let promised = command.output.join("\n");
            panic!(
                "{at}\nended with {}, the page says {}\n--- promised\n{promised}\n--- printed\n{said}",
                ended.code, command.exit
            );
        }
        pause_ms(50);
    }
}

/// What can be said of a command that cannot be run here.
#[track_caller]
fn read_only(page: &str, command: &page::Command) {
    let at = format!("docs/{page}:{}: {}", command.line, command.text);
    let needs = command.needs.as_deref().unwrap_or_default();
    assert!(
        ["docker", "provider", "systemd"].contains(&needs),
        "{at}\nneeds `{needs}`, which is nothing known"
    );
    assert!(command.output.is_empty(), "{at}\npromises what is never compared");
    let status = Command::new("bash").args(["-n", "-c", &command.text]).stderr(Stdio::null()).status();
    assert!(status.expect("bash").success(), "{at}\nis not acceptable to a shell");
    let words: Vec<&str> = command.text.split_whitespace().collect();
    let image = words.iter().rposition(|it| ["tidegate", "/usr/bin/tidegate", "tidegate:local"].contains(it));
    // Behind a program or an image comes a command, and then its options.
    let Some((subcommand, rest)) = image.and_then(|at| words.get(at + 1..)?.split_first()) else { return };
    if subcommand.starts_with('-') || *subcommand == "." {
        return;
    }
    let help = cage::run(&[subcommand, "--help"], &[]);
    assert!(help.status.success(), "{at}\n`{subcommand}` is no command");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for option in rest.iter().filter(|it| it.starts_with('-')) {
        let named = help.split([' ', ',', '\n']).any(|it| it == *option);
        assert!(named, "{at}\n`{subcommand}` has no option {option}");
    }
}

/// A test a page, each with the number of commands that run and that are only read: a page that lost its commands, or
/// says of one that it cannot be run, proves less than it seems to.
macro_rules! pages {
    ($($name:ident: $file:literal, $counts:expr;)*) => {
        const PAGES: &[&str] = &[$($file),*];
        $(
            #[test]
            fn $name() {
                assert_eq!(type_page($file), $counts, "commands that ran, and that were only read");
            }
        )*
    };
}

pages! {
    getting_started: "getting-started.md", (7, 2);
    accounts: "accounts.md", (7, 0);
    virtual_keys: "virtual-keys.md", (8, 0);
    coding_agents: "coding-agents.md", (9, 0);
    models: "models.md", (6, 0);
    secrets: "secrets.md", (10, 0);
    reload: "reload.md", (10, 0);
    logs: "logs.md", (11, 0);
    metrics: "metrics.md", (6, 0);
    restart: "restart.md", (14, 0);
    containers: "containers.md", (0, 6);
    systemd: "systemd.md", (0, 12);
    tls: "tls.md", (11, 0);
    troubleshooting: "troubleshooting.md", (1, 0);
}

#[test]
fn every_page_with_commands_has_its_test_and_the_readme_leads_to_it() {
    assert_eq!(PAGES.iter().map(|it| (*it).to_owned()).collect::<BTreeSet<String>>(), pages());
    let readme = std::fs::read_to_string(docs().join("../README.md")).expect("the README");
    for page in PAGES {
        assert!(readme.contains(&format!("(docs/{page})")), "the README does not lead to docs/{page}");
    }
    let commands = PAGES.iter().flat_map(|it| steps(it)).filter_map(|it| match it {
        Step::Command(command) => Some(command.needs.is_some()),
        Step::File { .. } => None,
    });
    let (only_read, ran): (Vec<bool>, Vec<bool>) = commands.partition(|it| *it);
    say(&format!("all pages: {} commands run, {} are only read", ran.len(), only_read.len()));
}

#[test]
fn troubleshooting_names_every_refusal_with_its_status() {
    let page = std::fs::read_to_string(docs().join("troubleshooting.md")).expect("the page");
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let code = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
        Some((code.to_owned(), cells.get(2)?.parse::<u16>().ok()?))
    };
    let told: BTreeSet<(String, u16)> = page.lines().filter_map(row).collect();
    assert_eq!(told, refusals());
}

/// The codes and statuses of the faults, from the tables of the source that gives them out.
fn refusals() -> BTreeSet<(String, u16)> {
    let source = std::fs::read_to_string(docs().join("../core/src/fault.rs")).expect("the source");
    let kinds = source.split_once("impl FaultKind").expect("the kinds").1;
    let table = |function: &str| -> BTreeMap<String, String> {
        let text = kinds.split_once(&format!("fn {function}(self)")).expect("the function").1;
        let text = text.split_once("match self {").expect("a table").1.split_once('}').expect("its end").0;
        let arms = text.split(",\n").filter_map(|arm| arm.split_once("=>"));
        let rows = arms.flat_map(|(names, value)| {
            let value = value.trim().trim_matches('"');
            names.split('|').map(move |name| (name.trim().to_owned(), value.to_owned()))
        });
        rows.collect()
    };
    let statuses = table("status");
    let codes = table("code");
    assert!(codes.len() > 10, "{codes:?}");
    // A kind that says more has a code for each word, and one status.
    let plain = |kind: &str| kind.split_once('(').map_or(kind.to_owned(), |(name, _)| format!("{name}(_)"));
    codes.into_iter().map(|(kind, code)| (code, statuses[&plain(&kind)].parse().expect("a status"))).collect()
}
