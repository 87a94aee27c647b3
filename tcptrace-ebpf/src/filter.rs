//! The filter: decided here, before anything is written.

use tcptrace_ebpf::abi::{filter, ports};

use crate::maps::PORTS;
use crate::settings::FILTER;
use crate::sock::Ends;

/// Whether a socket passes. A port that the kernel has not set yet is 0, which no filter can
/// name: what cannot be shown to match is left out.
#[inline(always)]
pub fn passes(ends: &Ends) -> bool {
    let wanted = FILTER.load();
    if wanted == 0 {
        return true;
    }
    let family = if ends.addrs.is_v4 {
        filter::V4
    } else {
        filter::V6
    };
    let families = wanted & (filter::V4 | filter::V6);
    (families == 0 || families & family != 0)
        && (wanted & filter::PORT == 0
            || in_set(ports::EITHER, ends.lport)
            || in_set(ports::EITHER, ends.rport))
        && (wanted & filter::LOCAL_PORT == 0 || in_set(ports::LOCAL, ends.lport))
        && (wanted & filter::REMOTE_PORT == 0 || in_set(ports::REMOTE, ends.rport))
}

#[inline(always)]
fn in_set(set: u32, port: u16) -> bool {
    let word = PORTS.get(set + u32::from(port >> 6)).copied().unwrap_or(0);
    word >> (port & 63) & 1 != 0
}
