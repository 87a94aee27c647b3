//! The metrics: their names, help texts and buckets. Names and labels are a contract.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, NativeHistogramConfig};
use prometheus_client::registry::{Registry, Unit};
use serde::Serialize;
use smallvec::{SmallVec, smallvec};

use super::process::Process;
use crate::event::{Direction, Hook, ListenQueue, Retransmitted};
use crate::fields::{Ended, LateReason, Side, Verdict};

/// Upper bounds of the classic buckets, in seconds: 10 µs to 10 s.
pub const BUCKETS: [f64; 19] = [
    10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3,
    250e-3, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Upper bound on the growth from one native bucket to the next, so a native quantile is at most a
/// tenth too large.
const NATIVE_FACTOR: f64 = 1.1;

/// Upper bound on the native buckets of a histogram. Beyond it, neighbours are merged.
const NATIVE_BUCKETS: usize = 160;

/// The value of the label `listener` for what does not fit in `--max-listeners`.
pub const OTHER: &str = "other";

/// The labels that all metrics of a listener have. An empty label is left out. Prometheus treats
/// both alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Row {
    /// Address and port of a listener, [`OTHER`], or empty for clients.
    pub listener: String,
    pub container: String,
    pub k8s_pod_name: String,
    pub k8s_namespace_name: String,
    /// The name of the process.
    pub service: String,
}

type More = SmallVec<[(&'static str, Cow<'static, str>); 2]>;

/// The labels of one time series.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Labels {
    row: Arc<Row>,
    more: More,
}

impl Labels {
    pub fn of(row: &Arc<Row>, more: More) -> Labels {
        Labels {
            row: row.clone(),
            more,
        }
    }

    /// The labels of a metric that belongs to no listener.
    fn of_none(more: More) -> Labels {
        Labels::of(&Arc::default(), more)
    }
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let Row {
            listener,
            container,
            k8s_pod_name,
            k8s_namespace_name,
            service,
        } = &*self.row;
        let row = [
            ("listener", listener.as_str()),
            ("container", container),
            ("k8s_pod_name", k8s_pod_name),
            ("k8s_namespace_name", k8s_namespace_name),
            ("service", service),
        ];
        let more = self.more.iter().map(|(name, value)| (*name, &**value));
        for label in row.into_iter().chain(more) {
            if !label.1.is_empty() {
                label.encode(encoder.encode_label())?;
            }
        }
        Ok(())
    }
}

/// A counter of one listener.
#[derive(Clone, Debug, PartialEq)]
pub enum Count {
    /// `tcptrace_connections_total`
    Verdict(Verdict),
    /// `tcptrace_connections_ended_total`; `None` if the evidence does not decide.
    Ended(Option<Ended>),
    /// `tcptrace_listen_overflows_total`
    Overflow(ListenQueue),
    /// `tcptrace_half_open_failed_total`
    HalfOpenFailed,
    /// `tcptrace_retransmits_total`
    Retransmit(Retransmitted),
    /// `tcptrace_resets_total`; the reason is `None` if unknown.
    Reset(Direction, Option<String>),
}

impl Count {
    fn labels(&self) -> More {
        match self {
            Count::Verdict(verdict) => smallvec![("verdict", verdict.name().into())],
            Count::Ended(ended) => smallvec![("how", name(ended).into())],
            Count::Overflow(queue) => smallvec![("queue", name(queue).into())],
            Count::HalfOpenFailed => smallvec![],
            Count::Retransmit(what) => smallvec![("what", name(what).into())],
            Count::Reset(direction, reason) => smallvec![
                ("direction", name(direction).into()),
                ("reason", reason.clone().unwrap_or_default().into()),
            ],
        }
    }
}

/// Returns the value's name in JSON, or `unknown` for null.
fn name(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => "unknown".to_owned(),
    }
}

/// Makes histograms with classic and native buckets.
#[derive(Clone)]
struct Times;

impl MetricConstructor<Histogram> for Times {
    fn new_metric(&self) -> Histogram {
        let native = NativeHistogramConfig::new(NATIVE_FACTOR).max_buckets(NATIVE_BUCKETS);
        Histogram::new_classic_and_native(BUCKETS, native)
    }
}

type Counters<N = u64> = Family<Labels, Counter<N, AtomicU64>>;

/// Every metric that follows from the lines of a trace. A metric without a series is not exported.
pub struct Metrics {
    waits: Family<Labels, Histogram, Times>,
    handshakes: Family<Labels, Histogram, Times>,
    lengths: Family<Labels, Gauge>,
    limits: Family<Labels, Gauge>,
    connections: Counters,
    ended: Counters,
    overflows: Counters,
    half_open_failed: Counters,
    retransmits: Counters,
    resets: Counters,
    late: Counters<f64>,
    lost: Counters,
    pub label_sets: Gauge,
    pub over_limit: Counter,
}

impl Metrics {
    pub fn new() -> Metrics {
        Metrics {
            waits: Family::new_with_constructor(Times),
            handshakes: Family::new_with_constructor(Times),
            lengths: Family::default(),
            limits: Family::default(),
            connections: Family::default(),
            ended: Family::default(),
            overflows: Family::default(),
            half_open_failed: Family::default(),
            retransmits: Family::default(),
            resets: Family::default(),
            late: Family::default(),
            lost: Family::default(),
            label_sets: Gauge::default(),
            over_limit: Counter::default(),
        }
    }

    /// Returns the registry with all metrics, and those of this process.
    pub fn registry(&self, max_listeners: usize) -> Registry {
        let mut all = Registry::default();
        let registry = all.sub_registry_with_prefix("tcptrace");
        registry.register_with_unit(
            "accept_queue_wait",
            "Time from ESTABLISHED to the return of accept(), counted when accept() returns",
            Unit::Seconds,
            self.waits.clone(),
        );
        registry.register_with_unit(
            "handshake_duration",
            "Time from the SYN to ESTABLISHED, counted when the connection ends",
            Unit::Seconds,
            self.handshakes.clone(),
        );
        registry.register(
            "accept_queue_length",
            "Connections in the accept queue; absent while unknown",
            self.lengths.clone(),
        );
        registry.register(
            "accept_queue_limit",
            "Limit of the accept queue, which holds one connection more",
            self.limits.clone(),
        );
        registry.register(
            "connections",
            "Connections of servers by the order of handshake and accept(), counted when accept() \
             returns, or else at their end",
            self.connections.clone(),
        );
        registry.register(
            "connections_ended",
            "Ended connections of servers and clients by the way they ended",
            self.ended.clone(),
        );
        registry.register(
            "listen_overflows",
            "Segments that met a full queue and were dropped; absent if no hook sees them",
            self.overflows.clone(),
        );
        registry.register(
            "half_open_failed",
            "Half-open connections whose handshake never finished; absent if no hook sees them",
            self.half_open_failed.clone(),
        );
        registry.register(
            "retransmits",
            "Retransmitted segments",
            self.retransmits.clone(),
        );
        registry.register(
            "resets",
            "RSTs that were sent, and received RSTs that ended a socket; absent if no hook sees them",
            self.resets.clone(),
        );
        registry.register_with_unit(
            "late",
            "Waits in the accept queue longer than the time of --why, each part by its reason",
            Unit::Seconds,
            self.late.clone(),
        );
        registry.register(
            "events_lost",
            "Events that were lost between the kernel and this process",
            self.lost.clone(),
        );
        registry.register(
            "label_sets",
            "Sets of labels in use: one for each listener, and one for each process name of clients",
            self.label_sets.clone(),
        );
        let limit = Gauge::<i64>::default();
        limit.set(max_listeners.try_into().unwrap_or(i64::MAX));
        registry.register("label_sets_limit", "The value of --max-listeners", limit);
        registry.register(
            "over_limit_lines",
            "Lines of the trace that are counted under listener=\"other\" because --max-listeners \
             was reached",
            self.over_limit.clone(),
        );
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let info = prometheus_client::metrics::info::Info::new(version);
        registry.register("build", "The version of tcptrace", info);
        all.register_collector(Box::new(Process));
        all
    }

    fn counters(&self, count: &Count) -> &Counters {
        match count {
            Count::Verdict(_) => &self.connections,
            Count::Ended(_) => &self.ended,
            Count::Overflow(_) => &self.overflows,
            Count::HalfOpenFailed => &self.half_open_failed,
            Count::Retransmit(_) => &self.retransmits,
            Count::Reset(..) => &self.resets,
        }
    }

    /// Counts lost events of a hook.
    pub fn lose(&self, hook: Hook, count: u64) {
        let labels = Labels::of_none(smallvec![("hook", hook.name().into())]);
        self.lost.get_or_create(&labels).inc_by(count);
    }
}

/// The metrics of one row of labels. Only these are removed with the row.
pub struct RowMetrics {
    all: Arc<Metrics>,
    row: Arc<Row>,
    length: Option<Gauge>,
    limit: Option<Gauge>,
    waits: Option<Histogram>,
    handshakes: [Option<Histogram>; 2],
    counters: Vec<(Count, Counter)>,
    late: Vec<LateReason>,
}

impl RowMetrics {
    pub fn new(all: &Arc<Metrics>, row: &Arc<Row>) -> RowMetrics {
        RowMetrics {
            all: all.clone(),
            row: row.clone(),
            length: None,
            limit: None,
            waits: None,
            handshakes: [None, None],
            counters: vec![],
            late: vec![],
        }
    }

    fn labels(&self, more: More) -> Labels {
        Labels::of(&self.row, more)
    }

    pub fn add(&mut self, count: Count, n: u64) {
        let known = self.counters.iter().find(|(it, _)| *it == count);
        if let Some((_, counter)) = known {
            counter.inc_by(n);
            return;
        }
        let labels = self.labels(count.labels());
        let counter = self.all.counters(&count).get_or_create_owned(&labels);
        counter.inc_by(n);
        self.counters.push((count, counter));
    }

    pub fn wait(&mut self, ns: u64) {
        if self.waits.is_none() {
            let labels = self.labels(smallvec![]);
            self.waits = Some(self.all.waits.get_or_create_owned(&labels));
        }
        if let Some(waits) = &self.waits {
            waits.observe(seconds(ns));
        }
    }

    pub fn handshake(&mut self, side: Side, ns: u64) {
        let index = usize::from(side == Side::Client);
        if self.handshakes[index].is_none() {
            let labels = self.labels(smallvec![("role", side.name().into())]);
            self.handshakes[index] = Some(self.all.handshakes.get_or_create_owned(&labels));
        }
        if let Some(handshakes) = &self.handshakes[index] {
            handshakes.observe(seconds(ns));
        }
    }

    pub fn late(&mut self, reason: LateReason, ns: u64) {
        if !self.late.contains(&reason) {
            self.late.push(reason);
        }
        let labels = self.late_labels(reason);
        self.all.late.get_or_create(&labels).inc_by(seconds(ns));
    }

    fn late_labels(&self, reason: LateReason) -> Labels {
        self.labels(smallvec![("reason", reason.name().into())])
    }

    /// Sets the length of the queue; `None` removes the series.
    pub fn length(&mut self, length: Option<u64>) {
        set(&self.all.lengths, &self.row, &mut self.length, length);
    }

    /// Sets the limit of the queue; `None` removes the series.
    pub fn limit(&mut self, limit: Option<u64>) {
        set(&self.all.limits, &self.row, &mut self.limit, limit);
    }

    /// Removes every series of this row.
    pub fn remove(self) {
        let plain = self.labels(smallvec![]);
        self.all.waits.remove(&plain);
        self.all.lengths.remove(&plain);
        self.all.limits.remove(&plain);
        for side in [Side::Server, Side::Client] {
            let labels = self.labels(smallvec![("role", side.name().into())]);
            self.all.handshakes.remove(&labels);
        }
        for (count, _) in &self.counters {
            let labels = self.labels(count.labels());
            self.all.counters(count).remove(&labels);
        }
        for reason in &self.late {
            self.all.late.remove(&self.late_labels(*reason));
        }
    }
}

fn set(
    gauges: &Family<Labels, Gauge>,
    row: &Arc<Row>,
    gauge: &mut Option<Gauge>,
    value: Option<u64>,
) {
    match (value, &gauge) {
        (Some(value), _) => {
            let new = || gauges.get_or_create_owned(&Labels::of(row, smallvec![]));
            let value = value.try_into().unwrap_or(i64::MAX);
            gauge.get_or_insert_with(new).set(value);
        }
        (None, Some(_)) => {
            gauges.remove(&Labels::of(row, smallvec![]));
            *gauge = None;
        }
        (None, None) => {}
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
