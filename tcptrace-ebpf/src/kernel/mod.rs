//! What the hooks read of the kernel's structures. Nothing here writes a map.

pub mod cgroup;
pub mod memory;
pub mod request;
pub mod skb;
pub mod sock;
pub mod task;
pub mod thread;
pub mod tuple;
