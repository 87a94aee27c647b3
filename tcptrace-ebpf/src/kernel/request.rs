//! Reader of `struct request_sock`, a half-open connection.

use crate::globals::{REQ_LISTENER, REQ_NUM_RETRANS, REQ_RCV_ISN, REQ_SNT_SYNACK};
use crate::kernel::memory::{Memory, Probed};
use crate::kernel::sock::Sock;
use aya_ebpf::Global;

/// A `struct tcp_request_sock`, which begins with a `struct sock_common`.
#[derive(Clone, Copy)]
pub struct RequestSock(*const u8);

impl RequestSock {
    #[inline(always)]
    pub fn new(req: *const u8) -> RequestSock {
        RequestSock(req)
    }

    #[inline(always)]
    fn get<T: Copy>(self, offset: &Global<u32>) -> T {
        // SAFETY: a struct tcp_request_sock, and every caller names an offset into one.
        unsafe { Probed::read(self.0, offset) }
    }

    /// Returns the `struct sock_common` at the beginning. No member beyond it may be read through
    /// the result.
    #[inline(always)]
    pub fn common(self) -> Sock<Probed> {
        Sock::new(self.0)
    }

    #[inline(always)]
    pub fn listener(self) -> Sock<Probed> {
        Sock::new(self.get(&REQ_LISTENER))
    }

    /// Returns the time at which the first SYN-ACK was sent, CLOCK_MONOTONIC in microseconds; 0
    /// before.
    #[inline(always)]
    pub fn synack_us(self) -> u64 {
        self.get(&REQ_SNT_SYNACK)
    }

    /// Returns the number of retransmitted SYN-ACKs.
    #[inline(always)]
    pub fn retransmits(self) -> u8 {
        self.get(&REQ_NUM_RETRANS)
    }

    /// Returns the sequence number of the SYN.
    #[inline(always)]
    pub fn isn(self) -> u32 {
        self.get(&REQ_RCV_ISN)
    }
}
