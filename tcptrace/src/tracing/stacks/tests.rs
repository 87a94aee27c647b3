use std::sync::mpsc::Receiver;

use tcptrace_ebpf::abi;
use tokio::sync::mpsc::Sender;
use zerocopy::IntoBytes;

use super::*;
use crate::decode::peek;
use crate::fields::Frame;
use crate::symbols::Request;

const MS: u64 = 1_000_000;

fn stack(address: u64) -> abi::Stack {
    let mut stack = abi::Stack {
        kernel: [0; abi::KERNEL_FRAMES],
        user: [0; abi::USER_FRAMES],
    };
    (stack.kernel[0], stack.user[0], stack.user[1]) = (address, address + 1, address + 2);
    stack
}

/// Returns the record of a step of the thread 7 of the process 5.
fn record(mono_ns: u64, step: u8, stack: Option<abi::Stack>) -> Vec<u8> {
    let header = abi::Header {
        mono_ns,
        lost: 0,
        cpu: 0,
        kind: abi::kind::SCHED,
        version: abi::VERSION,
    };
    let task = (step == sched_step::ENROLLED).then_some(abi::Task {
        pid: 5,
        tid: 7,
        comm: [0; 16],
        process: [0; 16],
    });
    let section = |is_there, bit| if is_there { bit } else { 0 };
    let payload = abi::Sched {
        listener: 0,
        tid: 7,
        pid: 5,
        state: 1,
        syscall: 74,
        step,
        sections: section(task.is_some(), abi::sched_section::TASK)
            | section(stack.is_some(), abi::sched_section::STACK),
        flags: 0,
        reserved: [0; 5],
    };
    let mut record = header.as_bytes().to_vec();
    record.extend(payload.as_bytes());
    record.extend(task.as_ref().map(IntoBytes::as_bytes).unwrap_or_default());
    record.extend(stack.as_ref().map(IntoBytes::as_bytes).unwrap_or_default());
    record
}

struct Test {
    stacks: Stacks,
    requests: Receiver<Request>,
    answers: Sender<Stack>,
}

/// Begins with blocks of at least a millisecond.
fn test() -> Test {
    let (symbols, requests, answers) = Symbols::channels();
    Test {
        stacks: Stacks::new(symbols, MS),
        requests,
        answers,
    }
}

impl Test {
    fn see(&mut self, mono_ns: u64, step: u8, stack: Option<abi::Stack>) {
        let record = record(mono_ns, step, stack);
        self.stacks.see(peek(&record).unwrap(), &record);
    }

    /// Returns the innermost user addresses of the requested stacks.
    fn requested(&self) -> Vec<u64> {
        let requests = self.requests.try_iter();
        let address = |request| match request {
            Request::Resolve(raw) => Some(raw.addresses.user[0]),
            Request::Prepare(_) => None,
        };
        requests.filter_map(address).collect()
    }

    /// Answers that the innermost user function of the stack is `name`.
    async fn answer(&self, stack: abi::Stack, name: &str) {
        let stack = Stack {
            key: stack_key(5, &stack),
            pid: 5,
            kernel: Vec::new(),
            user: vec![Frame {
                function: Some(name.into()),
                ..Frame::default()
            }],
        };
        self.answers.send(stack).await.unwrap();
    }
}

/// Runs a test with a clock that advances when everything waits.
fn run(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().build().unwrap().block_on(test);
}

#[test]
fn a_long_block_is_requested_once() {
    let mut test = test();
    test.see(10 * MS, sched_step::OUT, Some(stack(100)));
    test.see(11 * MS - 1, sched_step::IN, None);
    assert!(test.requested().is_empty());
    test.see(20 * MS, sched_step::OUT, Some(stack(200)));
    test.see(21 * MS, sched_step::IN, None);
    assert_eq!(test.requested(), [201]);
    test.see(30 * MS, sched_step::OUT, Some(stack(200)));
    test.see(40 * MS, sched_step::IN, None);
    test.see(50 * MS, sched_step::IN, None);
    assert!(test.requested().is_empty());
    // A minute later a flight recorder may have forgotten the stack.
    test.see(60_030 * MS, sched_step::OUT, Some(stack(200)));
    test.see(60_040 * MS, sched_step::IN, None);
    assert_eq!(test.requested(), [201]);
}

#[test]
fn a_sample_is_requested_and_an_acceptor_is_prepared() {
    let mut test = test();
    test.see(10 * MS, sched_step::ENROLLED, None);
    let prepared = test.requests.try_recv().unwrap();
    assert!(matches!(prepared, Request::Prepare(5)), "{prepared:?}");
    test.see(11 * MS, sched_step::SAMPLE, Some(stack(100)));
    test.see(12 * MS, sched_step::SAMPLE, None);
    assert_eq!(test.requested(), [101]);
}

#[test]
fn new_stacks_are_limited_per_second() {
    let mut test = test();
    for number in 0..u64::from(NEW_PER_SECOND) + 10 {
        test.see(MS, sched_step::SAMPLE, Some(stack(number * 10)));
    }
    assert_eq!(test.requested().len(), NEW_PER_SECOND as usize);
    test.see(1001 * MS, sched_step::SAMPLE, Some(stack(1_000_000)));
    assert_eq!(test.requested(), [1_000_001]);
}

#[test]
fn answers_come_before_the_records() {
    run(async {
        let mut test = test();
        test.see(10 * MS, sched_step::SAMPLE, Some(stack(100)));
        test.answer(stack(100), "f").await;
        let stacks = test.stacks.take(11 * MS).await;
        assert_eq!(stacks.len(), 1);
        assert_eq!(stacks[0].user[0].function.as_deref(), Some("f"));
        assert_eq!(test.stacks.take(12 * MS).await, []);
    });
}

#[test]
fn a_stack_without_an_answer_has_addresses_until_the_answer_comes() {
    run(async {
        let mut test = test();
        test.see(10 * MS, sched_step::SAMPLE, Some(stack(100)));
        let began = Instant::now();
        let stacks = test.stacks.take(11 * MS).await;
        assert!(began.elapsed() >= WAIT);
        assert_eq!(stacks.len(), 1);
        let addresses = |frames: &[Frame]| -> Vec<u64> {
            assert!(frames.iter().all(|it| it.function.is_none()));
            frames.iter().map(|it| it.address).collect()
        };
        assert_eq!(addresses(&stacks[0].kernel), [100]);
        assert_eq!(addresses(&stacks[0].user), [101, 102]);
        assert_eq!(
            (stacks[0].pid, stacks[0].key),
            (5, stack_key(5, &stack(100)))
        );
        // The next batch does not wait, although another stack has no answer.
        test.see(12 * MS, sched_step::SAMPLE, Some(stack(200)));
        let began = Instant::now();
        assert_eq!(test.stacks.take(13 * MS).await.len(), 1);
        assert!(began.elapsed() < WAIT);
        test.answer(stack(100), "f").await;
        let stacks = test.stacks.take(14 * MS).await;
        assert_eq!(stacks.len(), 1);
        assert_eq!(stacks[0].user[0].function.as_deref(), Some("f"));
    });
}

#[test]
fn the_stack_of_a_block_is_requested_while_it_lasts() {
    run(async {
        let mut test = test();
        test.see(10 * MS, sched_step::OUT, Some(stack(100)));
        test.stacks.take(11 * MS - 1).await;
        assert!(test.requested().is_empty());
        test.answer(stack(100), "f").await;
        assert_eq!(test.stacks.take(11 * MS).await.len(), 1);
        assert_eq!(test.requested(), [101]);
    });
}
