//! `--why`: the records about the scheduling of acceptors.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::{gettid, pipe, read, write};
use serde_json::Value;
use tcptrace_core::decode::decode;
use tcptrace_core::event::{Kind, OffCpu, Sched, SchedStep, Syscall};
use tcptrace_core::recording::{Item, Reader};
use tcptrace_core::trace::Input;
use tests::run::{Running, tcptrace};
use tests::task::*;
use tests::traffic::*;
use tests::{Lab, eventually};

use crate::replay::Recording;

/// The numbers of 64-bit system calls, arch/x86/entry/syscalls/syscall_64.tbl.
const READ: u32 = 0;
const WRITE: u32 = 1;
const ACCEPT4: u32 = 288;

/// Samples of a thread that runs this long are certain: one is taken about every 5 ms, and an emulated
/// CPU misses some.
const BUSY: Duration = Duration::from_millis(300);

/// Returns the scheduling events of a recording in their order in time.
fn sched_events(recording: &Recording) -> Vec<(u64, Sched)> {
    let file = BufReader::new(File::open(&recording.0).expect("the recording"));
    let (_, mut reader) = Reader::open(file).expect("a recording");
    let mut events = vec![];
    while let Some(item) = reader.next() {
        let Item::Input(Input::Records { batch, .. }) = item else {
            continue;
        };
        for record in batch.records() {
            let event = decode(record).expect("a valid record");
            if let Kind::Sched(sched) = event.kind {
                events.push((event.mono_ns, sched));
            }
        }
    }
    events.sort_by_key(|(mono_ns, _)| *mono_ns);
    events
}

/// Returns the hooks of a trace with these options.
fn hooks(options: &[&str]) -> BTreeSet<String> {
    let args = [&["-o", "json", "--duration", "50ms"], options].concat();
    let ended = Running::run_to_end(tcptrace(&args));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let session: Value =
        serde_json::from_str(ended.stdout.lines().next().expect("a line")).unwrap();
    let hooks = session["hooks"].as_object().expect("hooks");
    hooks.keys().cloned().collect()
}

#[test]
fn the_scheduler_is_hooked_only_with_why() {
    let (plain, why) = (hooks(&[]), hooks(&["--why"]));
    let added: Vec<_> = why.difference(&plain).map(String::as_str).collect();
    assert_eq!(added, ["cpu_sample", "sched_switch"]);
    assert!(plain.is_subset(&why));
}

/// A server accepts, blocks in read(), is busy, and calls accept() again.
#[test]
fn an_acceptor_that_blocks_and_runs_is_recorded_step_by_step() {
    let lab = Lab::new();
    let port = lab.port();
    let recording = Recording::new(&lab);
    let _ = std::fs::remove_file(&recording.0);
    let ports = port.to_string();
    let mode = std::env::var("TCPTRACE_TEST_ARGS").unwrap_or_default();
    let mode: Vec<&str> = mode.split_whitespace().collect();
    let fixed = ["record", "--why", "-p", &ports, "-o", recording.path()];
    let running = Running::start(tcptrace(&[&fixed, &mode[..]].concat()));
    recording.wait_until_begun();

    let own = gettid().as_raw() as u32;
    let listener = listen(port);
    let (from, to) = pipe().expect("a pipe");
    let (tid, server) = spawn(move || {
        let first = accept(&listener);
        read(&from, &mut [0]).expect("a byte");
        let busy = Instant::now();
        while busy.elapsed() < BUSY {
            // Reading the clock may be a system call, and samples of the user's code are wanted.
            (0..1_000_000u32).for_each(|n| _ = std::hint::black_box(n));
        }
        (first, accept(&listener))
    });
    wait_until_in_accept(tid);
    let first = connect(port);
    wait_until_in_call(tid, &[READ.into()]);
    std::thread::sleep(Duration::from_millis(50));
    write(&to, b"x").expect("write");
    wait_until_in_accept(tid);
    let second = connect(port);
    let _accepted = server.join().expect("the server");
    drop((first, second));
    // The last switch of a thread follows shortly after its end shows here.
    let entry = format!("/proc/self/task/{tid}");
    let is_gone = || (!std::path::Path::new(&entry).exists()).then_some(());
    eventually("the server thread to end", is_gone);
    std::thread::sleep(Duration::from_millis(50));
    running.signal(Signal::SIGINT);
    assert_eq!(running.wait().code, Some(0));

    let events = sched_events(&recording);
    let steps: Vec<_> = events.iter().filter(|(_, it)| it.tid == tid).collect();
    let enrolled = |tid| {
        let mut own = events.iter().filter(move |(_, it)| it.tid == tid);
        let listener = own.find_map(|(at, it)| match it.step {
            SchedStep::Enrolled { task, listener, .. } => Some((*at, task.tid, listener)),
            _ => None,
        });
        listener.unwrap_or_else(|| panic!("{tid} is no acceptor: {events:?}"))
    };
    let (began, task, listener) = enrolled(tid);
    assert_eq!((task, began), (tid, steps[0].0), "{steps:?}");
    assert!(listener.is_some());
    // This thread has called listen() only.
    assert_eq!((enrolled(own).1, enrolled(own).2), (own, listener));
    assert!(steps.iter().all(|(_, it)| it.pid == std::process::id()));

    let blocked = |number: u32| {
        let steps = steps.iter().enumerate();
        let mut found = steps.filter(move |(_, (_, it))| match it.step {
            SchedStep::Out { off, syscall, .. } => {
                off == OffCpu::Interruptible && syscall == Some(Syscall::Number(number))
            }
            _ => false,
        });
        found
            .next()
            .unwrap_or_else(|| panic!("{number}: {events:?}"))
            .0
    };
    let has_stack = |at: usize| matches!(steps[at].1.step, SchedStep::Out { stack: Some(_), .. });
    // The server waits for work in accept(), but not in read().
    assert!(!has_stack(blocked(ACCEPT4)), "{steps:?}");
    let at = blocked(READ);
    assert!(has_stack(at), "{steps:?}");
    let (out_ns, _) = steps[at];
    let is_waking = |it: &&(u64, Sched)| matches!(it.1.step, SchedStep::Waking { .. });
    let woken_at = at + steps[at..].iter().position(is_waking).expect("a wake-up");
    let [(waking_ns, waking), (in_ns, back)] = steps[woken_at..woken_at + 2] else {
        panic!("{steps:?}");
    };
    let SchedStep::Waking { by, syscall } = waking.step else {
        panic!("{waking:?}");
    };
    assert_eq!((by.tid, syscall), (own, Some(Syscall::Number(WRITE))));
    assert_eq!(back.step, SchedStep::In);
    let waited = Duration::from_nanos(waking_ns - out_ns);
    assert!(waited >= Duration::from_millis(40), "{waited:?}");
    assert!(in_ns >= waking_ns);

    let of_user = |it: &Sched| {
        matches!(
            it.step,
            SchedStep::Sample {
                is_user: true,
                stack: Some(_),
                ..
            }
        )
    };
    assert!(steps.iter().any(|(_, it)| of_user(it)), "{steps:?}");
    let last = steps.last().expect("an event").1.step;
    assert!(
        matches!(
            last,
            SchedStep::Out {
                off: OffCpu::Dead,
                ..
            }
        ),
        "{last:?}"
    );

    let replayed = recording.replay(&["-o", "json"]);
    let summary = replayed.stdout.lines().last().expect("a summary");
    let summary: Value = serde_json::from_str(summary).unwrap();
    for hook in ["sched_switch", "cpu_sample"] {
        let counts = &summary["hook_counts"][hook];
        let count = |name: &str| counts[name].as_u64().expect(name);
        assert_eq!(
            count("seen"),
            count("filtered") + count("emitted") + count("lost"),
            "{hook}: {counts}"
        );
        assert!(count("emitted") > 0, "{hook}: {counts}");
    }
}
