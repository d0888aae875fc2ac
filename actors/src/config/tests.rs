//! The file as a whole: good ones, a corpus of bad ones with every expected complaint and its place, rendering,
//! masking, the schema.

mod ingress;
mod proxies;

use std::time::Duration;

use tidegate_core::snapshot::Reach;
use tidegate_core::{Families, Family};

use super::secrets::tests::Given;
use super::*;

/// The example of ARCHITECTURE.md, in full.
const EXAMPLE: &str = r#"
listen: 127.0.0.1:4000
admin: { listen: 127.0.0.1:4001 }
io: auto
takeover: { socket: /run/tidegate/takeover.sock }
providers:
  anthropic:
    base_url: https://api.anthropic.com
    keys:
      - { name: acme-1, value: "${env:ACME_1}", account: acme, weight: 2 }
      - { name: acme-2, value: "${env:ACME_2}", account: acme }
      - { name: beta-1, value: "${env:BETA_1}", limits: { rpm: 1000, itpm: 450000, otpm: 90000 } }
      - name: gamma-1
        value: ${file:/run/secrets/gamma}
        limits: { opus-5: { rpm: 50 }, default: { rpm: 500, itpm: 100000 } }
  eu:
    kind: anthropic
    base_url: https://eu.example.com/proxy/
    private: true
    ca_file: /etc/ca.pem
    timeouts: { idle: 30s, total: 1h }
    state_account: eu-1
    classes: { mine: ["claude-mine-*"], sonnet-5: ["claude-sonnet-5*"] }
    keys: [{ name: eu-1, value: "${env:EU:-sk-eu-default}" }]
models:
  claude-sonnet: { chain: [anthropic/claude-sonnet-5-5, eu/claude-sonnet-5-5] }
virtual_keys:
  - name: team-chat
    key: "${env:TEAM_CHAT}"
    limits: { rpm: 600, tpm: 200000, count_cache_reads: true }
    models: ["claude-*"]
    operations: [generation, files]
  - { name: team-off, key: "${env:TEAM_OFF}", models: [] }
models_only: true
expose_routing: true
decompress: false
state: { file: owners.db, objects_max: 1000, responses_max: 2000 }
forward_headers: [X-Request-Source]
log: { level: warn, format: json }
access_log: { to: stdout }
timeouts: { connect: 3s, first_byte: 120s, first_byte_whole: 600s, idle: 120s, total: off }
"#;

fn given() -> Given {
    let mut given = Given::default();
    let long = |it: &str| format!("{it}-0123456789-0123456789-0123456789");
    for name in ["ACME_1", "ACME_2", "BETA_1", "TEAM_CHAT", "TEAM_OFF"] {
        given.variables.insert(name.into(), long(name));
    }
    given.files.insert("/run/secrets/gamma".into(), b"sk-gamma\n".to_vec());
    given.files.insert("/etc/ca.pem".into(), CERTIFICATE.as_bytes().to_vec());
    given
}

/// A frame of PEM around bytes: what stands in it is looked at when a connection is made.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAECAw==\n-----END CERTIFICATE-----\n";

fn check_given(text: &str) -> Result<Checked, Complaints> {
    check("t.yaml", text, &given())
}

/// Complaints as `line:column severity message`.
fn complaints(text: &str) -> Vec<String> {
    let list = match check_given(text) {
        Ok(checked) => checked.warnings,
        Err(complaints) => complaints.list().to_vec(),
    };
    let line = |it: &Complaint| {
        let place = it.place.as_ref().map_or("-".into(), |it| format!("{}:{}", it.line, it.column));
        let severity = if it.severity == Severity::Error { "error" } else { "warning" };
        format!("{place} {severity} {}", it.message)
    };
    list.iter().map(line).collect()
}

#[test]
fn the_example_of_the_design_is_good() {
    let checked = check_given(EXAMPLE).unwrap_or_else(|it| panic!("{it}"));
    assert_eq!(checked.warnings, [], "{}", checked.render_warnings(false));
    let draft = &checked.draft;
    let first = &draft.providers[0];
    let accounts: Vec<(&str, usize)> =
        first.accounts.iter().map(|it| (it.name.as_str(), it.keys.len())).collect();
    assert_eq!(accounts, [("acme", 2), ("beta-1", 1), ("gamma-1", 1)]);
    assert_eq!(first.accounts[0].keys[0].weight, 2.0);
    assert!(first.accounts[0].limits.iter().all(|it| it.requests.is_none()));
    assert!(first.accounts[1].limits.iter().all(|it| it.output_tokens == Some(90_000)));
    assert_eq!(first.accounts[2].keys[0].secret.expose(), "sk-gamma");
    let class = |name: &str| first.classes.iter().position(|it| it.name == name).expect(name);
    assert_eq!(first.accounts[2].limits[class("opus-5")].requests, Some(50));
    assert_eq!(first.accounts[2].limits[class("opus-5")].input_tokens, None);
    assert_eq!(first.accounts[2].limits[class("sonnet-5-5")].requests, Some(500));
    let eu = &draft.providers[1];
    assert_eq!(
        (&*eu.origin.host, &*eu.origin.base_path, eu.origin.reach),
        ("eu.example.com", "/proxy", Reach::Private)
    );
    assert!(eu.origin.ca_pem.is_some());
    assert_eq!(
        (eu.timeouts.idle, eu.timeouts.total),
        (Duration::from_secs(30), Some(Duration::from_secs(3600)))
    );
    assert_eq!(eu.timeouts.connect, Duration::from_secs(3));
    assert_eq!(first.timeouts.total, None);
    // The operator's own before the dialect's, but for the one that is about no model.
    let names: Vec<&str> = eu.classes[..3].iter().map(|it| &*it.name).collect();
    assert_eq!(
        (names, &*eu.classes[0].patterns),
        (vec!["objects", "mine", "sonnet-5"], &[String::new()][..])
    );
    assert_eq!(
        eu.classes.iter().filter(|it| it.name == "sonnet-5").count(),
        1,
        "a restated class replaces its own"
    );
    assert_eq!(eu.classes.last().map(|it| it.patterns.clone()), Some(vec!["*".to_owned()]));
    assert_eq!(draft.models[0].chain.len(), 2);
    assert_eq!(draft.callers[0].limits.tokens_per_minute, Some(200_000));
    assert!(draft.callers[0].limits.count_cache_reads);
    assert_eq!(draft.callers[1].models, Some(Vec::new()));
    assert_eq!(draft.callers[0].operations, Families::GENERATION.with(Family::Files));
    assert_eq!(draft.callers[1].operations, Families::GENERATION);
    assert_eq!((first.state_account.as_deref(), eu.state_account.as_deref()), (None, Some("eu-1")));
    assert_eq!(draft.forward_headers, ["x-request-source"]);
    assert_eq!((draft.objects_max, draft.responses_max, draft.unknown_responses), (1_000, 2_000, false));
    assert_eq!(checked.settings.state_file.as_deref(), Some(Path::new("owners.db")));
    assert!(draft.models_only && draft.expose_routing && !draft.decompress && draft.access_log);
    let access = Some(AccessSink::Stdout);
    assert_eq!(checked.logs, LogSettings { level: LogLevel::Warn, format: LogFormat::Json, access });
}

#[test]
fn owners_that_nobody_writes_down_are_warned_of() {
    let text = |operations: &str, state: &str| {
        format!(
            "providers: {{ anthropic: {{ keys: [{{ name: a, value: \"${{env:ACME_1}}\" }}] }} }}\n\
             virtual_keys: [{{ name: t, key: \"${{env:TEAM_CHAT}}\", operations: [{operations}] }}]\n{state}"
        )
    };
    let lost = "2:77 warning owners of batches are forgotten with the process, and nobody can reach what was made before";
    assert_eq!(complaints(&text("generation, batches", "")), [lost]);
    assert_eq!(complaints(&text("generation", "")), [""; 0]);
    assert_eq!(complaints(&text("files", "state: { file: owners.db }\n")), [""; 0]);
    assert_eq!(
        complaints(&text("chat", "state: { objects_max: 0 }\n")),
        ["3:23 error objects_max must be from 1 to 16777216"]
    );
    assert_eq!(
        complaints(&text("chat", "state: { responses_max: 99000000 }\n")),
        ["3:25 error responses_max must be from 1 to 16777216"]
    );
    assert_eq!(complaints(&text("chat", "state: { unknown_responses: refuse }\n")), [""; 0]);
}

#[test]
fn a_provider_that_passes_credentials_on_needs_no_keys() {
    let text = "providers: { anthropic: { passthrough: true } }\n";
    let checked = check_given(text).unwrap_or_else(|it| panic!("{it}"));
    assert!(checked.draft.providers[0].passthrough && checked.draft.providers[0].accounts.is_empty());
    let without = "providers: { anthropic: { passthrough: false } }\n";
    assert_eq!(complaints(without), ["1:14 error the provider `anthropic` has no keys"]);
}

#[test]
fn json_is_a_subset() {
    let text =
        r#"{"providers": {"openai": {"keys": [{"name": "k", "value": "${env:ACME_1}"}]}}, "workers": 2}"#;
    let checked = check_given(text).unwrap_or_else(|it| panic!("{it}"));
    assert_eq!(checked.settings.workers, Some(2));
    assert_eq!(checked.logs, LogSettings::default());
    assert!(!checked.draft.access_log, "who calls what is listed only where that is asked for");
    assert_eq!((checked.settings.listen.port(), checked.settings.admin.listen.port()), (4000, 4001));
}

/// Every row is a file and all that is wrong with it.
const BAD: &[(&str, &[&str])] = &[
    ("", &["1:1 error there is no provider"]),
    ("[]", &["1:1 error expected a mapping, found a list", "1:1 error there is no provider"]),
    ("providers: {}\n", &["1:12 error there is no provider"]),
    (
        "takeover: { socket: run/here.sock }\n\
         providers: { anthropic: { keys: [{ name: a, value: \"${env:ACME_1}\" }] } }\n",
        &["1:21 error `run/here.sock` cannot be a socket's path"],
    ),
    (
        "takeover: {}\nproviders: { anthropic: { keys: [{ name: a, value: \"${env:ACME_1}\" }] } }\n",
        &["1:11 error `takeover` has no `socket`"],
    ),
    (
        "lisen: x\nlisten: 4000\nproviders: 7\nproviders: 8\n",
        &[
            "1:1 error unknown field `lisen`",
            "2:9 error expected text, found a whole number",
            "3:12 error expected a mapping, found a whole number",
            "4:1 error `providers` is given twice",
        ],
    ),
    (
        "providers:\n  acme:\n    keys: []\n  beta:\n    kind: antropic\n    keys:\n      - {}\n",
        &[
            "2:3 error `acme` is not a kind of provider, and it has no `kind`",
            "3:11 error the provider `acme` has no keys",
            "5:11 error `antropic` is not a kind of provider",
            "7:9 error a key has no `name`",
            "7:9 error a key has no `value`",
        ],
    ),
    (
        "providers:\n\
         \x20 anthropic:\n\
         \x20   keys:\n\
         \x20     - { name: a, value: \"${env:NOPE}\", wieght: 2, weight: 0 }\n\
         \x20     - { name: a, value: \"${env:ACME_1}\" }\n\
         \x20     - { name: a, value: \"${env:ACME_2}\", limits: { rpm: 1, opus-5: { rpm: 0 } } }\n\
         \x20     - { name: d, value: \"${env:ACME_1}\", limits: { opus-55: { rpm: 0 } } }\n\
         \x20     - { name: e, value: \"${env:BETA_1}\", limits: { rmp: 3 } }\n",
        &[
            "4:27 error the environment variable `NOPE` is not set, or empty",
            "4:42 error unknown field `wieght`",
            "4:61 error a weight must be above 0 and at most 1000000",
            "6:17 error two keys of `anthropic` are named `a`",
            "7:27 error `d` is the same credential as `a`",
            "7:54 error there is no model class `opus-55`",
            "7:70 error a limit must be from 1 to 1000000000 per minute",
            "8:54 error there is no limit `rmp`",
        ],
    ),
    (
        "providers:\n\
         \x20 anthropic:\n\
         \x20   keys: [{ name: a, value: \"${env:ACME_1}\", limits: { rpm: 1, opus-5: { rpm: 2 } } },\n\
         \x20          { name: b, value: \"${env:ACME_2}\", account: x, limits: { rpm: 1 } },\n\
         \x20          { name: c, value: \"${env:BETA_1}\", account: x, limits: { rpm: 2 } }]\n",
        &[
            "3:55 error `limits` mixes numbers and model classes",
            "5:67 error the account `x` has `limits` twice",
        ],
    ),
    (
        "providers:\n\
         \x20 anthropic:\n\
         \x20   base_url: http://api.example.com\n\
         \x20   keys: [{ name: a, value: \"${env:ACME_1}\" }]\n\
         \x20 meta:\n\
         \x20   kind: openai\n\
         \x20   base_url: http://169.254.169.254/latest\n\
         \x20   ca_file: /none.pem\n\
         \x20   keys: [{ name: a, value: \"${env:ACME_2}\" }]\n",
        &[
            "3:15 error plain HTTP to the name `api.example.com` would show the key to the network",
            "7:15 error `169.254.169.254` is no place for an upstream",
        ],
    ),
    (
        "providers:\n\
         \x20 anthropic: &it\n\
         \x20   keys: [{ name: a, value: \"${env:ACME_1}\" }]\n\
         \x20   state_account: b\n\
         models:\n\
         \x20 empty: { chain: [] }\n\
         \x20 none: {}\n\
         \x20 bare: { chain: [claude, empty] }\n\
         \x20 far: { chain: [antropic/x, anthropic/] }\n\
         \x20 twice: { chain: [anthropic/x, anthropic/x] }\n\
         \x20 odd: { chain: anthropic/x }\n",
        &[
            "4:20 error `anthropic` has no account `b`",
            "6:19 error the model `empty` has no targets",
            "7:3 error the model `none` has no targets",
            "8:19 error `claude` names no provider",
            "8:27 error `empty` names no provider",
            "9:18 error there is no provider `antropic`",
            "9:30 error `anthropic/` names no model",
            "10:33 error `anthropic/x` stands in the chain twice",
            "11:17 error expected a list, found text",
        ],
    ),
    (
        "listen: 0.0.0.0:4001\n\
         workers: 0\n\
         io: uring\n\
         decompress: true\n\
         forward_headers: [Cookie, \"a b\", x-a, X-A, X-Tidegate-Key]\n\
         timeouts: { connect: 3, idle: 0s, total: never, first_bite: 1s }\n\
         providers:\n\
         \x20 anthropic:\n\
         \x20   keys: [{ name: a, value: \"${env:ACME_1}\" }]\n",
        &[
            "1:9 error anyone who reaches 0.0.0.0:4001 could spend the keys: it is open to others",
            "1:9 error `listen` and `admin.listen` are both port 4001",
            "2:10 error workers must be from 1 to 1024",
            "3:5 error `uring` is not known here",
            "4:13 error decoding request bodies is not supported",
            "5:19 error `cookie` is never forwarded: it belongs to the caller's own connection",
            "5:27 error `a b` is not a header name",
            "5:39 error `x-a` is given twice",
            "5:44 error `x-tidegate-key` is never forwarded: it belongs to the caller's own connection",
            "6:22 error expected text, found a whole number",
            "6:31 error the duration is zero",
            "6:42 error `never` is not a duration",
            "6:49 error unknown field `first_bite`",
        ],
    ),
    (
        "providers:\n\
         \x20 anthropic:\n\
         \x20   keys: [{ name: a, value: \"${env:ACME_1}\" }]\n\
         virtual_keys:\n\
         \x20 - { name: x, key: \"${env:TEAM_CHAT}\" }\n\
         \x20 - { name: x, key: \"${env:TEAM_CHAT}\" }\n\
         \x20 - { name: y, key: \"${env:ACME_1}\", limits: { rpm: -1, tpm: 1.5 }, models: [\"\"] }\n\
         \x20 - { key: \"with space\", operations: [chat, massages, 3] }\n",
        &[
            "6:13 error two virtual keys are named `x`",
            "6:21 error `x` is the same key as `x`",
            "7:21 error `y` is a provider's own credential",
            "7:53 error the number must not be negative, nor above 2^64",
            "7:62 error expected a whole number, found a number",
            "7:78 error a pattern must have 1 to 256 bytes",
            "8:5 error a virtual key has no `name`",
            "8:12 error the virtual key cannot be sent in a header",
            "8:45 error there is no operation `massages`",
            "8:55 error expected text, found a whole number",
        ],
    ),
    (
        "log: { level: loud, format: xml, to: here }\n\
         access_log: {}\n\
         providers:\n\
         \x20 anthropic:\n\
         \x20   keys: [{ name: a, value: \"${env:ACME_1}\" }]\n",
        &[
            "1:15 error `loud` is not known here",
            "1:29 error `xml` is not known here",
            "1:34 error unknown field `to`",
            "2:13 error `access_log` does not say where `to`",
        ],
    ),
    (
        "access_log: { to: stderr }\n\
         providers: { anthropic: { keys: [{ name: a, value: \"${env:ACME_1}\" }] } }\n",
        &["1:19 error standard error carries the control plane's own log"],
    ),
    (
        "access_log: { to: / }\n\
         providers: { anthropic: { keys: [{ name: a, value: \"${env:ACME_1}\" }] } }\n",
        &["1:19 error `/` is not a file"],
    ),
    (
        "models_only: true\nproviders:\n  anthropic:\n    keys: [{ name: a, value: \"${env:ACME_1}\" }]\n",
        &["1:14 error no model could be called"],
    ),
];

#[test]
fn everything_wrong_is_said_at_once_and_where() {
    for (text, expect) in BAD {
        assert_eq!(&complaints(text), expect, "in:\n{text}");
    }
}

/// Files that work, but hardly as meant.
#[test]
fn warnings() {
    let text = "listen: 0.0.0.0:4000\n\
     admin: { listen: \"0.0.0.0:4001\" }\n\
     providers:\n\
     \x20 anthropic:\n\
     \x20   base_url: http://160.79.104.10\n\
     \x20   private: true\n\
     \x20   keys: [{ name: a, value: sk-ant-literal }]\n\
     \x20 openai:\n\
     \x20   keys: [{ name: b, value: \"${env:ACME_1}\" }]\n\
     models:\n\
     \x20 m: { chain: [anthropic/x, openai/y] }\n\
     access_log: { to: /no/such/folder/access.log }\n\
     virtual_keys:\n\
     \x20 - { name: x, key: short-one, limits: { count_cache_reads: true } }\n";
    assert_eq!(
        complaints(text),
        [
            "1:9 warning virtual keys and prompts cross the network without TLS",
            "2:18 warning the admin API is off on this address",
            "5:15 warning keys cross the public network without TLS",
            "6:14 warning `private` says nothing here",
            "7:30 warning the key stands in the file itself",
            "11:3 warning the chain of `m` joins providers of different kinds",
            "12:19 warning the access log's folder is not there",
            "14:21 warning the virtual key stands in the file itself",
            "14:21 warning the virtual key is shorter than 32 characters",
            "14:61 warning `count_cache_reads` says nothing without `tpm`",
        ]
    );
}

#[test]
fn snippets_name_the_place_and_show_no_secret() {
    let text = "providers:\n\
     \x20 anthropic:\n\
     \x20   keys:\n\
     \x20     - { name: a, value: sk-canary-1, wieght: 2 }\n\
     \x20     - { name: b, value: \"sk-canary-2\", weight: -1 }\n\
     \x20     - name: c\n\
     \x20       value: |\n\
     \x20         sk-canary-3\n\
     \x20         sk-canary-4\n\
     virtual_keys: [{ name: v, key: 'sk-canary-5', limts: {} }]\n\
     admin: { token: sk-canary-6, x: 1 }\n";
    let complaints = check_given(text).expect_err("mistakes");
    for styled in [false, true] {
        let shown = complaints.render(styled);
        assert!(!shown.contains("canary"), "{shown}");
    }
    let shown = complaints.to_string();
    assert!(shown.contains("t.yaml:4:40"), "{shown}");
    assert!(shown.contains("did you mean `weight`?"), "{shown}");
    assert!(shown.contains("- { name: a, value: ***********, wieght: 2 }"), "{shown}");
}

#[test]
fn a_text_that_is_no_yaml_is_one_complaint_without_secrets() {
    let text =
        "providers:\n  anthropic:\n    keys: [{ name: a, value: sk-canary-1, \"b }]\nkey: sk-canary-2\n";
    let complaints = check_given(text).expect_err("broken");
    assert_eq!(complaints.list().len(), 1);
    assert!(complaints.list()[0].place.is_some());
    assert!(!complaints.to_string().contains("canary"), "{complaints}");
}

#[test]
fn bombs_end() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for at in 1..12 {
        let before = format!("*a{}", at - 1);
        laughs.push_str(&format!("a{at}: &a{at} [{}]\n", vec![before; 10].join(", ")));
    }
    assert!(check_given(&laughs).is_err());
    let deep = format!("providers: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(check_given(&deep).is_err());
    let flood: String = (0..5_000).map(|it| format!("field{it}: 1\n")).collect();
    let complaints = check_given(&flood).expect_err("unknown fields");
    assert!(complaints.list().len() < 300);
}

#[test]
fn aliases_and_merges_have_places() {
    let text = "providers:\n\
     \x20 anthropic: &base\n\
     \x20   keys: [{ name: a, value: \"${env:ACME_1}\" }]\n\
     \x20 two:\n\
     \x20   kind: anthropic\n\
     \x20   keys: [{ name: a, value: \"${env:ACME_2}\" }]\n\
     \x20   timeouts: &t { idle: 5s }\n\
     timeouts: *t\n";
    let checked = check_given(text).unwrap_or_else(|it| panic!("{it}"));
    assert_eq!(checked.draft.providers[0].timeouts.idle, Duration::from_secs(5));
}

#[test]
fn the_environment_alone_is_a_configuration() {
    let mut given = Given::default();
    let error = from_environment(&given).expect_err("no key").to_string();
    assert!(error.contains("ANTHROPIC_API_KEY") && error.contains("OPENAI_API_KEY"), "{error}");
    given.variables.insert("OPENAI_API_KEY".into(), "sk-o".into());
    let checked = from_environment(&given).unwrap_or_else(|it| panic!("{it}"));
    assert_eq!(checked.draft.providers.len(), 1);
    assert_eq!(checked.draft.providers[0].name, "openai");
    assert_eq!(checked.draft.providers[0].origin.base_path, "/v1");
    assert!(checked.settings.listen.ip().is_loopback());
    given.variables.insert("ANTHROPIC_API_KEY".into(), "sk-a".into());
    let checked = from_environment(&given).unwrap_or_else(|it| panic!("{it}"));
    assert_eq!(checked.draft.providers[0].name, "anthropic", "in the order of the dialects");
    let mut checked = checked;
    let public = "0.0.0.0:4000".parse().expect("an address");
    let admin = checked.settings.admin.listen;
    assert!(checked.listen_on("--listen", public, admin).is_err(), "open to others without virtual keys");
    assert!(checked.listen_on("--listen", "127.0.0.1:0".parse().expect("an address"), admin).is_ok());
}

#[test]
fn files_are_read_beside_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("key"), "sk-from-file\n").expect("written");
    let path = folder.path().join("tidegate.yaml");
    std::fs::write(&path, "providers: { anthropic: { keys: [{ name: a, value: \"${file:key}\" }] } }\n")
        .expect("written");
    let checked = check_file(&path).unwrap_or_else(|it| panic!("{it}"));
    assert_eq!(checked.draft.providers[0].accounts[0].keys[0].secret.expose(), "sk-from-file");
    let text = "providers: { anthropic: { keys: [{ name: a, value: \"${file:key}\" }] } }\naccess_log: { to: calls }\n";
    std::fs::write(&path, text).expect("written");
    let checked = check_file(&path).unwrap_or_else(|it| panic!("{it}"));
    assert_eq!(checked.logs.access, Some(AccessSink::File(folder.path().join("calls"))));
    std::fs::write(&path, [0xff, 0xfe]).expect("written");
    assert!(check_file(&path).is_err_and(|it| it.to_string().contains("not UTF-8")));
    assert!(check_file(&folder.path().join("none")).is_err_and(|it| it.to_string().contains("cannot read")));
}

#[test]
fn the_schema_names_every_field() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).expect("JSON");
    let text = schema.to_string();
    for field in [
        "listen",
        "admin",
        "token",
        "io",
        "workers",
        "takeover",
        "socket",
        "providers",
        "kind",
        "base_url",
        "private",
        "ca_file",
        "keys",
        "name",
        "value",
        "account",
        "weight",
        "limits",
        "rpm",
        "itpm",
        "otpm",
        "classes",
        "timeouts",
        "connect",
        "first_byte",
        "first_byte_whole",
        "idle",
        "total",
        "models",
        "chain",
        "virtual_keys",
        "operations",
        "state_account",
        "passthrough",
        "key",
        "tpm",
        "count_cache_reads",
        "models_only",
        "expose_routing",
        "decompress",
        "forward_headers",
        "log",
        "level",
        "format",
        "access_log",
        "to",
        "state",
        "file",
        "objects_max",
        "responses_max",
        "unknown_responses",
    ] {
        assert!(text.contains(&format!("\"{field}\":")), "{field}");
    }
    assert_eq!(schema["required"], serde_json::json!(["providers"]));
    assert_eq!(schema["additionalProperties"], false);
    assert!(text.contains("io_uring") && text.contains("epoll"));
    assert!(!text.contains("tidegate::Field"), "how values are read is no part of the schema");
}
