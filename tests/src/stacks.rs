//! Checks that the cause of a state change agrees with the kernel's call stack at that change.
//!
//! The witness records the call stack with ftrace. The table names functions that are neither
//! inlined nor removed by a tail call on Linux 6.1, 6.12 and 6.18. `tcp_reset`, `tcp_time_wait` and
//! `tcp_write_err` are missing because their last call is a tail call on some of these.

use crate::trace::Line;

/// Functions in which the kernel begins to work on a socket. The innermost of them in a call stack
/// is the last frame about the socket. Frames outside of it belong to another socket, or to the
/// task that a softirq interrupted.
const BEGINNINGS: [&str; 10] = [
    "tcp_v4_rcv",
    "tcp_v6_rcv",
    "__release_sock",
    "release_sock",
    "ip_protocol_deliver_rcu",
    "ip6_protocol_deliver_rcu",
    "call_timer_fn",
    "handle_softirqs",
    "__do_softirq",
    "__softirqentry_text_start",
];

/// The kernel call stack that a change with this cause must have.
struct Rule {
    cause: &'static str,
    /// Old and new state; `*` is any state.
    steps: &'static [(&'static str, &'static str)],
    /// The call stack has at least one function of each list.
    has: &'static [&'static [&'static str]],
    /// The call stack has none of these functions.
    lacks: &'static [&'static str],
}

/// The steps by which a connection with a peer ends.
const ENDS: &[(&str, &str)] = &[
    ("SYN_RECV", "CLOSE"),
    ("ESTABLISHED", "CLOSE"),
    ("CLOSE_WAIT", "CLOSE"),
    ("FIN_WAIT1", "CLOSE"),
    ("FIN_WAIT2", "CLOSE"),
    ("CLOSING", "CLOSE"),
    ("LAST_ACK", "CLOSE"),
];
const CONNECT: &[&str] = &["tcp_v4_connect", "tcp_v6_connect"];
const RECEIVE: &[&str] = &["tcp_rcv_state_process", "tcp_rcv_established"];
/// Kernel functions that can end a connection without a segment of the peer.
const LOCAL: &[&str] = &[
    "__tcp_close",
    "tcp_shutdown",
    "tcp_disconnect",
    "tcp_abort",
    "tcp_v4_connect",
    "tcp_v6_connect",
    "inet_csk_listen_stop",
];
/// Functions that process a received RST. They run before the segment's data and FIN are processed.
const RST: &[&str] = &["tcp_validate_incoming", "tcp_check_req"];
const TIMER: &[&str] = &[
    "tcp_write_timer_handler",
    "tcp_write_timer",
    "tcp_keepalive_timer",
    "tcp_retransmit_timer",
];
const ICMP: &[&str] = &["tcp_v4_err", "tcp_v6_err"];

/// The first rule that matches the cause and the states applies.
const RULES: &[Rule] = &[
    Rule {
        cause: "listen",
        steps: &[("CLOSE", "LISTEN")],
        has: &[&["inet_csk_listen_start"]],
        lacks: &[],
    },
    Rule {
        cause: "connect",
        steps: &[("CLOSE", "SYN_SENT")],
        has: &[CONNECT],
        lacks: &[],
    },
    Rule {
        cause: "connect_deferred",
        steps: &[("CLOSE", "SYN_SENT")],
        has: &[CONNECT],
        lacks: &[],
    },
    Rule {
        cause: "connect_failed",
        steps: &[("SYN_SENT", "CLOSE")],
        has: &[&[
            "tcp_v4_connect",
            "tcp_v6_connect",
            "tcp_sendmsg_fastopen",
            "tcp_sendmsg_locked",
        ]],
        lacks: &["tcp_disconnect", "__tcp_close", "tcp_abort"],
    },
    Rule {
        cause: "close",
        steps: &[("*", "FIN_WAIT1"), ("*", "LAST_ACK")],
        has: &[&["__tcp_close", "tcp_shutdown"]],
        lacks: &["tcp_disconnect", "tcp_abort"],
    },
    Rule {
        cause: "close",
        steps: &[("*", "CLOSE"), ("FIN_WAIT2", "FIN_WAIT2")],
        has: &[&["__tcp_close", "__mptcp_close"]],
        lacks: &["tcp_disconnect", "tcp_abort"],
    },
    Rule {
        cause: "abort",
        steps: ENDS,
        has: &[&["__tcp_close", "__mptcp_close_ssk"]],
        lacks: &["tcp_abort", "inet_csk_listen_stop"],
    },
    Rule {
        cause: "disconnect",
        steps: &[("*", "CLOSE")],
        has: &[&["tcp_disconnect"]],
        lacks: &["__tcp_close", "inet_csk_listen_stop"],
    },
    Rule {
        cause: "killed",
        steps: &[("*", "CLOSE")],
        has: &[&["tcp_abort"]],
        lacks: &["inet_csk_listen_stop"],
    },
    Rule {
        cause: "repair",
        steps: &[("CLOSE", "SYN_SENT")],
        has: &[CONNECT],
        lacks: &[],
    },
    Rule {
        cause: "repair",
        steps: &[("SYN_SENT", "ESTABLISHED")],
        has: &[CONNECT],
        lacks: RECEIVE,
    },
    Rule {
        cause: "repair",
        steps: &[("*", "CLOSE")],
        has: &[&["tcp_disconnect"]],
        lacks: &["inet_csk_listen_stop"],
    },
    Rule {
        cause: "syn_ack_received",
        steps: &[("SYN_SENT", "ESTABLISHED")],
        has: &[RECEIVE],
        lacks: &["tcp_connect"],
    },
    Rule {
        cause: "syn_received",
        steps: &[("LISTEN", "SYN_RECV")],
        has: &[&["tcp_conn_request", "tcp_try_fastopen"]],
        lacks: &["tcp_check_req"],
    },
    Rule {
        cause: "syn_received",
        steps: &[("SYN_SENT", "SYN_RECV")],
        has: &[RECEIVE],
        lacks: &[],
    },
    Rule {
        cause: "ack_received",
        steps: &[("LISTEN", "SYN_RECV")],
        has: &[
            &["tcp_v4_syn_recv_sock", "tcp_v6_syn_recv_sock"],
            &[
                "tcp_check_req",
                "tcp_get_cookie_sock",
                "cookie_v4_check",
                "cookie_v6_check",
            ],
        ],
        lacks: &["tcp_conn_request", "tcp_try_fastopen"],
    },
    Rule {
        cause: "ack_received",
        steps: &[("SYN_RECV", "ESTABLISHED")],
        has: &[&["tcp_rcv_state_process"]],
        lacks: LOCAL,
    },
    Rule {
        cause: "fin_received",
        steps: &[
            ("*", "CLOSE_WAIT"),
            ("*", "CLOSING"),
            ("FIN_WAIT2", "CLOSE"),
        ],
        has: &[&["tcp_fin"]],
        lacks: LOCAL,
    },
    // An ACK that close() finds in the backlog leads only to FIN_WAIT2, because the process owns
    // the socket. close() itself goes on from there (`tcp_rcv_state_process`, `__tcp_close`).
    Rule {
        cause: "ack_of_fin",
        steps: &[("FIN_WAIT2", "CLOSE")],
        has: &[&["tcp_rcv_state_process", "__tcp_close"]],
        lacks: &[
            "tcp_shutdown",
            "tcp_disconnect",
            "tcp_abort",
            "tcp_fin",
            "tcp_reset",
            "tcp_validate_incoming",
            "tcp_done_with_error",
        ],
    },
    Rule {
        cause: "ack_of_fin",
        steps: &[
            ("FIN_WAIT1", "FIN_WAIT2"),
            ("CLOSING", "CLOSE"),
            ("LAST_ACK", "CLOSE"),
        ],
        has: &[&["tcp_rcv_state_process"]],
        lacks: &[
            "__tcp_close",
            "tcp_shutdown",
            "tcp_disconnect",
            "tcp_abort",
            "tcp_fin",
            "tcp_reset",
            "tcp_validate_incoming",
            "tcp_done_with_error",
        ],
    },
    Rule {
        cause: "rst_received",
        steps: &[("SYN_SENT", "CLOSE")],
        has: &[&["tcp_rcv_state_process"]],
        lacks: LOCAL,
    },
    Rule {
        cause: "rst_received",
        steps: &[("*", "CLOSE")],
        has: &[RST],
        lacks: LOCAL,
    },
    Rule {
        cause: "data_received",
        steps: &[
            ("FIN_WAIT1", "CLOSE"),
            ("FIN_WAIT2", "CLOSE"),
            ("CLOSING", "CLOSE"),
            ("LAST_ACK", "CLOSE"),
        ],
        has: &[&["tcp_rcv_state_process"]],
        lacks: &[
            "tcp_validate_incoming",
            "tcp_fin",
            "tcp_disconnect",
            "tcp_abort",
        ],
    },
    Rule {
        cause: "icmp_received",
        steps: &[("*", "CLOSE")],
        has: &[ICMP],
        lacks: LOCAL,
    },
    Rule {
        cause: "timeout",
        steps: &[("*", "CLOSE")],
        has: &[TIMER],
        lacks: LOCAL,
    },
];

/// Checks a `transition` line against the call stack, whose innermost function is first. A line
/// without a cause and an empty stack always agree.
///
/// # Errors
///
/// Describes the disagreement.
pub fn agree(line: &Line, stack: &[String]) -> Result<(), String> {
    let Some(cause) = line["cause"].as_str().filter(|_| !stack.is_empty()) else {
        return Ok(());
    };
    let (old, new) = (line.text("oldstate"), line.text("newstate"));
    let fits = |pattern: &str, state: &str| pattern == "*" || pattern == state;
    let rule = RULES.iter().find(|rule| {
        let mut steps = rule.steps.iter();
        rule.cause == cause && steps.any(|(from, to)| fits(from, old) && fits(to, new))
    });
    let Some(rule) = rule else {
        return Err(format!("no rule for {cause} at {old}→{new}"));
    };
    let about = about_the_socket(stack);
    let on_stack = |name: &&str| about.iter().any(|function| function == name);
    for any in rule.has {
        if !any.iter().any(on_stack) {
            return Err(format!(
                "{cause} at {old}→{new} needs one of {any:?}: {about:?}"
            ));
        }
    }
    match rule.lacks.iter().find(|name| on_stack(name)) {
        Some(name) => Err(format!(
            "{cause} at {old}→{new} is not by {name}: {about:?}"
        )),
        None => Ok(()),
    }
}

/// Returns the innermost functions, up to the one in which the kernel began to work on this socket.
fn about_the_socket(stack: &[String]) -> &[String] {
    let begun = stack
        .iter()
        .position(|function| BEGINNINGS.contains(&function.as_str()));
    &stack[..begun.map_or(stack.len(), |at| at + 1)]
}

/// Returns the function of a frame that ftrace printed, without the suffixes of the compiler and
/// the module.
pub fn function(frame: &str) -> String {
    let name = frame.split([' ', '+']).next().unwrap_or_default();
    name.split('.').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(cause: &str, old: &str, new: &str) -> Line {
        Line(json!({"cause": cause, "oldstate": old, "newstate": new}))
    }

    fn stack(functions: &[&str]) -> Vec<String> {
        functions.iter().map(|it| function(it)).collect()
    }

    /// A close() sends a FIN. In a softirq on top of it the peer's socket receives that FIN.
    #[test]
    fn frames_of_another_socket_are_ignored() {
        let softirq = stack(&[
            "tcp_fin",
            "tcp_data_queue",
            "tcp_rcv_established",
            "tcp_v4_rcv",
            "handle_softirqs",
            "__tcp_close",
        ]);
        let fin = line("fin_received", "ESTABLISHED", "CLOSE_WAIT");
        assert_eq!(agree(&fin, &softirq), Ok(()));
        let close = line("close", "ESTABLISHED", "FIN_WAIT1");
        assert!(agree(&close, &softirq).is_err());
    }

    #[test]
    fn a_stack_of_disconnect_contradicts_the_cause_abort() {
        let unspec = stack(&["tcp_disconnect", "__inet_stream_connect", "__sys_connect"]);
        let linger = stack(&["tcp_disconnect", "__tcp_close", "tcp_close"]);
        let abort = line("abort", "ESTABLISHED", "CLOSE");
        let disconnect = line("disconnect", "ESTABLISHED", "CLOSE");
        assert_eq!(agree(&disconnect, &unspec), Ok(()));
        assert_eq!(agree(&abort, &linger), Ok(()));
        assert!(agree(&abort, &unspec).is_err());
        assert!(agree(&disconnect, &linger).is_err());
    }

    #[test]
    fn a_frame_is_reduced_to_its_function() {
        assert_eq!(function("tcp_v4_connect.part.0"), "tcp_v4_connect");
        assert_eq!(function("tcp_abort+0x12/0x40 [tcp]"), "tcp_abort");
    }
}
