//! What ships beside the program: that completions and manual say what the help says, that the example configuration is
//! one, that units and image name what exists, and that every file of the Debian package is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tidegate_tests::cage;
use tidegate_tests::say;
use tidegate_tests::sdk;
use tidegate_tests::time::variable;

/// The worst exposure that systemd may find in the unit, in tenths of its scale to 100.
const EXPOSURE_MAX: &str = "15";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What the program prints.
#[track_caller]
fn printed(arguments: &[&str]) -> String {
    let output = cage::run(arguments, &[]);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The commands that the help lists.
fn commands() -> BTreeSet<String> {
    let help = printed(&["--help"]);
    let listed = help.lines().skip_while(|it| *it != "Commands:").skip(1).take_while(|it| !it.is_empty());
    let names = listed.filter_map(|it| it.strip_prefix("  ")?.split_whitespace().next().map(str::to_owned));
    names.filter(|it| it != "help").collect()
}

/// The long options that stand in a text.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|it: char| !it.is_ascii_alphanumeric() && it != '-');
    let options =
        words.filter(|it| it.strip_prefix("--").is_some_and(|it| !it.is_empty() && !it.starts_with('-')));
    options.map(str::to_owned).collect()
}

/// The options of all commands, as the help lists them.
fn helped_options() -> BTreeSet<String> {
    let mut all = options(&printed(&["--help"]));
    for command in commands() {
        all.extend(options(&printed(&[&command, "--help"])));
    }
    all
}

/// Whether a tool answers; says so where a part of a test is left out for want of it.
fn is_there(tool: &str) -> bool {
    let there =
        Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        say(&format!("skipped: what needs `{tool}`, which is not there"));
    }
    there
}

#[test]
fn the_manual_names_every_command_and_option_and_no_other() {
    let manual = printed(&["man"]);
    let named = manual.lines().filter_map(|it| it.strip_prefix(".SS \"tidegate ")?.strip_suffix('"'));
    assert_eq!(named.map(str::to_owned).collect::<BTreeSet<String>>(), commands());
    assert_eq!(options(&manual.replace("\\-", "-").replace("\\fB", " ")), helped_options());
    for word in ["SIGHUP", "SIGTERM", "SIGUSR1", "TIDEGATE_LOG", "EXIT STATUS"] {
        assert!(manual.contains(word), "{word}");
    }
    if is_there("groff") {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &manual).expect("a file");
        let output =
            Command::new("groff").args(["-man", "-ww", "-z"]).arg(file.path()).output().expect("groff");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn completions_name_every_command_and_option_and_no_other() {
    for shell in ["bash", "fish", "zsh"] {
        let text = printed(&["completions", shell]);
        for command in commands() {
            assert!(text.contains(&command), "{shell}: {command}");
        }
        // Fish writes `-l name`.
        let named: BTreeSet<String> = match shell {
            "fish" => text
                .lines()
                .filter(|it| it.starts_with("complete "))
                .flat_map(|it| it.split(" -l ").skip(1))
                .filter_map(|it| it.split_whitespace().next())
                .map(|it| format!("--{it}"))
                .collect(),
            _ => options(&text),
        };
        let helped = helped_options();
        let (surplus, missing): (Vec<&String>, Vec<&String>) =
            (named.difference(&helped).collect(), helped.difference(&named).collect());
        assert!(
            surplus.is_empty() && missing.is_empty(),
            "{shell}: surplus {surplus:?}, missing {missing:?}"
        );
    }
}

#[test]
fn bash_completes() {
    let completions = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(completions.path(), printed(&["completions", "bash"])).expect("a file");
    let complete = |words: &[&str]| {
        let last = words.last().expect("a word");
        let script = format!(
            "source '{}'; COMP_WORDS=({}); COMP_CWORD={}; _tidegate tidegate '{last}' ''; echo \"${{COMPREPLY[@]}}\"",
            completions.path().display(),
            words.join(" "),
            words.len() - 1
        );
        let output = Command::new("bash").args(["-c", &script]).output().expect("bash");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    assert_eq!(complete(&["tidegate", "hea"]), "healthcheck");
    assert_eq!(complete(&["tidegate", "healthcheck", "--a"]), "--admin");
    assert_eq!(complete(&["tidegate", "completions", "f"]), "fish");
}

#[test]
fn the_example_configuration_is_accepted_as_it_is_and_with_all_its_options() {
    let example = read("packaging/tidegate.yaml");
    let long = "0123456789-0123456789-0123456789";
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("second-1"), "sk-second").expect("a file");
    std::fs::write(folder.path().join("roots.pem"), rcgen_certificate()).expect("a file");
    tidegate_tests::tls::Authority::named("ours").issue("localhost").write(folder.path());
    let switched_on: Vec<String> = example.lines().map(switched_on).collect();
    let switched_on = switched_on
        .join("\n")
        .replace("/run/credentials/tidegate.service/second-1", "second-1")
        .replace("/etc/ssl/certs/ca-certificates.crt", "roots.pem")
        .replace("/etc/tidegate/cert.pem", "cert.pem")
        .replace("/etc/tidegate/key.pem", "key.pem");
    for (text, expect) in [
        (example.as_str(), "ok: 1 providers, 1 keys, 1 models, 0 virtual keys"),
        (&switched_on, "ok: 3 providers, 5 keys, 1 models, 2 virtual keys"),
    ] {
        let file = folder.path().join("tidegate.yaml");
        std::fs::write(&file, text).expect("a file");
        let mut command = Command::new(sdk::program("tidegate"));
        command.arg("check").arg("-c").arg(&file).env_clear();
        for name in [
            "ANTHROPIC_API_KEY",
            "OPENAI_API_KEY",
            "ADMIN_TOKEN",
            "THIRD_KEY",
            "INSIDE_KEY",
            "TEAM_CHAT",
            "TEAM_BATCH",
        ] {
            command.env(name, format!("{name}-{long}"));
        }
        let output = command.output().expect("the program runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), expect, "{output:?}\n{text}");
        assert!(output.stderr.is_empty(), "an example without a warning: {output:?}");
    }
}

/// A line of the example with its option on: `#` without a space behind it is what switches one off.
fn switched_on(line: &str) -> String {
    match line.strip_prefix('#') {
        Some(option)
            if option.starts_with("  ") || option.starts_with(|it: char| it.is_ascii_lowercase()) =>
        {
            option.to_owned()
        }
        _ => line.to_owned(),
    }
}

fn rcgen_certificate() -> String {
    let certified =
        rcgen::generate_simple_self_signed(["models.example.com".to_owned()]).expect("a certificate");
    certified.cert.pem()
}

#[test]
fn the_units_are_sound_and_confine() {
    let unit = read("packaging/tidegate.service");
    for line in [
        "Type=notify",
        "NotifyAccess=main",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "DynamicUser=yes",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "MemoryDenyWriteExecute=yes",
        "SystemCallFilter=io_uring_setup io_uring_enter io_uring_register",
    ] {
        assert!(unit.lines().any(|it| it == line), "{line}");
    }
    assert!(read("packaging/tidegate-data.socket").contains("FileDescriptorName=data\n"));
    assert!(read("packaging/tidegate-admin.socket").contains("FileDescriptorName=admin\n"));
    if !is_there("systemd-analyze") {
        return;
    }
    // Verified with the program of this build in place of the installed one.
    let folder = tempfile::tempdir().expect("a folder");
    let program = sdk::program("tidegate").display().to_string();
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]);
    for name in ["tidegate.service", "tidegate-data.socket", "tidegate-admin.socket"] {
        let text = read(&format!("packaging/{name}")).replace("/usr/bin/tidegate", &program);
        std::fs::write(folder.path().join(name), text).expect("a file");
        command.arg(folder.path().join(name));
    }
    let output = command.output().expect("systemd-analyze");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--no-pager", "--offline=true", &format!("--threshold={EXPOSURE_MAX}")]);
    let output = command.arg(folder.path().join("tidegate.service")).output().expect("systemd-analyze");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", said.lines().last().unwrap_or_default());
}

#[test]
fn the_image_runs_what_exists_as_nobody_on_a_pinned_base() {
    let text = read("Dockerfile").replace("\\\n", " ");
    let instructions = |name: &str| {
        let lines =
            text.lines().map(str::trim_start).filter_map(|it| it.strip_prefix(name)?.strip_prefix(' '));
        lines.map(str::to_owned).collect::<Vec<String>>()
    };
    for base in instructions("FROM") {
        let image = base.split_whitespace().next().unwrap_or_default();
        let tag = image.rsplit_once(':').map(|(_, tag)| tag);
        assert!(tag.is_some_and(|it| it != "latest"), "{image}: pinned by its tag");
    }
    assert_eq!(instructions("USER"), ["65532:65532"]);
    let words = |text: &str| -> Vec<String> {
        let list = &text[text.find('[').expect("the form without a shell")..];
        serde_json::from_str(list).expect("a list of words")
    };
    let health = words(&instructions("HEALTHCHECK")[0]);
    let started = [words(&instructions("ENTRYPOINT")[0]), words(&instructions("CMD")[0])].concat();
    for command in [health, started] {
        assert_eq!(command[0], "/usr/bin/tidegate");
        let help = printed(&[&command[1], "--help"]);
        for option in command.iter().filter(|it| it.starts_with('-')) {
            assert!(
                help.contains(&format!("{option}, ")) || help.contains(&format!("{option} ")),
                "{option}"
            );
        }
    }
}

#[test]
fn every_file_of_the_debian_package_is_there() {
    let cargo = variable("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--no-deps", "--offline", "--format-version=1"]).current_dir(root());
    let metadata: serde_json::Value =
        serde_json::from_slice(&command.output().expect("cargo runs").stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let package = packages.iter().find(|it| it["name"] == "tidegate").expect("the root package");
    let deb = &package["metadata"]["deb"];
    let text = |it: &serde_json::Value| it.as_str().expect("text").to_owned();
    let assets: Vec<[String; 3]> = deb["assets"]
        .as_array()
        .expect("assets")
        .iter()
        .map(|it| [text(&it[0]), text(&it[1]), text(&it[2])])
        .collect();
    for [source, ..] in assets.iter().filter(|[source, ..]| !source.starts_with("target/")) {
        let path = root().join(source.trim_end_matches("*.md"));
        assert!(path.exists(), "{source}");
    }
    // What the program prints is made by `cargo xtask package`.
    let package = read("xtask/src/package.rs");
    for [source, ..] in assets.iter().filter(|[source, ..]| source.starts_with("target/release/package/")) {
        assert!(package.contains(source.rsplit('/').next().expect("a name")), "{source}");
    }
    for file in deb["conf-files"].as_array().expect("files of the operator").iter().map(text) {
        assert!(assets.iter().any(|[_, path, _]| format!("/{path}") == file), "{file}");
    }
    let secrets =
        assets.iter().find(|[_, path, _]| path == "etc/tidegate/environment").expect("the variables");
    assert_eq!(secrets[2], "600", "only root reads it");
    let units = root().join(text(&deb["systemd-units"]["unit-scripts"]));
    assert!(units.join("tidegate.service").exists());
    assert_eq!(
        (&deb["systemd-units"]["enable"], &deb["systemd-units"]["start"]),
        (&false.into(), &false.into())
    );
}
