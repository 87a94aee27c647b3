//! Runs of kprobes that the kernel skips. The tracer counts as many as the kernel does.

use std::ffi::CStr;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tests::Lab;
use tests::task::{cpus, join_scoped, pin_to};
use tests::traffic::*;

/// Prefixes of the functions that the hook `timewait_sock` probes. They are the same on every
/// kernel.
const OF_BUCKETS: [&str; 4] = [
    "inet_twsk_",
    "__inet_twsk_schedule",
    "tw_timer_handler",
    "tcp_timewait_state_process",
];

/// Number of connections whose buckets expire in the same second.
const BUCKETS: usize = 200;

/// The beginning of `struct bpf_link_info` for a link of a kprobe (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    _padding: u32,
    perf_kind: u32,
    _perf_padding: u32,
    name: u64,
    name_len: u32,
    _offset: u32,
    _address: u64,
    missed: u64,
    _cookie: u64,
}

/// `BPF_LINK_TYPE_PERF_EVENT` and `BPF_PERF_EVENT_KPROBE`.
const KPROBE: (u32, u32) = (7, 3);

fn bpf(command: libc::c_int, attributes: &mut [u64; 2]) -> Option<i32> {
    let size = size_of_val(attributes);
    // SAFETY: the kernel reads the attributes, which outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size) };
    (result >= 0).then_some(result as i32)
}

/// Returns the value of `key` in each fdinfo of a process.
fn fdinfo(pid: u32, key: &str) -> Vec<(String, u64)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("the tracer runs");
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    texts
        .filter_map(|text| {
            let value = text.lines().find_map(|line| line.strip_prefix(key))?;
            let value = value.trim().parse().ok()?;
            Some((text, value))
        })
        .collect()
}

/// Returns how many runs of the entry probes of `timewait_sock`, and of their programs, the kernel
/// skipped. `None` when the hook has no kprobes.
fn skipped(pid: u32) -> Option<(u64, u64)> {
    const LINK_GET_FD_BY_ID: libc::c_int = 30;
    const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
    let (mut probes, mut programs) = (0, vec![]);
    for (_, id) in fdinfo(pid, "link_id:") {
        let fd = bpf(LINK_GET_FD_BY_ID, &mut [id, 0]).expect("a link of the tracer's");
        // SAFETY: the descriptor has no other owner.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let ask = |info: &mut LinkInfo| {
            let len = (size_of_val(info) as u64) << 32;
            let mut attributes = [len | fd.as_raw_fd() as u64, std::ptr::from_mut(info) as u64];
            bpf(OBJ_GET_INFO_BY_FD, &mut attributes).expect("the link's information");
        };
        let mut info = LinkInfo::default();
        ask(&mut info);
        if (info.kind, info.perf_kind) != KPROBE {
            continue;
        }
        // Only a kprobe's info has room for a name at this offset.
        let mut name = [0_u8; 64];
        info = LinkInfo {
            name: name.as_mut_ptr() as u64,
            name_len: name.len() as u32,
            ..LinkInfo::default()
        };
        ask(&mut info);
        let function = CStr::from_bytes_until_nul(&name)
            .expect("a name")
            .to_string_lossy();
        if OF_BUCKETS.iter().any(|it| function.starts_with(it)) {
            probes += info.missed;
            programs.push(u64::from(info.program));
        }
    }
    let mut of_programs = 0;
    for (text, id) in fdinfo(pid, "prog_id:") {
        let misses = text
            .lines()
            .find_map(|it| it.strip_prefix("recursion_misses:"));
        if let Some(misses) = misses.filter(|_| programs.contains(&id)) {
            of_programs += misses.trim().parse::<u64>().expect("a number");
        }
    }
    (!programs.is_empty()).then_some((probes, of_programs))
}

/// Lets buckets in FIN_WAIT2 expire while every CPU is nearly always in a probe at accept(). The
/// timer's softirq interrupts that probe, so the kernel skips its probes.
fn expire_on_top_of_probes(port: u16, polled: &[TcpListener]) {
    let listener = listen(port);
    let peers: Vec<TcpStream> = (0..BUCKETS)
        .map(|_| {
            let client = connect_queued(port);
            set_option(&client, libc::IPPROTO_TCP, libc::TCP_LINGER2, &1_i32);
            accept(&listener).stream
        })
        .collect();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pollers = cpus().into_iter().zip(polled).map(|(cpu, listener)| {
            let is_over = &is_over;
            scope.spawn(move || {
                pin_to(cpu);
                while !is_over.load(Ordering::Relaxed) {
                    let _ = listener.accept();
                }
            })
        });
        let pollers: Vec<_> = pollers.collect();
        std::thread::sleep(Duration::from_millis(2500));
        is_over.store(true, Ordering::Relaxed);
        pollers.into_iter().for_each(join_scoped);
    });
    drop(peers);
}

#[test]
fn skipped_probes_are_counted_as_the_kernel_counts_them() {
    const ROUNDS: u16 = 6;
    let lab = Lab::alone();
    let ports: Vec<u16> = (0..ROUNDS).map(|_| lab.port()).collect();
    // Two polled listeners are enough to keep the CPUs of a VM busy.
    let polled = [(); 2].map(|()| listen(lab.port()));
    for listener in &polled {
        listener.set_nonblocking(true).expect("a listener");
    }
    let filter = ports
        .iter()
        .map(u16::to_string)
        .collect::<Vec<_>>()
        .join(",");
    let mut tracer = lab.trace_with(&["--port", &filter]);
    let pid = tracer.process().pid();
    if skipped(pid).is_none() {
        // This trace has no kprobes at buckets.
        drop(tracer.stop_lossy());
        return;
    }
    let mut kernels = (0, 0);
    for port in ports {
        expire_on_top_of_probes(port, &polled);
        kernels = skipped(pid).expect("kprobes");
        if kernels.0 > 0 {
            break;
        }
    }
    let trace = tracer.stop_lossy();

    let own = &trace.summary()["hook_counts"]["timewait_sock"]["recursion_misses"];
    let (of_probes, of_programs) = kernels;
    println!("the kernel skipped {of_probes} probes and {of_programs} programs");
    if own.is_null() {
        // Before Linux 6.7 the kernel does not report these skipped runs.
        return;
    }
    // More runs may be skipped after the kernel's counts were read.
    assert!(
        own.as_u64() >= Some(of_probes + of_programs),
        "{own}, and the kernel says {of_probes} + {of_programs}"
    );
    assert!(
        of_probes > 0,
        "nothing was skipped, so nothing was compared"
    );
}
