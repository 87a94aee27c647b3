//! File systems that are missing.

use std::ffi::CStr;

use nix::sys::signal::Signal;
use tests::programs::Programs;
use tests::run::{Ended, Running, tcptrace_trace};
use tests::traffic::*;
use tests::{Lab, Trace, Tracer, eventually, invariants, mounts};

use crate::{DONE, ended, says};

const UNSUPPORTED: i32 = 4;

/// Traces one connection while the process sees an empty folder at `path`.
fn traced_without(path: &'static CStr) -> (Lab, Ended) {
    let lab = Lab::new();
    let port = lab.port();
    let ports = port.to_string();
    let mut command = tcptrace_trace(&["-o", "json", "-p", &ports]);
    mounts::hide(&mut command, path);
    let mut running = Running::start(command);
    eventually("the session line or the end", || {
        let begun = !running.stdout().is_empty();
        (begun || !running.is_running()).then_some(())
    });
    if !running.is_running() {
        return (lab, running.wait());
    }
    let programs = Programs::of(running.pid());
    talk(port);
    running.signal(Signal::SIGINT);
    let ended = ended(running, &programs);
    (lab, ended)
}

#[test]
fn a_kernel_without_btf_is_refused() {
    for path in [c"/sys/kernel/btf", c"/sys"] {
        let (_lab, ended) = traced_without(path);
        says(
            &ended,
            UNSUPPORTED,
            "tcptrace: this kernel cannot: no BTF (/sys/kernel/btf/vmlinux: No such file or directory \
             (os error 2)); boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, as the distributions' are",
        );
        assert_eq!(ended.stdout, "", "no trace began");
    }
}

#[test]
fn tracing_works_without_tracefs() {
    let lab = Lab::new();
    let port = lab.port();
    let ports = port.to_string();
    let mut command = tcptrace_trace(&["-o", "json", "-p", &ports]);
    mounts::unmount(&mut command, c"/sys/kernel/tracing");
    mounts::unmount(&mut command, c"/sys/kernel/debug/tracing");
    let tracer = Tracer::spawn(&lab, command);
    talk(port);
    tracer.wait_for_ends(2);
    let trace = tracer.stop_filtered(|tuple| [tuple.lport, tuple.rport].contains(&port));
    trace.server().shows(&[("verdict", &"queued")]);
}

/// Names of cgroups and of containers are unknown. Everything else is as usual.
#[test]
fn tracing_works_without_cgroupfs() {
    let (lab, ended) = traced_without(c"/sys/fs/cgroup");
    says(&ended, DONE, "");
    let trace = Trace::read(&ended.stdout, lab.netns);
    invariants::check(&trace);
    let server = trace.server();
    server.shows(&[("verdict", &"queued"), ("complete", &true)]);
    for name in ["cgroup_path", "container"] {
        assert!(server.0.get(name).is_none_or(|it| it.is_null()), "{server}");
    }
}

/// What only /proc has is unknown.
#[test]
fn tracing_works_without_proc() {
    let (lab, ended) = traced_without(c"/proc");
    says(&ended, DONE, "");
    let trace = Trace::read(&ended.stdout, lab.netns);
    invariants::check(&trace);
    trace
        .server()
        .shows(&[("verdict", &"queued"), ("complete", &true)]);
}
