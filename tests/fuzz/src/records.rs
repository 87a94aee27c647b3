//! Records of the kernel side: any bytes of the ring buffer.

use tcptrace_core::decode;
use tcptrace_ebpf::abi;

/// Bytes that every record begins with are set, so that mutations reach the payloads.
pub fn run(data: &[u8]) {
    check(data);
    let mut record = data.to_vec();
    if let Some(version) = record.get_mut(size_of::<abi::Header>() - 1) {
        *version = abi::VERSION;
        check(&record);
    }
}

/// Checks that the quick readers agree with the decoder.
fn check(record: &[u8]) {
    let decoded = decode::decode(record);
    let peeked = decode::peek(record);
    let lost = decode::lost(record);
    let stack = decode::peek_stack(record);
    let Ok(event) = decoded else { return };
    assert_eq!(lost, Some(event.lost));
    use tcptrace_core::event::{Kind, SchedStep, Syscall};
    match (&event.kind, peeked) {
        (
            Kind::SetState(it),
            Some(decode::Peek::State {
                mono_ns,
                netns,
                cgroup,
                old,
                new,
            }),
        ) => {
            assert_eq!((mono_ns, netns), (event.mono_ns, it.netns));
            assert_eq!(cgroup, it.cgroup.unwrap_or(0));
            assert_eq!((old, new), (it.oldstate as u8, it.newstate as u8));
        }
        (Kind::SnapshotEntry(it), Some(decode::Peek::Socket { netns, cgroup, .. })) => {
            assert_eq!((netns, cgroup), (it.netns, it.cgroup.unwrap_or(0)));
        }
        (Kind::Process(_), Some(decode::Peek::Process)) => {}
        (
            Kind::Sched(it),
            Some(decode::Peek::Sched {
                mono_ns, tid, pid, ..
            }),
        ) => {
            assert_eq!((mono_ns, tid, pid), (event.mono_ns, it.tid, it.pid));
            let key = stack.map(|stack| decode::stack_key(it.pid, &stack));
            match it.step {
                SchedStep::Out { stack, .. } | SchedStep::Sample { stack, .. } => {
                    assert_eq!(stack, key);
                }
                SchedStep::Waking {
                    syscall: Some(Syscall::Number(n)),
                    ..
                } => assert!(n < 1 << 31),
                _ => {}
            }
        }
        (Kind::SetState(_) | Kind::SnapshotEntry(_) | Kind::Process(_) | Kind::Sched(_), other) => {
            panic!("{event:?} was read as {other:?}")
        }
        (_, None) => {}
        (_, Some(other)) => panic!("{event:?} was read as {other:?}"),
    }
}
