//! The library half of `tcptrace-ebpf`: the ABI that the eBPF programs and the loader share.
//!
//! It depends on `core` and `zerocopy` only and never names `aya_ebpf`, because that crate
//! exports `memcpy` and friends, which would replace libc's in every host binary.
#![no_std]

pub mod abi;
