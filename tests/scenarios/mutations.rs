//! Mutation tests of the checks that every scenario relies on: each check must reject a real trace
//! with one change.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::json;
use tests::traffic::*;
use tests::witness::{Seen, Share, compare};
use tests::{Lab, Line, Trace, invariants};

/// Returns a trace of one connection and the records of the witness.
fn a_sound_trace() -> (Trace, Vec<Seen>) {
    // Alone, so that every line is about this connection.
    let lab = Lab::alone();
    let tracer = lab.trace();
    talk(lab.port());
    tracer.wait_for_ends(2);
    tracer.stop_with_testimony()
}

fn line<'a>(trace: &'a mut Trace, event: &str, side: &str) -> &'a mut Line {
    let wanted = |line: &&mut Line| line.is(event) && line["side"] == side;
    trace.lines.iter_mut().find(wanted).expect("such a line")
}

#[test]
fn the_invariants_reject_every_mutated_trace() {
    type Change = (&'static str, fn(&mut Trace));
    let changes: [Change; 12] = [
        ("a field that is missing", |trace| {
            let accept = line(trace, "accept", "server").0.as_object_mut().unwrap();
            accept.remove("backlog_len").unwrap();
        }),
        ("an unknown state", |trace| {
            line(trace, "transition", "server").0["newstate"] = json!("OPEN");
        }),
        ("an unknown number that is 0 as text", |trace| {
            line(trace, "accept", "server").0["blocked_ns"] = json!("0");
        }),
        ("a verdict that contradicts the times", |trace| {
            line(trace, "connection", "server").0["verdict"] = json!("never_accepted");
        }),
        ("a wait that is not the difference", |trace| {
            line(trace, "connection", "server").0["accept_queue_ns"] = json!(1);
        }),
        ("a connection that ends twice", |trace| {
            let twice = line(trace, "connection", "client").clone();
            trace.lines.insert(trace.lines.len() - 1, twice);
        }),
        ("a connection that never ends", |trace| {
            trace
                .lines
                .retain(|line| !line.is("connection") || line["side"] != "client");
        }),
        ("a step back in time", |trace| {
            line(trace, "accept", "server").0["mono_ns"] = json!(1);
        }),
        ("a lost record that is not in the balance", |trace| {
            let summary = trace.lines.last_mut().unwrap();
            summary.0["hook_counts"]["inet_csk_accept"]["lost"] = json!(1);
        }),
        ("a loss in the balance without a line", |trace| {
            let summary = trace.lines.last_mut().unwrap();
            let hook = &mut summary.0["hook_counts"]["inet_csk_accept"];
            hook["lost"] = json!(1);
            hook["seen"] = json!(hook["seen"].as_u64().unwrap() + 1);
        }),
        ("verdicts that are counted wrong", |trace| {
            trace.lines.last_mut().unwrap().0["verdicts"]["queued"] = json!(2);
        }),
        ("a trace without a summary", |trace| {
            trace.lines.pop();
        }),
    ];
    let (sound, _) = a_sound_trace();
    for (what, change) in changes {
        let mut trace = sound.clone();
        change(&mut trace);
        let checked = catch_unwind(AssertUnwindSafe(|| invariants::check(&trace)));
        assert!(checked.is_err(), "not noticed: {what}");
    }
}

#[test]
fn the_witness_rejects_every_mutated_trace() {
    let (sound, testimony) = a_sound_trace();
    let differs = |trace: &Trace, testimony: &[Seen], share| {
        catch_unwind(AssertUnwindSafe(|| compare(trace, testimony, share))).is_err()
    };
    assert!(!testimony.is_empty());
    for (n, line) in sound.lines.iter().enumerate() {
        // Skips lines of other scenarios, which this witness does not know.
        let printed = line.is("transition") && !line.is_synthetic();
        if !printed || line["netns"] != sound.netns.inode {
            continue;
        }
        let mut less = sound.clone();
        less.lines.remove(n);
        assert!(differs(&less, &testimony, Share::All), "without {line}");
        let mut other = sound.clone();
        other.lines[n].0["newstate"] = json!("CLOSING");
        assert!(differs(&other, &testimony, Share::All), "{line}");
        assert!(differs(&other, &testimony, Share::Some), "{line}");
    }
    for n in 0..testimony.len() {
        let mut less = testimony.clone();
        let seen = less.remove(n);
        assert!(differs(&sound, &less, Share::All), "without {seen:?}");
    }
}

/// Tries every cause in the place of the right one.
#[test]
fn the_witness_rejects_every_wrong_cause() {
    let (sound, testimony) = a_sound_trace();
    assert!(
        testimony.iter().any(|seen| !seen.stack.is_empty()),
        "this kernel records no stacks"
    );
    for n in 0..sound.lines.len() {
        let line = &sound.lines[n];
        let printed = line.is("transition") && !line.is_synthetic();
        if !printed || line["netns"] != sound.netns.inode || line["cause"].is_null() {
            continue;
        }
        for cause in ["close", "abort", "rst_received", "fin_received", "timeout"] {
            if line["cause"] == cause {
                continue;
            }
            let mut wrong = sound.clone();
            wrong.lines[n].0["cause"] = json!(cause);
            let checked =
                catch_unwind(AssertUnwindSafe(|| compare(&wrong, &testimony, Share::All)));
            assert!(checked.is_err(), "{cause} is not rejected in {line}");
        }
    }
}
