//! Recordings for pages, and the pages made from them.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Output;

use tcptrace_core::container::Container;
use tcptrace_core::decode::stack_key;
use tcptrace_core::event::{Stack, State};
use tcptrace_core::fields::Frame;
use tcptrace_core::recording::{Block, Header, Item, Reader, item};
use tcptrace_core::trace::{Begin, Input, Small};
use tcptrace_ebpf::abi::{self, sched_section, sched_step};
use tempfile::TempDir;
use tests::run::tcptrace;
use zerocopy::{FromBytes, IntoBytes};

/// One connection with both ends here, #2 and #3. Its server called accept() late.
pub const LATE_ACCEPT: &[u8] = include_bytes!("../../tcptrace/tests/golden/late_accept.trace");
/// A trace with lost events and six incomplete connections.
pub const LOSS: &[u8] = include_bytes!("../../tcptrace/tests/golden/loss.trace");

/// The client's port in `late_accept`.
const CLIENT_PORT: u16 = 44070;

/// A temporary folder for recordings and their pages.
pub struct Workspace(TempDir);

impl Workspace {
    pub fn new() -> Workspace {
        Workspace(tempfile::tempdir().expect("a folder"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes a page from a recording.
    pub fn report(&self, name: &str, recording: &[u8]) -> (PathBuf, Output) {
        let file = self.path(name);
        fs::write(&file, recording).expect("room for a recording");
        report(&file)
    }

    /// Makes a page from a recording that must be complete.
    pub fn page(&self, name: &str, recording: &[u8]) -> PathBuf {
        let (page, output) = self.report(name, recording);
        assert!(output.status.success(), "{output:?}");
        page
    }
}

/// Runs `tcptrace report FILE -o FILE.html`.
pub fn report(file: &Path) -> (PathBuf, Output) {
    let page = file.with_extension("html");
    let [from, to] = [file, &page].map(|it| it.to_str().expect("a path of text"));
    let output = tcptrace(&["report", from, "-o", to]).output();
    (page.clone(), output.expect("tcptrace runs"))
}

/// A copy of `late_accept` that tests modify.
pub struct LateAccept {
    pub begin: Begin,
    pub records: Vec<Vec<u8>>,
    /// The items before and after the records.
    pub first: Vec<Small>,
    pub last: Vec<Small>,
}

impl LateAccept {
    pub fn new() -> LateAccept {
        let (begin, mut reader) = Reader::open(LATE_ACCEPT).expect("a recording");
        let mut late = LateAccept {
            begin,
            records: vec![],
            first: vec![],
            last: vec![],
        };
        while let Some(next) = reader.next() {
            match next {
                Item::Input(Input::Records { batch, .. }) => {
                    late.records.extend(batch.records().map(<[u8]>::to_vec));
                }
                Item::Input(Input::Small(small)) if late.records.is_empty() => {
                    late.first.push(small);
                }
                Item::Input(Input::Small(small)) => late.last.push(small),
                Item::Gap => panic!("it is whole"),
            }
        }
        late
    }

    /// Returns the bytes of the recording.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![];
        self.write(&mut bytes, std::slice::from_ref(&self.records));
        bytes
    }

    /// Writes a recording with these batches of records.
    fn write(&self, out: &mut impl Write, batches: &[Vec<Vec<u8>>]) {
        let mut blocks = Block::default();
        let mut block = |contents: &[u8], out: &mut dyn Write| {
            out.write_all(&blocks.head(contents, None)).expect("room");
            out.write_all(contents).expect("room");
        };
        out.write_all(&Header::new("0.1.0").to_bytes())
            .expect("room");
        block(&self.begin.item(), out);
        let small = |all: &[Small]| {
            let mut contents = vec![];
            all.iter()
                .for_each(|small| item(&small.clone().into(), &mut contents));
            contents
        };
        block(&small(&self.first), out);
        for records in batches {
            let mut contents = vec![];
            let records = Input::Records {
                batch: records.iter().map(Vec::as_slice).collect(),
                complete_until_ns: 0,
            };
            item(&records, &mut contents);
            block(&contents, out);
        }
        block(&small(&self.last), out);
    }

    /// Truncates the recording after the server's socket has entered a state.
    pub fn until(&mut self, state: State) {
        let entered = |record: &Vec<u8>| {
            let change = change(record);
            change.is_some_and(|it| it.rport == CLIENT_PORT && it.newstate == state as u8)
        };
        let at = self.records.iter().position(entered).expect("that state");
        self.records.truncate(at + 1);
        self.last.clear();
    }

    /// Puts the sockets into a cgroup of this container.
    pub fn contain(&mut self, container: &str) {
        const CGROUP: u64 = 4711;
        for record in &mut self.records {
            if let Some(mut change) = change(record) {
                change.cgroup = CGROUP;
                put(record, change.as_bytes());
            }
        }
        let containers = [(CGROUP, Some(Container::new(container)))].into();
        self.first.push(Small::Containers(containers));
    }

    /// Adds the scheduling of the acceptor as with `--why`: of the wait of 418.8 ms it runs 108.8 ms,
    /// is blocked 300 ms in fsync(), called by `function`, and waits 10 ms for a CPU.
    pub fn explain(&mut self, function: &str) {
        const MS: u64 = 1_000_000;
        const FSYNC: i32 = 74;
        let established = |record: &&Vec<u8>| {
            let change = change(record);
            change.is_some_and(|it| {
                it.rport == CLIENT_PORT && it.newstate == State::Established as u8
            })
        };
        let established_ns = time(self.records.iter().find(established).expect("that state"));
        let task = self.records.iter().find_map(|record| task(record));
        let task = task.expect("an accept() record");
        let mut stack = abi::Stack {
            kernel: [0; abi::KERNEL_FRAMES],
            user: [0; abi::USER_FRAMES],
        };
        (stack.kernel[0], stack.user[0]) = (0x1000, 0x2000);
        let frame = |address, function: &str| Frame {
            address,
            function: Some(function.to_owned()),
            ..Frame::default()
        };
        self.first.push(Small::Stacks(vec![Stack {
            key: stack_key(task.pid, &stack),
            pid: task.pid,
            kernel: vec![frame(0x1000, "ext4_sync_file")],
            user: vec![
                Frame {
                    module: Some("server".to_owned()),
                    file: Some("src/state.rs".to_owned()),
                    line: Some(17),
                    inlined: true,
                    ..frame(0x2000, "save_state")
                },
                frame(0x2000, function),
            ],
        }]));
        self.begin.why_ns = Some(MS);
        "x86_64".clone_into(&mut self.begin.machine);
        for (after_ns, step, state, syscall) in [
            (0, sched_step::ENROLLED, 0, abi::NO_SYSCALL),
            (8 * MS, sched_step::OUT, 2, FSYNC),
            (308 * MS, sched_step::WAKING, 0, abi::UNKNOWN_SYSCALL),
            (318 * MS, sched_step::IN, 0, abi::NO_SYSCALL),
        ] {
            let has_task = [sched_step::ENROLLED, sched_step::WAKING].contains(&step);
            let has_stack = step == sched_step::OUT;
            let header = abi::Header {
                mono_ns: established_ns + after_ns,
                lost: 0,
                cpu: 0,
                kind: abi::kind::SCHED,
                version: abi::VERSION,
            };
            let sched = abi::Sched {
                listener: 0,
                tid: task.tid,
                pid: task.pid,
                state,
                syscall,
                step,
                sections: u8::from(has_task) * sched_section::TASK
                    + u8::from(has_stack) * sched_section::STACK,
                flags: 0,
                reserved: [0; 5],
            };
            let mut record = [header.as_bytes(), sched.as_bytes()].concat();
            if has_task {
                record.extend(task.as_bytes());
            }
            if has_stack {
                record.extend(stack.as_bytes());
            }
            self.records.push(record);
        }
        self.records.sort_by_key(|record| time(record));
    }

    /// Replaces the records by client connections whose handshakes take these times.
    pub fn handshakes(&mut self, times_ns: impl Iterator<Item = u64>) {
        let of_client =
            |record: &&Vec<u8>| change(record).is_some_and(|it| it.lport == CLIENT_PORT);
        // The client's port is still 0 in its first record.
        let is_begun = |record: &&Vec<u8>| {
            change(record).is_some_and(|it| it.newstate == State::SynSent as u8)
        };
        let records = self.records.iter();
        let client: Vec<Vec<u8>> = records
            .filter(|record| of_client(record) || is_begun(record))
            .cloned()
            .collect();
        let listener = self
            .records
            .iter()
            .filter(|record| change(record).is_some_and(|it| it.newstate == State::Listen as u8));
        let mut all: Vec<Vec<u8>> = listener.cloned().collect();
        let began_ns = time(&client[0]);
        for (n, ns) in (0u16..).zip(times_ns) {
            for (step, record) in client.iter().enumerate() {
                let mut record = other(record, n.into());
                let began_ns = began_ns + u64::from(n) * 1000;
                let since_ns = match step {
                    0 => 0,
                    step => ns + step as u64 - 1,
                };
                record[..8].copy_from_slice(&(began_ns + since_ns).to_ne_bytes());
                all.push(record);
            }
        }
        self.records = all;
        self.last
            .retain(|small| !matches!(small, Small::Ending { .. }));
    }
}

/// Returns the time of a record.
fn time(record: &[u8]) -> u64 {
    u64::from_ne_bytes(*record.first_chunk().expect("a time"))
}

/// Returns the state change of a record.
fn change(record: &[u8]) -> Option<abi::SetState> {
    let (header, rest) = abi::Header::read_from_prefix(record).expect("a header");
    let change = abi::SetState::read_from_prefix(rest);
    (header.kind == abi::kind::SET_STATE).then(|| change.expect("a payload").0)
}

/// Returns the thread of an accept() record, which ends in it.
fn task(record: &[u8]) -> Option<abi::Task> {
    let (header, rest) = abi::Header::read_from_prefix(record).expect("a header");
    let (_, task) = abi::Task::read_from_suffix(rest).expect("a task");
    (header.kind == abi::kind::ACCEPT).then_some(task)
}

/// Overwrites the beginning of a record's payload.
fn put(record: &mut [u8], payload: &[u8]) {
    record[size_of::<abi::Header>()..][..payload.len()].copy_from_slice(payload);
}

/// Copies a record for another connection: with another port and other sockets.
fn other(record: &[u8], n: u64) -> Vec<u8> {
    let mut record = record.to_vec();
    let (header, rest) = abi::Header::read_from_prefix(&record[..]).expect("a header");
    let sk = |sk: u64| sk ^ (n << 20);
    let port = |port: u16| match port {
        CLIENT_PORT => 1024 + (n % 60_000) as u16,
        port => port,
    };
    if let Some(mut change) = change(&record) {
        if change.newstate != State::Listen as u8 && change.oldstate != State::Listen as u8
            || change.newstate == State::SynRecv as u8
        {
            change.sk = sk(change.sk);
            change.cookie = if change.newstate == State::SynRecv as u8 {
                change.cookie
            } else {
                change.cookie + 10 * n
            };
        }
        (change.lport, change.rport) = (port(change.lport), port(change.rport));
        put(&mut record, change.as_bytes());
    } else if header.kind == abi::kind::ACCEPT {
        let (mut accept, _) = abi::Accept::read_from_prefix(rest).expect("a payload");
        accept.sk = sk(accept.sk);
        accept.rport = port(accept.rport);
        accept.cookie += 10 * n;
        accept.called_ns += n * 200_000;
        put(&mut record, accept.as_bytes());
    }
    record
}

/// Writes many connections like `late_accept`, both ends, as with `--depth connections`. Each
/// starts 0.2 ms after the one before, from another port. `ends` counts both ends of each.
pub fn many(file: &Path, ends: u64) {
    let mut late = LateAccept::new();
    late.begin.depth = tcptrace_core::depth::Depth::Connections;
    let is_listeners = |record: &Vec<u8>| {
        change(record).is_some_and(|it| {
            [it.oldstate, it.newstate].contains(&(State::Listen as u8))
                && it.newstate != State::SynRecv as u8
        })
    };
    let (listener, of_one): (Vec<_>, Vec<_>) = late.records.iter().cloned().partition(is_listeners);
    let mut batches = vec![];
    // The listener's last record closes it.
    let (opens, closes) = listener.split_first().expect("a listener");
    batches.push(vec![opens.clone()]);
    for first in (0..ends / 2).step_by(1000) {
        let mut batch = vec![];
        for n in first..(first + 1000).min(ends / 2) {
            for record in &of_one {
                let mut record = other(record, n);
                let ns = time(&record) + n * 200_000;
                record[..8].copy_from_slice(&ns.to_ne_bytes());
                batch.push(record);
            }
        }
        batches.push(batch);
    }
    let end_ns = batches.last().and_then(|it| it.last()).map(|it| time(it));
    let end_ns = end_ns.expect("a record") + 1_000_000_000;
    let mut closes = closes.to_vec();
    for record in &mut closes {
        record[..8].copy_from_slice(&end_ns.to_ne_bytes());
    }
    batches.push(closes);
    late.last
        .retain(|small| !matches!(small, Small::Ending { .. }));
    late.write(
        &mut BufWriter::new(File::create(file).expect("a file")),
        &batches,
    );
}
