//! How deep a trace goes: what is told of each connection, and so what it costs.

use clap::ValueEnum;

use crate::event::Hook;

/// `--depth`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Depth {
    /// Every change of state and every accept(), as they happen
    #[default]
    Events,
    /// A line a connection, at its end, with all its times; joined in the kernel
    Connections,
}

impl Depth {
    /// Whether a trace of this depth attaches a hook.
    pub fn takes(self, hook: Hook) -> bool {
        match self {
            Depth::Events => true,
            Depth::Connections => matches!(
                hook,
                Hook::InetSockSetState
                    | Hook::InetCskAccept
                    | Hook::ListenOverflow
                    | Hook::SocketIterator
            ),
        }
    }

    /// What a trace of this depth leaves out, for the session line.
    pub fn unseen(self) -> &'static [&'static str] {
        match self {
            Depth::Events => &[],
            Depth::Connections => &[
                "what happens between the birth and the end of a connection, as it happens \
                 (--depth connections)",
                "half-open connections (NEW_SYN_RECV), TIME_WAIT, retransmits and resets: a \
                 server's handshake is estimated from its first round trip (--depth connections)",
            ],
        }
    }
}
