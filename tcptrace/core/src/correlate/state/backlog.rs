//! The requested and the effective limit of a listener's queues.

use crate::event::SetState;
use crate::fields::Backlog;

/// Returns the limits of a listener that enters LISTEN; empty for any other change of state.
#[inline(always)]
pub fn of(change: &SetState) -> Backlog {
    let Some(listen) = change.listen else {
        return Backlog::default();
    };
    // The argument of the current listen() call belongs to this listener only if this listener's
    // limit follows from it (`__sys_listen`, net/socket.c). During that call, the kernel itself can
    // make another socket listen.
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

/// Updates the limits with the effective limit `max` that an event shows. If it differs from the
/// known limit, listen() was called again with an unknown argument.
pub fn now(known: Backlog, max: u32) -> Backlog {
    match known.backlog_max {
        Some(same) if same == max => known,
        _ => Backlog {
            backlog_max: Some(max),
            ..Backlog::default()
        },
    }
}
