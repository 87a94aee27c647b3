//! The report for people: the hooks, what a trace cannot show, and what to do about it.

use textwrap::{Options, WordSplitter};

use super::{Examination, Examined};
use crate::capture::hooks::HookRow;
use crate::capture::kernels::Change;

/// Width of the report without `-v`.
const WIDTH: usize = 100;

/// Formats the report.
pub fn report(examined: &Examined, lacking: &[&Change], verbose: bool) -> String {
    let hooks = &examined.hooks;
    let mut report = format!(
        "tcptrace {} on Linux {}\n\nHooks\n",
        examined.version, examined.kernel
    );
    for hook in hooks {
        report += &row(hook, verbose);
    }
    if !examined.unseen.is_empty() {
        report += "\nA trace cannot show here\n";
    }
    for what in &examined.unseen {
        report += &item(what);
    }
    report += "\nWhat to do\n";
    let probes = probes(hooks, &examined.lacking_capabilities);
    for advice in &probes {
        report += &item(advice);
    }
    for change in lacking {
        let (major, minor) = change.since;
        let before = match verbose {
            true => format!("; before: {}", change.before),
            false => String::new(),
        };
        report += &item(&format!(
            "A later kernel helps. Since Linux {major}.{minor}: {}{before}.",
            change.what
        ));
    }
    if probes.is_empty() && lacking.is_empty() {
        report += match hooks.iter().all(|it| it.method.is_some()) {
            true => "  Nothing to do.\n",
            false => "  Nothing is known that attaches the missing hooks; -v has the errors.\n",
        };
    }
    report
}

/// Returns advice for the hooks that would show more with a probe of the kernel's functions. EPERM is
/// a matter of privileges, other errors one of the kernel's options.
fn probes(hooks: &[Examination], lacking_capabilities: &[&str]) -> Vec<String> {
    const PROBES: [&str; 2] = ["fentry", "kprobe"];
    let without = hooks
        .iter()
        .filter(|it| !it.method.is_some_and(|method| PROBES.contains(&method)));
    let without: Vec<&Examination> = without.collect();
    let failed = |probe: &str, is_permitted: bool| {
        let failed = |it: &&&Examination| {
            let mut methods = it.failed_methods.iter().filter(|it| it.method == probe);
            methods.any(|it| (it.error != "EPERM") == is_permitted)
        };
        let names = without.iter().filter(failed);
        names.map(|it| it.hook.name()).collect::<Vec<&str>>()
    };
    let mut advice = vec![];
    for probe in PROBES {
        let names = failed(probe, false);
        if names.is_empty() {
            continue;
        }
        let cause = match lacking_capabilities.is_empty() {
            true => {
                "No capability is missing: look for kernel lockdown, a seccomp filter, a security \
                     module, or the limits of a container."
                    .to_owned()
            }
            false => format!(
                "tcptrace lacks {}. As root or with sudo it may be permitted.",
                lacking_capabilities.join(" and ")
            ),
        };
        advice.push(format!(
            "{probe} is not permitted (EPERM). It shows more by {}. {cause}",
            names.join(", ")
        ));
    }
    let (fentry, kprobe) = (failed("fentry", true), failed("kprobe", true));
    let options = match (fentry.is_empty(), kprobe.is_empty()) {
        (true, true) => return advice,
        (false, true) => "CONFIG_FUNCTION_TRACER for fentry",
        (true, false) => "CONFIG_KPROBES and CONFIG_KPROBE_EVENTS for kprobe",
        (false, false) => {
            "CONFIG_FUNCTION_TRACER for fentry, or CONFIG_KPROBES and CONFIG_KPROBE_EVENTS"
        }
    };
    let names = without.iter().map(|it| it.hook.name());
    let names: Vec<&str> = names
        .filter(|it| fentry.contains(it) || kprobe.contains(it))
        .collect();
    advice.push(format!(
        "A kernel whose functions can be probed ({options}) shows more by {}.",
        names.join(", ")
    ));
    advice
}

/// Formats one line: `✓ inet_csk_accept  by syscall: tracepoints of accept() and accept4()`, or
/// `✗ request_sock  fentry not permitted (EPERM)`. Details for which [`WIDTH`] has no room need
/// `verbose`.
fn row(hook: &Examination, verbose: bool) -> String {
    let line = |text: &str| {
        format!(
            "  {mark} {:<22} {text}\n",
            hook.hook.name(),
            mark = mark(hook)
        )
    };
    let fits = |text: &str| verbose || line(text).trim_end().chars().count() <= WIDTH;
    let failed = hook.failed_methods.iter();
    let failed: Vec<String> = failed
        .map(|it| format!("{} {}", it.method, why(&it.error)))
        .collect();
    let failed = failed.join(", ");
    let mut text = match hook.method {
        Some(method) if let Some(option) = HookRow::option(hook.hook) => {
            format!("by {method}, only with {option}")
        }
        Some(method) => {
            let detailed = format!("by {method}: {}", hook.via);
            match !hook.via.is_empty() && fits(&detailed) {
                true => detailed,
                false => format!("by {method}, {}", words(method)),
            }
        }
        None if failed.is_empty() || !fits(&failed) => "not attached".to_owned(),
        None => failed.clone(),
    };
    if verbose && hook.method.is_some() && !failed.is_empty() {
        text += &format!("; {failed}");
    }
    line(&text)
}

/// Returns the mark of a hook that is attached, or that is not.
fn mark(hook: &Examination) -> char {
    match hook.method {
        Some(_) => '✓',
        None => '✗',
    }
}

/// Returns what an attach method is.
fn words(method: &str) -> &'static str {
    match method {
        "fentry" => "a trampoline at the kernel's function",
        "kprobe" => "a breakpoint at the kernel's function",
        "syscall" => "the tracepoints of the system calls",
        "tp_btf" => "a tracepoint with typed arguments",
        "raw_tp" => "a tracepoint with raw arguments",
        "tracepoint" => "a classic tracepoint",
        _ => "a BPF iterator, which runs when it is read",
    }
}

/// Returns a short explanation of an error name.
fn why(error: &str) -> String {
    let words = match error {
        "EPERM" => "not permitted",
        "EACCES" => "refused by the verifier",
        "ENOENT" => "not in this kernel",
        "EINVAL" | "EOPNOTSUPP" | "ENOTSUPP" | "errno 524" => "not supported",
        "ENOMEM" => "without memory",
        _ => "failed",
    };
    format!("{words} ({error})")
}

/// Formats an item of a list, wrapped.
pub fn item(text: &str) -> String {
    let options = Options::new(WIDTH)
        .initial_indent("  - ")
        .subsequent_indent("    ")
        .word_splitter(WordSplitter::NoHyphenation);
    textwrap::fill(text, options) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::privileges::Privileges;
    use crate::event::Hook;
    use crate::fields::FailedMethod;

    fn hook(hook: Hook, method: Option<&'static str>, failed: &[(&str, &str)]) -> Examination {
        let failed = failed.iter().map(|(method, error)| FailedMethod {
            method: (*method).to_owned(),
            error: (*error).to_owned(),
        });
        Examination {
            hook,
            shows: "",
            method,
            via: "",
            failed_methods: failed.collect(),
            without: None,
        }
    }

    fn examined(hooks: Vec<Examination>, unseen: &[&str]) -> Examined {
        Examined {
            version: "0.2.0",
            kernel: "6.18.5".to_owned(),
            hooks,
            unseen: unseen.iter().map(|&it| it.to_owned()).collect(),
            privileges: Privileges::here(),
            lacking_capabilities: vec![],
        }
    }

    #[test]
    fn a_complete_kernel_needs_nothing() {
        let hooks = vec![hook(Hook::InetSockSetState, Some("tp_btf"), &[])];
        assert_eq!(
            report(&examined(hooks, &[]), &[], false),
            "tcptrace 0.2.0 on Linux 6.18.5\n\n\
             Hooks\n  ✓ inet_sock_set_state    by tp_btf, a tracepoint with typed arguments\n\n\
             What to do\n  Nothing to do.\n"
        );
    }

    #[test]
    fn details_without_room_in_a_line_need_verbose() {
        let mut accept = hook(Hook::InetCskAccept, Some("fentry"), &[]);
        accept.via = "BTF trampolines at inet_csk_accept (Linux 6.10 and later) and \
                      security_sock_graft";
        let brief = "  ✓ inet_csk_accept        by fentry, a trampoline at the kernel's function\n";
        assert_eq!(row(&accept, false), brief);
        let verbose = format!("  ✓ inet_csk_accept        by fentry: {}\n", accept.via);
        assert_eq!(row(&accept, true), verbose);
        accept.via = "BTF trampolines at inet_csk_accept";
        let brief = "  ✓ inet_csk_accept        by fentry: BTF trampolines at inet_csk_accept\n";
        assert_eq!(row(&accept, false), brief);
    }

    #[test]
    fn an_optional_hook_names_its_option() {
        let row = |it, method| row(&hook(it, Some(method), &[]), false);
        for (text, option) in [
            (
                row(Hook::Segment, "tp_btf"),
                "by tp_btf, only with --segments\n",
            ),
            (
                row(Hook::SchedSwitch, "raw_tp"),
                "by raw_tp, only with --why\n",
            ),
            (
                row(Hook::CpuSample, "perf_event"),
                "by perf_event, only with --why\n",
            ),
        ] {
            assert!(text.ends_with(option), "{text}");
        }
    }

    #[test]
    fn missing_probes_are_explained_with_the_kernel_option_that_gives_them() {
        let failed = [("fentry", "EBUSY"), ("kprobe", "ENOENT")];
        let hooks = || {
            vec![
                hook(Hook::InetCskAccept, Some("syscall"), &failed),
                hook(Hook::RequestSock, None, &failed),
            ]
        };
        let unseen = ["half-open connections (NEW_SYN_RECV)"];
        assert_eq!(
            report(&examined(hooks(), &unseen), &[], false),
            "tcptrace 0.2.0 on Linux 6.18.5\n\n\
             Hooks\n  ✓ inet_csk_accept        by syscall, the tracepoints of the system calls\n  \
             ✗ request_sock           fentry failed (EBUSY), kprobe not in this kernel (ENOENT)\n\n\
             A trace cannot show here\n  - half-open connections (NEW_SYN_RECV)\n\n\
             What to do\n  - A kernel whose functions can be probed (CONFIG_FUNCTION_TRACER for \
             fentry, or CONFIG_KPROBES and\n    CONFIG_KPROBE_EVENTS) shows more by \
             inet_csk_accept, request_sock.\n"
        );
        let verbose = report(&examined(hooks(), &unseen), &[], true);
        let row = "of the system calls; fentry failed (EBUSY), kprobe not";
        assert!(verbose.contains(row), "{verbose}");
    }

    #[test]
    fn a_probe_that_is_not_permitted_is_a_matter_of_privileges() {
        let hooks = [
            hook(
                Hook::InetCskAccept,
                Some("syscall"),
                &[("fentry", "EPERM"), ("kprobe", "EPERM")],
            ),
            hook(
                Hook::RequestSock,
                None,
                &[("fentry", "EPERM"), ("kprobe", "ENOENT")],
            ),
            hook(Hook::TimewaitSock, Some("kprobe"), &[("fentry", "EPERM")]),
        ];
        let nothing_missing = "No capability is missing: look for kernel lockdown, a seccomp filter, a \
                               security module, or the limits of a container.";
        assert_eq!(
            probes(&hooks, &[]),
            [
                format!(
                    "fentry is not permitted (EPERM). It shows more by inet_csk_accept, \
                     request_sock. {nothing_missing}"
                ),
                format!(
                    "kprobe is not permitted (EPERM). It shows more by inet_csk_accept. \
                     {nothing_missing}"
                ),
                "A kernel whose functions can be probed (CONFIG_KPROBES and CONFIG_KPROBE_EVENTS \
                 for kprobe) shows more by request_sock."
                    .to_owned(),
            ]
        );
        assert_eq!(
            probes(&hooks[..1], &["CAP_SYS_ADMIN"])[1],
            "kprobe is not permitted (EPERM). It shows more by inet_csk_accept. tcptrace lacks \
             CAP_SYS_ADMIN. As root or with sudo it may be permitted."
        );
        assert_eq!(probes(&hooks[2..], &[]), [""; 0]);
    }
}
