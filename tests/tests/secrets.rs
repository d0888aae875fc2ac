//! One run of everything that can go wrong, with a canary in each secret; then a search for them in all that came out.
//! The providers here echo: whatever fails, they say back the credential they were asked with, in fields, bodies and
//! events. A canary may be found in one place alone: the head of a request to the provider whose key it is.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use tidegate_tests::cage;
use tidegate_tests::canary::{Canary, Sinks};
use tidegate_tests::client::{Client, Reply, call, request};
use tidegate_tests::messages::{error_event, message, stream};
use tidegate_tests::process::io;
use tidegate_tests::time::wait_for;
use tidegate_tests::tls::{Authority, Identity, Trust};
use tidegate_tests::upstream::{Heard, Step, Upstream, chunk, last_chunk, stream_head, whole};
use tidegate_tests::{IoChoice, Running, both_drivers};

/// How providers answer. The name is the first part of the path, so that each has a provider, a key, and no influence on
/// the others.
const CASES: [&str; 24] = [
    "ok", "302", "400", "401", "402", "403", "404", "413", "422", "429", "500", "503", "529", "large",
    "chunked", "broken", "first", "late", "garbage", "bomb", "surplus", "close", "tls", "proxy",
];
/// Kinds of them.
const KINDS: [&str; 2] = ["anthropic", "openai"];
/// Bytes of an error that is not held whole.
const LARGE_BYTES: usize = 400_000;
const LIMIT: Duration = Duration::from_secs(20);

/// Everything that is a secret in one run.
struct Secrets {
    keys: Vec<Canary>,
    callers: Vec<Canary>,
    admin: Canary,
    proxy: Canary,
    prompt: Canary,
    tool: Canary,
    query: Canary,
    guess: Canary,
    cookie: Canary,
    own: Canary,
    upload: Canary,
    literal: Canary,
    identity: Identity,
}

impl Secrets {
    fn new(identity: Identity) -> Secrets {
        let named = Canary::named;
        let providers = CASES.iter().flat_map(|case| KINDS.map(|kind| format!("key {case}-{kind}")));
        Secrets {
            keys: providers.map(|it| named(&it)).collect(),
            callers: ["team", "files"].map(named).to_vec(),
            admin: named("admin"),
            proxy: named("proxy"),
            prompt: named("prompt"),
            tool: named("tool"),
            query: named("query"),
            guess: named("guess"),
            cookie: named("cookie"),
            own: named("own credential"),
            upload: named("upload"),
            literal: named("literal"),
            identity,
        }
    }

    fn key(&self, case: &str, kind: &str) -> &Canary {
        let name = format!("key {case}-{kind}");
        self.keys.iter().find(|it| it.name == name).expect("a key of each provider")
    }

    /// What nobody but its own side may ever see.
    fn of_the_gateway(&self) -> Vec<&Canary> {
        let rest = [&self.admin, &self.proxy, &self.literal];
        self.keys.iter().chain(&self.callers).chain(rest).collect()
    }

    /// What callers send and may get back, but is written down nowhere.
    fn of_callers(&self) -> [&Canary; 7] {
        [&self.prompt, &self.tool, &self.query, &self.guess, &self.cookie, &self.own, &self.upload]
    }
}

fn case_of(heard: &Heard) -> String {
    let path = heard.target().split(' ').nth(1).unwrap_or_default();
    path.trim_start_matches('/').split(['/', '-']).next().unwrap_or_default().to_owned()
}

/// An error that says what it was asked with.
fn echo(heard: &Heard) -> String {
    let said: String = heard.head.replace('\\', "\\\\").replace('"', "\\\"").replace("\r\n", "; ");
    format!(
        r#"{{"type":"error","error":{{"type":"invalid_request_error","code":"x","message":"Key {} refused: {said}"}}}}"#,
        heard.key()
    )
}

fn answer(heard: &Heard) -> Vec<Step> {
    let case = case_of(heard);
    let key = heard.key().to_owned();
    let authorization = heard.field("authorization").unwrap_or_default().to_owned();
    let location = format!("http://127.0.0.1:9/?key={key}");
    let mut fields =
        vec![("x-echo", key.as_str()), ("x-echo-whole", &authorization), ("location", &location)];
    let good =
        || if heard.wants_stream() { good_stream(heard) } else { whole(200, &fields, &good_body(heard)) };
    match case.as_str() {
        "ok" => good(),
        "large" | "chunked" => large(&key, case == "chunked"),
        "broken" => {
            let body = format!("{{\"error\":\"{key} {}", &key[..key.len() / 2]);
            let head = format!("HTTP/1.1 400 No\r\ncontent-length: 5000\r\nx-echo: {key}\r\n\r\n{body}");
            vec![Step::Send(head.into_bytes()), Step::Close]
        }
        "first" | "late" if heard.wants_stream() => broken_stream(heard, case == "late"),
        "first" | "late" => whole(400, &fields, &echo(heard)),
        "garbage" => vec![Step::Send(format!("{key}\r\n{authorization}\r\n\r\n").into_bytes()), Step::Close],
        "bomb" => {
            let field = format!("x-echo: {key}\r\n");
            let head = format!("HTTP/1.1 200 OK\r\n{}\r\n", field.repeat(1_000));
            vec![Step::Send(head.into_bytes()), Step::Close]
        }
        "surplus" => {
            let mut steps = good();
            steps.push(Step::Send(format!("HTTP/1.1 200 OK\r\nx-echo: {key}\r\n\r\n{key}").into_bytes()));
            steps
        }
        "close" => vec![Step::Close],
        "proxy" => unreachable!("it is reached through a proxy that refuses"),
        status => {
            fields.push(("retry-after", "1"));
            whole(status.parse().unwrap_or(500), &fields, &echo(heard))
        }
    }
}

fn good_body(heard: &Heard) -> String {
    if heard.target().contains("/files") {
        return r#"{"id":"file-1","object":"file","bytes":3,"filename":"f","purpose":"batch"}"#.into();
    }
    if heard.target().contains("/messages") {
        return message("fine");
    }
    r#"{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"fine"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#.into()
}

fn events(heard: &Heard) -> Vec<String> {
    if heard.target().contains("/messages") {
        return stream("fine");
    }
    let piece = |delta: &str, reason: &str| {
        format!(
            "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{reason}}}]}}\n\n"
        )
    };
    vec![
        piece(r#"{"role":"assistant","content":""}"#, "null"),
        piece(r#"{"content":"fine"}"#, "null"),
        piece("{}", "\"stop\""),
        "data: [DONE]\n\n".into(),
    ]
}

fn good_stream(heard: &Heard) -> Vec<Step> {
    let mut steps = vec![stream_head()];
    steps.extend(events(heard).iter().map(|it| chunk(it)));
    steps.push(last_chunk());
    steps
}

fn broken_stream(heard: &Heard, late: bool) -> Vec<Step> {
    let said = format!("refused: {}", heard.key());
    let error = match heard.target().contains("/messages") {
        true => error_event("overloaded_error", &said),
        false => format!(
            "data: {{\"error\":{{\"message\":\"{said}\",\"type\":\"server_error\",\"code\":\"x\"}}}}\n\n"
        ),
    };
    let mut steps = vec![stream_head()];
    if late {
        steps.extend(events(heard)[..3.min(events(heard).len() - 2)].iter().map(|it| chunk(it)));
        steps.push(Step::Pause(Duration::from_millis(20)));
    }
    steps.extend([chunk(&error), last_chunk()]);
    steps
}

/// An error that is passed on in pieces: the key stands at every place a piece may be cut at.
fn large(key: &str, chunked: bool) -> Vec<Step> {
    let mut body = String::from("{\"error\":\"");
    while body.len() < LARGE_BYTES {
        let _ = write!(body, "{key} {} ", "x".repeat(body.len() % 97));
    }
    body.push_str("\"}");
    let head = "HTTP/1.1 400 No\r\ncontent-type: application/json\r\n";
    if !chunked {
        return vec![Step::Send(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes())];
    }
    let mut steps = vec![Step::Send(format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes())];
    let pieces: Vec<&[u8]> = body.as_bytes().chunks(10_007).collect();
    steps.extend(pieces.iter().map(|it| chunk(&String::from_utf8_lossy(it))));
    steps.push(last_chunk());
    steps
}

/// A forward proxy that refuses everybody, and says with which credentials they came.
fn refusing_proxy() -> Upstream {
    Upstream::start(|heard| {
        let said = heard.field("proxy-authorization").unwrap_or_default().to_owned();
        whole(407, &[("proxy-authenticate", &said), ("x-echo", &said)], &said)
    })
}

fn configuration(
    driver: IoChoice,
    logs: &str,
    upstream: &Upstream,
    proxy: &Upstream,
    secrets: &Secrets,
) -> String {
    let mut providers = String::new();
    for case in CASES {
        for kind in KINDS {
            let scheme = if matches!(case, "tls" | "proxy") { "https" } else { "http" };
            let base = format!(
                "{scheme}://{}/{case}-{kind}{}",
                upstream.address(),
                if kind == "openai" { "/v1" } else { "" }
            );
            // A third of the keys each from a file, from the environment, and from the configuration itself.
            let value = match (case.len() + kind.len()) % 3 {
                0 => format!("${{file:secrets/{case}-{kind}}}"),
                1 => format!("${{env:{}}}", variable(case, kind)),
                _ => secrets.key(case, kind).text(),
            };
            let through = match case {
                "proxy" => {
                    format!(", proxy: \"http://user:{}@{}\"", percent(&secrets.proxy.text()), proxy.address())
                }
                // Its port speaks no TLS, and says nothing until it hears a request.
                "tls" => ", timeouts: { connect: 500ms }".to_owned(),
                _ => String::new(),
            };
            let _ = writeln!(
                providers,
                "  {case}-{kind}: {{ kind: {kind}, base_url: \"{base}\", keys: [{{ name: only, value: \"{value}\" }}]{through} }}"
            );
        }
    }
    format!(
        r#"io: {io}
tls: {{ cert_file: secrets/cert.pem, key_file: secrets/key.pem }}
{logs}
access_log: {{ to: calls }}
state: {{ file: owners }}
takeover: {{ socket: secrets/takeover.sock }}
providers:
{providers}
  own: {{ kind: anthropic, base_url: "{url}/400-own", passthrough: true }}
models:
  chain: {{ chain: [500-anthropic/m, 429-anthropic/m, 401-anthropic/m, ok-anthropic/m] }}
virtual_keys:
  - {{ name: team, key: "${{env:TEAM}}" }}
  - {{ name: files, key: "${{file:secrets/files}}", operations: [generation, files] }}
"#,
        io = io(driver),
        url = upstream.url()
    )
}

fn percent(text: &str) -> String {
    text.bytes().map(|it| format!("%{it:02X}")).collect()
}

fn variable(case: &str, kind: &str) -> String {
    format!("KEY_{}_{}", case.to_ascii_uppercase(), kind.to_ascii_uppercase())
}

/// A running program with its secrets beside it, and what came out of it so far.
struct Chaos {
    program: Running,
    secrets: Secrets,
    trust: Trust,
    yaml: String,
    out: Sinks,
    /// What callers were told, which may hold what they said themselves.
    told: Sinks,
    /// Files with secrets, and the socket of take-overs.
    beside: tempfile::TempDir,
}

impl Chaos {
    fn begin(
        driver: IoChoice,
        logs: &str,
        trace: Option<&str>,
        upstream: &Upstream,
        proxy: &Upstream,
    ) -> Chaos {
        let authority = Authority::named("a test");
        let secrets = Secrets::new(authority.issue("localhost"));
        let folder = tempfile::tempdir().expect("a folder");
        write_secrets(folder.path(), &secrets);
        let mut environment: Vec<(String, String)> = vec![("TEAM".into(), secrets.callers[0].text())];
        for case in CASES {
            environment.extend(KINDS.map(|kind| (variable(case, kind), secrets.key(case, kind).text())));
        }
        environment.extend(trace.map(|it| ("TIDEGATE_LOG".to_owned(), it.to_owned())));
        let environment: Vec<(&str, String)> =
            environment.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let admin = format!("${{file:{}/admin}}", folder.path().display());
        let yaml = configuration(driver, logs, upstream, proxy, &secrets)
            .replace("secrets/", &format!("{}/", folder.path().display()));
        let program = Running::serve_guarded(&yaml, &admin, &environment);
        let trust = Trust::new(&authority);
        Chaos { program, secrets, trust, yaml, out: Sinks::default(), told: Sinks::default(), beside: folder }
    }

    fn ask(&mut self, place: &str, bytes: impl AsRef<[u8]>) -> Option<Reply> {
        let mut client = Client::connect_tls(self.program.data(), &self.trust);
        client.send(bytes);
        let reply = client.try_reply(false);
        let reply = reply.map_err(|broken| self.told.add(place, broken)).ok()?;
        self.told.add(format!("{place}, head"), reply.head.clone());
        self.told.add(format!("{place}, body"), reply.body.clone());
        Some(reply)
    }

    /// One call of each form to each provider.
    fn calls(&mut self) {
        for case in CASES {
            for kind in KINDS {
                for streamed in [false, true] {
                    let model = format!("{case}-{kind}/m");
                    let place = format!("{model}, streamed {streamed}");
                    let bytes = self.generation(kind, &model, streamed);
                    let reply = self.ask(&place, bytes);
                    if case == "ok" {
                        assert_eq!(reply.map(|it| it.status), Some(200), "{place}");
                    } else if case == "401" {
                        let status = reply.map(|it| it.status);
                        assert!(status.is_some_and(|it| it != 401), "our key is not the caller's affair");
                    }
                }
            }
        }
        let chain = self.generation("anthropic", "chain", false);
        assert_eq!(self.ask("a chain", chain).map(|it| it.status), Some(200));
    }

    fn generation(&self, kind: &str, model: &str, streamed: bool) -> Vec<u8> {
        let Secrets { prompt, tool, query, cookie, .. } = &self.secrets;
        let (prompt, tool) = (prompt.text(), tool.text());
        let body = format!(
            r#"{{"model":"{model}","max_tokens":16,"stream":{streamed},"messages":[{{"role":"user","content":"{prompt}"}}],"tools":[{{"name":"t","input_schema":{{"type":"object","description":"{tool}"}}}}]}}"#
        );
        let (path, field, value) = match kind {
            "anthropic" => ("/v1/messages", "x-api-key", self.secrets.callers[0].text()),
            _ => (
                "/v1/chat/completions",
                "authorization",
                format!("Bearer {}", self.secrets.callers[0].text()),
            ),
        };
        let mut fields =
            vec![(field, value), ("cookie", cookie.text()), ("content-type", "application/json".into())];
        fields.push(("x-forwarded-for", cookie.text()));
        if kind == "anthropic" {
            fields.push(("anthropic-version", "2023-06-01".into()));
        }
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        request(&format!("POST {path}?key={}", query.text()), &fields, body)
    }

    /// Callers who are refused, who bring a credential of their own, who upload.
    fn odd_callers(&mut self) {
        let Secrets { guess, own, upload, prompt, .. } = &self.secrets;
        let (guess, own, upload, prompt) = (guess.text(), own.text(), upload.text(), prompt.text());
        let (team, files) = (self.secrets.callers[0].text(), self.secrets.callers[1].text());
        let body = format!(
            r#"{{"model":"own/m","max_tokens":1,"messages":[{{"role":"user","content":"{prompt}"}}]}}"#
        );
        for field in [("x-api-key", guess.clone()), ("authorization", format!("Bearer {guess}"))] {
            let reply = self
                .ask("a guess", request("POST /v1/messages", &[(field.0, &field.1)], &body))
                .expect("an answer");
            assert_eq!(reply.status, 401);
            let mut told = Sinks::default();
            told.add("the answer to a guess", [reply.head.as_bytes(), &reply.body].concat());
            assert_eq!(told.find([&self.secrets.guess]), Vec::<String>::new());
        }
        let fields =
            [("x-tidegate-key", team.as_str()), ("x-api-key", &own), ("anthropic-version", "2023-06-01")];
        assert_eq!(
            self.ask("an own credential", request("POST /v1/messages", &fields, &body)).map(|it| it.status),
            Some(400)
        );
        let form = format!(
            "--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--XX\r\nContent-Disposition: form-data; \
             name=\"file\"; filename=\"{upload}\"\r\n\r\n{upload}\r\n--XX--\r\n"
        );
        let bearer = format!("Bearer {files}");
        let fields =
            [("authorization", bearer.as_str()), ("content-type", "multipart/form-data; boundary=XX")];
        self.ask("an upload", request("POST /v1/files", &fields, form));
        for broken in [
            format!("{{\"model\":\"x\",\"model\":\"{prompt}\"}}"),
            format!("{{\"model\":[\"{prompt}\"]}}"),
            format!("{{\"model\":\"m\",\"max_tokens\":\"{prompt}\"}}"),
            prompt.clone(),
            format!("{{\"{prompt}\""),
        ] {
            let fields = [("x-api-key", team.as_str()), ("anthropic-version", "2023-06-01")];
            let reply =
                self.ask("a broken body", request("POST /v1/messages", &fields, broken)).expect("an answer");
            assert!((400..500).contains(&reply.status), "{}", reply.status);
        }
        // Bytes that are no request at all, with a key among them.
        let nonsense = format!("{team}\r\n\r\n");
        self.ask("nonsense", nonsense);
    }

    /// What operators and probes are told.
    fn admin(&mut self) {
        let good = format!("Bearer {}", self.secrets.admin.text());
        let wrong = format!("Bearer {}", self.secrets.guess.text());
        for path in ["/livez", "/readyz", "/metrics", "/api/v1/status", "/nothing"] {
            for authorization in [None, Some(&good), Some(&wrong)] {
                let fields: Vec<(&str, &str)> =
                    authorization.iter().map(|it| ("authorization", it.as_str())).collect();
                let reply = call(self.program.admin(), request(&format!("GET {path}"), &fields, ""));
                self.out.add(format!("admin {path}, head"), reply.head.clone());
                self.out.add(format!("admin {path}, body"), reply.body);
            }
        }
        let status =
            call(self.program.admin(), request("GET /api/v1/status", &[("authorization", &good)], ""));
        assert_eq!(status.status, 200);
    }

    /// Configurations that are refused, each with a secret in it, and the command that tells why.
    fn bad_reloads(&mut self) {
        let literal = self.secrets.literal.text();
        let refused = |it: &Running| it.stderr().matches("not reloaded").count();
        for (at, bad) in [
            format!("providers: {{ a: {{ kind: anthropic, keys: [{{ name: a, value: \"{literal}\", \"b }}] }} }}"),
            format!("providers:\n  a:\n    kind: anthropic\n    keys:\n      - {{ name: a, vlaue: \"{literal}\" }}"),
            format!("providers: {{ a: {{ kind: anthropic, base_url: \"https://u:{literal}@host\" }} }}"),
            format!("providers: {{ anthropic: \"{literal}\" }}\nvirtual_keys: [\"{literal}\", {{ name: x, key: [\"{literal}\"] }}]"),
            format!("providers: {{ a: {{ kind: anthropic, keys: [{{ name: a, value: \"${{env:NONE:-{literal}}}\", weight: -1 }}] }} }}"),
            format!("providers: {{ a: {{ kind: anthropic, proxy: \"https://u:{literal}@p:1\", keys: [] }} }} # {literal}"),
            format!("providers: {{}}\nadmin: {{ token: 'short {literal}' }}"),
        ]
        .into_iter()
        .enumerate()
        {
            let before = refused(&self.program);
            self.program.replace(&bad);
            self.program.signal("HUP");
            wait_for("it is refused", LIMIT, || refused(&self.program) > before);
            let file = self.program.path("bad.yaml");
            std::fs::write(&file, &bad).expect("a file");
            let checked = cage::run(&["check", "-c", &file.display().to_string()], &[]);
            assert_eq!(checked.status.code(), Some(1), "{bad}");
            self.out.add(format!("check {at}, stdout"), checked.stdout);
            self.out.add(format!("check {at}, stderr"), checked.stderr);
            std::fs::remove_file(file).expect("it is there");
        }
        self.admin();
        let yaml = self.yaml.clone();
        self.program.configure(&yaml);
        self.program.signal("HUP");
        wait_for("the good one is back", LIMIT, || {
            call(self.program.admin(), request("GET /readyz", &[], "")).status == 200
        });
    }

    /// What a next process would be told; it leaves before it takes anything.
    fn takeover(&mut self) {
        let mut socket =
            UnixStream::connect(self.beside.path().join("takeover.sock")).expect("it offers itself");
        socket.set_read_timeout(Some(LIMIT)).expect("a timeout");
        let say = |socket: &mut UnixStream, message: &str| {
            socket.write_all(&(message.len() as u32).to_le_bytes()).expect("it listens");
            socket.write_all(message.as_bytes()).expect("it listens");
        };
        let hear = |socket: &mut UnixStream| {
            let mut length = [0; 4];
            socket.read_exact(&mut length).expect("an answer");
            let mut body = vec![0; u32::from_le_bytes(length) as usize];
            socket.read_exact(&mut body).expect("an answer");
            body
        };
        say(&mut socket, r#"{"step":"hello","version":1}"#);
        let sockets = hear(&mut socket);
        let sockets: serde_json::Value = serde_json::from_slice(&sockets).expect("JSON");
        let count = sockets["data"].as_u64().expect("a count") as usize + 1;
        socket.read_exact(&mut vec![0; count]).expect("the sockets' bytes");
        say(&mut socket, r#"{"step":"ready"}"#);
        let cells = hear(&mut socket);
        assert!(cells.len() > 1_000, "{}", cells.len());
        self.out.add("the dump of a take-over", cells);
    }

    /// Commands that read the same configuration.
    fn commands(&mut self) {
        let file = self.program.path("tidegate.yaml").display().to_string();
        for arguments in
            [&["schema"][..], &["healthcheck", "-c", &file], &["env", "claude-code", "-c", &file]]
        {
            let ended = cage::run(arguments, &[]);
            self.out.add(format!("{arguments:?}, stdout"), ended.stdout);
            self.out.add(format!("{arguments:?}, stderr"), ended.stderr);
        }
    }

    /// Ends the program and gathers what it leaves.
    fn end(mut self) -> (Secrets, Sinks, Sinks) {
        assert!(self.program.end(), "{}", self.program.stderr());
        for entry in std::fs::read_dir(self.program.folder()).expect("a folder").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "tidegate.yaml" && entry.file_type().is_ok_and(|it| it.is_file()) {
                self.out.add(name, std::fs::read(entry.path()).expect("a file"));
            }
        }
        (self.secrets, self.out, self.told)
    }
}

fn write_secrets(folder: &Path, secrets: &Secrets) {
    let put = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("a file");
    put("admin", &secrets.admin.text());
    put("files", &secrets.callers[1].text());
    put("cert.pem", &secrets.identity.chain_pem);
    put("key.pem", &secrets.identity.key_pem);
    for case in CASES {
        KINDS.iter().for_each(|kind| put(&format!("{case}-{kind}"), &secrets.key(case, kind).text()));
    }
}

/// What stands in a provider's request beside its own key.
fn heard_elsewhere(upstream: &Upstream, secrets: &Secrets) -> Vec<String> {
    let mut found = Vec::new();
    for heard in upstream.heard() {
        let path = heard.target().split(' ').nth(1).unwrap_or_default();
        let provider = path.trim_start_matches('/').split('/').next().unwrap_or_default().to_owned();
        let own = format!("key {provider}");
        let mut sink = Sinks::default();
        sink.add(path, [heard.head.as_bytes(), &heard.body].concat());
        let others = secrets.of_the_gateway().into_iter().filter(|it| it.name != own);
        found.extend(sink.find(others.chain([&secrets.cookie])));
    }
    found
}

fn run(driver: IoChoice, logs: &str, trace: Option<&str>) {
    let (upstream, proxy) = (Upstream::start(answer), refusing_proxy());
    let mut chaos = Chaos::begin(driver, logs, trace, &upstream, &proxy);
    chaos.calls();
    chaos.odd_callers();
    // What a caller puts into its own path is its own affair; here it shows that the search works.
    let planted = Canary::named("planted");
    chaos.ask("planted", request(&format!("GET /v1/{}", planted.text()), &[], ""));
    chaos.admin();
    chaos.takeover();
    chaos.bad_reloads();
    chaos.commands();
    // The key actors have asked about the keys that were refused.
    wait_for("a refused key is checked", LIMIT, || {
        upstream.heard().iter().any(|it| it.target().starts_with("GET "))
    });
    let (secrets, out, told) = chaos.end();
    for key in &secrets.keys {
        let reached = upstream.heard().iter().any(|it| it.key() == key.text());
        let never = ["tls", "proxy"].iter().any(|it| key.name.starts_with(&format!("key {it}-")));
        assert_eq!(reached, !never, "{} reaches its provider, and is shown to no other", key.name);
    }
    assert!(proxy.count() > 0, "the proxy was asked");
    let (places, bytes) = out.extent();
    assert!(places > 40 && bytes > 50_000, "{places} places, {bytes} bytes");
    let found = out.find([&planted]);
    assert!(found.iter().any(|it| it.ends_with("in calls")), "the search finds what is planted: {found:?}");
    assert_eq!(
        out.find(secrets.of_the_gateway()),
        Vec::<String>::new(),
        "the gateway's secrets, in what it writes"
    );
    assert_eq!(out.find(secrets.of_callers()), Vec::<String>::new(), "what callers say, in what it writes");
    assert_eq!(
        told.find(secrets.of_the_gateway()),
        Vec::<String>::new(),
        "the gateway's secrets, in answers"
    );
    let private = secrets.identity.key_pem.lines().nth(1).expect("a line of the key").as_bytes().to_vec();
    assert!(!out.holds(&private) && !told.holds(&private), "the private key of the data port");
    assert_eq!(
        heard_elsewhere(&upstream, &secrets),
        Vec::<String>::new(),
        "what one provider was told of others"
    );
}

both_drivers! {
    /// Everything at its most talkative, as text.
    fn no_canary_leaves_its_cage(driver) {
        super::run(driver, "log: { level: debug }", None);
    }

    /// The libraries are let speak too, as JSON.
    fn not_even_what_libraries_trace_holds_one(driver) {
        super::run(driver, "log: { format: json }", Some("trace"));
    }
}
