//! Requests from hand-made metrics, decoded again, and answers of a small HTTP server.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::MetricFamily;
use prost::Message;

use super::client::{Client, Outcome};
use super::metrics::Snapshots;
use super::proto::*;
use super::settings::{Endpoint, Settings};
use super::*;
use crate::event::{Direction, Hook, ListenQueue};
use crate::export::metrics::{Count, Metrics, Row, RowMetrics};
use crate::fields::{LateReason, Side, Verdict};

const START: u64 = 1_000;
const MS: u64 = 1_000_000;

struct Exporter {
    metrics: Arc<Metrics>,
    row: RowMetrics,
    registry: Registry,
    snapshots: Snapshots,
}

impl Exporter {
    fn new(exponential: bool) -> Exporter {
        let metrics = Arc::new(Metrics::new());
        let mut registry = metrics.registry(10);
        Totals::default().register(&mut registry);
        let row = Row {
            listener: "127.0.0.1:80".to_owned(),
            container: "c0ffee".to_owned(),
            k8s_pod_name: "web-1".to_owned(),
            k8s_namespace_name: "shop".to_owned(),
            service: "nginx".to_owned(),
        };
        Exporter {
            row: RowMetrics::new(&metrics, &Arc::new(row)),
            metrics,
            registry,
            snapshots: Snapshots::new(resource_of("host-1", &[]), exponential, START),
        }
    }

    fn families(&self) -> Vec<MetricFamily> {
        prometheus_protobuf::encode(&self.registry).unwrap()
    }

    /// Takes a snapshot, encodes and decodes it.
    fn snapshot(&mut self, now_ns: u64) -> ResourceMetrics {
        let families = self.families();
        let snapshot = self.snapshots.take(families, now_ns);
        let bytes = snapshot.request.encode_to_vec();
        let decoded = ExportMetricsServiceRequest::decode(&*bytes).unwrap();
        let [resource] = &decoded.resource_metrics[..] else {
            panic!("{decoded:?}");
        };
        let points: usize = resource.scope_metrics[0].metrics.iter().map(points).sum();
        assert_eq!(snapshot.points, points as u64);
        resource.clone()
    }
}

fn points(metric: &Metric) -> usize {
    match metric.data.as_ref().unwrap() {
        Data::Gauge(data) => data.data_points.len(),
        Data::Sum(data) => data.data_points.len(),
        Data::Histogram(data) => data.data_points.len(),
        Data::Exponential(data) => data.data_points.len(),
    }
}

#[track_caller]
fn find<'a>(resource: &'a ResourceMetrics, name: &str) -> &'a Metric {
    let metrics = &resource.scope_metrics[0].metrics;
    let found = metrics.iter().find(|it| it.name == name);
    found.unwrap_or_else(|| panic!("no {name}: {metrics:#?}"))
}

#[track_caller]
fn sum<'a>(resource: &'a ResourceMetrics, name: &str) -> &'a Sum {
    match &find(resource, name).data {
        Some(Data::Sum(sum)) => sum,
        data => panic!("{name}: {data:?}"),
    }
}

fn text(attributes: &[KeyValue]) -> Vec<String> {
    let text = attributes.iter().map(|it| {
        let value = it.value.as_ref().and_then(|it| it.value.clone());
        match value {
            Some(Value::String(value)) => format!("{}={value}", it.key),
            value => panic!("{}: {value:?}", it.key),
        }
    });
    text.collect()
}

const ROW: [&str; 5] = [
    "listener=127.0.0.1:80",
    "container.id=c0ffee",
    "k8s.pod.name=web-1",
    "k8s.namespace.name=shop",
    "service=nginx",
];

#[test]
fn counters_are_monotonic_cumulative_sums_with_a_start_time() {
    let mut exporter = Exporter::new(false);
    exporter.row.add(Count::Verdict(Verdict::Queued), 3);
    exporter.row.add(Count::Verdict(Verdict::NeverAccepted), 0);
    exporter.row.late(LateReason::Lock, 250 * MS);
    let resource = exporter.snapshot(5_000);
    let connections = sum(&resource, "tcptrace.connections");
    assert!(connections.is_monotonic);
    assert_eq!(connections.aggregation_temporality, CUMULATIVE);
    let mut values: Vec<_> = (connections.data_points.iter())
        .map(|it| (text(&it.attributes)[5].clone(), it.as_double))
        .collect();
    values.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        values,
        [
            ("verdict=never_accepted".to_owned(), Some(0.0)),
            ("verdict=queued".to_owned(), Some(3.0)),
        ]
    );
    for point in &connections.data_points {
        assert_eq!(text(&point.attributes)[..5], ROW);
        assert_eq!(point.start_time_unix_nano, START);
        assert_eq!(point.time_unix_nano, 5_000);
    }
    let late = find(&resource, "tcptrace.late");
    assert_eq!(late.unit, "s");
    let late = sum(&resource, "tcptrace.late");
    assert_eq!(late.data_points[0].as_double, Some(0.25));
}

#[test]
fn a_series_that_begins_again_has_a_new_start_time() {
    let mut exporter = Exporter::new(false);
    exporter.row.add(Count::HalfOpenFailed, 5);
    let start = |exporter: &mut Exporter, now_ns| {
        let resource = exporter.snapshot(now_ns);
        let name = "tcptrace.half_open_failed";
        let metrics = &resource.scope_metrics[0].metrics;
        let found = metrics.iter().any(|it| it.name == name);
        found.then(|| sum(&resource, name).data_points[0].start_time_unix_nano)
    };
    assert_eq!(start(&mut exporter, 2_000), Some(START));
    exporter.row.add(Count::HalfOpenFailed, 1);
    assert_eq!(start(&mut exporter, 3_000), Some(START));
    // The series is removed and comes back between two snapshots.
    let row = Arc::new(Row::default());
    let replace = |exporter: &mut Exporter, row: &Arc<Row>| {
        let new = RowMetrics::new(&exporter.metrics, row);
        std::mem::replace(&mut exporter.row, new).remove();
    };
    let same = Arc::new(Row {
        listener: "127.0.0.1:80".to_owned(),
        container: "c0ffee".to_owned(),
        k8s_pod_name: "web-1".to_owned(),
        k8s_namespace_name: "shop".to_owned(),
        service: "nginx".to_owned(),
    });
    replace(&mut exporter, &same);
    exporter.row.add(Count::HalfOpenFailed, 2);
    assert_eq!(start(&mut exporter, 4_000), Some(3_000));
    // It is gone for one snapshot.
    replace(&mut exporter, &row);
    assert_eq!(start(&mut exporter, 5_000), None);
    replace(&mut exporter, &same);
    exporter.row.add(Count::HalfOpenFailed, 9);
    assert_eq!(start(&mut exporter, 6_000), Some(5_000));
    // The wall clock is set back.
    exporter.row.add(Count::HalfOpenFailed, 9);
    assert_eq!(start(&mut exporter, 500), Some(500));
}

#[test]
fn gauges_have_the_current_value_and_units_have_their_codes() {
    let mut exporter = Exporter::new(false);
    exporter.row.length(Some(7));
    let resource = exporter.snapshot(5_000);
    let length = find(&resource, "tcptrace.accept_queue_length");
    assert_eq!(length.unit, "");
    let Some(Data::Gauge(gauge)) = &length.data else {
        panic!("{length:?}");
    };
    assert_eq!(gauge.data_points[0].as_double, Some(7.0));
    assert_eq!(gauge.data_points[0].time_unix_nano, 5_000);
    assert_eq!(text(&gauge.data_points[0].attributes), ROW);
    for (name, unit) in [
        ("process.resident_memory", "By"),
        ("process.cpu", "s"),
        ("process.start_time", "s"),
        ("process.open_fds", ""),
        ("tcptrace.build_info", ""),
        ("tcptrace.label_sets_limit", ""),
    ] {
        assert_eq!(find(&resource, name).unit, unit, "{name}");
    }
    assert!(sum(&resource, "process.cpu").data_points[0].as_double > Some(0.0));
}

#[test]
fn a_histogram_has_the_count_of_each_bucket() {
    let mut exporter = Exporter::new(false);
    for wait_ns in [0, 10_000, 10_001, 3 * MS, 11_000 * MS] {
        exporter.row.wait(wait_ns);
    }
    let resource = exporter.snapshot(5_000);
    let metric = find(&resource, "tcptrace.accept_queue_wait");
    assert_eq!(metric.unit, "s");
    let Some(Data::Histogram(histogram)) = &metric.data else {
        panic!("{metric:?}");
    };
    assert_eq!(histogram.aggregation_temporality, CUMULATIVE);
    let point = &histogram.data_points[0];
    assert_eq!(point.count, 5);
    assert_eq!(point.sum, Some(11.003_020_001));
    assert_eq!(point.explicit_bounds, crate::export::metrics::BUCKETS);
    let mut expected = [0; 20];
    // Up to 10 µs, 25 µs, 5 ms, and more than 10 s.
    (expected[0], expected[1], expected[8], expected[19]) = (2, 1, 1, 1);
    assert_eq!(point.bucket_counts, expected);
    assert_eq!(
        (point.start_time_unix_nano, point.time_unix_nano),
        (START, 5_000)
    );
    assert_eq!(text(&point.attributes), ROW);
}

#[test]
fn each_value_is_in_its_exponential_bucket() {
    let mut exporter = Exporter::new(true);
    let waits_ns = [
        0,
        15_625_000,
        1_000 * MS,
        1_000 * MS + 1,
        2_000 * MS,
        40_000 * MS,
    ];
    for wait_ns in waits_ns {
        exporter.row.wait(wait_ns);
    }
    exporter.row.handshake(Side::Client, MS);
    let resource = exporter.snapshot(5_000);
    let metric = find(&resource, "tcptrace.accept_queue_wait");
    let Some(Data::Exponential(histogram)) = &metric.data else {
        panic!("{metric:?}");
    };
    let point = &histogram.data_points[0];
    assert_eq!((point.count, point.zero_count, point.scale), (6, 1, 3));
    let positive = point.positive.as_ref().unwrap();
    let mut found = vec![];
    for (n, count) in positive.bucket_counts.iter().enumerate() {
        // The bucket is (base^index, base^(index + 1)] with base = 2^(2^-scale).
        let index = f64::from(positive.offset) + n as f64;
        let (above, up_to) = ((index / 8.0).exp2(), ((index + 1.0) / 8.0).exp2());
        let inside = waits_ns.iter().filter(|ns| {
            let seconds = **ns as f64 / 1e9;
            above < seconds && seconds <= up_to
        });
        assert_eq!(*count, inside.count() as u64, "({above}, {up_to}]");
        found.extend((*count > 0).then_some(up_to));
    }
    // 1/64 s, 1 s, just above 1 s, 2 s, and 40 s.
    assert_eq!(found.len(), 5, "{found:?}");
    assert_eq!((found[0], found[1], found[3]), (1.0 / 64.0, 1.0, 2.0));
    let handshakes = find(&resource, "tcptrace.handshake_duration");
    let Some(Data::Exponential(histogram)) = &handshakes.data else {
        panic!("{handshakes:?}");
    };
    assert_eq!(text(&histogram.data_points[0].attributes)[5], "role=client");
}

#[test]
fn labels_become_attributes_and_an_unknown_one_is_left_out() {
    let mut exporter = Exporter::new(false);
    exporter.row.add(Count::Overflow(ListenQueue::Syn), 1);
    exporter.row.add(Count::Reset(Direction::Sent, None), 1);
    exporter.metrics.lose(Hook::Segment, 2);
    let resource = exporter.snapshot(5_000);
    let of = |name| text(&sum(&resource, name).data_points[0].attributes);
    assert_eq!(of("tcptrace.listen_overflows")[5..], ["queue=syn"]);
    assert_eq!(of("tcptrace.resets")[5..], ["direction=sent"]);
    assert_eq!(of("tcptrace.events_lost"), ["hook=segment"]);
}

#[test]
fn the_resource_is_this_host_unless_the_environment_says_otherwise() {
    let mut exporter = Exporter::new(false);
    let resource = exporter.snapshot(5_000);
    let version = concat!("service.version=", env!("CARGO_PKG_VERSION"));
    let own = [
        "service.name=tcptrace",
        version,
        "service.instance.id=host-1",
        "host.name=host-1",
    ];
    assert_eq!(text(&resource.resource.unwrap().attributes), own);
    let scope = resource.scope_metrics[0].scope.as_ref().unwrap();
    assert_eq!(scope.name, "tcptrace");

    let given = [("service.name", "edge"), ("region", "eu")];
    let given = given.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(
        text(&resource_of("", &given).attributes),
        [version, "service.name=edge", "region=eu"]
    );
}

/// Answers each request with one of the texts, and returns the requests.
fn serve(answers: &'static [&str]) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/metrics", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let answer = |answer: &&str| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![];
            // The bodies end with this byte.
            while request.last() != Some(&b'!') {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            let head = "Connection: close\r\nContent-Length";
            let (status, body) = answer.split_once("\n\n").unwrap_or((answer, ""));
            let length = body.len();
            let text = format!("HTTP/1.1 {status}\r\n{head}: {length}\r\n\r\n{body}");
            stream.write_all(text.as_bytes()).unwrap();
            String::from_utf8_lossy(&request).into_owned()
        };
        answers.iter().map(answer).collect()
    });
    (url, server)
}

fn client(url: &str, more: &[(&str, &str)]) -> Client {
    let get = |name: &str| {
        let url = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", url);
        let mut all = more.iter().copied().chain([url]);
        all.find(|(it, _)| *it == name).map(|(_, it)| it.to_owned())
    };
    let settings = Settings::new(None, false, &get).unwrap();
    Client::new(settings.metrics)
}

fn failed(why: &str, seconds: Option<u64>) -> Outcome {
    Outcome::Failed {
        why: why.to_owned(),
        retry_after: seconds.map(Duration::from_secs),
    }
}

#[test]
fn an_answer_decides_whether_a_request_is_sent_again() {
    let (url, server) = serve(&[
        "200 OK",
        "200 OK\n\n\x0a\x07\x08\x03\x12\x03too",
        "503 Service Unavailable\r\nRetry-After: 7",
        "429 Too Many Requests\n\n\x12\x04busy",
        "400 Bad Request\n\n\x12\x03bad",
        "413 Content Too Large\n\n<html>",
        "307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/",
    ]);
    let client = client(&url, &[("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s%20p")]);
    let outcomes = [(); 7].map(|()| client.post(b"body!", None));
    let taken = |rejected, message: &str| Outcome::Taken {
        rejected,
        message: message.to_owned(),
    };
    let refused = |why: &str| Outcome::Refused {
        why: why.to_owned(),
    };
    assert_eq!(
        outcomes,
        [
            taken(0, ""),
            taken(3, "too"),
            failed("HTTP 503 Service Unavailable", Some(7)),
            failed("HTTP 429 Too Many Requests: busy", None),
            refused("HTTP 400 Bad Request: bad"),
            refused("HTTP 413 Payload Too Large: <html>"),
            refused("HTTP 307 Temporary Redirect"),
        ]
    );
    for request in server.join().unwrap() {
        assert!(
            request.starts_with("POST /v1/metrics HTTP/1.1\r\n"),
            "{request}"
        );
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "body!");
        for header in [
            "content-type: application/x-protobuf",
            "api-key: s p",
            "content-length: 5",
            concat!("user-agent: tcptrace/", env!("CARGO_PKG_VERSION")),
        ] {
            let found = head.lines().any(|line| line.eq_ignore_ascii_case(header));
            assert!(found, "{header}: {head}");
        }
    }
    // Nobody listens any more.
    assert_eq!(
        client.post(b"body!", None),
        failed("Connection refused", None)
    );
}

#[test]
fn a_collector_that_does_not_answer_is_given_up_after_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let client = client(&url, &[("OTEL_EXPORTER_OTLP_TIMEOUT", "50")]);
    let begin = Instant::now();
    assert_eq!(
        client.post(b"x", None),
        failed("no answer within 50ms", None)
    );
    let at_most = Duration::from_millis(10);
    assert_eq!(
        client.post(b"x", Some(at_most)),
        failed("no answer within 10ms", None)
    );
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_body_is_compressed_only_if_asked() {
    let message = vec![7; 10_000];
    let plain = client("http://h/", &[]).body(message.clone()).unwrap();
    assert_eq!(plain, message);
    let client = client("http://h/", &[("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")]);
    let body = client.body(message.clone()).unwrap();
    assert!(body.len() < 200);
    let mut unpacked = vec![];
    flate2::read::GzDecoder::new(&*body)
        .read_to_end(&mut unpacked)
        .unwrap();
    assert_eq!(unpacked, message);
}

#[test]
fn the_rest_of_a_queue_is_given_up_at_the_deadline_and_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let endpoint = Endpoint {
        url,
        headers: vec![],
        timeout: Duration::from_secs(10),
        gzip: false,
    };
    let queue = Queue::new(100, WhenFull::DropNewest);
    let batching = Batching {
        units: 1,
        delay: Duration::ZERO,
    };
    let totals = Totals::default();
    let sending = Sending::start(
        Signal::Traces,
        Client::new(endpoint),
        queue,
        batching,
        totals.clone(),
        |_| vec![],
    );
    let sending = sending.unwrap();
    let adder = sending.adder();
    for units in [40, 60, 7] {
        adder.add(Entry {
            item: (),
            units,
            size: units,
        });
    }
    let deadline = Instant::now() + Duration::from_millis(100);
    sending.close(deadline);
    sending.end(deadline);
    let mut registry = Registry::default();
    totals.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::prometheus_text::encode(&mut text, &registry).unwrap();
    for (reason, units) in [("queue_full", 7), ("end", 100), ("refused", 0)] {
        let line = format!(
            "tcptrace_otlp_dropped_total{{signal=\"traces\",reason=\"{reason}\"}} {units}\n"
        );
        assert!(text.contains(&line), "{line}{text}");
    }
}
