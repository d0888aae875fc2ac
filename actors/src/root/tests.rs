//! The tree as a whole: what it answers, what it survives, what it publishes.

use std::path::PathBuf;
use std::sync::atomic::AtomicU16;

use tidegate_core::Verdict;
use tidegate_core::health::KeyState;
use tidegate_core::report::OrganizationReport;
use tidegate_core::snapshot::AccountId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::restarts::RESTARTS_MAX;
use super::*;
use crate::config::LogLevel;
use crate::tests::{CONFIG, Parts, attempt_report, call_report, parts};

/// Waits until something holds; real time, for tests with sockets and files.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.expect("a reply");
    String::from_utf8(reply).expect("text")
}

async fn get(address: SocketAddr, path: &str, more: &str) -> String {
    let host = if more.contains("host:") { String::new() } else { format!("host: {address}\r\n") };
    exchange(address, &format!("GET {path} HTTP/1.1\r\n{host}{more}connection: close\r\n\r\n")).await
}

fn status(reply: &str) -> u16 {
    reply.get(9..12).and_then(|it| it.parse().ok()).expect("a status line")
}

struct Running {
    plane: ControlPlane,
    parts: Rest,
    admin: SocketAddr,
}

struct Rest {
    data: Arc<crate::tests::Plane>,
    workers: Arc<crate::tests::Workers>,
    ring: rtrb::Producer<Report>,
    /// Held: a ring without its other end takes nothing.
    _entries: rtrb::Producer<tidegate_core::access::Entry>,
    level: Arc<std::sync::atomic::AtomicUsize>,
    snapshot: Arc<Snapshot>,
}

async fn run(text: &str, config: ConfigOrigin) -> Running {
    let Parts { wiring, plane, workers, ring, entries, level, snapshot } = parts(text, config, 1024);
    let control = start(wiring).await.unwrap_or_else(|it| panic!("{it}"));
    let admin = control.admin_address().expect("an address");
    let parts = Rest { data: plane, workers, ring, _entries: entries, level, snapshot };
    Running { plane: control, parts, admin }
}

async fn run_file(text: &str) -> (Running, PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tidegate.yaml");
    std::fs::write(&path, text).expect("written");
    let running = run(text, ConfigOrigin::File(path.clone())).await;
    (running, path, folder)
}

#[tokio::test]
async fn the_admin_port_answers() {
    let mut it = run(CONFIG, ConfigOrigin::Fixed).await;
    assert_eq!(status(&get(it.admin, "/livez", "").await), 200);
    let ready = get(it.admin, "/readyz", "").await;
    assert_eq!(status(&ready), 200);
    for part in ["\"driver\":\"epoll\"", "\"reason\":\"a test\"", "\"revision\":1", "\"count\":2"] {
        assert!(ready.contains(part), "{part} in {ready}");
    }
    assert_eq!(status(&get(it.admin, "/else", "").await), 404);
    assert_eq!(
        status(
            &exchange(
                it.admin,
                "POST /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
            .await
        ),
        405
    );
    let api = get(it.admin, "/api/v1/status", "").await;
    assert_eq!(status(&api), 200);
    for part in ["\"name\":\"anthropic\"", "\"class\":\"sonnet-5-5\"", "\"state\":\"good\"", "\"chain\":["] {
        assert!(api.contains(part), "{part} in {api}");
    }
    let foreign = get(it.admin, "/api/v1/status", "host: evil.example\r\n").await;
    assert_eq!(status(&foreign), 403, "a page whose name was pointed at loopback");
    it.parts.ring.push(Report::Call(call_report(1))).expect("room");
    let totals = || it.plane.totals().calls;
    until("the call is counted", || totals() == 1).await;
    let metrics = get(it.admin, "/metrics", "").await;
    assert!(
        metrics.contains("application/openmetrics-text") && metrics.trim_end().ends_with("# EOF"),
        "{metrics}"
    );
    for reply in [&ready, &api, &metrics] {
        assert!(!reply.contains("canary"), "a secret in {reply}");
    }
    it.parts.workers.draining.store(true, Ordering::Relaxed);
    let draining = get(it.admin, "/readyz", "").await;
    assert!(status(&draining) == 503 && draining.contains("draining"), "{draining}");
    it.plane.stop().await;
}

#[tokio::test]
async fn the_api_asks_for_the_token() {
    let text = CONFIG
        .replace("admin: { listen: 127.0.0.1:0 }", "admin: { listen: 127.0.0.1:0, token: canary-token }");
    let it = run(&text, ConfigOrigin::Fixed).await;
    for (more, expect) in [
        ("", 401),
        ("authorization: Bearer canary-toke\r\n", 401),
        ("authorization: Basic canary-token\r\n", 401),
        ("authorization: Bearer \r\n", 401),
        ("authorization: Bearer canary-token\r\n", 200),
        ("authorization: Bearer canary-token\r\nhost: gateway.example\r\n", 200),
    ] {
        assert_eq!(status(&get(it.admin, "/api/v1/status", more).await), expect, "{more}");
    }
    assert_eq!(status(&get(it.admin, "/metrics", "").await), 200, "probes and scrapes need none");
    it.plane.stop().await;
}

#[tokio::test]
async fn killed_actors_come_back_and_do_their_work() {
    let mut it = run(CONFIG, ConfigOrigin::Fixed).await;
    let names = it.plane.actors();
    let expect = [
        "access-log",
        "admin",
        "chain/both",
        "config",
        "exporter",
        "key/anthropic/a",
        "key/far/c",
        "pump",
        "quota/anthropic/b",
        "resolver",
    ];
    for name in expect {
        assert!(names.iter().any(|it| it == name), "{name} in {names:?}");
    }
    // As many die as the intensity limit lets come back.
    assert!(names.iter().any(|it| it == "watchdog"));
    for (at, name) in expect.iter().enumerate() {
        assert!(it.plane.kill(name), "{name}");
        until(name, || it.plane.restarts() == at as u64 + 1).await;
        until("it is listed", || it.plane.actors().len() == names.len()).await;
    }
    assert!(!it.plane.kill("nobody"));
    it.parts.ring.push(Report::Call(call_report(1))).expect("room");
    until("the report is counted", || it.plane.totals().calls == 1).await;
    assert_eq!(it.plane.reload().await.ok(), Some(2));
    assert_eq!(status(&get(it.admin, "/readyz", "").await), 200);
    it.plane.stop().await;
}

#[tokio::test]
async fn too_many_deaths_end_readiness_and_nothing_else() {
    let it = run(CONFIG, ConfigOrigin::Fixed).await;
    for at in 0..RESTARTS_MAX as u64 {
        assert!(it.plane.kill("exporter"));
        until("it is restarted", || {
            it.plane.restarts() == at + 1 && it.plane.actors().iter().any(|it| it == "exporter")
        })
        .await;
        assert_eq!(it.plane.readiness(), Ok(()));
    }
    assert!(it.plane.kill("exporter"));
    until("the root gives up", || it.plane.readiness().is_err()).await;
    until("it stays dead", || !it.plane.actors().iter().any(|it| it == "exporter")).await;
    assert_eq!(it.plane.restarts(), RESTARTS_MAX as u64);
    assert_eq!(status(&get(it.admin, "/readyz", "").await), 503);
    assert_eq!(status(&get(it.admin, "/livez", "").await), 200);
    assert_eq!(it.plane.reload().await.ok(), Some(2), "the others go on");
    it.plane.stop().await;
}

#[tokio::test]
async fn with_the_tree_dead_nothing_comes_back() {
    let it = run(CONFIG, ConfigOrigin::Fixed).await;
    it.plane.kill_tree();
    until("the root is gone", || it.plane.task.is_finished()).await;
    let asked = tokio::time::timeout(Duration::from_millis(300), get(it.admin, "/livez", "")).await;
    assert!(asked.is_err(), "nobody answers");
    assert_eq!(it.plane.restarts(), 0);
    assert!(it.plane.reload().await.is_err());
    assert_eq!(it.parts.data.published.load(Ordering::Relaxed), 0);
    assert!(it.parts.snapshot.keys.iter().all(|it| it.cell.usable()), "the last verdicts stand");
}

#[tokio::test]
async fn a_reload_is_all_or_nothing() {
    let (it, path, _folder) = run_file(CONFIG).await;
    let quota = it.parts.snapshot.accounts[0].quotas[0].clone();
    let limit = || quota.view(Moment::ZERO + Duration::from_secs(100)).requests.limit;
    assert_eq!(limit(), Some(1000));
    std::fs::write(&path, CONFIG.replace("rpm: 1000", "rpm: 0")).expect("written");
    let complaints = it.plane.reload().await.expect_err("a limit of zero");
    let errors = complaints.list().iter().filter(|it| it.severity == crate::Severity::Error);
    assert_eq!(errors.count(), 1);
    assert_eq!((limit(), it.parts.data.published.load(Ordering::Relaxed)), (Some(1000), 0));
    let api = get(it.admin, "/api/v1/status", "").await;
    assert!(api.contains("a limit must be from 1"), "the refused revision is shown: {api}");

    it.parts.data.refuses.store(true, Ordering::Relaxed);
    std::fs::write(&path, CONFIG.replace("rpm: 1000", "rpm: 700")).expect("written");
    let complaints = it.plane.reload().await.expect_err("the data plane refuses");
    assert!(complaints.to_string().contains("the data plane refuses"));
    assert_eq!(limit(), Some(1000), "limits of the refused one are taken back");

    it.parts.data.refuses.store(false, Ordering::Relaxed);
    assert_eq!(it.plane.reload().await.ok(), Some(2));
    assert_eq!(limit(), Some(700));
    assert!(!get(it.admin, "/api/v1/status", "").await.contains("a limit must be"));
    it.plane.stop().await;
}

#[tokio::test]
async fn a_virtual_key_that_is_gone_is_revoked_where_the_old_snapshot_is_held() {
    let key =
        |name: &str| format!("  - {{ name: {name}, key: \"{name}-0123456789-0123456789-0123456789\" }}\n");
    let own = CONFIG.split("virtual_keys:").next().unwrap_or(CONFIG).trim_end();
    let with = |keys: &[&str]| {
        format!("{own}\nvirtual_keys:\n{}", keys.iter().map(|it| key(it)).collect::<String>())
    };
    let (it, path, _folder) = run_file(&with(&["stays", "goes"])).await;
    let revoked = |name: &str| {
        let callers = &it.parts.snapshot.callers;
        callers.caller(callers.named(name).expect("a caller")).cells.is_revoked()
    };
    std::fs::write(&path, with(&["stays"]).replace("key: \"stays", "kez: \"stays")).expect("written");
    assert!(it.plane.reload().await.is_err());
    assert!(!revoked("goes"), "a refused configuration takes no key");
    std::fs::write(&path, with(&["stays"])).expect("written");
    assert!(it.plane.reload().await.is_ok());
    assert_eq!((revoked("stays"), revoked("goes")), (false, true));
    it.plane.stop().await;
}

#[tokio::test]
async fn a_changed_file_is_noticed_and_actors_follow_it() {
    let (it, path, folder) = run_file(CONFIG).await;
    let published = || it.parts.data.published.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = published();
    assert_eq!(before, 0, "what was read at the start is no change");
    // The way editors and secret stores do it: a new file in the old one's place.
    let fresh = folder.path().join("fresh");
    let text = CONFIG.replace("{ name: b, value: secret-canary-b }", "{ name: d, value: secret-canary-d }");
    std::fs::write(&fresh, &text).expect("written");
    std::fs::rename(&fresh, &path).expect("renamed");
    until("the change is published", || published() == before + 1).await;
    let actors = || it.plane.actors();
    until("actors follow", || {
        actors().iter().any(|it| it == "key/anthropic/d")
            && !actors().iter().any(|it| it.ends_with("anthropic/b"))
    })
    .await;
    assert_eq!(it.plane.restarts(), 0, "ended on purpose is no death");
    // The same content anew is no change.
    std::fs::write(&path, &text).expect("written");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(published(), before + 1);
    it.plane.stop().await;
}

#[tokio::test]
async fn a_reload_sets_the_level_and_begins_an_access_log() {
    let (it, path, folder) = run_file(CONFIG).await;
    let level = || it.parts.level.load(Ordering::Relaxed);
    assert_eq!(level(), LogLevel::Info as usize);
    let text = format!("log: {{ level: debug }}\naccess_log: {{ to: calls }}\n{CONFIG}");
    std::fs::write(&path, &text).expect("written");
    it.plane.reload().await.expect("a good configuration");
    assert_eq!(level(), LogLevel::Debug as usize);
    assert!(it.plane.board.snapshot.load().access_log, "workers are told");
    let calls = folder.path().join("calls");
    until("the file is there", || calls.exists()).await;
    std::fs::write(&path, format!("log: {{ level: silly }}\n{CONFIG}")).expect("written");
    it.plane.reload().await.expect_err("a wrong one");
    assert_eq!(level(), LogLevel::Debug as usize, "the old one stays");
    std::fs::rename(&calls, folder.path().join("calls.1")).expect("rotated");
    assert!(it.plane.reopen_access_log());
    until("it is there again", || calls.exists()).await;
    it.plane.stop().await;
}

#[tokio::test]
async fn accounts_of_one_organization_are_joined() {
    let mut it = run(CONFIG, ConfigOrigin::Fixed).await;
    for account in [0, 1] {
        let report =
            OrganizationReport { revision: 1, account: AccountId(account), organization: 7, workspace: 0 };
        it.parts.ring.push(Report::Organization(report)).expect("room");
    }
    let board = it.plane.board.clone();
    until("they share their quotas", || {
        let snapshot = board.snapshot.load();
        Arc::ptr_eq(&snapshot.accounts[0].quotas[0], &snapshot.accounts[1].quotas[0])
    })
    .await;
    assert_eq!(it.parts.data.published.load(Ordering::Relaxed), 1);
    assert_eq!(it.plane.reload().await.ok(), Some(3));
    let snapshot = board.snapshot.load_full();
    assert!(
        Arc::ptr_eq(&snapshot.accounts[0].quotas[0], &snapshot.accounts[1].quotas[0]),
        "a reload keeps it"
    );
    it.plane.stop().await;
}

/// A provider that answers every request with one status, and what it was last sent.
async fn provider(answer: Arc<AtomicU16>, seen: tokio::sync::watch::Sender<(usize, String)>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read_exact(&mut byte).await.is_err() {
                    break;
                }
                head.extend_from_slice(&byte);
            }
            seen.send_modify(|it| *it = (it.0 + 1, String::from_utf8_lossy(&head).into_owned()));
            let status = answer.load(Ordering::Relaxed);
            let reply = format!(
                "HTTP/1.1 {status} X\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 2\r\n\r\n{{}}"
            );
            let _ = stream.write_all(reply.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn a_suspect_key_is_checked_and_comes_back() {
    let answer = Arc::new(AtomicU16::new(307));
    let (sender, seen) = tokio::sync::watch::channel((0, String::new()));
    let address = provider(answer.clone(), sender).await;
    let text = CONFIG.replacen("http://127.0.0.1:9", &format!("http://{address}/base"), 1);
    let mut it = run(&text, ConfigOrigin::Fixed).await;
    crate::resolve_all(&it.parts.snapshot).await;
    let cell = it.parts.snapshot.keys[0].cell.clone();
    assert!(cell.suspect());
    it.parts.ring.push(Report::Attempt(attempt_report(1, Verdict::KeyRefused))).expect("room");
    let reported = Instant::now();
    until("it is asked about", || seen.borrow().0 == 1).await;
    assert!(
        reported.elapsed() < Duration::from_secs(3),
        "the report is faster than the next look at the cell"
    );
    let head = seen.borrow().1.to_lowercase();
    assert!(head.starts_with("get /base/v1/models"), "{head}");
    assert!(head.contains(&format!("host: {address}")) && head.contains("secret-canary-a"), "{head}");
    assert_eq!(cell.state(), KeyState::Suspect, "a redirect is not followed and says nothing");
    answer.store(401, Ordering::Relaxed);
    until("a refusal takes it out", || cell.state() == KeyState::Out).await;
    assert_eq!(seen.borrow().0, 2, "asked again after a second");
    answer.store(200, Ordering::Relaxed);
    assert!(it.plane.kill("key/anthropic/a"), "a new actor finds the key out in its cell, and asks at once");
    until("an acceptance puts it back", || cell.state() == KeyState::Good).await;
    assert_eq!(seen.borrow().0, 3);
    it.plane.stop().await;
}

#[tokio::test]
async fn an_operator_who_reloads_reopens_spent_accounts() {
    let it = run(CONFIG, ConfigOrigin::Fixed).await;
    let cell = it.parts.snapshot.accounts[0].cell.clone();
    assert!(cell.spent(Moment::ZERO));
    assert_eq!(it.plane.reload().await.ok(), Some(2));
    assert!(cell.usable());
    it.plane.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_chain_leaves_its_primary_at_once_and_returns_slowly() {
    let it = run(CONFIG, ConfigOrigin::Fixed).await;
    let now = it.plane.board.clone();
    let model = it.parts.snapshot.model(tidegate_core::snapshot::ModelId(0));
    let target = &model.chain[0];
    let route = it.parts.snapshot.provider(target.provider).route(target.route).cell.clone();
    let first = || model.cell.first();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(first(), 0);
    (0..5).for_each(|_| route.failed(now.now(), 0));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(first(), 1, "the breaker is open");
    tokio::time::sleep(Duration::from_secs(24)).await;
    assert_eq!(first(), 1, "it closed 20 s ago: not long enough");
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(first(), 0, "30 s without a break");
    it.plane.kill_tree();
}

#[tokio::test]
async fn metrics_say_what_happened() {
    let mut it = run(CONFIG, ConfigOrigin::Fixed).await;
    let limited = Verdict::QuotaLimited { retry_after: None };
    for verdict in [limited, limited, Verdict::RouteOverloaded { retry_after: None }, Verdict::Success] {
        it.parts.ring.push(Report::Attempt(attempt_report(1, verdict))).expect("room");
    }
    let call = tidegate_core::report::CallReport { attempts: 4, spilled: true, ..call_report(1) };
    it.parts.ring.push(Report::Call(call)).expect("room");
    it.parts.ring.push(Report::Call(call_report(999))).expect("room");
    until("all are counted", || it.plane.totals().calls == 2).await;
    it.parts.snapshot.accounts[0].quotas[0].rest_until(it.plane.board.now() + Duration::from_secs(30));
    assert!(it.parts.snapshot.keys[1].cell.suspect());
    let text = it.plane.metrics();
    for line in [
        "tidegate_rate_limited_total{provider=\"anthropic\",account=\"a\",class=\"",
        "tidegate_overloaded_total{provider=\"anthropic\",account=\"a\",route=\"",
        "tidegate_attempts_total{provider=\"anthropic\",account=\"a\",verdict=\"success\"} 1",
        "tidegate_calls_total{caller=\"none\",provider=\"anthropic\",class=\"",
        "status=\"2xx\",end=\"complete\"} 1",
        "tidegate_calls_total{caller=\"none\",provider=\"gone\"",
        "kind=\"output\"} 5",
        "tidegate_failovers_total 1",
        "tidegate_spills_total{provider=\"anthropic\",account=\"a\"} 1",
        "tidegate_call_duration_seconds_bucket{le=\"1.28\"",
        "tidegate_first_content_seconds_count{",
        "tidegate_overhead_seconds_bucket{le=\"0.00004\"} 2",
        "tidegate_quota_resting_seconds{provider=\"anthropic\",account=\"a\",class=\"",
        "tidegate_quota_limit{provider=\"anthropic\",account=\"a\",class=\"",
        "dimension=\"requests\"} 1000",
        "tidegate_key_state{provider=\"anthropic\",account=\"b\",key=\"b\",state=\"suspect\"} 1",
        "tidegate_key_state{provider=\"anthropic\",account=\"a\",key=\"a\",state=\"suspect\"} 0",
        "tidegate_actor_restarts 0",
        "tidegate_reports_dropped{at=\"ring\"} 0",
        "tidegate_access_log_dropped 0",
        "tidegate_access_log_lines 0",
        "tidegate_access_log_failing 0",
        "tidegate_revision 1",
        "tidegate_driver_info{driver=\"epoll\",reason=\"a test\"} 1",
        "tidegate_connections_open 3",
        "tidegate_slots 100",
        "tidegate_calls_in_flight 0",
        "tidegate_body_memory_bytes 11",
        "tidegate_body_memory_bytes_max 12",
        "tidegate_memory_bound_bytes 13",
        "tidegate_chain_first{model=\"both\"} 0",
        "tidegate_ready 1",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    let series = text.lines().filter(|it| !it.starts_with('#'));
    assert!(series.clone().all(|it| it.starts_with("tidegate_")), "every name is ours");
    let totals = it.plane.totals();
    assert_eq!((totals.rate_limited, totals.overloaded, totals.failovers, totals.spills), (2, 1, 1, 1));
    assert_eq!((totals.rate_limited_absorbed, totals.failures_seen_by_callers), (2, 0));
    assert_eq!(totals.accounts.len(), 1);
    assert_eq!((totals.accounts[0].attempts, totals.accounts[0].rate_limited), (4, 2));
    it.plane.stop().await;
}
