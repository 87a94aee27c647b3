//! An independent witness: the kernel's own ftrace on `sock:inet_sock_set_state`.
//!
//! It shares only the tracepoint with tcptrace: no BPF, no code, no file format. Every scenario has
//! a private ftrace instance, which records the state changes on the scenario's ports, with the
//! kernel's stack.

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

/// Size of the ftrace buffer of each CPU in KiB, enough for the largest storm.
const BUFFER_KB: &str = "16384";

/// Upper bound on the call stacks that are recorded per scenario. More call stacks of a storm would
/// show nothing new.
const STACKS: u32 = 3_000;

/// Upper bound on the difference between the times that the witness and tcptrace give a state
/// change. They read the clock microseconds apart, but a hypervisor may pause the CPU in between.
/// The pause is long if a busy host emulates two CPUs in turn.
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
    pub tuple: Tuple,
    pub step: Step,
    /// Whether the CPU was running a thread of init, which this state change interrupted.
    pub on_init: bool,
    /// The kernel's call stack, innermost function first. Empty when not recorded.
    pub stack: Vec<String>,
}

/// A socket's two addresses and ports. A port is 0 while the kernel does not know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tuple {
    pub laddr: IpAddr,
    pub lport: u16,
    pub raddr: IpAddr,
    pub rport: u16,
}

/// The old and the new state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step(pub String, pub String);

impl Witness {
    /// Starts to record the state changes on these ports.
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
        // Short-lived threads of init are recognized by their process.
        witness.set("options/record-tgid", "1");
        witness.set("buffer_size_kb", BUFFER_KB);
        witness.set("events/sock/inet_sock_set_state/filter", &filter);
        // A kernel that was built without stack traces gives none; then causes are not compared.
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

    /// Returns all records in order of time. Panics if ftrace lost any.
    pub fn testimony(&self) -> Vec<Seen> {
        let text = self.read().expect("read the trace");
        let (written, kept) = entries(&text).expect("a header with a count");
        assert_eq!(written, kept, "the witness lost records");
        parse_all(&text)
    }

    /// Like [`testimony`](Self::testimony), for a scenario that has failed already: returns what
    /// can be read.
    pub fn testimony_if_readable(&self) -> Vec<Seen> {
        let text = self.read().unwrap_or_default();
        parse_all(&text)
    }

    fn read(&self) -> io::Result<String> {
        fs::read_to_string(self.instance.join("trace"))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // EBUSY while a process that was just forked still holds copies of our descriptors.
        for _ in 0..100 {
            if fs::remove_dir(&self.instance).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// Mounts tracefs. It stays mounted, as after any program that uses it.
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

/// Removes the instances of tests that were killed. Otherwise they record for ever and slow down
/// every state change.
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
            // Another test may have removed it.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Parses `# entries-in-buffer/entries-written: 12/12   #P:2`.
fn entries(trace: &str) -> Option<(u64, u64)> {
    let (_, rest) = trace.split_once("entries-written: ")?;
    let (kept, rest) = rest.split_once('/')?;
    let written = rest.split_whitespace().next()?;
    Some((written.parse().ok()?, kept.parse().ok()?))
}

/// Returns all state changes with their call stacks. A call stack is a separate entry. It follows
/// its state change, or the entries of a softirq that interrupted in between.
fn parse_all(trace: &str) -> Vec<Seen> {
    let mut seen: Vec<Seen> = vec![];
    // Indices of changes without a stack, by CPU.
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
    // tcp_done() of a killed listener sets CLOSE a second time, and nothing changes.
    seen.retain(|it| !it.step.is_none());
    seen
}

/// Returns the CPU of an entry: `001` for `[001]`.
fn cpu(entry: &str) -> String {
    // Searches from the end, because a task's name can contain anything. The fields have no
    // brackets.
    let cpu = entry
        .rsplit_once(" [")
        .and_then(|(_, rest)| rest.split_once(']'));
    cpu.map(|(cpu, _)| cpu.to_owned()).unwrap_or_default()
}

/// Parses `<task>-<tid> (<tgid>) [001] ..s2. 123.456789: inet_sock_set_state: family=AF_INET …
/// newstate=TCP_CLOSE`.
fn parse(line: &str) -> Option<Seen> {
    // Searches from the end, because a task's name can contain anything.
    let (head, fields) = line.rsplit_once(": inet_sock_set_state: ")?;
    let fields: BTreeMap<&str, &str> = fields
        .split_whitespace()
        .filter_map(|field| field.split_once('='))
        .collect();
    let (task, _) = head.rsplit_once(" [")?;
    // `-------` stands for an unknown process.
    let (_, tgid) = task.rsplit_once('(')?;
    let (seconds, micros) = head.rsplit(' ').next()?.split_once('.')?;
    let micros = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
    let state = |name| Some(fields.get(name)?.trim_start_matches("TCP_").to_owned());
    // IPv4 addresses are printed as mapped IPv6, too, so one pair of fields serves both families.
    let addr = |name| Some(fields.get(name)?.parse::<Ipv6Addr>().ok()?.to_canonical());
    let port = |name| fields.get(name)?.parse().ok();
    let step = Step(state("oldstate")?, state("newstate")?);
    Some(Seen {
        mono_ns: micros * 1_000,
        tuple: Tuple {
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
        on_init: tgid.trim_end().trim_end_matches(')').trim() == "1",
        stack: vec![],
    })
}

impl Step {
    fn is_none(&self) -> bool {
        self.0 == "CLOSE" && self.1 == "CLOSE"
    }

    /// Whether the client's port is unreliable at this step. An unbound client has none yet, and
    /// one that has connected before still shows its old one.
    fn leaves_port_open(&self) -> bool {
        self.1 == "SYN_SENT"
    }
}

/// Returns the tuple that a line names.
fn tuple_of(line: &Line) -> Tuple {
    let port = |name| line.maybe(name).unwrap_or(0) as u16;
    let laddr: IpAddr = line.text("laddr").parse().expect("an address");
    let raddr = match line["raddr"].as_str() {
        Some(addr) => addr.parse().expect("an address"),
        None if laddr.is_ipv4() => IpAddr::from([0; 4]),
        None => IpAddr::from([0; 16]),
    };
    Tuple {
        laddr,
        lport: port("lport"),
        raddr,
        rport: port("rport"),
    }
}

impl Seen {
    /// Builds a record from a `transition` line.
    fn from_line(line: &Line) -> Seen {
        let mut tuple = tuple_of(line);
        let [old, new] = ["oldstate", "newstate"].map(|it| line.text(it).to_owned());
        let step = Step(old, new);
        if step.leaves_port_open() {
            tuple.lport = 0;
        }
        Seen {
            mono_ns: line.num("mono_ns"),
            tuple,
            step,
            on_init: false,
            stack: vec![],
        }
    }
}

/// The share of the witness's records that tcptrace must have reported.
pub enum Share<'a> {
    /// All records.
    All,
    /// Exactly those that satisfy a filter.
    Where(&'a dyn Fn(&Tuple) -> bool),
    /// Any subset: records were lost or left out.
    Some,
    /// All records, except those of incomplete connections with a step that interrupted init.
    /// Kernels of some sandboxes run no BPF program then, and do not count the skipped run.
    AllButHidden,
}

/// Compares a trace with the testimony. Each connection must have the same steps in the same order
/// at the same times, and each cause must match its stack.
pub fn compare(trace: &Trace, testimony: &[Seen], share: Share) {
    // tcptrace was not active before the session line and after the summary. With --count a trace
    // ends with its last event, whose time the witness may have rounded up.
    let present = trace.session().num("mono_ns")..=trace.summary().num("mono_ns") + ROUNDED_TO_NS;
    let wanted = |seen: &&Seen| {
        present.contains(&seen.mono_ns)
            && match share {
                Share::Where(filter) => filter(&seen.tuple),
                Share::All | Share::Some | Share::AllButHidden => true,
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
        for (tuple, steps) in &traced {
            let known = witnessed.get(tuple).expect("the witness saw this tuple");
            assert!(is_part(steps, known), "{tuple}: {steps:?} of {known:?}");
        }
        return;
    }
    if let Share::AllButHidden = share {
        let incomplete = trace
            .own("connection")
            .filter(|line| line["complete"] == false);
        for tuple in incomplete.map(tuple_of) {
            let mut steps = testimony.iter().filter(|seen| seen.tuple == tuple);
            assert!(
                probes_were_skipped(trace) || steps.any(|seen| seen.on_init),
                "{tuple} is incomplete"
            );
            witnessed.remove(&tuple);
            traced.remove(&tuple);
        }
    }
    let names = |sequences: &Sequences| -> Vec<String> {
        let steps = |seen: &[(Step, u64)]| -> Vec<String> {
            seen.iter().map(|(step, _)| step.to_string()).collect()
        };
        sequences
            .iter()
            .map(|(tuple, seen)| format!("{tuple}: {}", steps(seen).join(", ")))
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
    for (tuple, steps) in &traced {
        for ((step, ours), (_, theirs)) in steps.iter().zip(&witnessed[tuple]) {
            assert!(
                ours.abs_diff(*theirs) < CLOCKS_APART_NS,
                "{tuple} {step}: at {ours} and at {theirs}"
            );
        }
    }
    compare_causes(trace, testimony.iter().filter(wanted), &traced);
}

/// Compares the causes of those connections whose steps agree.
fn compare_causes<'a>(
    trace: &Trace,
    testimony: impl Iterator<Item = &'a Seen>,
    agreeing: &Sequences,
) {
    let mut stacks: BTreeMap<Tuple, Vec<&[String]>> = BTreeMap::new();
    for seen in testimony {
        stacks.entry(seen.tuple).or_default().push(&seen.stack);
    }
    let mut taken: BTreeMap<Tuple, usize> = BTreeMap::new();
    for line in trace.own("transition").filter(|it| !it.is_synthetic()) {
        let tuple = Seen::from_line(line).tuple;
        if !agreeing.contains_key(&tuple) {
            continue;
        }
        let n = taken.entry(tuple).or_default();
        if let Err(why) = stacks::agree(line, stacks[&tuple][*n]) {
            panic!("{why}\n{line}");
        }
        *n += 1;
    }
}

type Sequences = BTreeMap<Tuple, Vec<(Step, u64)>>;

/// Returns the steps of every tuple, in order of time.
fn sequences(seen: impl Iterator<Item = Seen>) -> Sequences {
    let mut sequences = Sequences::new();
    for Seen {
        mono_ns,
        tuple,
        step,
        on_init: _,
        stack: _,
    } in seen
    {
        sequences.entry(tuple).or_default().push((step, mono_ns));
    }
    sequences
}

/// Whether the kernel skipped a program run, which makes open connections incomplete.
fn probes_were_skipped(trace: &Trace) -> bool {
    let counts = trace.summary()["hook_counts"].as_object();
    let mut counts = counts.into_iter().flat_map(|all| all.values());
    counts.any(|count| count["recursion_misses"].as_u64() > Some(0))
}

/// Whether `part` is a subsequence of `whole`.
fn is_part(part: &[(Step, u64)], whole: &[(Step, u64)]) -> bool {
    let mut whole = whole.iter();
    part.iter()
        .all(|(step, _)| whole.any(|(other, _)| other == step))
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tuple {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(task: &str) -> String {
        format!(
            "{task} [001] ..s2. 38728.875510: inet_sock_set_state: family=AF_INET \
             protocol=IPPROTO_TCP sport=34257 dport=47722 saddr=127.0.0.1 daddr=127.0.0.1 \
             saddrv6=::ffff:127.0.0.1 daddrv6=::ffff:127.0.0.1 oldstate=TCP_LISTEN \
             newstate=TCP_SYN_RECV"
        )
    }

    #[test]
    fn a_change_that_interrupts_any_thread_of_init_is_on_init() {
        let is_on_init = |task| parse(&entry(task)).unwrap().on_init;
        assert!(is_on_init("        a [b] (c)-6001    (      1)"));
        assert!(!is_on_init("        a [b] (1)-6001    (    814)"));
        assert!(!is_on_init("          <idle>-0       (-------)"));
    }
}
