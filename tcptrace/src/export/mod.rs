//! `tcptrace export`: a trace as metrics for Prometheus and OpenTelemetry.
//!
//! The pipeline passes lines to [`Fold`], which adds them to the metrics of `metrics.rs`. The thread
//! of `http.rs` encodes the metrics for each scrape, and a thread of `otlp` for a collector. They share
//! the metrics; each metric has its own lock, held for one value or one scrape of one metric.

mod fold;
mod health;
mod http;
mod metrics;
mod otlp;
mod process;
mod rows;
mod systemd;
#[cfg(test)]
mod tests;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use anyhow::Context;

use self::fold::Fold;
use self::health::Health;
use self::http::Server;
use self::metrics::Metrics;
use self::otlp::{Otlp, Settings, Totals, Tracer};
use crate::cli::{Export, hints};
use crate::clock::{Clock, mono_now_ns};
use crate::depth::Depth;
use crate::exit;
use crate::fields::{Line, Wanted};
use crate::pipeline::Output;
use crate::sink::Sink;
use crate::stdio::{plain, say};
use crate::tracing::{Needed, Outputs, Plan, Tracing, Until};

/// Time between two searches for metrics that expire, and two measurements of the wall clock, in
/// nanoseconds.
const EXPIRE_EVERY_NS: u64 = 1_000_000_000;

/// The sink that feeds the metrics.
struct Exporter {
    fold: Fold,
    tracer: Option<Tracer>,
    health: Arc<Health>,
    expired_ns: u64,
}

impl Sink for Exporter {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        self.fold.line(line);
        if let Some(tracer) = &mut self.tracer {
            tracer.line(line);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let now_ns = mono_now_ns();
        self.health.alive(now_ns);
        if now_ns.saturating_sub(self.expired_ns) >= EXPIRE_EVERY_NS {
            self.expired_ns = now_ns;
            self.fold.expire(now_ns);
            if let Some(tracer) = &mut self.tracer {
                tracer.measure_clock();
            }
        }
        Ok(())
    }

    fn wants(&self) -> Wanted {
        match self.tracer {
            Some(_) => Fold::wants() | Tracer::wants(),
            None => Fold::wants(),
        }
    }
}

/// Runs `tcptrace export`. Returns the exit code.
pub async fn run(options: &Export) -> anyhow::Result<u8> {
    let variable = |name: &str| Some(std::env::var_os(name)?.to_string_lossy().into_owned());
    let settings = match options.otlp_url() {
        Some(url) => Some(Settings::new(url, options.otlp_traces, &variable)?),
        None => None,
    };
    // Before anything is attached: a port in use is a common mistake.
    let listener = match systemd::listener()? {
        Some(listener) => listener,
        None => TcpListener::bind(options.listen)
            .map_err(|error| anyhow::anyhow!("{}", plain(&error)))
            .with_context(|| format!("cannot listen on {}", options.listen))?,
    };
    let address = listener.local_addr()?;
    let max_listeners = options.max_listeners as usize;
    let metrics = Arc::new(Metrics::new());
    let health = Arc::new(Health::new());
    let mut registry = metrics.registry(max_listeners);
    let totals = Totals::default();
    if settings.is_some() {
        totals.register(&mut registry);
    }
    let registry = Arc::new(registry);
    let mut otlp = match &settings {
        Some(settings) => Some(Otlp::start(settings, &totals)?),
        None => None,
    };
    let slow = options.slow;
    let exporter = Exporter {
        fold: Fold::new(metrics, max_listeners),
        tracer: otlp.as_ref().and_then(|otlp| otlp.tracer(slow)),
        health: health.clone(),
        expired_ns: 0,
    };
    let output = Output {
        name: "the metrics".to_owned(),
        sink: Box::new(exporter),
    };
    let request = options.request();
    let open = || {
        Ok(Outputs {
            lines: vec![output],
            recording: None,
        })
    };
    let plan = Plan {
        request: &request,
        clock: Clock::measure(),
        selection: options.filters.selection(),
        depth: Depth::Events,
        count: None,
    };
    let mut tracing = Tracing::start(plan, open)?.with_ticks();
    tracing.confine(Needed::NOTHING)?;
    let server = Server::start(listener, registry.clone(), health.clone())?;
    if let (Some(otlp), Some(settings)) = (&mut otlp, &settings) {
        otlp.begin_metrics(settings, registry)?;
    }
    say(format_args!("metrics are at http://{address}/metrics"));
    systemd::ready();
    let watchdog = systemd::watch(health);
    let traced = tracing.trace(Until::default(), None).await;
    systemd::stopping();
    watchdog.inspect(|task| task.abort());
    // At the end of a trace, each open connection has a line. These are no news for the metrics.
    server.stop();
    if let Some(otlp) = &otlp {
        otlp.end_metrics();
    }
    let outcome = match traced {
        Ok(_) => tracing.end().await,
        Err(error) => Err(error),
    };
    if let Some(otlp) = otlp {
        otlp.end();
    }
    let outcome = outcome?;
    if outcome.lost {
        let filtered = !request.filter.describe().is_empty();
        say(hints::lost(request.ring_bytes, filtered, false));
    }
    Ok(exit::DONE)
}
