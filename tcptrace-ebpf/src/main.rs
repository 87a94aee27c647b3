//! The eBPF programs: each hook reads what it knows, filters, and writes one record.
//!
//! `hooks/*` → `filter` → `emit` → the ring buffer; `sock`, `skb`, `cgroup` and `memory` read
//! kernel structures, `settings` holds the frozen globals, `maps` the maps. No state lives here but the accept()
//! calls in flight and the ACKs that are waited for: everything that can be worked out later is left
//! to the loader.
#![no_std]
#![no_main]
#![feature(core_intrinsics, stmt_expr_attributes)]
#![allow(internal_features, reason = "atomic addition, see maps.rs")]

mod cgroup;
mod emit;
mod ends;
mod filter;
mod hooks;
mod lanes;
mod maps;
mod memory;
mod request;
mod settings;
mod skb;
mod sock;
mod task;
mod thread;

/// The helpers that read kernel memory are GPL-only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// A panic that survives optimisation is an endless loop, which the verifier refuses to load.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
