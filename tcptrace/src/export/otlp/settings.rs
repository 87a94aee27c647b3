//! The settings of `--otlp`: the option's URL and the variables `OTEL_*` of OpenTelemetry.
//!
//! See <https://opentelemetry.io/docs/specs/otel/protocol/exporter/> and
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use ureq::http::{HeaderName, HeaderValue, Uri};

use super::Signal;
use crate::exit::Usage;

/// The collector on this machine, as the specification has it.
const DEFAULT_URL: &str = "http://localhost:4318";

/// Where and how the data of one signal is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub url: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Upper bound on the time of a request.
    pub timeout: Duration,
    pub gzip: bool,
}

/// How spans are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    pub endpoint: Endpoint,
    /// Upper bound on the spans in the queue.
    pub queue: u64,
    /// Upper bound on the spans in a request.
    pub batch: u64,
    /// How long a span waits for others.
    pub delay: Duration,
}

impl Endpoint {
    /// Returns the port that requests go to.
    pub fn port(&self) -> u16 {
        let uri = self.url.parse::<Uri>();
        let port = uri.ok().and_then(|it| it.port_u16());
        port.unwrap_or(80)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub metrics: Endpoint,
    /// `None` if no spans are sent.
    pub traces: Option<Traces>,
    /// Time between two snapshots of the metrics.
    pub interval: Duration,
    /// Whether histograms are sent with exponential buckets.
    pub exponential: bool,
    /// Attributes of the resource that the variables give.
    pub resource: Vec<(String, String)>,
}

/// The variables of the environment. An empty variable counts as unset, as specified.
struct Environment<'a>(&'a dyn Fn(&str) -> Option<String>);

type Result<T> = std::result::Result<T, Usage>;

impl Settings {
    /// Combines the option's URL, which takes precedence, with the environment. Without `url`, the
    /// variables and then [`DEFAULT_URL`] count. Spans are sent if `has_traces` is true.
    ///
    /// # Errors
    /// A value is wrong, or asks for what is not supported.
    pub fn new(
        url: Option<&str>,
        has_traces: bool,
        get: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Settings> {
        let environment = Environment(get);
        let exponential = environment.parsed(
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
            |value| match value {
                "explicit_bucket_histogram" => Ok(false),
                "base2_exponential_bucket_histogram" => Ok(true),
                _ => Err("explicit_bucket_histogram or base2_exponential_bucket_histogram"),
            },
        )?;
        environment.parsed(
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
            |value| match value {
                "cumulative" => Ok(()),
                _ => Err("cumulative; a collector can convert to deltas (cumulativetodelta)"),
            },
        )?;
        let interval = environment.milliseconds("OTEL_METRIC_EXPORT_INTERVAL")?;
        Ok(Settings {
            metrics: environment.endpoint(Signal::Metrics, url)?,
            traces: match has_traces {
                true => Some(environment.traces(url)?),
                false => None,
            },
            interval: interval.unwrap_or(Duration::from_secs(60)),
            exponential: exponential.unwrap_or(false),
            resource: environment.resource()?,
        })
    }
}

impl Environment<'_> {
    fn get(&self, name: &str) -> Option<String> {
        let value = (self.0)(name)?;
        Some(value.trim().to_owned()).filter(|it| !it.is_empty())
    }

    /// Returns the variable of a signal, or else that of all signals, with its name.
    fn of_signal(&self, signal: Signal, what: &str) -> Option<(String, String)> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.variable());
        let all = format!("OTEL_EXPORTER_OTLP_{what}");
        [own, all]
            .into_iter()
            .find_map(|name| Some((self.get(&name)?, name)))
    }

    fn parsed<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> std::result::Result<T, &'static str>,
    ) -> Result<Option<T>> {
        self.get(name)
            .map(|value| parse(&value).map_err(|takes| refused(name, &value, takes)))
            .transpose()
    }

    fn milliseconds(&self, name: &str) -> Result<Option<Duration>> {
        self.parsed(name, milliseconds)
    }

    fn number(&self, name: &str) -> Result<Option<u64>> {
        let parse = |value: &str| match value.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err("a number above 0"),
        };
        self.parsed(name, parse)
    }

    fn traces(&self, url: Option<&str>) -> Result<Traces> {
        let delay = self.milliseconds("OTEL_BSP_SCHEDULE_DELAY")?;
        Ok(Traces {
            endpoint: self.endpoint(Signal::Traces, url)?,
            queue: self.number("OTEL_BSP_MAX_QUEUE_SIZE")?.unwrap_or(2048),
            batch: self
                .number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE")?
                .unwrap_or(512),
            delay: delay.unwrap_or(Duration::from_secs(5)),
        })
    }

    fn endpoint(&self, signal: Signal, url: Option<&str>) -> Result<Endpoint> {
        let url = match url {
            Some(url) => with_path(url, signal).map_err(|why| refused("--otlp", url, &why))?,
            None => self.url(signal)?,
        };
        if let Some((value, name)) = self.of_signal(signal, "PROTOCOL")
            && value != "http/protobuf"
        {
            let takes = "http/protobuf, which collectors take at port 4318";
            return Err(refused(&name, &value, takes));
        }
        let timeout = match self.of_signal(signal, "TIMEOUT") {
            Some((value, name)) => {
                milliseconds(&value).map_err(|takes| refused(&name, &value, takes))?
            }
            None => Duration::from_secs(10),
        };
        let gzip = match self.of_signal(signal, "COMPRESSION") {
            None => false,
            Some((value, name)) => match value.as_str() {
                "gzip" => true,
                "none" => false,
                _ => return Err(refused(&name, &value, "gzip or none")),
            },
        };
        let headers = match self.of_signal(signal, "HEADERS") {
            Some((value, name)) => headers(&value).ok_or_else(|| {
                // The value may be a secret.
                Usage(format!("{name} takes KEY=VALUE,KEY=VALUE, percent-encoded"))
            })?,
            None => vec![],
        };
        Ok(Endpoint {
            url,
            headers,
            timeout,
            gzip,
        })
    }

    fn url(&self, signal: Signal) -> Result<String> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.variable());
        if let Some(url) = self.get(&own) {
            return checked(&url)
                .map(|_| url.clone())
                .map_err(|why| refused(&own, &url, &why));
        }
        let name = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let url = self.get(name).unwrap_or_else(|| DEFAULT_URL.to_owned());
        with_path(&url, signal).map_err(|why| refused(name, &url, &why))
    }

    fn resource(&self) -> Result<Vec<(String, String)>> {
        let name = "OTEL_RESOURCE_ATTRIBUTES";
        let mut resource = match self.get(name) {
            Some(value) => pairs(&value)
                .ok_or_else(|| refused(name, &value, "KEY=VALUE,KEY=VALUE, percent-encoded"))?,
            None => vec![],
        };
        if let Some(service) = self.get("OTEL_SERVICE_NAME") {
            resource.retain(|(key, _)| key != "service.name");
            resource.push(("service.name".to_owned(), service));
        }
        Ok(resource)
    }
}

fn refused(name: &str, value: &str, takes: &str) -> Usage {
    Usage(format!("{name} is {value:?}, but takes {takes}"))
}

fn milliseconds(value: &str) -> std::result::Result<Duration, &'static str> {
    match value.parse() {
        Ok(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
        _ => Err("milliseconds, such as 10000"),
    }
}

/// Checks a URL.
fn checked(url: &str) -> std::result::Result<Uri, String> {
    const TAKES: &str = "a URL such as http://localhost:4318";
    let uri: Uri = url.parse().map_err(|_| TAKES.to_owned())?;
    let authority = uri.authority().filter(|it| !it.host().is_empty());
    let authority = authority.ok_or(TAKES)?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err(
                "http:// only; for TLS, send to a collector on this machine that forwards over https"
                    .to_owned(),
            );
        }
        _ => return Err(TAKES.to_owned()),
    }
    if authority.as_str().contains('@') {
        return Err("no password; put an authorization into OTEL_EXPORTER_OTLP_HEADERS".to_owned());
    }
    if uri.query().is_some() {
        return Err("a URL without a query".to_owned());
    }
    Ok(uri)
}

/// Appends the path of a signal to the base URL of a collector.
fn with_path(url: &str, signal: Signal) -> std::result::Result<String, String> {
    let uri = checked(url)?;
    let path = uri.path().trim_end_matches('/');
    if let Some(base) = Signal::ALL
        .iter()
        .find_map(|signal| path.strip_suffix(signal.path()))
    {
        let host = uri.authority().map_or("", |it| it.as_str());
        return Err(format!(
            "the collector's base URL, here http://{host}{base}"
        ));
    }
    let base = url.trim_end_matches('/');
    Ok(format!("{base}{}", signal.path()))
}

/// Parses a list such as `a=1,b=2` with percent-encoded values.
fn pairs(list: &str) -> Option<Vec<(String, String)>> {
    let members = list
        .split(',')
        .map(str::trim)
        .filter(|member| !member.is_empty());
    let pair = |member: &str| {
        let (key, value) = member.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        let key = percent_decode_str(key.trim()).decode_utf8().ok()?;
        (!key.is_empty()).then(|| (key.into_owned(), value.into_owned()))
    };
    members.map(pair).collect()
}

fn headers(list: &str) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let header = |(name, value): (String, String)| {
        let mut value = HeaderValue::from_str(&value).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::try_from(name).ok()?, value))
    };
    pairs(list)?.into_iter().map(header).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: Option<&str>, variables: &[(&str, &str)]) -> Result<Settings> {
        let get = |name: &str| {
            let found = variables.iter().find(|(it, _)| *it == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Settings::new(url, true, &get)
    }

    fn refusal(url: Option<&str>, variables: &[(&str, &str)]) -> String {
        settings(url, variables).unwrap_err().to_string()
    }

    #[test]
    fn without_variables_the_collector_of_this_machine_is_the_target() {
        let defaults = settings(None, &[]).unwrap();
        let endpoint = |url: &str| Endpoint {
            url: url.to_owned(),
            headers: vec![],
            timeout: Duration::from_secs(10),
            gzip: false,
        };
        assert_eq!(
            defaults,
            Settings {
                metrics: endpoint("http://localhost:4318/v1/metrics"),
                traces: Some(Traces {
                    endpoint: endpoint("http://localhost:4318/v1/traces"),
                    queue: 2048,
                    batch: 512,
                    delay: Duration::from_secs(5),
                }),
                interval: Duration::from_secs(60),
                exponential: false,
                resource: vec![],
            }
        );
        assert_eq!(
            settings(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]).unwrap(),
            defaults
        );
    }

    #[test]
    fn the_option_takes_precedence_over_the_signals_variable_and_that_over_the_common_one() {
        let common = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://common:1/base/");
        let own = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://own:2/as/is");
        for (url, variables, expected) in [
            (None, &[common][..], "http://common:1/base/v1/metrics"),
            (None, &[common, own], "http://own:2/as/is"),
            (
                Some("http://[::1]:3"),
                &[common, own],
                "http://[::1]:3/v1/metrics",
            ),
        ] {
            assert_eq!(settings(url, variables).unwrap().metrics.url, expected);
        }
    }

    #[test]
    fn variables_of_a_signal_take_precedence_over_the_common_ones() {
        let found = settings(
            None,
            &[
                ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=common"),
                ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "api-key=s%20p, x=,"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "5"),
                ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "2500"),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf"),
                ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
                ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces/"),
                ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none"),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "9"),
                ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "3"),
                ("OTEL_BSP_SCHEDULE_DELAY", "20"),
                ("OTEL_METRIC_EXPORT_INTERVAL", "1000"),
                (
                    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
                    "base2_exponential_bucket_histogram",
                ),
            ],
        );
        let found = found.unwrap();
        let headers: Vec<_> = (found.metrics.headers.iter())
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(headers, [("api-key", "s p"), ("x", "")]);
        assert_eq!(found.metrics.timeout, Duration::from_millis(2500));
        assert!(found.metrics.gzip && found.exponential);
        assert_eq!(found.interval, Duration::from_secs(1));
        let traces = found.traces.unwrap();
        assert_eq!(
            (traces.queue, traces.batch, traces.delay),
            (9, 3, Duration::from_millis(20))
        );
        assert_eq!(traces.endpoint.url, "http://traces/");
        assert_eq!(traces.endpoint.headers[0].1, "common");
        assert_eq!(traces.endpoint.timeout, Duration::from_millis(5));
        assert!(!traces.endpoint.gzip);
    }

    #[test]
    fn the_service_name_takes_precedence_over_the_resource_attributes() {
        let attributes = (
            "OTEL_RESOURCE_ATTRIBUTES",
            "service.name=a,deployment.environment.name=pre%2Cprod",
        );
        let environment = (
            "deployment.environment.name".to_owned(),
            "pre,prod".to_owned(),
        );
        let name = |name: &str| ("service.name".to_owned(), name.to_owned());
        assert_eq!(
            settings(None, &[attributes]).unwrap().resource,
            [name("a"), environment.clone()]
        );
        assert_eq!(
            settings(None, &[attributes, ("OTEL_SERVICE_NAME", "b")])
                .unwrap()
                .resource,
            [environment, name("b")]
        );
    }

    #[test]
    fn wrong_values_are_refused_with_the_name_of_their_source() {
        for (url, said) in [
            (
                "localhost:4318",
                "--otlp is \"localhost:4318\", but takes a URL such as http://localhost:4318",
            ),
            ("http://", "takes a URL such as"),
            ("ftp://h", "takes a URL such as"),
            (
                "https://h:4318",
                "http:// only; for TLS, send to a collector on this machine",
            ),
            (
                "http://user:word@h",
                "no password; put an authorization into",
            ),
            (
                "http://h/v1/metrics",
                "the collector's base URL, here http://h",
            ),
            (
                "http://h:1/p/v1/traces/",
                "the collector's base URL, here http://h:1/p",
            ),
            ("http://h/?a", "without a query"),
        ] {
            assert!(
                refusal(Some(url), &[]).contains(said),
                "{url}: {}",
                refusal(Some(url), &[])
            );
        }
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://h"),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "h"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "0"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "-1"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_SCHEDULE_DELAY", "5s"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta"),
            (
                "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
                "x",
            ),
        ] {
            let said = refusal(None, &[(name, value)]);
            assert!(
                said.starts_with(&format!("{name} is {value:?}, but takes ")),
                "{said}"
            );
        }
        let secret = refusal(None, &[("OTEL_EXPORTER_OTLP_HEADERS", "secret")]);
        assert!(
            secret.starts_with("OTEL_EXPORTER_OTLP_HEADERS takes") && !secret.contains("secret")
        );
    }
}
