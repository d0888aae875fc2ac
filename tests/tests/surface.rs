//! The OpenAI surface beside chat, over real sockets: the commit point of responses, forms that are passed on, and
//! what one account keeps.

use std::time::Duration;

use tidegate_tests::client::{Client, Reply, call, joined, request};
use tidegate_tests::openai::{SOUND, answer, failed_response, response_events};
use tidegate_tests::time::wait_for;
use tidegate_tests::upstream::{Step, Upstream, streamed, whole};
use tidegate_tests::{Gateway, Heard, both_drivers};

const KEY: &str = "vk-surface-0123456789-0123456789-012345";

/// Accounts `a` and `b` at one provider; `b` keeps what is kept.
fn yaml(upstream: &Upstream) -> String {
    format!(
        r#"
providers:
  openai:
    base_url: "{url}/v1"
    keys: [{{ name: a, value: "key-a" }}, {{ name: b, value: "key-b" }}]
    state_account: b
models:
  front: {{ chain: [openai/gpt-5] }}
  ears: {{ chain: [openai/whisper-1] }}
virtual_keys:
  - {{ name: all, key: "{KEY}", operations: [generation, stored_responses], models: [front, ears] }}
  - {{ name: plain, key: "{PLAIN_KEY}" }}
"#,
        url = upstream.url()
    )
}

const PLAIN_KEY: &str = "vk-plain-0123456789-0123456789-01234567";

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

fn post(path: &str, body: &str) -> Vec<u8> {
    request(
        &format!("POST {path}"),
        &[("authorization", &bearer(KEY)), ("content-type", "application/json")],
        body,
    )
}

fn good(heard: &Heard) -> Vec<Step> {
    answer(heard).unwrap_or_else(|| whole(404, &[], r#"{"error":{"message":"no such path"}}"#))
}

/// A form with a file of so many bytes in front of the other fields, each of which stands so often.
fn form(file_bytes: usize, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut form = b"--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n".to_vec();
    form.extend((0..file_bytes).map(|it| it as u8));
    for (name, value) in fields {
        let part = format!("\r\n--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}");
        form.extend_from_slice(part.as_bytes());
    }
    form.extend_from_slice(b"\r\n--XX--\r\n");
    form
}

fn transcription(form: &[u8]) -> Vec<u8> {
    let fields =
        [("authorization", bearer(KEY)), ("content-type", "multipart/form-data; boundary=XX".to_owned())];
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    request("POST /v1/audio/transcriptions", &fields, form)
}

/// A large form where the model stands before a second file, so that most of it is passed on.
fn long_form(model: &str, more: &str) -> Vec<u8> {
    let mut form = form(300_000, &[("model", model)]);
    form.truncate(form.len() - b"--\r\n".len());
    form.extend_from_slice(b"\r\nContent-Disposition: form-data; name=\"second\"; filename=\"g\"\r\n\r\n");
    form.extend((0..1_500_000).map(|it| (it / 3) as u8));
    form.extend_from_slice(format!("{more}\r\n--XX--\r\n").as_bytes());
    form
}

fn stream(gateway: &Gateway, body: &str) -> (Reply, String, Result<(), String>) {
    let mut client = Client::connect(gateway.address());
    client.send(post("/v1/responses", body));
    let head = client.try_head().expect("a head");
    let (events, ended) = client.events(&head);
    (head, joined(&events), ended)
}

both_drivers! {
    /// Until the first item of a response any failure, also one inside the stream, moves on unseen.
    fn a_response_fails_over_until_its_first_item(driver) {
        for code in ["server_error", "rate_limit_exceeded", "insufficient_quota"] {
            let upstream = Upstream::start(move |heard| match heard.number {
                0 => streamed(&failed_response(code)),
                _ => streamed(&response_events("hello", " world")),
            });
            let gateway = Gateway::start(driver, 1, &yaml(&upstream));
            let body = r#"{"model":"front","stream":true,"store":false,"input":"hi"}"#;
            let (head, text, ended) = stream(&gateway, body);
            assert_eq!((head.status, head.attempts(), ended), (200, 2, Ok(())), "{code}: {text}");
            assert_eq!(text, response_events("hello", " world").concat());
            let heard = upstream.heard();
            assert_ne!(heard[0].key(), heard[1].key(), "{code}");
            assert_eq!(heard[1].text(), body.replace("front", "gpt-5"), "asked for no usage chunk");
        }
    }

    /// The caller's own fault is its answer, inside the stream as outside of it; nothing is tried elsewhere.
    fn a_response_that_the_caller_spoilt_is_returned(driver) {
        let upstream = Upstream::start(|_| streamed(&failed_response("context_length_exceeded")));
        let gateway = Gateway::start(driver, 1, &yaml(&upstream));
        let (head, text, ended) = stream(&gateway, r#"{"model":"front","stream":true,"store":false,"input":"hi"}"#);
        assert_eq!((head.status, ended, upstream.count()), (200, Ok(()), 1));
        assert_eq!(text, failed_response("context_length_exceeded").concat());
    }

    /// After content a failure ends the stream with an error event of the protocol, and never with a second answer.
    fn a_response_that_breaks_ends_with_an_error(driver) {
        let upstream = Upstream::start(|_| {
            let mut steps = streamed(&response_events("hello", " world")[..5]);
            steps.pop();
            steps.push(Step::Close);
            steps
        });
        let gateway = Gateway::start(driver, 1, &yaml(&upstream));
        let (_, text, ended) = stream(&gateway, r#"{"model":"front","stream":true,"store":false,"input":"hi"}"#);
        assert_eq!((ended, upstream.count()), (Ok(()), 1));
        let error = text.strip_prefix(response_events("hello", " world")[..5].concat().as_str()).expect("what came");
        assert!(error.starts_with("event: error\ndata: {\"type\":\"error\",\"code\":\"upstream_failed\""), "{error}");
        assert!(error.contains("\"error\":{\"message\""), "what the SDKs look for: {error}");
    }

    /// An end that repeats a long answer is larger than any event that is looked at, and still the end.
    fn a_response_with_a_large_end_is_whole(driver) {
        static LONG: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| "x".repeat(200_000));
        let upstream = Upstream::start(|_| streamed(&response_events("hello", &LONG)));
        let gateway = Gateway::start(driver, 1, &yaml(&upstream));
        let (_, text, ended) = stream(&gateway, r#"{"model":"front","stream":true,"store":false,"input":"hi"}"#);
        assert_eq!(ended, Ok(()));
        assert!(text == response_events("hello", &LONG).concat(), "no error behind it, nothing lost");
    }

    /// Whole replies of every kind, also below the prefix; sound comes back byte for byte.
    fn the_whole_surface_answers(driver) {
        let upstream = Upstream::start(good);
        let gateway = Gateway::start(driver, 1, &yaml(&upstream));
        for path in ["/responses", "/embeddings", "/completions", "/images/generations", "/audio/speech"] {
            for front in ["/v1", "/openai/v1", ""] {
                let body = r#"{"model":"front","input":"hi","prompt":"hi"}"#;
                let reply = call(gateway.address(), post(&format!("{front}{path}"), body));
                assert_eq!(reply.status, 200, "{front}{path}: {}", reply.text());
                let heard = upstream.heard().pop().expect("a request");
                assert_eq!(heard.target(), format!("POST /v1{path}"));
                assert_eq!(heard.text(), body.replace("front", "gpt-5"));
                if path == "/audio/speech" {
                    assert_eq!(reply.body, SOUND);
                    assert_eq!(reply.field("content-type"), Some("audio/mpeg"));
                }
            }
        }
    }

    /// Compatible servers have their surface below paths of their own.
    fn a_base_url_may_have_a_path(driver) {
        let upstream = Upstream::start(|_| whole(200, &[], r#"{"object":"list","data":[]}"#));
        let yaml = yaml(&upstream).replace("/v1\"", "/api/openai/v1/\"");
        let gateway = Gateway::start(driver, 1, &yaml);
        for path in ["/v1/embeddings", "/embeddings", "/openai/v1/embeddings", "/openai/embeddings"] {
            assert_eq!(call(gateway.address(), post(path, r#"{"model":"front","input":"hi"}"#)).status, 200, "{path}");
        }
        assert!(upstream.heard().iter().all(|it| it.target() == "POST /api/openai/v1/embeddings"));
    }

    /// Creates that are stored, asked for or not, and all about them go to the account that keeps them.
    fn stored_responses_are_at_one_account(driver) {
        let upstream = Upstream::start(good);
        let gateway = Gateway::start(driver, 2, &yaml(&upstream));
        let authorization = bearer(KEY);
        let fields = [("authorization", authorization.as_str())];
        for _ in 0..4 {
            for more in ["", r#","store":true"#, r#","store":false,"previous_response_id":"resp_1""#, r#","background":true"#] {
                let body = format!(r#"{{"model":"front","input":"hi"{more}}}"#);
                assert_eq!(call(gateway.address(), post("/v1/responses", &body)).status, 200);
            }
            for line in [
                "GET /v1/responses/resp_1?include=x",
                "GET /responses/resp_1/input_items",
                "POST /openai/v1/responses/resp_1/cancel",
                "DELETE /v1/responses/resp_1",
            ] {
                let reply = call(gateway.address(), request(line, &fields, ""));
                assert_eq!(reply.status, 200, "{line}: {}", reply.text());
            }
        }
        assert_eq!((upstream.heard_of("key-a").len(), upstream.heard_of("key-b").len()), (0, 32));
        let heard = upstream.heard();
        assert_eq!(heard[4].target(), "GET /v1/responses/resp_1?include=x");
        assert_eq!(heard[4].field("content-length"), None, "a GET has no body");
        assert_eq!(heard[6].target(), "POST /v1/responses/resp_1/cancel");
        let absent = call(gateway.address(), request("GET /v1/responses/resp_2", &fields, ""));
        assert_eq!((absent.status, absent.attempts()), (404, 1), "the provider's own answer");
        assert!(absent.text().contains("resp_2"));
        for (line, status) in [("GET /v1/responses/..%2Ffiles", 404), ("GET /v1/responses/resp_1/../../files", 404)] {
            assert_eq!(call(gateway.address(), request(line, &fields, "")).status, status, "{line}");
        }
        let plain = bearer(PLAIN_KEY);
        let refused = call(gateway.address(), request("GET /v1/responses/resp_1", &[("authorization", &plain)], ""));
        assert_eq!(refused.status, 403, "off unless the key's list names it");
        assert_eq!(upstream.count(), 33);
    }

    /// A small form is held whole: it fails over like any other body, with the model's name exchanged in place.
    fn a_small_form_fails_over(driver) {
        let upstream = Upstream::start(|heard| match heard.number {
            0 => whole(500, &[], r#"{"error":{"message":"broken","type":"server_error"}}"#),
            _ => good(heard),
        });
        let gateway = Gateway::start(driver, 1, &yaml(&upstream));
        let sent = form(10_000, &[("language", "de"), ("model", "ears")]);
        let reply = call(gateway.address(), transcription(&sent));
        assert_eq!((reply.status, reply.attempts()), (200, 2), "{}", reply.text());
        let expect = form(10_000, &[("language", "de"), ("model", "whisper-1")]);
        assert!(upstream.heard().iter().all(|it| it.body == expect));
    }

    /// A large form is passed on while it arrives, whatever stands before its model, and never sent twice.
    fn a_large_form_is_passed_on_once(driver) {
        let upstream = Upstream::start(|heard| match heard.number {
            0 | 1 => good(heard),
            _ => whole(500, &[], r#"{"error":{"message":"broken","type":"server_error"}}"#),
        });
        let gateway = Gateway::start(driver, 1, &yaml(&upstream));
        let expect = long_form("whisper-1", "");
        let reply = call(gateway.address(), transcription(&long_form("ears", "")));
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(upstream.heard()[0].body == expect, "byte for byte but for the name");
        assert_eq!(upstream.heard()[0].field("content-length"), Some(expect.len().to_string().as_str()));
        let mut chunked = Client::connect(gateway.address());
        let head = format!(
            "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {KEY}\r\n\
             content-type: multipart/form-data; boundary=XX\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        chunked.send(head);
        for piece in long_form("ears", "").chunks(70_000) {
            chunked.send(format!("{:x}\r\n", piece.len()));
            chunked.send(piece);
            chunked.send("\r\n");
        }
        chunked.send("0\r\n\r\n");
        assert_eq!(chunked.reply().status, 200);
        assert!(upstream.heard()[1].body == expect, "in chunks, as it came");
        let broken = call(gateway.address(), transcription(&long_form("ears", "")));
        assert_eq!((broken.status, broken.attempts(), upstream.count()), (500, 1, 3), "{}", broken.text());
        assert!(broken.text().contains("broken"), "the provider's own words");
        wait_for("the memory comes home", Duration::from_secs(2), || gateway.plane().body_bytes() == 0);
    }

    /// Who routes by a form and who serves by it read the same: what could be read twice is refused, and a second
    /// model behind the part that was held never reaches the provider whole.
    fn a_form_names_one_model(driver) {
        let upstream = Upstream::start(good);
        let gateway = Gateway::start(driver, 1, &yaml(&upstream));
        for (fields, status) in [
            (&[("model", "ears"), ("model", "gpt-5")][..], 400),
            (&[("language", "de")], 400),
            (&[("model", "")], 400),
            (&[("model", "gpt-5-pro")], 404),
        ] {
            let reply = call(gateway.address(), transcription(&form(100, fields)));
            assert_eq!(reply.status, status, "{fields:?}: {}", reply.text());
        }
        let json = call(gateway.address(), post("/v1/audio/transcriptions", r#"{"model":"ears"}"#));
        assert_eq!(json.status, 400, "{}", json.text());
        let authorization = bearer(KEY);
        let twice = [
            ("authorization", authorization.as_str()),
            ("content-type", "multipart/form-data; boundary=XX"),
            ("content-type", "multipart/form-data; boundary=YY"),
        ];
        let twice = request("POST /v1/audio/transcriptions", &twice, form(10, &[("model", "ears")]));
        assert_eq!(call(gateway.address(), twice).status, 400, "two boundaries are two forms");
        let second = "\r\n--XX\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ngpt-5-pro";
        let mut client = Client::connect(gateway.address());
        client.send(transcription(&long_form("ears", second)));
        let refused = client.reply();
        assert_eq!(refused.status, 400, "{}", refused.text());
        assert!(refused.text().contains("twice"), "{}", refused.text());
        assert_eq!(upstream.count(), 0, "no request came to its end");
    }

    /// What was read of a refused form is taken off the line: it is never the next request.
    fn a_refused_form_is_never_the_next_request(driver) {
        let upstream = Upstream::start(good);
        let gateway = Gateway::start(driver, 1, &yaml(&upstream));
        let inside = format!("GET /v1/models/inside HTTP/1.1\r\nhost: g\r\nauthorization: {}\r\n\r\n", bearer(KEY));
        for form in [inside.clone(), format!("--XX\r\n{inside}\r\n--XXy")] {
            let mut client = Client::connect(gateway.address());
            // Both in one segment, so that the whole body is there when the head is read.
            client.send([transcription(form.as_bytes()), post("/v1/chat/completions", "{\"model\":1}")].concat());
            let refused = client.reply();
            assert_eq!(refused.status, 400, "{}", refused.text());
            match client.try_reply(false) {
                Ok(next) => assert!(next.text().contains("model") && next.status == 400, "{}", next.text()),
                Err(ended) => assert!(!ended.contains("HTTP"), "{ended}"),
            }
            assert!(!client.has_surplus());
        }
        assert_eq!(upstream.count(), 0);
    }

    /// Bodies that one hop reads and another does not: two content types, and a body of a GET.
    fn bodies_that_readers_take_differently_are_refused(driver) {
        let upstream = Upstream::start(good);
        let gateway = Gateway::start(driver, 1, &yaml(&upstream));
        let authorization = bearer(KEY);
        let twice = [("authorization", authorization.as_str()), ("content-type", "application/json"), ("content-type", "text/plain")];
        let json = r#"{"model":"ears","messages":[]}"#;
        assert_eq!(call(gateway.address(), request("POST /v1/chat/completions", &twice, json)).status, 400);
        for charset in ["charset=utf-7", " Charset = \"utf-16\"", "charset", "x=y; charset=utf-8; charset=latin1"] {
            let content_type = format!("application/json;{charset}");
            let fields = [("authorization", authorization.as_str()), ("content-type", content_type.as_str())];
            let reply = call(gateway.address(), request("POST /v1/chat/completions", &fields, json));
            assert_eq!(reply.status, 400, "{charset}: {}", reply.text());
        }
        let body = "GET / HTTP/1.1\r\n\r\n";
        let length = body.len().to_string();
        let stated = [("authorization", authorization.as_str()), ("content-length", length.as_str())];
        for (line, fields) in [("GET /v1/responses/resp_1", &stated[..]), ("DELETE /v1/responses/resp_1", &stated[..1])] {
            let reply = call(gateway.address(), request(line, fields, body));
            assert_eq!(reply.status, 400, "{}", reply.text());
        }
        assert_eq!(upstream.count(), 0);
    }

    /// An answer that comes while the form is still under way is the answer, and the connection ends with it.
    fn an_early_answer_to_a_form_is_taken(driver) {
        let upstream = EarlyRefusal::start();
        let yaml = yaml(&Upstream::good("unused")).replace("/v1\"", "\"");
        let base = yaml.lines().find(|it| it.contains("base_url")).expect("a line").to_owned();
        let yaml = yaml.replace(&base, &format!("    base_url: \"http://{}/v1\"", upstream.0));
        let gateway = Gateway::start(driver, 1, &yaml);
        let mut client = Client::connect(gateway.address());
        let sent = transcription(&long_form("ears", ""));
        let _ = client.try_send(&sent[..900_000]);
        let reply = client.reply();
        assert_eq!(reply.status, 413, "{}", reply.text());
        assert_eq!(reply.field("connection"), Some("close"));
    }

    /// A caller that stops in the middle leaves nothing behind.
    fn a_form_that_is_cut_ends_the_call(driver) {
        let upstream = Upstream::start(good);
        let gateway = Gateway::start(driver, 1, &yaml(&upstream));
        let mut client = Client::connect(gateway.address());
        client.send(&transcription(&long_form("ears", ""))[..800_000]);
        drop(client);
        wait_for("the memory comes home", Duration::from_secs(5), || gateway.plane().body_bytes() == 0);
        assert_eq!(upstream.count(), 0);
        assert_eq!(call(gateway.address(), transcription(&form(10, &[("model", "ears")]))).status, 200);
    }
}

/// An upstream that answers 413 once it has seen a part of a request.
struct EarlyRefusal(std::net::SocketAddr);

impl EarlyRefusal {
    fn start() -> EarlyRefusal {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let (mut socket, _) = listener.accept()?;
            let mut buffer = [0; 1024];
            for _ in 0..8 {
                socket.read_exact(&mut buffer)?;
            }
            let body = r#"{"error":{"message":"too large","type":"invalid_request_error"}}"#;
            socket.write_all(
                format!("HTTP/1.1 413 Large\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes(),
            )?;
            // Open until the other side leaves, so that no reset overtakes the answer.
            let mut rest = Vec::new();
            socket.read_to_end(&mut rest)
        });
        EarlyRefusal(address)
    }
}
