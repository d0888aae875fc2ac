//! What a hostile caller, or a provider gone wrong, tries: guessing keys, naming addresses, forging fields, bombs of all
//! kinds, and other people's bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidegate_tests::client::{Client, MESSAGES_FIELDS, Reply, call, fields, messages, request};
use tidegate_tests::messages::{self as protocol, VIRTUAL_KEY, event, message, message_start};
use tidegate_tests::upstream::{Heard, Step, Upstream, chunk, good, last_chunk, stream_head, whole};
use tidegate_tests::{Gateway, IoChoice, both_drivers};

const OTHER_KEY: &str = "vk-other-0123456789-0123456789-0123456";
const GONE_KEY: &str = "vk-gone-0123456789-0123456789-01234567";
const SLOW: Duration = Duration::from_secs(10);

fn yaml(upstream: &Upstream, more: &str) -> String {
    format!(
        r#"
{more}
providers:
  anthropic: {{ base_url: "{url}", keys: [{{ name: k, value: "upstream-key-of-a-test" }}] }}
models:
  front: {{ chain: [anthropic/claude-sonnet-5-5] }}
virtual_keys:
  - {{ name: team, key: "{VIRTUAL_KEY}" }}
  - {{ name: other, key: "{OTHER_KEY}" }}
  - {{ name: gone, key: "{GONE_KEY}" }}
"#,
        url = upstream.url()
    )
}

fn start(driver: IoChoice, upstream: &Upstream) -> Gateway {
    Gateway::start(driver, 2, &yaml(upstream, ""))
}

fn with_key(key: &str) -> Vec<u8> {
    let fields =
        [("content-type", "application/json"), ("anthropic-version", "2023-06-01"), ("x-api-key", key)];
    request("POST /v1/messages", &fields, protocol::request("front"))
}

/// An answer without what is drawn or measured anew for each.
fn lasting(reply: &Reply) -> (u16, Vec<(String, String)>, String) {
    let id = reply.field("request-id").unwrap_or_default().to_owned();
    let passing = ["request-id", "x-tidegate-request-id", "x-tidegate-overhead-us", "date"];
    let kept = fields(&reply.head).filter(|(name, _)| !passing.contains(&name.to_ascii_lowercase().as_str()));
    let kept = kept.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    (reply.status, kept, reply.text().replace(&id, "ID"))
}

/// Listens, and counts who comes: nobody may.
struct Evil {
    address: SocketAddr,
    visits: Arc<AtomicUsize>,
}

impl Evil {
    fn start() -> Evil {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (address, visits) = (listener.local_addr().expect("an address"), Arc::new(AtomicUsize::new(0)));
        let counted = visits.clone();
        std::thread::spawn(move || {
            listener.incoming().for_each(|_| _ = counted.fetch_add(1, Ordering::SeqCst))
        });
        Evil { address, visits }
    }

    fn visits(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }
}

both_drivers! {
    /// Missing, unknown, removed, cut, padded: nobody learns from the answer how near a key was.
    fn every_wrong_key_gets_the_same_answer(driver) {
        let upstream = Upstream::good("fine");
        let gateway = start(driver, &upstream);
        let snapshot = gateway.plane().snapshot();
        let gone = snapshot.callers.named("gone").expect("a caller");
        assert_eq!(call(gateway.address(), with_key(GONE_KEY)).status, 200);
        snapshot.callers.caller(gone).cells.revoke();
        let long = "k".repeat(2_000);
        let padded = format!("{VIRTUAL_KEY}x");
        let expect = lasting(&call(gateway.address(), with_key("unknown")));
        assert_eq!(expect.0, 401);
        for key in ["", "k", GONE_KEY, &VIRTUAL_KEY[..VIRTUAL_KEY.len() - 1], &padded, &VIRTUAL_KEY.to_uppercase(), "upstream-key-of-a-test", &long] {
            assert_eq!(lasting(&call(gateway.address(), with_key(key))), expect, "{key}");
        }
        let absent = request("POST /v1/messages", &MESSAGES_FIELDS[..2], protocol::request("front"));
        assert_eq!(lasting(&call(gateway.address(), absent)), expect);
    }

    /// Hundreds of guesses from one address: from then on no key that is new there is taken, right or wrong, and the
    /// answer does not say so. Who has called from there goes on, and so does everybody elsewhere.
    fn guesses_are_bounded_by_source(driver) {
        let upstream = Upstream::good("fine");
        let gateway = Gateway::start(driver, 2, &yaml(&upstream, "trusted_proxies: [127.0.0.1]"));
        let ask = |client: &mut Client, key: &str, source: &str| {
            let fields = [("anthropic-version", "2023-06-01"), ("x-api-key", key), ("x-forwarded-for", source)];
            client.send(request("POST /v1/messages", &fields, protocol::request("front")));
            client.reply()
        };
        let mut client = Client::connect(gateway.address());
        assert_eq!(ask(&mut client, VIRTUAL_KEY, "192.0.2.1").status, 200);
        let refused = lasting(&ask(&mut client, "guess", "192.0.2.1"));
        for guess in 0..600 {
            let reply = ask(&mut client, &format!("vk-guess-{guess}"), "192.0.2.1");
            assert_eq!(lasting(&reply), refused, "{guess}");
        }
        assert_eq!(gateway.plane().snapshot().guesses.caught(), 1);
        assert_eq!(lasting(&ask(&mut client, OTHER_KEY, "192.0.2.1")), refused, "right, and as good as wrong");
        assert_eq!(ask(&mut client, VIRTUAL_KEY, "192.0.2.1").status, 200, "it has called from there");
        assert_eq!(ask(&mut client, OTHER_KEY, "192.0.2.2").status, 200, "nobody guesses there");
        // The same wrong key, however often, is an old configuration and no guess.
        for _ in 0..600 {
            ask(&mut client, "vk-old", "192.0.2.3");
        }
        assert_eq!(ask(&mut client, OTHER_KEY, "192.0.2.3").status, 200);
        assert_eq!(gateway.plane().snapshot().guesses.caught(), 1);
        assert_eq!(upstream.count(), 4, "no guess went upstream");
    }

    /// Whatever a request names, nobody is connected to but the provider of the configuration, with paths of its own.
    fn no_caller_names_an_address(driver) {
        let (upstream, evil) = (Upstream::good("fine"), Evil::start());
        let gateway = start(driver, &upstream);
        let at = evil.address;
        let body = protocol::request("front");
        let lines = [
            format!("POST http://{at}/v1/messages"),
            format!("POST https://{at}/v1/messages"),
            format!("CONNECT {at}"),
            format!("POST //{at}/v1/messages"),
            format!("POST /\\{at}/v1/messages"),
            format!("POST /http://{at}/v1/messages"),
            format!("POST /v1/messages/../../http://{at}"),
            format!("POST @{at}/v1/messages"),
            "POST /v1/../../v1/messages".into(),
            "POST /v1/./messages".into(),
            "POST /v1//messages".into(),
            "POST /v1/%6dessages".into(),
            "POST /v1/messages%2f..%2f..".into(),
            "GET /v1/files/..%2f..%2fadmin".into(),
            "GET /v1/files/../../admin".into(),
            "GET /v1/models/..%2f..%2fadmin".into(),
            format!("GET /v1/models/http:%2f%2f{at}"),
            "GET /v1/messages/batches/..%5c..%5cx".into(),
            "GET /v1/messages/batches/a/../../b".into(),
            "GET /api/v1/status".into(),
            "GET /metrics".into(),
        ];
        for line in &lines {
            let reply = call(gateway.address(), request(line, &MESSAGES_FIELDS, &body));
            assert!((400..500).contains(&reply.status), "{line}: {}", reply.status);
        }
        assert_eq!(upstream.count(), 0, "{:?}", upstream.heard().first().map(|it| it.target().to_owned()));
        let named = at.to_string();
        let url = format!("http://{at}/x");
        for field in ["x-forwarded-host", "x-original-url", "x-rewrite-url", "forwarded", "x-upstream", "api-base", "x-portkey-custom-host", "helicone-target-url"] {
            let mut with = MESSAGES_FIELDS.to_vec();
            with.push((field, if field.contains("url") { &url } else { &named }));
            assert_eq!(call(gateway.address(), request("POST /v1/messages", &with, &body)).status, 200, "{field}");
        }
        let host = messages(&body);
        let host = String::from_utf8(host).expect("text").replace("host: gateway", &format!("host: {at}"));
        assert_eq!(call(gateway.address(), host).status, 200, "a host says nothing of where a call goes");
        for model in [&url, &format!("{at}/m"), "http:", "anthropic/../../x"] {
            let reply = call(gateway.address(), messages(&protocol::request(model)));
            let sent = upstream.heard().last().map(|it| it.target().to_owned());
            assert!(reply.status == 404 || sent.as_deref() == Some("POST /v1/messages"), "{model}: {}", reply.status);
        }
        let data = format!(
            r#"{{"model":"front","max_tokens":1,"api_base":"{url}","base_url":"{url}","messages":[{{"role":"user","content":[{{"type":"image","source":{{"type":"url","url":"{url}"}}}},{{"type":"document","source":{{"type":"url","url":"file:///etc/passwd"}}}}]}}]}}"#
        );
        assert_eq!(call(gateway.address(), messages(&data)).status, 200);
        let heard = upstream.heard();
        assert_eq!(heard.last().map(Heard::text), Some(data.replace("\"front\"", "\"claude-sonnet-5-5\"")), "passed on as data");
        assert!(heard.iter().all(|it| it.target() == "POST /v1/messages"));
        let hosts: BTreeSet<&str> = heard.iter().filter_map(|it| it.field("host")).collect();
        assert_eq!(hosts, BTreeSet::from([upstream.address().to_string().as_str()]));
        assert_eq!(evil.visits(), 0);
    }

    /// Signs that end a line, in every field that crosses: the request is refused and its connection closed; a reply with
    /// one never reaches a caller.
    fn no_field_can_be_split(driver) {
        let upstream = Upstream::start(|heard| {
            let reply = |field: &[u8]| {
                let body = message("split");
                let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n", body.len());
                vec![Step::Send([head.as_bytes(), field, b"\r\n\r\n", body.as_bytes()].concat()), Step::Close]
            };
            match heard.text().split("CASE:").nth(1).and_then(|it| it.chars().next()) {
                Some('a') => reply(b"x-a: 1\r\n folded: 2"),
                Some('b') => reply(b"x-a: 1\rx-b: 2"),
                Some('c') => reply(b"x-a: 1\nx-b: 2"),
                Some('d') => reply(b"x-a: 1\0"),
                Some('e') => reply(b"x a: 1"),
                Some('f') => reply(b"x-a : 1"),
                Some('g') => reply(b": 1"),
                Some('h') => reply(b"x-\r\x01: 1"),
                _ => good(heard, "fine"),
            }
        });
        let gateway = start(driver, &upstream);
        let body = protocol::request("front");
        let crossing = ["user-agent", "anthropic-beta", "anthropic-version", "accept", "content-type", "idempotency-key", "x-stainless-lang", "x-app"];
        for field in crossing {
            for sign in ["\r\n x: 1", "\rx-evil: 1", "\nx-evil: 1", "\0", "\r", "\u{1}", "\u{7f}"] {
                let head = format!(
                    "POST /v1/messages HTTP/1.1\r\nhost: g\r\nx-api-key: {VIRTUAL_KEY}\r\n{field}: a{sign}b\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let mut client = Client::connect(gateway.address());
                client.send(head);
                let reply = client.reply();
                assert_eq!(reply.status, 400, "{field} {sign:?}");
                assert!(client.is_closed_within(SLOW), "{field} {sign:?}");
            }
        }
        assert_eq!(upstream.count(), 0);
        for case in "abcdefgh".chars() {
            let reply = call(gateway.address(), messages(&body.replace("hi", &format!("CASE:{case}"))));
            assert!(reply.status >= 500 && !reply.text().contains("split"), "{case}: {}", reply.text());
            assert!(fields(&reply.head).all(|(name, _)| !name.eq_ignore_ascii_case("x-b") && !name.eq_ignore_ascii_case("folded")), "{case}");
        }
    }

    /// What is about one hop ends there, both ways, and so does what `connection` names.
    fn nothing_of_one_hop_crosses(driver) {
        let of_a_hop = ["keep-alive", "proxy-authorization", "proxy-authenticate", "proxy-connection", "te", "trailer", "upgrade"];
        let upstream = Upstream::start(move |_| {
            let mut back: Vec<(&str, &str)> = of_a_hop.iter().map(|it| (*it, "canary")).collect();
            back.extend([("connection", "keep-alive, x-named"), ("x-named", "canary"), ("x-kept", "kept"), ("set-cookie", "canary"), ("x-tidegate-account", "canary")]);
            whole(200, &back, &message("fine"))
        });
        let gateway = start(driver, &upstream);
        let mut out = MESSAGES_FIELDS.to_vec();
        out.extend(of_a_hop.iter().map(|it| (*it, "canary")));
        out.extend([
            ("connection", "keep-alive, x-app, x-stainless-os"), ("x-app", "canary"), ("x-stainless-os", "canary"),
            ("authorization", "Bearer canary"), ("cookie", "canary"), ("x-forwarded-for", "canary"), ("x-real-ip", "canary"),
            ("anthropic-workspace-id", "canary"), ("x-tidegate-key", VIRTUAL_KEY), ("x-stainless-lang", "kept"),
        ]);
        let reply = call(gateway.address(), request("POST /v1/messages", &out, protocol::request("front")));
        assert_eq!(reply.status, 200);
        let heard = upstream.heard().remove(0);
        assert!(!heard.head.contains("canary") && !heard.head.contains(VIRTUAL_KEY), "{}", heard.head);
        assert_eq!(heard.field("x-stainless-lang"), Some("kept"));
        assert!(!reply.head.contains("canary"), "{}", reply.head);
        assert_eq!(reply.field("x-kept"), Some("kept"));
    }

    /// A coded request body is refused in every coding; a coded reply is passed on as it is, and unfolded by nobody.
    fn nothing_is_unfolded(driver) {
        // Ten megabytes of zeros, in gzip, would be this small: what matters is that nobody looks inside.
        let bomb: Vec<u8> = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0xff; 4096]].concat();
        let coded = bomb.clone();
        let upstream = Upstream::start(move |heard| {
            assert_eq!(heard.field("accept-encoding"), Some("identity"));
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", coded.len());
            vec![Step::Send([head.as_bytes(), &coded].concat())]
        });
        let gateway = start(driver, &upstream);
        for coding in ["gzip", "x-gzip", "deflate", "br", "zstd", "compress", "gzip, identity", "identity, br", "GZIP", "unknown"] {
            let mut with = MESSAGES_FIELDS.to_vec();
            with.push(("content-encoding", coding));
            assert_eq!(call(gateway.address(), request("POST /v1/messages", &with, &bomb)).status, 415, "{coding}");
        }
        assert_eq!(upstream.count(), 0);
        let mut asking = MESSAGES_FIELDS.to_vec();
        asking.push(("accept-encoding", "gzip, br"));
        let reply = call(gateway.address(), request("POST /v1/messages", &asking, protocol::request("front")));
        assert_eq!((reply.status, reply.field("content-encoding"), reply.body == bomb), (200, Some("gzip"), true));
    }

    /// Bodies that are all depth, all digits, all names, all escapes, or 32 MiB of brackets: each is answered soon, and
    /// the next call is served.
    fn json_bombs_are_answered(driver) {
        let upstream = Upstream::good("fine");
        let gateway = start(driver, &upstream);
        let with = |value: &str| format!("{{\"model\":\"front\",\"max_tokens\":1,\"messages\":[],\"x\":{value}}}");
        let digits = "9".repeat(1_000_000);
        let names: String = (0..200_000).map(|it| format!("\"k{it}\":1,")).collect();
        let bombs: Vec<(&str, Vec<u8>, u16)> = vec![
            ("brackets", vec![b'['; 32 * 1024 * 1024], 400),
            ("braces", "{\"a\":".repeat(200_000).into_bytes(), 400),
            ("both", "[{\"a\":".repeat(200_000).into_bytes(), 400),
            ("depth inside", with(&format!("{}{}", "[".repeat(129), "]".repeat(129))).into_bytes(), 400),
            ("a long number", with(&digits).into_bytes(), 200),
            ("a long fraction", with(&format!("0.{digits}e-{}", &digits[..300])).into_bytes(), 200),
            ("a long number that is read", format!("{{\"model\":\"front\",\"max_tokens\":{digits},\"messages\":[]}}").into_bytes(), 400),
            ("many names", with(&format!("{{{}\"z\":1}}", names)).into_bytes(), 200),
            ("one name often", with(&format!("{{{}\"a\":1}}", "\"a\":1,".repeat(200_000))).into_bytes(), 200),
            ("a model named twice", b"{\"model\":\"front\",\"mod\\u0065l\":\"front\",\"max_tokens\":1,\"messages\":[]}".to_vec(), 400),
            ("escapes", with(&format!("\"{}\"", "\\u0041".repeat(300_000))).into_bytes(), 200),
            // Whatever a provider makes of it: here it is a name like any other.
            ("half a pair", b"{\"model\":\"\\ud800\",\"max_tokens\":1,\"messages\":[]}".to_vec(), 200),
            ("a long model", format!("{{\"model\":\"{}\",\"max_tokens\":1,\"messages\":[]}}", "m".repeat(2_000_000)).into_bytes(), 400),
            ("white space", [vec![b' '; 1_000_000], protocol::request("front").into_bytes()].concat(), 200),
        ];
        for (name, bomb, status) in bombs {
            let began = tidegate_tests::time::now();
            let reply = call(gateway.address(), request("POST /v1/messages", &MESSAGES_FIELDS, &bomb));
            assert_eq!(reply.status, status, "{name}: {}", reply.text().chars().take(300).collect::<String>());
            assert!(began.elapsed() < SLOW, "{name} took {:?}", began.elapsed());
            assert!(reply.body.len() < 4_096, "{name}: what is refused is not said back");
        }
        assert_eq!(call(gateway.address(), messages(&protocol::request("front"))).status, 200);
    }

    /// A provider's head without an end, with too many fields, or behind endless interim replies is a failed try.
    fn a_provider_s_bombs_are_failed_tries(driver) {
        let upstream = Upstream::start(|heard| {
            let ok = "HTTP/1.1 200 OK\r\n";
            let bomb = match heard.text().split("CASE:").nth(1).and_then(|it| it.chars().next()) {
                Some('a') => format!("{ok}x-long: {}\r\n\r\n", "a".repeat(20_000)),
                Some('b') => format!("{ok}{}\r\n", "x: 1\r\n".repeat(150)),
                Some('c') => format!("{ok}{}", "x: 1\r\n".repeat(20_000)),
                Some('d') => "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".repeat(5_000),
                Some('e') => "x".repeat(100_000),
                Some('f') => format!("{ok}content-length: 99999999999999999999999\r\n\r\n"),
                Some('g') => format!("{ok}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n"),
                Some('h') => format!("{ok}transfer-encoding: chunked\r\n\r\n2;{}\r\nok\r\n0\r\n\r\n", "e".repeat(100_000)),
                _ => return good(heard, "fine"),
            };
            vec![Step::Send(bomb.into_bytes()), Step::Close]
        });
        let gateway = start(driver, &upstream);
        for case in "abcdefgh".chars() {
            let reply = call(gateway.address(), messages(&protocol::request("front").replace("hi", &format!("CASE:{case}"))));
            assert_eq!(reply.status, 502, "{case}: {}", reply.text());
            assert!(reply.body.len() < 1_024 && reply.head.len() < 2_048, "{case}");
        }
    }

    /// An announced giant is refused before it is read, and the answer arrives although the caller goes on sending; one
    /// in chunks is cut where the limit is.
    fn a_giant_body_gets_its_answer(driver) {
        let upstream = Upstream::good("fine");
        let gateway = start(driver, &upstream);
        let head = format!("POST /v1/messages HTTP/1.1\r\nhost: g\r\nx-api-key: {VIRTUAL_KEY}\r\nanthropic-version: 2023-06-01\r\n");
        let mut client = Client::connect(gateway.address());
        client.send(format!("{head}content-length: 40000000\r\n\r\n"));
        for _ in 0..10 {
            client.try_send(vec![b'x'; 16_000]);
        }
        let reply = client.reply();
        assert_eq!((reply.status, reply.field("connection")), (413, Some("close")));
        let mut client = Client::connect(gateway.address());
        client.send(format!("{head}transfer-encoding: chunked\r\n\r\n"));
        let piece = [b"100000\r\n".to_vec(), vec![b'x'; 1 << 20], b"\r\n".to_vec()].concat();
        let mut sent = 0;
        while sent < 64 && client.try_send(&piece) {
            sent += 1;
        }
        assert!(sent < 40, "cut near 32 MiB, not at {sent}");
        // What was on its way when the connection ended may have taken the answer with it; never is there another one.
        if let Ok(reply) = client.try_reply(false) {
            assert_eq!(reply.status, 413);
        }
        assert_eq!(upstream.count(), 0);
    }

    /// What a provider sends behind the end of a reply is nobody's: its connection ends, and no later call is answered with
    /// it. Nor is the rest of a reply that came before its request was sent whole.
    fn what_follows_a_reply_is_no_reply(driver) {
        let upstream = Upstream::start(|heard| {
            let stolen = message("stolen");
            let surplus = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{stolen}", stolen.len());
            let mut steps = good(heard, "fine");
            // In one piece with the end of the reply, a moment behind it, and without an end of its own.
            match (heard.number % 3, steps.last_mut()) {
                (0, Some(Step::Send(last))) => last.extend_from_slice(surplus.as_bytes()),
                (1, _) => steps.extend([Step::Pause(Duration::from_millis(20)), Step::Send(surplus.into_bytes())]),
                (_, Some(Step::Send(last))) => last.extend_from_slice(b"\r\n\r\nx"),
                _ => {}
            }
            steps
        });
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, ""));
        let mut client = Client::connect(gateway.address());
        for call in 0..12 {
            let streamed = call / 3 % 2 == 1;
            client.send(messages(&if streamed { protocol::stream_request("front") } else { protocol::request("front") }));
            let head = client.try_head().expect("a head");
            assert_eq!(head.status, 200);
            let text = if streamed {
                let (events, ended) = client.events(&head);
                assert_eq!(ended, Ok(()));
                events.iter().map(|it| it.text.as_str()).collect()
            } else {
                let length = head.field("content-length").and_then(|it| it.parse().ok()).expect("a length");
                String::from_utf8(client.bytes(length)).expect("text")
            };
            assert!(!text.contains("stolen"), "{call}: {text}");
            // Time for what comes late.
            tidegate_tests::time::pause_ms(40);
        }
        assert_eq!((upstream.count(), upstream.connections()), (12, 12), "each connection ended with its reply");
    }

    /// Hundreds of calls at once, of three callers, streams and whole replies, over kept connections: each gets its own
    /// mark back in every event, and nobody else's.
    fn no_call_sees_another_one_s_bytes(driver) {
        let upstream = Upstream::start(marked);
        let gateway = start(driver, &upstream);
        let address = gateway.address();
        let threads: Vec<_> = (0..60).map(|caller| std::thread::spawn(move || {
            let mut client = Client::connect(address);
            for call in 0..8 {
                // Two of a kind behind each other, so that what one leaves behind is in the other's way.
                let streamed = (caller + call / 2) % 2 == 0;
                let mark = format!("MARK:{caller}-{call}-{}:", "m".repeat((caller * 37 + call * 101) % 3_000));
                let key = [VIRTUAL_KEY, OTHER_KEY, GONE_KEY][caller % 3];
                let body = if streamed { protocol::stream_request("front") } else { protocol::request("front") };
                let fields = [("anthropic-version", "2023-06-01"), ("x-api-key", key)];
                client.send(request("POST /v1/messages", &fields, body.replace("hi", &mark)));
                let head = client.try_head().expect("a head");
                assert_eq!(head.status, 200);
                let text = if streamed {
                    let (events, ended) = client.events(&head);
                    assert_eq!(ended, Ok(()));
                    events.iter().map(|it| it.text.as_str()).collect()
                } else {
                    let length = head.field("content-length").and_then(|it| it.parse().ok()).expect("a length");
                    String::from_utf8(client.bytes(length)).expect("text")
                };
                let marks: BTreeMap<&str, usize> = text.match_indices("MARK:").fold(BTreeMap::new(), |mut marks, (at, _)| {
                    let end = text[at + 5..].find(':').map_or(text.len(), |it| at + 5 + it + 1);
                    *marks.entry(&text[at..end]).or_default() += 1;
                    marks
                });
                let expect = if streamed { 5 } else { 1 };
                assert_eq!(marks, BTreeMap::from([(mark.as_str(), expect)]), "{caller} {call}");
            }
        })).collect();
        for thread in threads {
            thread.join().expect("every mark is one's own");
        }
        assert_eq!(upstream.count(), 480);
    }
}

/// Says the mark of the request in every event.
fn marked(heard: &Heard) -> Vec<Step> {
    let text = heard.text();
    let from = text.find("MARK:").expect("a mark");
    let end = text[from + 5..].find(':').expect("its end") + from + 6;
    let mark = &text[from..end];
    if !heard.wants_stream() {
        return whole(200, &[], &message(mark));
    }
    let mut steps = vec![stream_head(), chunk(&message_start())];
    for _ in 0..5 {
        let data = format!(
            r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{mark}"}}}}"#
        );
        steps.push(chunk(&event("content_block_delta", &data)));
    }
    steps.push(chunk(&event("message_stop", r#"{"type":"message_stop"}"#)));
    steps.push(last_chunk());
    steps
}
