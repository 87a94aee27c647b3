use super::*;

fn refused(path: &str, text: &str) -> Vec<String> {
    let breaches = dependencies(&Code::new(path, text));
    breaches
        .into_iter()
        .map(|breach| breach.to_string())
        .collect()
}

#[track_caller]
fn check(path: &str, text: &str, name: &str, line: usize) {
    assert_eq!(
        refused(path, text),
        [format!("{path}:{line}: must not name {name}")]
    );
}

#[track_caller]
fn check_fine(path: &str, text: &str) {
    assert_eq!(refused(path, text), Vec::<String>::new());
}

#[test]
fn the_abi_names_neither_aya_nor_std() {
    let abi = "tcptrace-ebpf/src/abi.rs";
    check(
        abi,
        "\npub use aya_ebpf::TASK_COMM_LEN;\n",
        "aya_ebpf::TASK_COMM_LEN",
        2,
    );
    check(abi, "fn f() -> std::io::Error {}", "std::io::Error", 1);
    check_fine(abi, "use zerocopy::IntoBytes;\nuse core::fmt;\n");
}

#[test]
fn hooks_do_not_name_each_other() {
    let hook = "tcptrace-ebpf/src/hooks/inet_csk_accept.rs";
    let other = "crate::hooks::inet_sock_set_state::f";
    check(hook, "use super::inet_sock_set_state::f;", other, 1);
    check(
        hook,
        "fn g() { crate::hooks::inet_sock_set_state::f() }",
        other,
        1,
    );
    check_fine(hook, "use crate::emit::{emit, current_task};");
    check_fine(
        "tcptrace-ebpf/src/hooks/mod.rs",
        "pub use self::inet_csk_accept::f;",
    );
}

#[test]
fn the_correlator_is_pure() {
    let file = "tcptrace/src/correlate/connection.rs";
    check(file, "use aya::Ebpf;", "aya::Ebpf", 1);
    check(
        file,
        "use tcptrace_ebpf::abi::kind;",
        "tcptrace_ebpf::abi::kind",
        1,
    );
    check(file, "use crate::capture::Hook;", "crate::capture::Hook", 1);
    check(
        file,
        "use crate::{event::Event, clock::Clock};",
        "crate::clock::Clock",
        1,
    );
    check(file, "fn f() { log::warn!(\"x\") }", "log::warn", 1);
    check(
        file,
        "fn f() { std::time::Instant::now() }",
        "std::time::Instant::now",
        1,
    );
    check(
        file,
        "use std::collections::{BTreeMap, HashMap};",
        "std::collections::HashMap",
        1,
    );
    check(file, "use std::collections::*;", "std::collections::*", 1);
    check_fine(
        file,
        "use crate::event::{self, Event};\nuse super::verdict;\n",
    );
    check_fine(file, "use std::{collections::BTreeMap, net::IpAddr};");
}

#[test]
fn sinks_know_no_other_sink_and_no_totals() {
    let json = "tcptrace/src/sink/json.rs";
    check(
        json,
        "use super::text::Human;",
        "crate::sink::text::Human",
        1,
    );
    check(
        json,
        "use crate::correlate::Totals;",
        "crate::correlate::Totals",
        1,
    );
    check(
        json,
        "use crate::sink::{Sink, text};",
        "crate::sink::text",
        1,
    );
    check_fine(json, "use super::Sink;\nuse crate::clock::Clock;\n");
    check_fine(
        "tcptrace/src/sink/text/row.rs",
        "use super::paint;\nuse crate::sink::samples;",
    );
    check_fine("tcptrace/src/sink/mod.rs", "pub use self::json::Json;");
}

#[test]
fn capture_writes_no_lines() {
    let ring = "tcptrace/src/capture/ring.rs";
    check(ring, "use crate::sink::Sink;", "crate::sink::Sink", 1);
    check(ring, "use crate::*;", "crate::*", 1);
    check_fine(ring, "use aya::maps::RingBuf;\nuse crate::event::Event;\n");
}

#[test]
fn a_file_may_name_itself() {
    let file = "tcptrace/src/order.rs";
    check_fine(
        file,
        "fn f(&self) { self.g() }\nmod tests { use super::*; }",
    );
    check(
        "tcptrace/src/event.rs",
        "use crate::fields::Line;",
        "crate::fields::Line",
        1,
    );
}

#[test]
fn renaming_hides_nothing() {
    let file = "tcptrace/src/decode.rs";
    let names = refused(file, "use aya as linux;\nfn f() { linux::Ebpf::load() }\n");
    assert_eq!(names, [format!("{file}:2: must not name aya::Ebpf::load")]);
    let names = refused(file, "use std as s;\nuse s::fs::read as get;\n");
    assert_eq!(names.len(), 1, "{names:?}");
    let names = refused(
        file,
        "use std::collections;\nuse std::{self};\nfn f() { std::fs::read() }",
    );
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn super_counts_modules_inside_the_file() {
    let file = "tcptrace/src/sink/json.rs";
    check_fine(file, "mod tests { use super::*; fn f() { super::f() } }");
    check(
        file,
        "mod tests { use super::super::text::f; }",
        "crate::sink::text::f",
        1,
    );
    check(
        file,
        "mod a { fn f() {} }\nuse super::text::f;",
        "crate::sink::text::f",
        2,
    );
}

#[test]
fn comments_and_literals_name_nothing() {
    let file = "tcptrace/src/event.rs";
    check_fine(
        file,
        "// aya::Ebpf\n/* aya::a /* aya::b */ aya::c */\n/// [`aya::Ebpf`]\n",
    );
    check_fine(
        file,
        r####"const A: &str = "aya::\"Ebpf"; const B: &str = r#"aya::"x"#;"####,
    );
    // Neither does a quote that is no string hide what comes after it.
    check(
        file,
        "const Q: char = '\"'; fn f<'a>() { aya::f() }",
        "aya::f",
        1,
    );
    check(
        file,
        "const Q: char = '\\''; fn f() { aya::f() }",
        "aya::f",
        1,
    );
}

fn habits_of(path: &str, text: &str) -> Vec<(usize, String)> {
    let breaches = habits::source(&Code::new(path, text));
    breaches
        .into_iter()
        .map(|breach| (breach.line, breach.what))
        .collect()
}

#[test]
fn unsafe_wants_a_reason() {
    let bad = [
        "fn f() {\n    unsafe { g() }\n}",
        "\nunsafe impl Send for A {}",
        "\nunsafe\n{ g() }",
    ];
    for text in bad {
        let found = habits_of("tcptrace/src/clock.rs", text);
        assert_eq!(found.len(), 1, "{text}");
        assert_eq!(found[0].0, 2, "{text}");
        assert_eq!(habits_of("tcptrace-ebpf/src/sock.rs", text), []);
    }
    let fine = [
        "// SAFETY: g reads nothing.\nlet a =\n    unsafe { g() };",
        "// SAFETY: because of\n// two lines.\nunsafe { g() }",
        "unsafe fn f() {}",
        "let text = \"unsafe { g() }\"; // unsafe { g() }",
    ];
    for text in fine {
        assert_eq!(habits_of("tcptrace/src/clock.rs", text), [], "{text}");
    }
    let far = "// SAFETY: of another.\nunsafe { g() };\nunsafe { h() };";
    assert_eq!(habits_of("tests/src/lib.rs", far).len(), 1);
}

#[test]
fn nothing_is_left_for_later() {
    let marker = concat!("TO", "DO");
    assert_eq!(
        habits_of("tests/src/lib.rs", &format!("\n// {marker}: more")).len(),
        1
    );
    assert_eq!(
        habits_of("tests/src/lib.rs", "fn f() {\n    dbg!(1);\n}")[0].0,
        2
    );
    assert_eq!(
        habits_of("tests/src/lib.rs", "// dbg!(1)\nlet dbg = 1;"),
        []
    );
}

#[test]
fn files_stay_short() {
    assert_eq!(habits_of("tests/src/lib.rs", &"\n".repeat(600)), []);
    assert_eq!(habits_of("tests/src/lib.rs", &"\n".repeat(601)).len(), 1);
}

#[test]
fn the_readme_names_both_commands() {
    let both = "cargo xtask run -- --port 7878\ncargo xtask test --install";
    assert_eq!(habits::readme(both), []);
    assert_eq!(habits::readme("cargo xtask test --install").len(), 1);
    assert_eq!(habits::readme("").len(), 2);
}
