//! The hook of FIN_WAIT2 and TIME_WAIT buckets: the functions that create, change and free them.

use super::{AttachMethod, HookRow, Point, Program};
use crate::event::Hook;

/// The function that inserts a bucket into the hash table, with its number of parameters.
const HASHDANCE: (&str, usize) = ("inet_twsk_hashdance", 3);
const HASHDANCE_SCHEDULE: (&str, usize) = ("inet_twsk_hashdance_schedule", 4);

/// The function in which every bucket ends. A kernel may have inlined it.
const KILL: &str = "inet_twsk_kill";
const PURGE_UNSEEN: &str = "perhaps the end of TIME_WAIT when its network namespace ends";

const SINCE_6_11: &str = "BTF trampolines at inet_twsk_hashdance_schedule (Linux 6.11 and later)";
const UNTIL_6_10: &str = "BTF trampolines at inet_twsk_hashdance (Linux 6.10 and before)";

pub const ROW: HookRow = HookRow {
    hook: Hook::TimewaitSock,
    shows: "the buckets that the kernel keeps in FIN_WAIT2 and TIME_WAIT, and when they end",
    without: Some(
        "TIME_WAIT as it happens: its beginning is derived from the closing socket's flags; its end, and \
         a FIN after close(), are found by a snapshot each second",
    ),
    methods: &[
        method("fentry", SINCE_6_11, HASHDANCE_SCHEDULE, FENTRY_6_11),
        method("fentry", UNTIL_6_10, HASHDANCE, FENTRY_6_10),
        method(
            "kprobe",
            "kprobes (Linux 6.11 and later)",
            HASHDANCE_SCHEDULE,
            KPROBE_6_11,
        ),
        method(
            "kprobe",
            "kprobes (Linux 6.10 and before)",
            HASHDANCE,
            KPROBE_6_10,
        ),
    ],
};

// The programs that see the end of a bucket are attached first. The end of every bucket whose
// beginning is seen is then seen, too.
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

const fn method(
    name: &'static str,
    via: &'static str,
    hashdance: (&'static str, usize),
    programs: &'static [Program],
) -> AttachMethod {
    AttachMethod {
        name,
        via,
        parameters: Some(hashdance),
        programs,
        unseen: &[],
    }
}
