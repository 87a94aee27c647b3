//! The beginning of a trace: everything that is known before its first event.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::correlate::{Correlator, Selection};
use crate::depth::Depth;
use crate::event::Hook;
use crate::fields::{FailedMethod, SCHEMA, Session};
use crate::syscall::Machine;

/// The settings and the environment of a trace. A recording begins with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Version of the tcptrace that captures.
    pub version: String,
    /// Version of the records' layout (`abi::VERSION`).
    pub abi: u8,
    /// True if the machine is big-endian.
    pub big_endian: bool,
    /// The kernel release, as `uname -r` prints it.
    pub kernel: String,
    /// The machine's architecture, as `uname -m` prints it.
    pub machine: String,
    /// Wall clock minus CLOCK_MONOTONIC, in nanoseconds.
    pub clock_offset_ns: u64,
    /// When all hooks were attached (CLOCK_MONOTONIC, nanoseconds).
    pub mono_ns: u64,
    pub depth: Depth,
    /// The attach method of each hook; `None` if the hook is not attached.
    pub hooks: BTreeMap<Hook, Option<String>>,
    /// For each hook, the better attach methods that the kernel refused.
    pub refused: BTreeMap<Hook, Vec<RefusedMethod>>,
    /// All filters, as given.
    pub filters: BTreeMap<String, String>,
    /// The events that the hooks cannot show, each as a sentence.
    pub unseen: Vec<String>,
    /// The conditions that select lines.
    pub selection: Selection,
    /// The kernel's reasons for sending a RST (`enum sk_rst_reason`), by number.
    pub reset_reasons: BTreeMap<u32, String>,
    /// The trace ends when this many connections have ended.
    pub count: Option<u64>,
    /// The kernel side's count of lost event records at the beginning, modulo 2^32.
    #[serde(default)]
    pub lost: u32,
    /// Waits in the accept queue that are longer than this (in nanoseconds) are explained. `None`
    /// without `--why`.
    #[serde(default)]
    pub why_ns: Option<u64>,
}

/// An attach method that the kernel refused, and the error of the refusal, such as EPERM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedMethod {
    pub method: String,
    pub reason: String,
}

impl Begin {
    /// Returns the session line.
    pub(super) fn session(&self) -> Session {
        let failed = |it: &RefusedMethod| FailedMethod {
            method: it.method.clone(),
            error: it.reason.clone(),
        };
        let refused = self.refused.iter();
        let refused = refused.map(|(hook, refused)| (*hook, refused.iter().map(failed).collect()));
        let by_depth = self.depth.unseen().iter().map(|&text| text.to_owned());
        Session {
            mono_ns: self.mono_ns,
            schema: SCHEMA,
            version: self.version.clone(),
            kernel: self.kernel.clone(),
            depth: self.depth,
            hooks: self.hooks.clone(),
            failed_methods: refused.collect(),
            filters: self.filters.clone(),
            unseen: self.unseen.iter().cloned().chain(by_depth).collect(),
            why_ns: self.why_ns,
        }
    }

    pub(super) fn correlator(&self) -> Correlator {
        let attached = self.hooks.iter();
        let attached = attached.filter_map(|(&hook, method)| method.as_ref().map(|_| hook));
        let mut correlator = Correlator::new(self.mono_ns)
            .with_lost(self.lost)
            .with_hooks(attached)
            .with_reset_reasons(self.reset_reasons.clone())
            .with_selection(self.selection.clone())
            .with_hidden_births(self.hides_births())
            .with_depth(self.depth);
        let method = |hook| self.hooks.get(&hook).and_then(Option::as_deref);
        if let Some(why_ns) = self.why_ns {
            let is_visible = method(Hook::SchedSwitch).is_some();
            correlator = correlator.with_why(why_ns, Machine::of(&self.machine), is_visible);
        }
        if method(Hook::TimewaitSock).is_some() {
            correlator.sees_buckets();
        }
        if method(Hook::InetCskAccept).is_some_and(|method| method != "syscall") {
            correlator.sees_all_accepts();
        }
        if self.hooks.contains_key(&Hook::Segment) {
            correlator.expect_segments();
        }
        correlator
    }

    /// Returns whether the filter can leave out a server's LISTEN to SYN_RECV but pass the later
    /// events. Before Linux 6.15 the event of that transition lacks the peer. For the child socket
    /// of a wildcard listener, it also lacks the local address.
    fn hides_births(&self) -> bool {
        let conditions = [
            "port",
            "remote_port",
            "address",
            "local_address",
            "remote_address",
            "family",
        ];
        let mut numbers = self.kernel.split(|c: char| !c.is_ascii_digit());
        let mut number = || numbers.next()?.parse::<u32>().ok();
        let version = number().zip(number());
        version < Some((6, 15)) && conditions.iter().any(|it| self.filters.contains_key(*it))
    }
}
