//! The metrics as an OTLP request.
//!
//! The source is Prometheus' data model, so both outputs have the same values. A name is the name of
//! `/metrics` with a dot behind its first word, and without its unit and `_total`. Prometheus' OTLP
//! receiver adds both again.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::hash::{Hash, Hasher};

use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model as model;

use super::proto::*;

/// Makes the requests of one exporter.
pub struct Snapshots {
    resource: Resource,
    exponential: bool,
    /// The time of the last snapshot, or of the start, in nanoseconds since 1970.
    last_ns: u64,
    /// The series of the last snapshot, by a hash of their name and labels.
    series: HashMap<u64, Series>,
    number: u64,
}

/// A cumulative time series.
struct Series {
    start_ns: u64,
    value: f64,
    /// Number of the last snapshot that had it.
    seen: u64,
}

/// A request, and the number of its data points.
pub struct Snapshot {
    pub request: ExportMetricsServiceRequest,
    pub points: u64,
}

impl Snapshots {
    pub fn new(resource: Resource, exponential: bool, now_ns: u64) -> Snapshots {
        Snapshots {
            resource,
            exponential,
            last_ns: now_ns,
            series: HashMap::new(),
            number: 0,
        }
    }

    /// Makes a request of all metrics at this time, in nanoseconds since 1970.
    pub fn take(&mut self, families: Vec<model::MetricFamily>, now_ns: u64) -> Snapshot {
        // The wall clock can be set back.
        self.last_ns = self.last_ns.min(now_ns);
        self.number += 1;
        let mut points = 0;
        let families = families.into_iter().filter(|it| !it.metric.is_empty());
        let metrics = families.filter_map(|family| {
            points += family.metric.len() as u64;
            self.metric(family, now_ns)
        });
        let metrics = metrics.collect();
        self.last_ns = now_ns;
        self.series.retain(|_, series| series.seen == self.number);
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(self.resource.clone()),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(scope()),
                    metrics,
                }],
            }],
        };
        Snapshot { request, points }
    }

    fn metric(&mut self, family: model::MetricFamily, now_ns: u64) -> Option<Metric> {
        let (kind, is_exponential) = (family.r#type(), self.exponential);
        let name = family.name;
        let data = match kind {
            model::MetricType::Counter => Data::Sum(Sum {
                data_points: (family.metric.into_iter())
                    .filter_map(|metric| {
                        let value = metric.counter?.value;
                        let start_ns = self.start(&name, &metric.label, value);
                        Some(number(metric.label, start_ns, now_ns, value))
                    })
                    .collect(),
                aggregation_temporality: CUMULATIVE,
                is_monotonic: true,
            }),
            model::MetricType::Gauge => Data::Gauge(Gauge {
                data_points: (family.metric.into_iter())
                    .filter_map(|metric| Some(number(metric.label, 0, now_ns, metric.gauge?.value)))
                    .collect(),
            }),
            model::MetricType::Histogram => {
                let points = family.metric.into_iter().filter_map(|metric| {
                    let histogram = metric.histogram?;
                    let count = histogram.sample_count as f64;
                    let start_ns = self.start(&name, &metric.label, count);
                    Some((attributes(metric.label), start_ns, histogram))
                });
                match is_exponential {
                    true => Data::Exponential(ExponentialHistogram {
                        data_points: points.map(|it| exponential(it, now_ns)).collect(),
                        aggregation_temporality: CUMULATIVE,
                    }),
                    false => Data::Histogram(Histogram {
                        data_points: points.map(|it| explicit(it, now_ns)).collect(),
                        aggregation_temporality: CUMULATIVE,
                    }),
                }
            }
            _ => return None,
        };
        let (name, unit) = name_and_unit(&name, &family.unit, kind);
        Some(Metric {
            name,
            description: family.help.trim_end_matches('.').to_owned(),
            unit: unit.to_owned(),
            data: Some(data),
        })
    }

    /// Returns the start time of a cumulative series. A series that is new, or that begins again at
    /// a smaller value, began after the last snapshot.
    fn start(&mut self, name: &str, labels: &[model::LabelPair], value: f64) -> u64 {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        for label in labels {
            (&label.name, &label.value).hash(&mut hasher);
        }
        let new = Series {
            start_ns: self.last_ns,
            value,
            seen: self.number,
        };
        match self.series.entry(hasher.finish()) {
            Entry::Vacant(entry) => entry.insert(new).start_ns,
            Entry::Occupied(mut entry) => {
                let before = entry.get();
                let start_ns = match value < before.value {
                    true => new.start_ns,
                    false => before.start_ns.min(self.last_ns),
                };
                entry.insert(Series { start_ns, ..new });
                start_ns
            }
        }
    }
}

/// Returns the origin of the data within a resource.
pub fn scope() -> Scope {
    Scope {
        name: "tcptrace".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Returns the name and the unit (UCUM) of a metric.
fn name_and_unit(name: &str, unit: &str, kind: model::MetricType) -> (String, &'static str) {
    let base = match kind {
        model::MetricType::Counter => name.strip_suffix("_total").unwrap_or(name),
        _ => name,
    };
    let (base, unit) = match unit {
        "seconds" => (base.strip_suffix("_seconds").unwrap_or(base), "s"),
        "bytes" => (base.strip_suffix("_bytes").unwrap_or(base), "By"),
        _ => (base, ""),
    };
    (base.replacen('_', ".", 1), unit)
}

fn attributes(labels: Vec<model::LabelPair>) -> Vec<KeyValue> {
    let attributes = labels.into_iter().map(|label| {
        let key = match label.name.as_str() {
            "container" => "container.id".to_owned(),
            "k8s_pod_name" => "k8s.pod.name".to_owned(),
            "k8s_namespace_name" => "k8s.namespace.name".to_owned(),
            _ => label.name,
        };
        attribute(key, Value::String(label.value))
    });
    attributes.collect()
}

fn number(labels: Vec<model::LabelPair>, start_ns: u64, now_ns: u64, value: f64) -> NumberPoint {
    NumberPoint {
        start_time_unix_nano: start_ns,
        time_unix_nano: now_ns,
        as_double: Some(value),
        attributes: attributes(labels),
    }
}

type Counted = (Vec<KeyValue>, u64, model::Histogram);

fn explicit((attributes, start_ns, histogram): Counted, now_ns: u64) -> HistogramPoint {
    let mut below = 0;
    let counts = histogram.bucket.iter().map(|bucket| {
        let count = bucket.cumulative_count.saturating_sub(below);
        below = bucket.cumulative_count;
        count
    });
    let bounds = histogram.bucket.iter().map(|bucket| bucket.upper_bound);
    HistogramPoint {
        start_time_unix_nano: start_ns,
        time_unix_nano: now_ns,
        count: histogram.sample_count,
        sum: Some(histogram.sample_sum),
        bucket_counts: counts.collect(),
        // The last bucket has no upper bound.
        explicit_bounds: bounds.filter(|bound| bound.is_finite()).collect(),
        attributes,
    }
}

fn exponential((attributes, start_ns, histogram): Counted, now_ns: u64) -> ExponentialPoint {
    ExponentialPoint {
        attributes,
        start_time_unix_nano: start_ns,
        time_unix_nano: now_ns,
        count: histogram.sample_count,
        sum: Some(histogram.sample_sum),
        scale: histogram.schema,
        zero_count: histogram.zero_count,
        positive: Some(buckets(&histogram)),
        zero_threshold: histogram.zero_threshold,
    }
}

/// Converts native buckets. Bucket `n` ends at `base^n` in Prometheus, and begins there in OTLP.
fn buckets(histogram: &model::Histogram) -> Buckets {
    let mut deltas = histogram.positive_delta.iter();
    let (mut offset, mut counts, mut count) = (0, vec![], 0);
    for (n, span) in histogram.positive_span.iter().enumerate() {
        match n {
            0 => offset = span.offset - 1,
            // Later offsets are gaps.
            _ => counts.extend((0..span.offset).map(|_| 0)),
        }
        for delta in deltas.by_ref().take(span.length as usize) {
            count += delta;
            counts.push(count.try_into().unwrap_or(0));
        }
    }
    Buckets {
        offset,
        bucket_counts: counts,
    }
}
