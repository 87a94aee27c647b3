//! The metrics of this process, under the names that all Prometheus clients use.

use std::fmt;

use procfs::process::Process as ProcProcess;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Reads /proc/self at each scrape. A value that cannot be read is left out.
#[derive(Debug)]
pub struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Ok(process) = ProcProcess::myself() else {
            return Ok(());
        };
        let ticks = procfs::ticks_per_second() as f64;
        if let Ok(stat) = process.stat() {
            let cpu = (stat.utime + stat.stime) as f64 / ticks;
            let to = encoder.encode_descriptor(
                "process_cpu",
                "Total user and system CPU time spent in seconds",
                Some(&Unit::Seconds),
                MetricType::Counter,
            )?;
            ConstCounter::new(cpu).encode(to)?;
            let to = encoder.encode_descriptor(
                "process_resident_memory",
                "Resident memory size in bytes",
                Some(&Unit::Bytes),
                MetricType::Gauge,
            )?;
            let bytes = stat.rss.saturating_mul(procfs::page_size());
            ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX)).encode(to)?;
            if let Ok(boot) = procfs::boot_time_secs() {
                let to = encoder.encode_descriptor(
                    "process_start_time",
                    "Start time of the process since unix epoch in seconds",
                    Some(&Unit::Seconds),
                    MetricType::Gauge,
                )?;
                ConstGauge::new(boot as f64 + stat.starttime as f64 / ticks).encode(to)?;
            }
        }
        if let Ok(fds) = process.fd_count() {
            let to = encoder.encode_descriptor(
                "process_open_fds",
                "Number of open file descriptors",
                None,
                MetricType::Gauge,
            )?;
            ConstGauge::new(i64::try_from(fds).unwrap_or(i64::MAX)).encode(to)?;
        }
        Ok(())
    }
}
