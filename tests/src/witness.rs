//! An independent witness: the kernel's own ftrace on `sock:inet_sock_set_state`.
//!
//! It shares nothing with tcptrace but the tracepoint: no BPF, no code, no file format. Every
//! scenario has an instance with buffers of its own, which records the scenario's ports, and the
//! kernel's stack at each change.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::lab::Ports;
use crate::stacks;
use crate::trace::{Line, Trace};

const TRACEFS: &str = "/sys/kernel/tracing";

/// Enough for the largest storm, on each CPU.
const BUFFER_KB: &str = "16384";

/// So many stacks are recorded in a scenario: more of a storm would show nothing new.
const STACKS: u32 = 3_000;

/// The clock is read twice, microseconds apart; a hypervisor may steal the CPU in between, and a
/// busy host that emulates two CPUs in turn does so for a while.
pub(crate) const CLOCKS_APART_NS: u64 = 1_000_000_000;

/// ftrace prints microseconds.
const ROUNDED_TO_NS: u64 = 1_000;

/// An ftrace instance that records state changes.
pub struct Witness {
    instance: PathBuf,
}

/// One state change, as ftrace printed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// CLOCK_MONOTONIC, rounded to microseconds.
    pub mono_ns: u64,
    pub ends: Ends,
    pub step: Step,
    /// The task that the CPU was at was init's: a softirq came on top of it.
    pub on_init: bool,
    /// The functions that the kernel was in, the innermost first; empty when not recorded.
    pub stack: Vec<String>,
}

/// A socket's two ends; port 0 where the kernel does not know it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ends {
    pub laddr: IpAddr,
    pub lport: u16,
    pub raddr: IpAddr,
    pub rport: u16,
}

/// The old state and the new one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step(pub String, pub String);

impl Witness {
    /// Begins to record what happens on these ports.
    pub fn start(ports: Ports) -> Witness {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        prepare_tracefs();
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tcptrace-test-{}-{n}", std::process::id());
        let instance = Path::new(TRACEFS).join("instances").join(name);
        fs::create_dir(&instance).expect("make an ftrace instance");
        let witness = Witness { instance };

        let Ports { first, last } = ports;
        let own = |port| format!("({port} >= {first} && {port} <= {last})");
        let filter = format!("protocol == 6 && ({} || {})", own("sport"), own("dport"));
        witness.set("trace_clock", "mono");
        witness.set("buffer_size_kb", BUFFER_KB);
        witness.set("events/sock/inet_sock_set_state/filter", &filter);
        // Where the kernel was built without stacks, the causes are not compared.
        let trigger = witness
            .instance
            .join("events/sock/inet_sock_set_state/trigger");
        let _ = fs::write(trigger, format!("stacktrace:{STACKS}"));
        witness.set("events/sock/inet_sock_set_state/enable", "1");
        witness
    }

    fn set(&self, file: &str, value: &str) {
        fs::write(self.instance.join(file), value)
            .unwrap_or_else(|error| panic!("write {value:?} to {file}: {error}"));
    }

    /// What it has recorded, in order of time.
    pub fn testimony(&self) -> Vec<Seen> {
        let text = self.read().expect("read the trace");
        let (written, kept) = entries(&text).expect("a header with a count");
        assert_eq!(written, kept, "the witness lost records");
        parse_all(&text)
    }

    /// The same for a scenario that has failed already: as much as there is.
    pub fn remains(&self) -> Vec<Seen> {
        let text = self.read().unwrap_or_default();
        parse_all(&text)
    }

    fn read(&self) -> io::Result<String> {
        fs::read_to_string(self.instance.join("trace"))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // Busy while a child that was just forked has our descriptors still open.
        for _ in 0..100 {
            if fs::remove_dir(&self.instance).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// tracefs stays mounted: any program that looks at it mounts it there.
fn prepare_tracefs() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let instances = Path::new(TRACEFS).join("instances");
        if !instances.exists() {
            let none = None::<&str>;
            let flags = nix::mount::MsFlags::empty();
            nix::mount::mount(none, TRACEFS, Some("tracefs"), flags, none).expect("mount tracefs");
        }
        remove_left_behind(&instances);
    });
}

/// Removes the instances of tests that were killed: they would record for ever, and every change of
/// state would pay for it.
fn remove_left_behind(instances: &Path) {
    for entry in fs::read_dir(instances)
        .expect("list the instances")
        .flatten()
    {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix("tcptrace-test-")?.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another test may be faster.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// `# entries-in-buffer/entries-written: 12/12   #P:2`
fn entries(trace: &str) -> Option<(u64, u64)> {
    let (_, rest) = trace.split_once("entries-written: ")?;
    let (kept, rest) = rest.split_once('/')?;
    let written = rest.split_whitespace().next()?;
    Some((written.parse().ok()?, kept.parse().ok()?))
}

/// All state changes, each with its stack. That comes as an entry of its own behind the change, or
/// behind those of a softirq that interrupted in between.
fn parse_all(trace: &str) -> Vec<Seen> {
    let mut seen: Vec<Seen> = vec![];
    // By CPU.
    let mut without_stack: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut begun: Option<usize> = None;
    for line in trace.lines() {
        if let (Some(frame), Some(at)) = (line.strip_prefix(" => "), begun) {
            let stack: &mut Vec<String> = &mut seen[at].stack;
            stack.push(stacks::function(frame));
            continue;
        }
        let waiting = without_stack.entry(cpu(line)).or_default();
        begun = None;
        if line.ends_with("<stack trace>") {
            begun = waiting.pop();
        } else if let Some(change) = parse(line) {
            waiting.push(seen.len());
            seen.push(change);
        }
    }
    // tcp_done() of a listener that was killed: it is CLOSE already, and nothing changes.
    seen.retain(|it| !it.step.is_none());
    seen
}

/// `001` of an entry's `[001]`.
fn cpu(entry: &str) -> String {
    // A task's name can hold anything: look from behind. The fields have no brackets.
    let cpu = entry
        .rsplit_once(" [")
        .and_then(|(_, rest)| rest.split_once(']'));
    cpu.map(|(cpu, _)| cpu.to_owned()).unwrap_or_default()
}

/// `<task>-<pid> [001] ..s2. 123.456789: inet_sock_set_state: family=AF_INET … newstate=TCP_CLOSE`
fn parse(line: &str) -> Option<Seen> {
    // A task's name can hold anything: look from behind.
    let (head, fields) = line.rsplit_once(": inet_sock_set_state: ")?;
    let fields: BTreeMap<&str, &str> = fields
        .split_whitespace()
        .filter_map(|field| field.split_once('='))
        .collect();
    let (task, _) = head.rsplit_once(" [")?;
    let (_, tid) = task.trim_end().rsplit_once('-')?;
    let (seconds, micros) = head.rsplit(' ').next()?.split_once('.')?;
    let micros = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
    let state = |name| Some(fields.get(name)?.trim_start_matches("TCP_").to_owned());
    // IPv4 comes as mapped IPv6, too; so one pair of fields does for both.
    let addr = |name| Some(fields.get(name)?.parse::<Ipv6Addr>().ok()?.to_canonical());
    let port = |name| fields.get(name)?.parse().ok();
    let step = Step(state("oldstate")?, state("newstate")?);
    Some(Seen {
        mono_ns: micros * 1_000,
        ends: Ends {
            laddr: addr("saddrv6")?,
            lport: if step.leaves_port_open() {
                0
            } else {
                port("sport")?
            },
            raddr: addr("daddrv6")?,
            rport: port("dport")?,
        },
        step,
        on_init: Path::new("/proc/1/task").join(tid).exists(),
        stack: vec![],
    })
}

impl Step {
    fn is_none(&self) -> bool {
        self.0 == "CLOSE" && self.1 == "CLOSE"
    }

    /// A client that is not bound has no port yet when it begins to connect; one that has
    /// connected before still shows its old one. Neither tells connections apart.
    fn leaves_port_open(&self) -> bool {
        self.1 == "SYN_SENT"
    }
}

/// As a line names them.
fn ends_of(line: &Line) -> Ends {
    let port = |name| line.maybe(name).unwrap_or(0) as u16;
    let laddr: IpAddr = line.text("laddr").parse().expect("an address");
    let raddr = match line["raddr"].as_str() {
        Some(addr) => addr.parse().expect("an address"),
        None if laddr.is_ipv4() => IpAddr::from([0; 4]),
        None => IpAddr::from([0; 16]),
    };
    Ends {
        laddr,
        lport: port("lport"),
        raddr,
        rport: port("rport"),
    }
}

impl Seen {
    /// The same from a `transition` line.
    fn from_line(line: &Line) -> Seen {
        let mut ends = ends_of(line);
        let [old, new] = ["oldstate", "newstate"].map(|it| line.text(it).to_owned());
        let step = Step(old, new);
        if step.leaves_port_open() {
            ends.lport = 0;
        }
        Seen {
            mono_ns: line.num("mono_ns"),
            ends,
            step,
            on_init: false,
            stack: vec![],
        }
    }
}

/// How much of what the witness saw tcptrace must have seen.
pub enum Share<'a> {
    /// All of it.
    All,
    /// Exactly that which satisfies a filter.
    Where(&'a dyn Fn(&Ends) -> bool),
    /// Nothing else, but perhaps less: records were lost, or joined.
    Some,
    /// All of it, but of connections that are told as incomplete because a step of theirs came on
    /// top of init: some sandboxes' kernels run no BPF program then, and count no skipped run.
    Whole,
}

/// Compares a trace with the testimony: per connection the same steps in the same order, at the
/// same times, each with a cause that its stack shows.
pub fn compare(trace: &Trace, testimony: &[Seen], share: Share) {
    // Before the session line and after the summary tcptrace was not there. A trace that ends by
    // --count ends with its last event, which the witness may have rounded up.
    let present = trace.session().num("mono_ns")..=trace.summary().num("mono_ns") + ROUNDED_TO_NS;
    let wanted = |seen: &&Seen| {
        present.contains(&seen.mono_ns)
            && match share {
                Share::Where(filter) => filter(&seen.ends),
                Share::All | Share::Some | Share::Whole => true,
            }
    };
    let mut witnessed = sequences(testimony.iter().filter(wanted).cloned());
    let mut traced = sequences(
        trace
            .own("transition")
            .filter(|line| !line.is_synthetic())
            .map(Seen::from_line),
    );
    if let Share::Some = share {
        for (ends, steps) in &traced {
            let known = witnessed.get(ends).expect("the witness saw these ends");
            assert!(is_part(steps, known), "{ends}: {steps:?} of {known:?}");
        }
        return;
    }
    if let Share::Whole = share {
        let incomplete = trace
            .own("connection")
            .filter(|line| line["complete"] == false);
        for ends in incomplete.map(ends_of) {
            let mut steps = testimony.iter().filter(|seen| seen.ends == ends);
            assert!(
                probes_were_skipped(trace) || steps.any(|seen| seen.on_init),
                "{ends} is incomplete"
            );
            witnessed.remove(&ends);
            traced.remove(&ends);
        }
    }
    let names = |sequences: &Sequences| -> Vec<String> {
        let steps = |seen: &[(Step, u64)]| -> Vec<String> {
            seen.iter().map(|(step, _)| step.to_string()).collect()
        };
        sequences
            .iter()
            .map(|(ends, seen)| format!("{ends}: {}", steps(seen).join(", ")))
            .collect()
    };
    let (traced_names, witnessed_names) = (names(&traced), names(&witnessed));
    for (ours, theirs) in traced_names.iter().zip(&witnessed_names) {
        assert_eq!(ours, theirs, "tcptrace (left) differs from ftrace (right)");
    }
    assert_eq!(
        traced_names.len(),
        witnessed_names.len(),
        "tcptrace saw {traced_names:#?}, ftrace {witnessed_names:#?}"
    );
    for (ends, steps) in &traced {
        for ((step, ours), (_, theirs)) in steps.iter().zip(&witnessed[ends]) {
            assert!(
                ours.abs_diff(*theirs) < CLOCKS_APART_NS,
                "{ends} {step}: at {ours} and at {theirs}"
            );
        }
    }
    compare_causes(trace, testimony.iter().filter(wanted), &traced);
}

/// The causes of those connections whose steps agree.
fn compare_causes<'a>(
    trace: &Trace,
    testimony: impl Iterator<Item = &'a Seen>,
    agreeing: &Sequences,
) {
    let mut stacks: BTreeMap<Ends, Vec<&[String]>> = BTreeMap::new();
    for seen in testimony {
        stacks.entry(seen.ends).or_default().push(&seen.stack);
    }
    let mut taken: BTreeMap<Ends, usize> = BTreeMap::new();
    for line in trace.own("transition").filter(|it| !it.is_synthetic()) {
        let ends = Seen::from_line(line).ends;
        if !agreeing.contains_key(&ends) {
            continue;
        }
        let n = taken.entry(ends).or_default();
        if let Err(why) = stacks::agree(line, stacks[&ends][*n]) {
            panic!("{why}\n{line}");
        }
        *n += 1;
    }
}

type Sequences = BTreeMap<Ends, Vec<(Step, u64)>>;

/// The steps of every pair of ends, in order of time.
fn sequences(seen: impl Iterator<Item = Seen>) -> Sequences {
    let mut sequences = Sequences::new();
    for Seen {
        mono_ns,
        ends,
        step,
        on_init: _,
        stack: _,
    } in seen
    {
        sequences.entry(ends).or_default().push((step, mono_ns));
    }
    sequences
}

/// Whether the kernel has skipped a program, which leaves what was open then incomplete.
fn probes_were_skipped(trace: &Trace) -> bool {
    let counts = trace.summary()["hook_counts"].as_object();
    let mut counts = counts.into_iter().flat_map(|all| all.values());
    counts.any(|count| count["recursion_misses"].as_u64() > Some(0))
}

/// Whether `part` is left when some of `whole` is taken out.
fn is_part(part: &[(Step, u64)], whole: &[(Step, u64)]) -> bool {
    let mut whole = whole.iter();
    part.iter()
        .all(|(step, _)| whole.any(|(other, _)| other == step))
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ends {
            laddr,
            lport,
            raddr,
            rport,
        } = self;
        write!(f, "[{laddr}]:{lport} [{raddr}]:{rport}")
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}→{}", self.0, self.1)
    }
}
