//! The two commit points (ARCHITECTURE.md): before them a failure moves on unseen, after them there is one in-band
//! error
//! and never a second answer.

use std::time::Duration;

use tidegate_tests::client::{self, Client, call, joined, messages};
use tidegate_tests::messages as protocol;
use tidegate_tests::time::now;
use tidegate_tests::upstream::{Step, Upstream, chunk, good, last_chunk, stream_head, streamed, whole};
use tidegate_tests::{Gateway, IoChoice, both_drivers};

/// A chain of two providers; `timeouts` are of both.
fn chain(driver: IoChoice, first: &Upstream, second: &Upstream, timeouts: &str) -> Gateway {
    let provider = |name: &str, upstream: &Upstream| {
        format!(
            "  {name}: {{ kind: anthropic, base_url: \"{}\", keys: [{{ name: {name}, value: key-{name} }}] }}\n",
            upstream.url()
        )
    };
    let yaml = format!(
        "providers:\n{}{}models:\n  front: {{ chain: [first/claude-sonnet-5-5, second/claude-sonnet-5-5] }}\n{timeouts}",
        provider("first", first),
        provider("second", second)
    );
    Gateway::start(driver, 1, &yaml)
}

/// Asks for a stream from a chain whose first upstream takes `steps`; its whole text, which must be well formed.
fn stream_over(driver: IoChoice, steps: Vec<Step>, timeouts: &str) -> (String, usize) {
    let first = Upstream::start(move |_| steps.clone());
    let second = Upstream::good("second");
    let gateway = chain(driver, &first, &second, timeouts);
    let (head, events, ended) = client::stream(gateway.address(), &protocol::stream_request("front"));
    assert_eq!((head.status, ended), (200, Ok(())));
    (joined(&events), second.count())
}

fn is_the_clean_second_stream(driver: IoChoice, steps: Vec<Step>, timeouts: &str) {
    let shown = format!("{steps:?}").chars().take(600).collect::<String>();
    let (text, asked) = stream_over(driver, steps, timeouts);
    assert_eq!(text, protocol::stream("second").concat(), "after {shown}");
    assert_eq!(asked, 1);
}

/// The stream's beginning, then one error event as the last.
fn is_broken_off_in_band(driver: IoChoice, steps: Vec<Step>, timeouts: &str) -> String {
    let (text, asked) = stream_over(driver, steps, timeouts);
    assert_eq!(asked, 0, "never a second answer");
    assert_eq!(text.matches("event: error").count(), 1, "{text}");
    assert!(!text.contains("message_stop"), "{text}");
    assert!(!text.contains("second"), "{text}");
    let last = text.trim_end().rsplit("\n\n").next().unwrap_or("");
    assert!(last.starts_with("event: error\ndata: {\"type\":\"error\""), "{text}");
    text
}

const SHORT: &str = "timeouts: { first_byte: 700ms, first_byte_whole: 700ms, idle: 700ms, connect: 500ms }\n";

both_drivers! {
    /// Every failure of a stream before its content: the next target's clean stream, as if nothing had been.
    fn failures_before_content(driver) {
        let start = || chunk(&protocol::message_start());
        let ping = || chunk(&protocol::event("ping", "{\"type\":\"ping\"}"));
        let error = |kind: &str| chunk(&protocol::error_event(kind, "it failed"));
        let cases: Vec<Vec<Step>> = vec![
            vec![stream_head(), error("overloaded_error"), last_chunk()],
            vec![stream_head(), start(), ping(), error("api_error"), last_chunk()],
            vec![stream_head(), start(), error("rate_limit_error"), last_chunk()],
            vec![stream_head(), start(), Step::Close],
            vec![stream_head(), start(), last_chunk()],
            vec![stream_head(), last_chunk()],
            vec![stream_head(), Step::Close],
            vec![Step::Close],
            vec![Step::Send(b"HTTP/1.1 200 OK\r\ncontent-ty".to_vec()), Step::Close],
            vec![Step::Send(b"SMTP 220 ready\r\n\r\n".to_vec()), Step::Close],
            whole(500, &[], &protocol::error("api_error", "Internal server error")),
            whole(502, &[], "<html>bad gateway</html>"),
            whole(503, &[], ""),
            whole(520, &[], "<html>"),
            whole(529, &[], &protocol::error("overloaded_error", "Overloaded")),
            whole(429, &[("retry-after", "30")], &protocol::error("rate_limit_error", "slow down")),
            whole(401, &[], &protocol::error("authentication_error", "invalid x-api-key")),
            whole(403, &[], &protocol::error("permission_error", "no")),
            whole(404, &[], &protocol::error("not_found_error", "model: claude-sonnet-5-5")),
            whole(307, &[("location", "http://127.0.0.1:1/")], ""),
        ];
        for steps in cases {
            is_the_clean_second_stream(driver, steps, "");
        }
    }

    /// Silence is a failure when its deadline is over, wherever it begins.
    fn silence_before_content(driver) {
        is_the_clean_second_stream(driver, vec![Step::Hang], SHORT);
        is_the_clean_second_stream(driver, vec![stream_head(), Step::Hang], SHORT);
        is_the_clean_second_stream(driver, vec![stream_head(), chunk(&protocol::message_start()), Step::Hang], SHORT);
    }

    /// Nobody listens where the first target should be.
    fn refused_connections(driver) {
        let gone = Upstream::good("gone");
        let second = Upstream::good("second");
        let gateway = chain(driver, &gone, &second, "");
        drop(gone);
        for body in [protocol::stream_request("front"), protocol::request("front")] {
            let reply = call(gateway.address(), messages(&body));
            assert_eq!(reply.status, 200);
            assert!(reply.text().contains("second") || reply.text().contains("sec"), "{}", reply.text());
        }
        assert_eq!(second.count(), 2);
    }

    /// Once content went out: what was sent stands, then one error event, and the connection ends.
    fn failures_after_content(driver) {
        let begun = || {
            let mut steps = vec![stream_head()];
            steps.extend(protocol::stream("first").iter().take(3).map(|it| chunk(it)));
            steps
        };
        for end in [vec![Step::Close], vec![last_chunk()], vec![Step::Hang], vec![Step::Send(b"zz\r\n".to_vec()), Step::Close]] {
            let mut steps = begun();
            // What came before the failure is delivered before it.
            steps.push(Step::Pause(Duration::from_millis(60)));
            steps.extend(end);
            let text = is_broken_off_in_band(driver, steps, SHORT);
            assert!(text.starts_with(&protocol::stream("first")[..3].concat()), "{text}");
        }
    }

    /// The provider's own error event after content is passed on as it is.
    fn the_providers_own_error_after_content(driver) {
        let mut steps = vec![stream_head()];
        steps.extend(protocol::stream("first").iter().take(3).map(|it| chunk(it)));
        let error = protocol::error_event("overloaded_error", "Overloaded: mark 77");
        // What comes together with the failure may still be held, and then the call may still move on.
        steps.extend([Step::Pause(Duration::from_millis(100)), chunk(&error), last_chunk()]);
        let text = is_broken_off_in_band(driver, steps, "");
        assert!(text.ends_with(&error), "{text}");
    }

    /// A whole reply that breaks off in its middle is not an answer: the next target's whole reply is.
    fn whole_replies_that_break_off(driver) {
        let body = protocol::message("first and a half");
        let (half, _) = body.split_at(body.len() / 2);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        let chunked = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        let cases = vec![
            vec![Step::Send(format!("{head}{half}").into_bytes()), Step::Close],
            vec![Step::Send(format!("{head}{half}").into_bytes()), Step::Hang],
            vec![Step::Send(format!("{chunked}{:x}\r\n{half}\r\n", half.len()).into_bytes()), Step::Close],
            vec![Step::Send(head.clone().into_bytes()), Step::Close],
            vec![Step::Hang],
        ];
        for steps in cases {
            let shown = format!("{steps:?}").chars().take(200).collect::<String>();
            let first = Upstream::start(move |_| steps.clone());
            let second = Upstream::good("second");
            let gateway = chain(driver, &first, &second, SHORT);
            let reply = call(gateway.address(), messages(&protocol::request("front")));
            assert_eq!((reply.status, reply.text()), (200, protocol::message("second")), "{shown}");
            assert_eq!(reply.attempts(), 2);
        }
    }

    /// Both fail: the caller gets an error with a status, once.
    fn when_every_target_fails(driver) {
        for (steps, statuses) in [
            (vec![Step::Close], vec![502]),
            (vec![Step::Hang], vec![504]),
            (whole(500, &[], &protocol::error("api_error", "mark 500")), vec![500]),
        ] {
            let again = steps.clone();
            let (first, second) = (Upstream::start(move |_| steps.clone()), Upstream::start(move |_| again.clone()));
            let gateway = chain(driver, &first, &second, SHORT);
            for body in [protocol::request("front"), protocol::stream_request("front")] {
                let reply = call(gateway.address(), messages(&body));
                assert!(statuses.contains(&reply.status), "{} instead of {statuses:?}: {}", reply.status, reply.text());
                assert_eq!(reply.json()["type"], "error");
            }
        }
    }

    /// A model that is silent for long: the status and comments after ten seconds, and still the next target's clean
    /// stream when the first one fails at sixteen.
    fn long_silence_keeps_the_line_alive(driver) {
        let first = Upstream::start(|_| {
            let start = chunk(&protocol::message_start());
            vec![stream_head(), start, Step::Pause(Duration::from_secs(16)), chunk(&protocol::error_event("api_error", "late")), last_chunk()]
        });
        let second = Upstream::good("second");
        let gateway = chain(driver, &first, &second, "");
        let mut client = Client::connect(gateway.address());
        let began = now();
        client.send(messages(&protocol::stream_request("front")));
        let head = client.try_head().expect("a head");
        let waited = began.elapsed();
        assert_eq!(head.status, 200);
        assert!(waited > Duration::from_secs(9) && waited < Duration::from_millis(11_500), "the status came after {waited:?}");
        let (events, ended) = client.events(&head);
        assert_eq!(ended, Ok(()));
        let (comments, rest): (Vec<_>, Vec<_>) = events.into_iter().partition(|it| it.text.starts_with(':'));
        assert_eq!(joined(&rest), protocol::stream("second").concat());
        assert!(!comments.is_empty(), "comments keep the line alive");
        assert!(began.elapsed() < Duration::from_secs(18));
        assert_eq!((first.count(), second.count()), (1, 1));
    }

    /// The status is out, and then every target fails: the error comes in-band.
    fn a_failure_after_the_status_is_in_band(driver) {
        let late = || Upstream::start(|_| vec![Step::Pause(Duration::from_secs(11)), Step::Close]);
        let (first, second) = (late(), Upstream::start(|_| vec![Step::Close]));
        let gateway = chain(driver, &first, &second, "");
        let (head, events, ended) = client::stream(gateway.address(), &protocol::stream_request("front"));
        assert_eq!((head.status, ended), (200, Ok(())));
        let text = joined(&events);
        assert_eq!(text.matches("event: error").count(), 1, "{text}");
        assert_eq!(second.count(), 1);
    }

    /// A caller that reads slowly slows the upstream, and gets everything.
    fn slow_readers_get_everything(driver) {
        let text = "x".repeat(40_000);
        let mut events = protocol::stream("begin");
        let delta = protocol::event("content_block_delta", &format!("{{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}"));
        events.splice(3..3, std::iter::repeat_n(delta, 200));
        let expected = events.concat();
        let upstream = Upstream::start(move |_| streamed(&events));
        let other = Upstream::start(|heard| good(heard, "fine"));
        let gateway = chain(driver, &upstream, &other, "");
        let mut client = Client::connect(gateway.address());
        client.send(messages(&protocol::stream_request("front")));
        let head = client.try_head().expect("a head");
        tidegate_tests::time::pause_ms(700);
        // Meanwhile the same worker serves others.
        let began = now();
        assert_eq!(call(gateway.address(), messages(&protocol::request("absent-model"))).status / 100, 2);
        assert!(began.elapsed() < Duration::from_secs(2));
        let mut received = String::new();
        let ended = client.each_event(&head, |event| received.push_str(&event.text));
        assert_eq!(ended, Ok(()));
        assert!(received == expected, "8 MB are changed: {} of {} bytes", received.len(), expected.len());
    }

    /// A head that comes at once promises nothing: its body has until `first_byte_whole`, not `idle`.
    fn an_early_head_does_not_shorten_the_wait(driver) {
        let timeouts = "timeouts: { first_byte: 200ms, first_byte_whole: 3s, idle: 200ms }\n";
        let body = protocol::message("late");
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        let steps = vec![Step::Send(head.into()), Step::Pause(Duration::from_millis(900)), Step::Send(body.into())];
        let first = Upstream::start(move |_| steps.clone());
        let second = Upstream::good("second");
        let gateway = chain(driver, &first, &second, timeouts);
        let reply = call(gateway.address(), messages(&protocol::request("front")));
        assert_eq!((reply.status, second.count()), (200, 0));
        assert_eq!(reply.text(), protocol::message("late"));
    }
}
