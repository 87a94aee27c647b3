//! The metrics of `tcptrace export --otlp`: with a real collector, and with one that refuses.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric};
use tests::run::{Running, tcptrace};
use tests::{Lab, eventually};

use super::collector::{Collector, PORT};
use super::receiver::{Answer, OK, Receiver, resource_text, text};
use super::{counted, load};

/// The port of the receiver behind the collector.
pub const BEHIND: u16 = 4319;

/// Builds an exporter of a port that sends its metrics each second.
pub fn export(port: u16, url: &str, more: &[&str]) -> Command {
    let port = port.to_string();
    // Other network namespaces may use the same port.
    let args = ["export", "-p", &port, "--netns", "self", "--otlp", url];
    let mut command = tcptrace(&[&args, more].concat());
    command.env("OTEL_METRIC_EXPORT_INTERVAL", "1000");
    command
}

/// Waits until an exporter answers.
pub fn wait_until_ready() {
    eventually("the exporter to answer", || {
        let answer = ureq::get("http://127.0.0.1:9807/healthz").call();
        answer.ok().filter(|it| it.status() == 200)
    });
}

pub fn end(exporter: Running) -> String {
    exporter.signal(Signal::SIGTERM);
    let ended = exporter.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stderr
}

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("a time after 1970").as_nanos() as u64
}

fn received(receiver: &Receiver, name: &str) -> Metric {
    let metrics = receiver.metrics(name);
    metrics
        .last()
        .unwrap_or_else(|| panic!("no {name}"))
        .clone()
}

/// Exports a load through a collector, and returns what the collector has forwarded, and the waits in
/// the JSON of the same seconds.
fn forwarded(variables: &[(&str, &str)]) -> (Receiver, Vec<u64>) {
    const WAITS_MS: [u64; 8] = [3, 3, 7, 7, 15, 30, 70, 300];
    let lab = Lab::new();
    let port = lab.port();
    let began_ns = now_ns();
    let receiver = Receiver::start(BEHIND, |_| OK);
    let collector = Collector::start(&receiver.url());
    let mut command = export(port, &format!("http://localhost:{PORT}/"), &[]);
    let resource = "deployment.environment.name=a%20test";
    command
        .envs(variables.iter().copied())
        .env("OTEL_RESOURCE_ATTRIBUTES", resource);
    let exporter = Running::start(command);
    let tracer = lab.trace_with(&["-p", &port.to_string()]);
    eventually("the first metrics", || {
        let metrics = receiver.metrics("tcptrace.build_info");
        (!metrics.is_empty()).then_some(())
    });
    load(port, &WAITS_MS);
    let ends = 2 * (WAITS_MS.len() + 1);
    tracer.wait_for_ends(ends);
    let ended = "tcptrace.connections_ended";
    eventually("the ends of all connections", || {
        let counts = receiver.counts(ended, "how");
        (counts.values().sum::<u64>() == ends as u64).then_some(())
    });
    let trace = tracer.stop();

    let servers = trace.connections("server");
    let verdicts = receiver.counts("tcptrace.connections", "verdict");
    assert_eq!(verdicts, counted(servers.iter().copied(), "verdict"));
    assert_eq!(verdicts["never_accepted"], 1);
    let all = servers.iter().copied().chain(trace.connections("client"));
    assert_eq!(receiver.counts(ended, "how"), counted(all, "ended"));
    assert!(receiver.counts("tcptrace.events_lost", "hook").is_empty());

    let Some(Data::Sum(sum)) = received(&receiver, "tcptrace.connections").data else {
        panic!("no sum");
    };
    assert!(sum.is_monotonic);
    let cumulative = AggregationTemporality::Cumulative as i32;
    assert_eq!(sum.aggregation_temporality, cumulative);
    for point in &sum.data_points {
        let listener = text(&point.attributes, "listener");
        assert_eq!(listener, Some(format!("127.0.0.1:{port}")));
        let (start, time) = (point.start_time_unix_nano, point.time_unix_nano);
        assert!(
            began_ns < start && start < time && time <= now_ns(),
            "{point:?}"
        );
    }
    let requests = receiver.requests();
    let last = requests.last().expect("a request").metrics();
    let resource = &last.resource_metrics[0].resource;
    let has = |key: &str| resource_text(resource, key);
    assert_eq!(has("service.name").as_deref(), Some("tcptrace"));
    assert_eq!(
        has("deployment.environment.name").as_deref(),
        Some("a test")
    );
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    assert_eq!(has("host.name").as_deref(), Some(host.trim()));
    // The collector's own log.
    let log = collector.log();
    for line in [
        "-> Name: tcptrace.accept_queue_wait",
        "-> Unit: s",
        "IsMonotonic: true",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    let stderr = end(exporter);
    assert!(!stderr.contains("otlp"), "{stderr}");
    let waits = servers
        .iter()
        .filter_map(|it| it["accept_queue_ns"].as_u64());
    let waits: Vec<u64> = waits.collect();
    assert_eq!(waits.len(), WAITS_MS.len());
    (receiver, waits)
}

/// How much two traces of the same accept() may differ, in seconds.
const WITHIN: f64 = 1e-3;

/// Checks the counts of buckets, which are given with their upper bounds.
#[track_caller]
fn are_in_buckets(waits: &[f64], buckets: impl Iterator<Item = (f64, u64)>) {
    let up_to = |bound: f64| waits.iter().filter(|it| **it <= bound).count() as u64;
    let mut sum = 0;
    for (bound, count) in buckets {
        sum += count;
        let expected = up_to(bound - WITHIN)..=up_to(bound + WITHIN);
        assert!(expected.contains(&sum), "up to {bound}: {sum}, {waits:?}");
    }
    assert_eq!(sum, waits.len() as u64);
}

fn seconds(waits_ns: &[u64]) -> Vec<f64> {
    waits_ns.iter().map(|ns| *ns as f64 / 1e9).collect()
}

#[test]
fn a_collector_receives_metrics_that_equal_the_json_of_the_same_seconds() {
    let (receiver, waits) = forwarded(&[("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")]);
    let Some(Data::Histogram(histogram)) = received(&receiver, "tcptrace.accept_queue_wait").data
    else {
        panic!("no histogram");
    };
    let point = &histogram.data_points[0];
    let waits = seconds(&waits);
    assert_eq!(point.count, waits.len() as u64);
    let sum: f64 = waits.iter().sum();
    let difference = point.sum.expect("a sum") - sum;
    assert!(
        difference.abs() < WITHIN * waits.len() as f64,
        "{sum}: {point:?}"
    );
    let bounds = point.explicit_bounds.iter().copied().chain([f64::INFINITY]);
    are_in_buckets(&waits, bounds.zip(point.bucket_counts.iter().copied()));
}

#[test]
fn a_collector_receives_exponential_histograms_if_the_environment_asks_for_them() {
    let (receiver, waits) = forwarded(&[(
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
        "base2_exponential_bucket_histogram",
    )]);
    let Some(Data::ExponentialHistogram(histogram)) =
        received(&receiver, "tcptrace.accept_queue_wait").data
    else {
        panic!("no exponential histogram");
    };
    let point = &histogram.data_points[0];
    assert_eq!(point.count, waits.len() as u64);
    let positive = point.positive.as_ref().expect("buckets");
    let base = 2f64.powf(2f64.powi(-point.scale));
    let waits = seconds(&waits);
    let bounds = (positive.offset + 1..).map(|index| base.powi(index));
    are_in_buckets(&waits, bounds.zip(positive.bucket_counts.iter().copied()));
}

#[test]
fn a_snapshot_that_was_not_taken_is_sent_again_after_the_time_that_the_collector_asks_for() {
    let lab = Lab::new();
    let receiver = Receiver::start(lab.port(), |n| match n {
        0 | 1 => Answer {
            head: "503 Service Unavailable\r\nRetry-After: 2",
            ..OK
        },
        _ => OK,
    });
    let exporter = Running::start(export(lab.port(), &receiver.url(), &[]));
    let requests = receiver.wait_for(6);
    let stderr = end(exporter);
    for pair in requests[..3].windows(2) {
        assert!(pair[0].body == pair[1].body, "another snapshot");
        let waited = pair[1].at - pair[0].at;
        assert!(waited >= Duration::from_secs(2), "{waited:?}");
    }
    // The snapshots of these seconds have waited in the queue.
    let times = requests[2..].iter().map(|request| {
        let metrics = request
            .metrics()
            .resource_metrics
            .remove(0)
            .scope_metrics
            .remove(0);
        let is_info = |it: &&Metric| it.name == "tcptrace.build_info";
        let info = metrics.metrics.iter().find(is_info).expect("the version");
        match &info.data {
            Some(Data::Gauge(gauge)) => gauge.data_points[0].time_unix_nano,
            data => panic!("{data:?}"),
        }
    });
    let times: Vec<u64> = times.collect();
    for pair in times.windows(2) {
        let between = (pair[1] - pair[0]) as f64 / 1e9;
        assert!((0.9..1.5).contains(&between), "{times:?}");
    }
    let waited = requests[5].at - requests[2].at;
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    let url = format!("{}/v1/metrics", receiver.url());
    let lines: Vec<&str> = stderr.lines().filter(|it| it.contains("otlp")).collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    let refused = format!(
        "tcptrace: otlp: cannot send metrics to {url}: HTTP 503 Service Unavailable; trying again"
    );
    assert_eq!(lines[0], refused);
    let again = format!("tcptrace: otlp: {url} takes metrics again after ");
    assert!(lines[1].starts_with(&again), "{stderr}");
}

#[test]
fn a_wrong_url_is_refused_with_one_line() {
    for (url, said) in [
        (
            "localhost:4318",
            "--otlp is \"localhost:4318\", but takes a URL such as http://localhost:4318",
        ),
        (
            "https://example.com",
            "--otlp is \"https://example.com\", but takes http:// only; for TLS, send to a collector \
             on this machine that forwards over https",
        ),
    ] {
        let ended = Running::run_to_end(export(80, url, &[]));
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert_eq!(ended.stderr, format!("tcptrace: {said}\n"));
    }
}

#[test]
fn a_collector_that_is_away_does_not_delay_the_end_by_more_than_some_seconds() {
    let lab = Lab::new();
    let exporter = Running::start(export(lab.port(), "http://127.0.0.1:1", &[]));
    wait_until_ready();
    let begin = std::time::Instant::now();
    let stderr = end(exporter);
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    let lines: Vec<&str> = stderr.lines().filter(|it| it.contains("otlp")).collect();
    let url = "http://127.0.0.1:1/v1/metrics";
    let refused = format!("tcptrace: otlp: cannot send metrics to {url}: Connection refused");
    assert_eq!(lines[0], format!("{refused}; trying again"));
    assert!(
        lines[1].ends_with(&format!(" data points were not sent to {url}")),
        "{stderr}"
    );
    assert_eq!(lines.len(), 2, "{stderr}");
}
