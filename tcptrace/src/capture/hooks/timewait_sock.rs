//! The buckets of FIN_WAIT2 and TIME_WAIT, seen in the functions that make, change and free them.

use super::{Carrier, HookRow, Point, Program};
use crate::event::Hook;

/// The function that puts a bucket into the hash table: its name, and its parameters.
const HASHDANCE: (&str, usize) = ("inet_twsk_hashdance", 3);
const HASHDANCE_SCHEDULE: (&str, usize) = ("inet_twsk_hashdance_schedule", 4);

/// What every bucket's end comes to; a kernel may have it inlined.
const KILL: &str = "inet_twsk_kill";
const PURGE_UNSEEN: &str = "perhaps the end of TIME_WAIT when its network namespace ends";

const SINCE_6_11: &str = "BTF trampolines at inet_twsk_hashdance_schedule (Linux 6.11 and later)";
const UNTIL_6_10: &str = "BTF trampolines at inet_twsk_hashdance (Linux 6.10 and before)";

pub const ROW: HookRow = HookRow {
    hook: Hook::TimewaitSock,
    shows: "what the kernel keeps of a connection in FIN_WAIT2 and TIME_WAIT, and until when",
    without: Some(
        "TIME_WAIT as it happens: its beginning is told from the closing socket's flags, the FIN \
         that comes after close() and its end by a look each second",
    ),
    carriers: &[
        carrier("fentry", SINCE_6_11, HASHDANCE_SCHEDULE, FENTRY_6_11),
        carrier("fentry", UNTIL_6_10, HASHDANCE, FENTRY_6_10),
        carrier(
            "kprobe",
            "kprobes (Linux 6.11 and later)",
            HASHDANCE_SCHEDULE,
            KPROBE_6_11,
        ),
        carrier(
            "kprobe",
            "kprobes (Linux 6.10 and before)",
            HASHDANCE,
            KPROBE_6_10,
        ),
    ],
};

// The ends first: a bucket whose beginning is seen has no end that is not.
const FENTRY_6_11: &[Program] = &fentry(HASHDANCE_SCHEDULE.0);
const FENTRY_6_10: &[Program] = &fentry(HASHDANCE.0);
const KPROBE_6_11: &[Program] = &kprobe(HASHDANCE_SCHEDULE.0);
const KPROBE_6_10: &[Program] = &kprobe(HASHDANCE.0);

const fn fentry(hashdance: &'static str) -> [Program; 6] {
    [
        Program::new(
            "tw_segment_fentry",
            Point::Fentry("tcp_timewait_state_process"),
        ),
        Program::new(
            "tw_released_fentry",
            Point::Fentry("inet_twsk_deschedule_put"),
        ),
        Program::optional("tw_killed_fentry", Point::Fentry(KILL), PURGE_UNSEEN),
        Program::new("tw_timer_fentry", Point::Fentry("tw_timer_handler")),
        Program::new("tw_schedule_fentry", Point::Fentry("__inet_twsk_schedule")),
        Program::new("tw_begun_fentry", Point::Fentry(hashdance)),
    ]
}

const fn kprobe(hashdance: &'static str) -> [Program; 6] {
    [
        Program::new(
            "tw_segment_kprobe",
            Point::Kprobe("tcp_timewait_state_process"),
        ),
        Program::new(
            "tw_released_kprobe",
            Point::Kprobe("inet_twsk_deschedule_put"),
        ),
        Program::optional("tw_killed_kprobe", Point::Kprobe(KILL), PURGE_UNSEEN),
        Program::new("tw_timer_kprobe", Point::Kprobe("tw_timer_handler")),
        Program::new("tw_schedule_kprobe", Point::Kprobe("__inet_twsk_schedule")),
        Program::new("tw_begun_kprobe", Point::Kprobe(hashdance)),
    ]
}

const fn carrier(
    name: &'static str,
    via: &'static str,
    hashdance: (&'static str, usize),
    programs: &'static [Program],
) -> Carrier {
    Carrier {
        name,
        via,
        parameters: Some(hashdance),
        programs,
        unseen: &[],
    }
}
