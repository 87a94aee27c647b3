//! Readers of the kernel's structures. They write no map.

pub mod cgroup;
pub mod memory;
pub mod registers;
pub mod request;
pub mod skb;
pub mod sock;
pub mod task;
pub mod thread;
pub mod tuple;
