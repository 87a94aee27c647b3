//! `struct request_sock`: what the hooks around half-open connections share.

use tcptrace_ebpf::abi::{Request, kind, request_flag, section};

use crate::emit::emit;
use crate::filter;
use crate::maps::count;
use crate::memory::{Memory, Probed};
use crate::settings::{REQ_NUM_RETRANS, REQ_RCV_ISN, REQ_SNT_SYNACK};
use crate::sock::{Sock, TCP_LISTEN};

/// Writes the record of a `step` (`abi::request_step`) of the request socket at `req`, which
/// `hook` has seen. `sk` is its listener, or its Fast Open child.
///
/// A subprogram of its own: inlined in every program it would fill most of the object.
#[inline(never)]
pub fn tell(hook: u32, sk: *const u8, req: *const u8, step: u8, mut flags: u8) {
    let sk = Sock::<Probed>::new(sk);
    count(hook, |counters| counters.seen += 1);
    let common = Sock::<Probed>::new(req);
    let ends = common.ends_in_common();
    if !filter::passes(&ends, || common.netns(), sk) {
        count(hook, |counters| counters.filtered += 1);
        return;
    }
    if sk.state() == TCP_LISTEN {
        flags |= request_flag::LISTENING;
    }
    if sk.defers_accept() {
        flags |= request_flag::DEFER_ACCEPT;
    }
    // SAFETY: `req` is a struct tcp_request_sock, as `sk` is a TCP socket.
    let (synack_us, retransmits, isn) = unsafe {
        (
            Probed::read(req, &REQ_SNT_SYNACK),
            Probed::read(req, &REQ_NUM_RETRANS),
            Probed::read(req, &REQ_RCV_ISN),
        )
    };
    let mut payload = Request {
        req: common.id(),
        sk: sk.id(),
        synack_us,
        netns: common.netns(),
        syn_queue_len: sk.syn_queue_len(),
        isn,
        reserved: 0,
        lport: ends.lport,
        rport: ends.rport,
        step,
        retransmits,
        flags,
        sections: 0,
    };
    if ends.addrs.is_v4 {
        payload.sections = section::V4;
        emit(hook, kind::REQUEST, &payload, ends.addrs.as_v4());
    } else {
        emit(hook, kind::REQUEST, &payload, ends.addrs.as_v6());
    }
}
