//! Test: every hooked function has its prototype in a comment of the programs' source, where `cargo
//! xtask kernels` compares it with real kernels.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{HOOKS, Point};

const COMMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tcptrace-ebpf/src/hooks");

/// Returns the functions and tracepoints of the table. Tracepoints of system calls have no
/// prototype.
fn hooked() -> BTreeSet<String> {
    let methods = HOOKS.iter().flat_map(|row| row.methods);
    let points = methods
        .flat_map(|method| method.programs)
        .map(|it| &it.point);
    let names = points.flat_map(|point| match point {
        Point::BtfTracepoint(name) | Point::RawTracepoint(name) => {
            vec![format!("tracepoint {name}")]
        }
        Point::Tracepoint("syscalls", _) => vec![],
        Point::Tracepoint(_, names) => names.iter().map(|it| format!("tracepoint {it}")).collect(),
        Point::Fentry(name) | Point::Fexit(name) | Point::Kprobe(name) => vec![name.to_string()],
        Point::CpuClock => vec![],
        Point::Iterator(kind) => vec![format!("bpf_iter_{kind}")],
    });
    names.collect()
}

/// Returns the lines of all `text` blocks in the module comments below a folder.
fn prototypes(folder: &Path) -> Vec<String> {
    let mut lines = vec![];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            lines.extend(prototypes(&path));
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        let comment = source.lines().filter_map(|line| line.strip_prefix("//!"));
        let blocks = comment.collect::<Vec<_>>().join("\n");
        let blocks = blocks.split("```").skip(1).step_by(2);
        lines.extend(blocks.flat_map(|block| block.lines().map(str::trim).map(String::from)));
    }
    lines
}

fn has_prototype(lines: &[String], name: &str) -> bool {
    let call = format!("{name}(");
    lines.iter().any(|line| {
        let before = line.find(&call).map(|at| &line[..at]);
        before.is_some_and(|before| before.is_empty() || before.ends_with([' ', '*']))
    })
}

#[test]
fn every_hooked_function_has_its_prototype_in_a_comment() {
    let hooked = hooked();
    assert!(hooked.len() >= 30, "{hooked:?}");
    for name in [
        "tracepoint inet_sock_set_state",
        "inet_csk_accept",
        "inet_twsk_kill",
    ] {
        assert!(hooked.contains(name), "{hooked:?}");
    }
    let lines = prototypes(Path::new(COMMENTS));
    let missing: Vec<_> = hooked
        .iter()
        .filter(|it| !has_prototype(&lines, it))
        .collect();
    assert!(missing.is_empty(), "no comment has {missing:?}");
}

#[test]
fn a_prototype_is_found_only_by_the_whole_name() {
    let lines = ["bool __inet_drop(struct sock *sk)  6.1 to 6.18".to_owned()];
    assert!(has_prototype(&lines, "__inet_drop"));
    assert!(!has_prototype(&lines, "inet_drop"));
}
