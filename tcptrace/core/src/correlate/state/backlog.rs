//! The limit of a listener's queues: asked for, and in force.

use crate::event::SetState;
use crate::fields::Backlog;

/// As a listener shows it that enters LISTEN; nothing of any other socket.
#[inline(always)]
pub fn of(change: &SetState) -> Backlog {
    let Some(listen) = change.listen else {
        return Backlog::default();
    };
    // What the current system call was given is this listener's only if it leads to its limit
    // (`__sys_listen`, net/socket.c): the kernel itself can listen meanwhile.
    let asked = listen
        .backlog
        .filter(|&asked| (asked as u32).min(listen.somaxconn) == change.backlog_max);
    Backlog {
        backlog_max: Some(change.backlog_max),
        backlog_asked: asked,
        somaxconn: Some(listen.somaxconn),
        backlog_clipped: asked.map(|asked| asked as u32 > listen.somaxconn),
    }
}

/// With the limit that an event shows. When it is another one by now, listen() was called again,
/// and nobody has seen with what.
pub fn now(known: Backlog, max: u32) -> Backlog {
    match known.backlog_max {
        Some(same) if same == max => known,
        _ => Backlog {
            backlog_max: Some(max),
            ..Backlog::default()
        },
    }
}
