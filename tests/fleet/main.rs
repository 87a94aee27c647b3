//! `tcptrace export` with the real Prometheus and a real OpenTelemetry collector, and the files of
//! `deploy/`.
//!
//! `cargo xtask test --install` installs prometheus, promtool and the collector.

mod collector;
mod kubernetes;
mod otlp;
mod prometheus;
mod receiver;
mod spans;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::run::{Running, tcptrace};
use tests::trace::Line;
use tests::traffic::*;
use tests::{Lab, eventually};

use self::prometheus::Prometheus;

/// A file of the repository.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// Runs a program that must succeed, and returns its output.
#[track_caller]
fn run(command: &mut Command, stdin: &str) -> String {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; cargo xtask test --install"));
    let mut pipe = child.stdin.take().expect("a pipe");
    pipe.write_all(stdin.as_bytes()).expect("write");
    drop(pipe);
    let output = child.wait_with_output().expect("an end");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

#[test]
fn the_alerts_fire_when_they_should() {
    let rules = file("deploy/prometheus/tcptrace.rules.yml");
    let checked = run(
        Command::new("promtool").args(["check", "rules"]).arg(rules),
        "",
    );
    assert!(checked.contains("SUCCESS: 7 rules found"), "{checked}");
    let tests = file("deploy/prometheus/tcptrace.rules.test.yml");
    run(
        Command::new("promtool").args(["test", "rules"]).arg(tests),
        "",
    );
}

#[test]
fn the_unit_of_systemd_is_confined() {
    let unit = file("deploy/systemd/tcptrace-export.service");
    // The exposure level is at most 3.0 of 10.
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["security", "--offline=true", "--threshold=30", "--no-pager"]);
    let said = run(analyze.arg(unit), "");
    assert!(said.contains("Overall exposure level"), "{said}");
}

/// Returns each query of the dashboard, with the variables replaced.
fn queries_of_the_dashboard() -> Vec<String> {
    let text = std::fs::read_to_string(file("deploy/grafana/tcptrace.json")).expect("a dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .flat_map(|it| it["targets"].as_array().expect("targets"));
    let queries = targets.map(|it| {
        let query = it["expr"].as_str().expect("a query");
        query
            .replace("$__rate_interval", "1m")
            .replace("$instance", ".*")
            .replace("$listener", ".*")
    });
    queries.collect()
}

/// Makes connections that wait for `waits_ms`, and one that is never accepted.
fn load(port: u16, waits_ms: &[u64]) {
    let listener = listen_at((LOOPBACK, port).into(), 64);
    for wait_ms in waits_ms {
        let client = connect_queued(port);
        std::thread::sleep(Duration::from_millis(*wait_ms));
        close(client, accept(&listener).stream);
    }
    let _client = connect_queued(port);
    drop(listener);
}

/// Returns the smallest value with at least this part of the values at or below it.
fn quantile(values: &mut [u64], part: f64) -> f64 {
    values.sort_unstable();
    let rank = (part * values.len() as f64).ceil() as usize;
    values[rank.max(1) - 1] as f64 / 1e9
}

/// The bounds of the classic bucket that has a value, in seconds.
fn bucket_of(seconds: f64) -> (f64, f64) {
    let bounds = (-5..=0).flat_map(|exponent| {
        let ten = 10f64.powi(exponent);
        [ten, 2.5 * ten, 5.0 * ten]
    });
    let bounds: Vec<f64> = bounds.chain([10.0]).collect();
    let above = bounds
        .iter()
        .position(|bound| seconds <= *bound)
        .expect("at most 10 s");
    (bounds[above - 1], bounds[above])
}

/// Sums values by the value of a label.
fn counts(samples: &[(BTreeMap<String, String>, f64)], label: &str) -> BTreeMap<String, u64> {
    let of = |(labels, value): &(BTreeMap<String, String>, f64)| {
        (
            labels.get(label).cloned().unwrap_or_default(),
            *value as u64,
        )
    };
    samples.iter().map(of).filter(|(_, n)| *n > 0).collect()
}

fn counted<'a>(lines: impl Iterator<Item = &'a Line>, field: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in lines {
        let value = line[field].as_str().expect("a value").to_owned();
        *counts.entry(value).or_default() += 1;
    }
    counts
}

#[test]
fn prometheus_answers_what_the_json_of_the_same_seconds_says() {
    const WAITS_MS: [u64; 12] = [3, 3, 3, 3, 7, 7, 7, 15, 15, 30, 70, 300];
    let lab = Lab::new();
    let port = lab.port();
    let idle = listen(lab.port());
    let ports = format!("{port},{}", idle.local_addr().expect("an address").port());
    let exporter = Running::start(tcptrace(&["export", "-p", &ports]));
    let tracer = lab.trace_with(&["-p", &ports]);
    // Only the protobuf form has native histograms.
    let classic = Prometheus::start(9090, &[]);
    let native = Prometheus::start(9091, &["--enable-feature=native-histograms"]);
    for server in [&classic, &native] {
        server.wait_for_value("up", 1.0);
    }
    load(port, &WAITS_MS);
    let ends = 2 * (WAITS_MS.len() + 1);
    tracer.wait_for_ends(ends);
    for server in [&classic, &native] {
        server.wait_for_value("sum(tcptrace_connections_ended_total)", ends as f64);
    }
    let trace = tracer.stop();

    let servers = trace.connections("server");
    let waits = servers
        .iter()
        .filter_map(|it| it["accept_queue_ns"].as_u64());
    let mut waits: Vec<u64> = waits.collect();
    assert_eq!(waits.len(), WAITS_MS.len());
    let listener = format!("{{listener=\"127.0.0.1:{port}\"}}");
    for server in [&classic, &native] {
        let verdicts = server.query(&format!(
            "sum by (verdict) (tcptrace_connections_total{listener})"
        ));
        let expected = counted(servers.iter().copied(), "verdict");
        assert_eq!(counts(&verdicts, "verdict"), expected);
        assert_eq!(expected["never_accepted"], 1);
        let ended = server.query("sum by (how) (tcptrace_connections_ended_total)");
        let all = servers.iter().copied().chain(trace.connections("client"));
        assert_eq!(counts(&ended, "how"), counted(all, "ended"));
        let lost = server.query("sum(tcptrace_events_lost_total)");
        assert_eq!(lost[0].1, 0.0);
    }
    const WAIT: &str = "tcptrace_accept_queue_wait_seconds";
    assert_eq!(
        classic.value(&format!("{WAIT}_count{listener}")),
        waits.len() as f64
    );
    assert_eq!(
        native.value(&format!("histogram_count({WAIT}{listener})")),
        waits.len() as f64
    );
    for part in [0.5, 0.9, 0.99] {
        let exact = quantile(&mut waits, part);
        let (above, up_to) = bucket_of(exact);
        let found = classic.value(&format!(
            "histogram_quantile({part}, {WAIT}_bucket{listener})"
        ));
        assert!(
            above < found && found <= up_to,
            "p{part}: {found}, exact {exact}"
        );
        let found = native.value(&format!("histogram_quantile({part}, {WAIT}{listener})"));
        assert!(
            (found / exact - 1.0).abs() < 0.1,
            "p{part}: {found}, exact {exact}"
        );
    }

    // A rate needs two scrapes. Some queries need hooks that this kernel may lack, or --why.
    let queries = queries_of_the_dashboard();
    eventually("answers to most queries of the dashboard", || {
        let answers = queries.iter().map(|query| classic.query(query));
        (answers.filter(|it| !it.is_empty()).count() >= 11).then_some(())
    });

    let mut text = String::new();
    let mut stream = connect(9807);
    stream
        .write_all(b"GET /metrics HTTP/1.0\r\nAccept: text/plain\r\n\r\n")
        .expect("a request");
    stream.read_to_string(&mut text).expect("an answer");
    let (_, metrics) = text.split_once("\r\n\r\n").expect("a body");
    let said = run(Command::new("promtool").args(["check", "metrics"]), metrics);
    assert_eq!(said, "");

    // A target that ends is seen at once.
    exporter.signal(Signal::SIGTERM);
    assert_eq!(exporter.wait().code, Some(0));
    eventually("the end of the target", || {
        (classic.value("up") == 0.0).then_some(())
    });
}
