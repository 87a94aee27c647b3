//! Hook for the segments that open and close connections, on the wire: SYN, FIN, RST, and the ACKs
//! of SYN-ACKs and FINs.
//!
//! ```text
//! tracepoint netif_receive_skb(struct sk_buff *skb)                                         5.10 to 6.18
//! tracepoint net_dev_start_xmit(const struct sk_buff *skb, const struct net_device *dev)    5.10 to 6.18
//! ```
//! include/trace/events/net.h:
//! <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/net.h#L15>
//!
//! Both fire for every packet of the machine, in every network namespace. A received packet is seen
//! after GRO (`__netif_receive_skb_core`). A sent one is seen before the driver and TSO
//! (`xmit_one`, net/core/dev.c). For a data segment the program reads the headers, looks once into
//! `AWAITED_ACKS`, and ends.
//!
//! A packet that passes several devices of one namespace (VLAN, bridge, bond) fires at each. The
//! loader recognises the repeats by time and device.

use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use tcptrace_ebpf::abi::{Segment, direction, hook, kind};

use crate::emit::{none, submit_with_addrs};
use crate::filter;
use crate::globals::*;
use crate::kernel::memory::{Direct, Memory, Probed};
use crate::kernel::skb::{self, Skb};
use crate::kernel::sock::{Sock, TCP_CLOSE, TCP_NEW_SYN_RECV, TCP_TIME_WAIT};
use crate::kernel::tuple::Tuple;
use crate::maps::{AWAITED_ACKS, AwaitedAck, Flow};

#[btf_tracepoint(function = "net_dev_start_xmit")]
pub fn segment_out_btf(ctx: BtfTracePointContext) -> i32 {
    segment(Skb::<Direct>::new(ctx.arg(0)), direction::OUT);
    0
}

#[btf_tracepoint(function = "netif_receive_skb")]
pub fn segment_in_btf(ctx: BtfTracePointContext) -> i32 {
    segment(Skb::<Direct>::new(ctx.arg(0)), direction::IN);
    0
}

#[raw_tracepoint(tracepoint = "net_dev_start_xmit")]
pub fn segment_out_raw(ctx: RawTracePointContext) -> i32 {
    segment(Skb::<Probed>::new(ctx.arg(0)), direction::OUT);
    0
}

#[raw_tracepoint(tracepoint = "netif_receive_skb")]
pub fn segment_in_raw(ctx: RawTracePointContext) -> i32 {
    segment(Skb::<Probed>::new(ctx.arg(0)), direction::IN);
    0
}

#[inline(always)]
fn segment<M: Memory>(skb: Skb<M>, direction: u8) {
    let Some(packet) = skb.packet(direction == direction::OUT) else {
        return;
    };
    let tcp = packet.tcp;
    let dev = skb.dev();
    let net = skb::netns_of(dev);
    // SAFETY: a packet's device.
    let ifindex: u32 = unsafe { Probed::read(dev, &DEV_IFINDEX) };
    let flow = Flow {
        net: net as u64,
        source: packet.source.words(),
        destination: packet.destination.words(),
        sport: tcp.sport,
        dport: tcp.dport,
        reserved: 0,
    };
    let len = packet.payload_len();
    let is_awaited = tcp.flags & skb::ACK != 0 && is_awaited(&flow, &tcp, direction, ifindex);
    if tcp.flags & (skb::SYN | skb::FIN | skb::RST) == 0 && !is_awaited {
        return;
    }
    await_ack(&flow, &tcp, len);

    let (addrs, own, peer) = if direction == direction::OUT {
        (packet.addrs_at_sender(), tcp.sport, tcp.dport)
    } else {
        (packet.addrs_at_receiver(), tcp.dport, tcp.sport)
    };
    let tuple = Tuple {
        addrs,
        lport: u16::from_be(own),
        rport: u16::from_be(peer),
    };
    let sender = if direction == direction::OUT {
        Sock::<Probed>::new(skb.sk())
    } else {
        Sock::null()
    };
    // SAFETY: the device's network namespace.
    let netns = || unsafe { Probed::read::<u32>(net, &NET_INUM) };
    if !filter::admit(hook::SEGMENT, &tuple, netns, owner(sender)) {
        return;
    }
    let payload = |sections| Segment {
        sk: sender.id(),
        netns: netns(),
        ifindex,
        seq: u32::from_be(tcp.seq),
        ack: u32::from_be(tcp.ack),
        len,
        lport: tuple.lport,
        rport: tuple.rport,
        window: u16::from_be(tcp.window),
        flags: tcp.flags,
        direction,
        sk_state: sender.state(),
        sections,
        reserved: 0,
    };
    submit_with_addrs(hook::SEGMENT, kind::SEGMENT, addrs, payload, none);
}

/// Returns the sender if it is a full socket, whose user and cgroup are the connection's. A sender
/// in CLOSE may be the kernel's own socket, which answers for sockets that are gone
/// (`tcp_v4_send_reset`).
#[inline(always)]
fn owner(sender: Sock<Probed>) -> Sock<Probed> {
    match sender.state() {
        0 | TCP_CLOSE | TCP_TIME_WAIT | TCP_NEW_SYN_RECV => Sock::null(),
        _ => sender,
    }
}

/// The index of lo in every network namespace (`LOOPBACK_IFINDEX`, include/net/flow.h).
const LOOPBACK: u32 = 1;

/// Returns whether this is the first segment of its direction that acknowledges a SYN-ACK or a FIN.
/// Only on lo a segment is sent and received in the same namespace.
#[inline(always)]
fn is_awaited(flow: &Flow, tcp: &skb::Tcp, direction: u8, ifindex: u32) -> bool {
    let Some(awaited) = AWAITED_ACKS.get_ptr_mut(flow) else {
        return false;
    };
    // SAFETY: the pointer is to the map's value. Two CPUs may both see it as unsent; the loader
    // recognises the repeat.
    let awaited = unsafe { &mut *awaited };
    if (u32::from_be(tcp.ack).wrapping_sub(awaited.ack) as i32) < 0 {
        return false;
    }
    if direction == direction::OUT && ifindex == LOOPBACK {
        let is_first = awaited.sent == 0;
        awaited.sent = 1;
        return is_first;
    }
    // Fails if another CPU has already removed the entry.
    let _ = AWAITED_ACKS.remove(flow);
    true
}

/// Marks the ACK of this SYN-ACK or FIN as awaited. A SYN needs no mark, because its answer is a
/// SYN-ACK or a RST.
#[inline(always)]
fn await_ack(flow: &Flow, tcp: &skb::Tcp, len: u32) {
    let is_syn_ack = tcp.flags & (skb::SYN | skb::ACK) == skb::SYN | skb::ACK;
    if !is_syn_ack && tcp.flags & skb::FIN == 0 {
        return;
    }
    let back = Flow {
        net: flow.net,
        source: flow.destination,
        destination: flow.source,
        sport: flow.dport,
        dport: flow.sport,
        reserved: 0,
    };
    // SYN and FIN use one sequence number each (RFC 9293 section 3.4).
    let awaited = AwaitedAck {
        ack: u32::from_be(tcp.seq).wrapping_add(len).wrapping_add(1),
        sent: 0,
    };
    // The map evicts old entries. Any other failure is ignored, because the program has no remedy
    // for it.
    let _ = AWAITED_ACKS.insert(&back, &awaited, 0);
}
