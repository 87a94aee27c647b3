//! CPUs that go and come, and more of them than usual. Only in a VM: other programs of a machine
//! need its CPUs.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use tests::Lab;
use tests::task::{cpus, join, pin_to, spawn};
use tests::traffic::*;

/// Switches a CPU on or off.
fn switch(cpu: usize, on: bool) {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/online");
    fs::write(&path, if on { "1" } else { "0" }).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// Storms on each of these CPUs at the same time.
fn storms(port: u16, on: &[usize], clients: usize) {
    let storms: Vec<_> = on
        .iter()
        .enumerate()
        .map(|(n, &cpu)| {
            let port = port + n as u16;
            spawn(move || {
                pin_to(cpu);
                storm(port, clients);
            })
        })
        .collect();
    storms.into_iter().for_each(|(_, it)| join(it));
}

/// Asserts that each connection was reported once and completely.
fn all_are_complete(trace: &tests::Trace, connections: usize) {
    for side in ["server", "client"] {
        let lines = trace.connections(side);
        assert_eq!(lines.len(), connections, "{side}");
        for line in lines {
            line.shows(&[("state", &"CLOSE"), ("complete", &true)]);
        }
    }
}

#[test]
#[ignore = "switches CPUs off: only in a VM"]
fn cpus_that_go_and_come_lose_nothing() {
    const CLIENTS: usize = 20;
    let all = cpus();
    assert!(all.len() >= 4, "{all:?}");
    let lab = Lab::alone();
    let port = lab.port();
    let tracer = lab.trace();
    storms(port, &all[..4], CLIENTS);
    let mut made = 4 * CLIENTS;
    for &cpu in &all[2..] {
        switch(cpu, false);
    }
    storms(port, &all[..2], CLIENTS);
    made += 2 * CLIENTS;
    for &cpu in &all[2..] {
        switch(cpu, true);
    }
    storms(port, &all[..4], CLIENTS);
    made += 4 * CLIENTS;
    tracer.wait_for_ends(2 * made);
    all_are_complete(&tracer.stop(), made);
}

/// The maps have room for CPUs that are off when the trace begins.
#[test]
#[ignore = "switches CPUs off: only in a VM"]
fn a_cpu_that_comes_after_the_start_is_traced() {
    const CLIENTS: usize = 20;
    let all = cpus();
    let last = *all.last().expect("a CPU");
    switch(last, false);
    let lab = Lab::alone();
    let port = lab.port();
    let tracer = lab.trace();
    switch(last, true);
    storms(port, &[last, all[0]], CLIENTS);
    tracer.wait_for_ends(4 * CLIENTS);
    all_are_complete(&tracer.stop(), 2 * CLIENTS);
    sleep(Duration::from_millis(1));
}

/// A VM may have room for more CPUs than it has.
#[test]
#[ignore = "wants eight CPUs: only in a VM"]
fn eight_cpus_lose_nothing() {
    const CLIENTS: usize = 20;
    let all = cpus();
    assert_eq!(all.len(), 8);
    let possible = fs::read_to_string("/sys/devices/system/cpu/possible").expect("sysfs");
    assert_ne!(possible.trim(), "0-7", "some CPUs are possible and absent");
    let lab = Lab::alone();
    let port = lab.port();
    let tracer = lab.trace();
    storms(port, &all, CLIENTS);
    tracer.wait_for_ends(2 * 8 * CLIENTS);
    all_are_complete(&tracer.stop(), 8 * CLIENTS);
}
