//! The spans of `tcptrace export --otlp-traces`: with a real collector that is killed, and with one that
//! refuses.

use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tests::run::Running;
use tests::trace::Line;
use tests::traffic::*;
use tests::{Lab, eventually};

use super::collector::{Collector, PORT};
use super::otlp::{BEHIND, end, export, wait_until_ready};
use super::receiver::{Answer, OK, Receiver, text};

/// Builds an exporter of the spans of a port, with small batches.
fn export_spans(port: u16, url: &str, more: &[&str]) -> Command {
    let mut command = export(port, url, &[&["--otlp-traces"], more].concat());
    command.env("OTEL_BSP_SCHEDULE_DELAY", "50");
    command
}

fn roots(spans: &[Span]) -> Vec<&Span> {
    let is_root = |it: &&Span| it.parent_span_id.is_empty();
    spans.iter().filter(is_root).collect()
}

/// Returns the parts of a root span by their names.
fn parts<'a>(spans: &'a [Span], root: &Span) -> Vec<(&'a str, &'a Span)> {
    let children = spans
        .iter()
        .filter(|it| it.parent_span_id == root.span_id && it.trace_id == root.trace_id);
    children.map(|it| (it.name.as_str(), it)).collect()
}

fn ns(span: &Span) -> u64 {
    span.end_time_unix_nano - span.start_time_unix_nano
}

fn number(span: &Span, key: &str) -> u64 {
    let found = text(&span.attributes, key).unwrap_or_else(|| panic!("no {key}: {span:#?}"));
    found.parse().expect("a number")
}

/// Whether two times of different traces, in nanoseconds, are the same moment.
fn is_near(one: u64, other: u64) -> bool {
    one.abs_diff(other) < 1_000_000
}

#[track_caller]
fn has(span: &Span, key: &str, value: &str) {
    let found = text(&span.attributes, key);
    assert_eq!(found.as_deref(), Some(value), "{key}: {span:#?}");
}

/// Returns the nanoseconds since 1970 of a line's time `field`.
fn wall_ns(line: &Line, field: &str) -> u64 {
    let ts = line["ts"].as_str().expect("a time");
    let at = humantime::parse_rfc3339(ts).expect("a time");
    let at = at
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_nanos() as u64;
    let mono = |field: &str| line[field].as_u64().expect("nanoseconds");
    at - (mono("mono_ns") - mono(field))
}

#[test]
fn a_collector_receives_the_spans_of_connections_that_waited_or_went_wrong() {
    let lab = Lab::new();
    let port = lab.port();
    let receiver = Receiver::start(BEHIND, |_| OK);
    let collector = Collector::start(&receiver.url());
    let url = format!("http://localhost:{PORT}");
    let exporter = Running::start(export_spans(port, &url, &["--slow", "2s"]));
    wait_until_ready();
    let tracer = lab.trace_with(&["-p", &port.to_string()]);

    let listener = listen_at((LOOPBACK, port).into(), 8);
    // One is fine, one waits, one is reset by its client, and one is never accepted.
    let client = connect_queued(port);
    close(client, accept(&listener).stream);
    let client = connect_queued(port);
    let waits = port_of(&client);
    std::thread::sleep(Duration::from_millis(2100));
    close(client, accept(&listener).stream);
    let client = connect_queued(port);
    let is_reset = port_of(&client);
    let server = accept(&listener).stream;
    reset(client);
    drop(server);
    let client = connect_queued(port);
    let is_left = port_of(&client);
    drop(listener);
    drop(client);
    tracer.wait_for_ends(8);
    // The client that sends a RST has a span, too, and so has the client whose server was closed.
    let spans = eventually("five connections", || {
        std::thread::sleep(Duration::from_millis(100));
        let spans = receiver.spans();
        (roots(&spans).len() >= 5).then_some(spans)
    });
    let trace = tracer.stop();
    let log = collector.log();
    let stderr = end(exporter);
    assert!(!stderr.contains("otlp"), "{stderr}");

    let servers = roots(&spans);
    let servers = servers
        .iter()
        .filter(|it| it.kind == SpanKind::Server as i32);
    let server = |peer: u16| {
        let found = servers
            .clone()
            .find(|it| number(it, "network.peer.port") == u64::from(peer));
        *found.unwrap_or_else(|| panic!("no span of {peer}: {spans:#?}"))
    };
    assert_eq!(servers.clone().count(), 3, "{spans:#?}");

    let (root, line) = (server(waits), trace.server_of(waits));
    let all = parts(&spans, root);
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        ["handshake", "accept_queue_wait", "established", "close"]
    );
    let part = |name: &str| all.iter().find(|(it, _)| *it == name).expect("a part").1;
    let wait = part("accept_queue_wait");
    assert_eq!(ns(wait), number(root, "tcptrace.accept_queue_ns"));
    assert!(is_near(
        ns(wait),
        line["accept_queue_ns"].as_u64().expect("a wait")
    ));
    assert!(is_near(
        wait.start_time_unix_nano,
        wall_ns(line, "established_mono_ns")
    ));
    assert!(is_near(
        wait.end_time_unix_nano,
        wall_ns(line, "accepted_mono_ns")
    ));
    assert!(is_near(
        root.end_time_unix_nano,
        wall_ns(line, "closed_mono_ns")
    ));
    assert_eq!(
        part("established").start_time_unix_nano,
        wait.start_time_unix_nano
    );
    assert_eq!(
        part("established").end_time_unix_nano,
        part("close").start_time_unix_nano
    );
    assert_eq!(part("close").end_time_unix_nano, root.end_time_unix_nano);
    // The first transition out of ESTABLISHED.
    let transitions = trace.transitions(&line["conn"]);
    let leaves = transitions
        .iter()
        .find(|it| it["oldstate"] == "ESTABLISHED");
    let left_ns = wall_ns(leaves.expect("a transition"), "mono_ns");
    assert!(is_near(part("close").start_time_unix_nano, left_ns));
    assert_eq!(
        root.status.as_ref().map_or(0, |it| it.code),
        StatusCode::Unset as i32
    );
    for (key, value) in [
        ("network.transport", "tcp"),
        ("network.type", "ipv4"),
        ("network.local.address", "127.0.0.1"),
        ("server.port", &port.to_string()),
        ("network.connection.state", "closed"),
        ("process.pid", &std::process::id().to_string()),
        ("tcptrace.verdict", "queued"),
        ("tcptrace.ended", "orderly"),
    ] {
        has(root, key, value);
    }

    let root = server(is_reset);
    let status = root.status.as_ref().expect("a status");
    assert_eq!(status.code, StatusCode::Error as i32);
    assert_eq!(status.message, "reset by the peer");
    has(root, "tcptrace.ended", "reset_received");
    assert!(!parts(&spans, root).iter().any(|(name, _)| *name == "close"));

    let (root, line) = (server(is_left), trace.server_of(is_left));
    has(root, "tcptrace.verdict", "never_accepted");
    let all = parts(&spans, root);
    let wait = all
        .iter()
        .find(|(name, _)| *name == "accept_queue_wait")
        .expect("a wait")
        .1;
    assert!(is_near(
        wait.start_time_unix_nano,
        wall_ns(line, "established_mono_ns")
    ));
    assert!(is_near(
        wait.end_time_unix_nano,
        wall_ns(line, "closed_mono_ns")
    ));

    // The collector's own log.
    for said in [
        "Name           : tcp connection",
        "Name           : accept_queue_wait",
        "Kind           : SPAN_KIND_SERVER",
        "-> tcptrace.verdict: Str(never_accepted)",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
}

/// Makes connections that their clients reset, and returns the clients' ports. Each has two spans of
/// whole connections: the client's and the server's.
fn reset_connections(listener: &std::net::TcpListener, n: usize) -> Vec<u64> {
    let port = listener.local_addr().expect("an address").port();
    let ports = (0..n).map(|_| {
        let client = connect_queued(port);
        let from = port_of(&client);
        let server = accept(listener).stream;
        reset(client);
        drop(server);
        u64::from(from)
    });
    ports.collect()
}

/// Returns the client's ports of all connections with a server's span.
fn seen(receiver: &Receiver) -> Vec<u64> {
    let spans = receiver.spans();
    let servers = roots(&spans)
        .into_iter()
        .filter(|it| it.kind == SpanKind::Server as i32);
    let mut ports: Vec<u64> = servers.map(|it| number(it, "network.peer.port")).collect();
    ports.sort_unstable();
    ports
}

#[test]
fn no_span_is_lost_while_the_collector_is_killed_and_started_again() {
    let lab = Lab::new();
    let port = lab.port();
    let receiver = Receiver::start(BEHIND, |_| OK);
    let collector = Collector::start(&receiver.url());
    let url = format!("http://localhost:{PORT}");
    let exporter = Running::start(export_spans(port, &url, &[]));
    wait_until_ready();
    let listener = listen_at((LOOPBACK, port).into(), 8);
    let mut expected = reset_connections(&listener, 20);
    eventually("the first spans", || {
        (seen(&receiver).len() == 20).then_some(())
    });
    collector.kill();
    // These wait in the queue: at most 10 spans each, and 2048 fit.
    expected.extend(reset_connections(&listener, 100));
    std::thread::sleep(Duration::from_millis(1500));
    let _collector = Collector::start(&receiver.url());
    expected.extend(reset_connections(&listener, 20));
    eventually("all spans", || {
        std::thread::sleep(Duration::from_millis(100));
        (seen(&receiver).len() >= 140).then_some(())
    });
    let stderr = end(exporter);
    expected.sort_unstable();
    assert_eq!(seen(&receiver), expected);
    let url = format!("{url}/v1/traces");
    let refused = format!("otlp: cannot send traces to {url}: Connection refused; trying again");
    assert_eq!(stderr.matches(&refused).count(), 1, "{stderr}");
    let again = format!("otlp: {url} takes traces again after ");
    assert_eq!(stderr.matches(&again).count(), 1, "{stderr}");
    assert!(!stderr.contains("dropped"), "{stderr}");
}

/// Returns a metric of the exporter about its spans.
fn about_spans(name: &str, more: &str) -> Option<u64> {
    let mut answer = ureq::get("http://127.0.0.1:9807/metrics").call().ok()?;
    let text = answer.body_mut().read_to_string().ok()?;
    let series = format!("tcptrace_otlp_{name}{{signal=\"traces\"{more}}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&series))?;
    value.parse().ok()
}

#[test]
fn spans_that_do_not_fit_the_queue_are_counted_while_a_collector_refuses() {
    const CONNECTIONS: usize = 30;
    const QUEUE: u64 = 20;
    let lab = Lab::new();
    let port = lab.port();
    let is_ready = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let takes = is_ready.clone();
    let receiver = Receiver::start(BEHIND, move |_| {
        match takes.load(std::sync::atomic::Ordering::SeqCst) {
            true => OK,
            false => Answer {
                head: "503 Service Unavailable",
                ..OK
            },
        }
    });
    let mut command = export_spans(port, &receiver.url(), &[]);
    command.env("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE.to_string());
    command.env("OTEL_METRIC_EXPORT_INTERVAL", "60000");
    // This one counts all spans.
    let all = Receiver::start(BEHIND + 1, |_| OK);
    let other = export_spans(port, &all.url(), &["--listen", "127.0.0.1:9808"]);
    let other = Running::start(other);
    eventually("the other exporter", || {
        let answer = ureq::get("http://127.0.0.1:9808/healthz").call();
        answer.ok().filter(|it| it.status() == 200)
    });
    let exporter = Running::start(command);
    wait_until_ready();
    let tracer = lab.trace_with(&["-p", &port.to_string()]);
    let listener = listen_at((LOOPBACK, port).into(), 8);
    reset_connections(&listener, CONNECTIONS);
    tracer.wait_for_ends(2 * CONNECTIONS);
    let trace = tracer.stop();
    // The trace does not wait for the collector.
    assert_eq!(trace.connections("server").len(), CONNECTIONS);
    let made = eventually("all spans", || {
        std::thread::sleep(Duration::from_millis(200));
        let spans = all.spans();
        (roots(&spans).len() == 2 * CONNECTIONS).then_some(spans.len() as u64)
    });
    end(other);
    let dropped = about_spans("dropped_total", ",reason=\"queue_full\"").expect("drops");
    let waiting = about_spans("queue_length", "").expect("a length");
    assert!(waiting <= QUEUE, "{waiting}");
    assert_eq!(about_spans("sent_total", ""), Some(0));
    assert!(about_spans("retries_total", "").expect("retries") > 0);

    is_ready.store(true, std::sync::atomic::Ordering::SeqCst);
    let sent = eventually("the rest", || {
        std::thread::sleep(Duration::from_millis(100));
        (about_spans("queue_length", "") == Some(0)).then(|| about_spans("sent_total", ""))?
    });
    assert_eq!(sent, waiting);
    assert_eq!(receiver.spans().len() as u64, waiting);
    assert_eq!(dropped + waiting, made);
    let stderr = end(exporter);
    let said = format!(
        "otlp: spans are dropped, because the queue for {}/v1/traces is full",
        receiver.url()
    );
    assert_eq!(stderr.matches(&said).count(), 1, "{stderr}");
    // Back-off: the waits between the requests for the first batch rise.
    let requests = receiver.requests();
    let times: Vec<_> = requests
        .iter()
        .filter(|it| it.is_for("/v1/traces"))
        .map(|it| it.at)
        .collect();
    for (n, pair) in times.windows(2).take(2).enumerate() {
        let waited = (pair[1] - pair[0]).as_secs_f64();
        let at_least = [0.5, 1.0][n];
        assert!(waited >= at_least, "{n}: {waited}");
    }
}
