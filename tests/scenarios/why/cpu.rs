//! Acceptors that use a CPU, or wait for one.

use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tests::task::{cpus, join, pin_to, spawn};

use super::{Accounts, CAUSE, functions, late_by, late_with_names};

#[inline(never)]
fn compute_for_a_while() -> u64 {
    let began = Accounts::now();
    let mut sum = 0u64;
    while u128::from(began.until_now().running_ns) < CAUSE.as_nanos() {
        for n in 0..10_000u64 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(n));
        }
    }
    sum
}

#[test]
fn an_acceptor_that_computes_runs_on_a_cpu() {
    let late = late_with_names(|| {
        compute_for_a_while();
    });
    late.says(late.longest(), " ms");
    assert!(
        late.line.num("acceptor_running_ns") >= 200_000_000,
        "{}",
        late.line
    );
    let places = late.line["acceptor_running_in"].as_array().expect("a list");
    let user = places.iter().filter(|it| it["user_mode"] == true);
    let samples: u64 = user.clone().filter_map(|it| it["samples"].as_u64()).sum();
    let sampled = late.trace.session()["hooks"]["cpu_sample"].is_string();
    if sampled {
        // 199 samples a second of CPU time.
        assert!((20..=60).contains(&samples), "{samples} in {}", late.line);
        // The innermost function needs no frame pointers.
        let is_it = |stack: &Value| {
            let frames = functions(&late.trace, stack, "user_frames");
            let function = frames.first().and_then(|it| it["function"].as_str());
            function.is_some_and(|it| it.contains("compute_for_a_while"))
        };
        assert!(user.clone().any(|it| is_it(&it["stack"])), "{}", late.line);
    }
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
    assert!(waited > 80_000_000, "{line}");
    assert!(line.text("late_because").contains(" for a CPU"), "{line}");
}
