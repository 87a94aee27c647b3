//! Several tracers at once.

use tests::Lab;
use tests::run::{Running, tcptrace_trace};
use tests::task::{join, spawn};
use tests::traffic::*;
use tests::witness::Tuple;

use crate::ends_with_its_summary;

const TRACERS: usize = 10;

#[test]
fn ten_tracers_report_the_same_connections() {
    const CLIENTS: usize = 100;
    let lab = Lab::alone();
    let port = lab.port();
    let ports = port.to_string();
    let tracers: Vec<_> = (0..TRACERS)
        .map(|_| lab.trace_with(&["-p", &ports]))
        .collect();
    storm(port, CLIENTS);
    for tracer in &tracers {
        tracer.wait_for_ends(2 * CLIENTS);
    }
    // Stopping checks each trace, and that its programs are gone.
    let own = |tuple: &Tuple| [tuple.lport, tuple.rport].contains(&port);
    let traces: Vec<_> = tracers
        .into_iter()
        .map(|it| it.stop_filtered(own))
        .collect();
    let of = |trace: &tests::Trace| {
        let lines = trace.connections("server").into_iter();
        let mut lines: Vec<_> = lines
            .map(|it| (it.num("rport"), it["cookie"].clone(), it["verdict"].clone()))
            .collect();
        lines.sort_by_key(|(port, ..)| *port);
        lines
    };
    for trace in &traces {
        assert_eq!(trace.connections("server").len(), CLIENTS);
        let [one, other] = [of(&traces[0]), of(trace)];
        assert_eq!(one, other);
    }
}

#[test]
fn ten_tracers_start_and_end_at_the_same_time() {
    let _lab = Lab::alone();
    for _ in 0..3 {
        let tracers: Vec<_> = (0..TRACERS)
            .map(|n| {
                let duration = format!("{}ms", 50 + n * 10);
                spawn(move || {
                    let args = ["-o", "json", "-p", "1", "--duration", &duration];
                    Running::run_to_end(tcptrace_trace(&args))
                })
            })
            .collect();
        for (_, tracer) in tracers {
            ends_with_its_summary(&join(tracer));
        }
    }
}
