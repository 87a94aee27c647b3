//! Acceptors that use a CPU, or wait for one.

use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tests::is_emulated;
use tests::task::{cpus, join, pin_to, spawn};

use super::{Accounts, delay, delay_ns, functions, late_by, late_with_names};

#[inline(never)]
fn compute_for_a_while() -> u64 {
    let began = Accounts::now();
    let mut sum = 0u64;
    while u128::from(began.until_now().running_ns) < delay().as_nanos() {
        for n in 0..100_000u64 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(n));
        }
    }
    sum
}

#[test]
fn an_acceptor_that_computes_runs_on_a_cpu() {
    let compute = || {
        compute_for_a_while();
    };
    // The symbols of a program take long to read on an emulated machine.
    let late = match is_emulated() {
        true => late_by(compute),
        false => late_with_names(compute),
    };
    late.says(late.longest(), " ms");
    let running_ns = late.line.num("acceptor_running_ns");
    assert!(running_ns >= delay_ns(), "{}", late.line);
    let places = late.line["acceptor_running_in"].as_array().expect("a list");
    let samples: u64 = places.iter().filter_map(|it| it["samples"].as_u64()).sum();
    if late.trace.session()["hooks"]["cpu_sample"].is_null() {
        return;
    }
    // 199 samples a second of CPU time. An emulated CPU that stops misses some.
    let expected = running_ns * 199 / 1_000_000_000;
    let least = expected / if is_emulated() { 8 } else { 2 };
    let range = least..=expected * 3 / 2 + 2;
    assert!(range.contains(&samples), "{samples} in {}", late.line);
    let mut user = places.iter().filter(|it| it["user_mode"] == true);
    // The innermost function needs no frame pointers.
    let is_it = |stack: &Value| {
        let frames = functions(&late.trace, stack, "user_frames");
        let function = frames.first().and_then(|it| it["function"].as_str());
        is_emulated() || function.is_some_and(|it| it.contains("compute_for_a_while"))
    };
    assert!(user.any(|it| is_it(&it["stack"])), "{}", late.line);
}

/// Two threads compute on one CPU, so each waits for half of the time.
#[test]
fn an_acceptor_that_shares_its_cpu_waits_for_it() {
    let late = late_by(|| {
        let cpu = cpus()[0];
        pin_to(cpu);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let (_, other) = spawn(move || {
            pin_to(cpu);
            while !stopped.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        compute_for_a_while();
        stop.store(true, Ordering::Relaxed);
        join(other);
    });
    let line = &late.line;
    let waited = line.num("acceptor_runnable_ns");
    assert!(waited > delay_ns() * 2 / 5, "{line}");
    assert!(line.text("late_because").contains(" for a CPU"), "{line}");
}
