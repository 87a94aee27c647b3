//! The functions in which an acceptor was blocked.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::eventually;

use super::driven::{Driven, drive, has_function, is_installed};
use super::{assert_mainly, assert_near, functions};

/// Compiles a server of this folder. Returns `None` without the compiler, as in the VMs.
fn compile(compiler: &str, options: &[&str], source: &str, folder: &Path) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/why");
    let program = folder.join("late-server");
    if !is_installed(compiler) {
        return None;
    }
    let mut compile = Command::new(compiler);
    compile.args(options).arg("-o").arg(&program);
    let status = compile.arg(path.join(source)).status();
    assert!(status.expect(compiler).success(), "{compiler} failed");
    Some(program)
}

fn compile_c(folder: &Path) -> Option<PathBuf> {
    let options = ["-g", "-O1", "-fno-omit-frame-pointer"];
    compile("cc", &options, "server.c", folder)
}

/// Asserts that the server was blocked in read() for the time of the cause. Returns its place.
#[track_caller]
fn in_read(late: &Driven) -> &Value {
    assert_mainly(&late.line, "blocked");
    let place = late.blocked_in();
    assert_eq!(place["syscall"], "read");
    let ns = place["ns"].as_u64().expect("a time");
    assert_near("read()", ns, late.delay.as_nanos() as u64, &late.line);
    let function = place["function"]
        .as_str()
        .expect("a function of the kernel");
    assert!(function.contains("pipe_read"), "{function}");
    place
}

/// Asserts that the innermost functions of the server, with the source lines of their calls, are
/// these. Returns the frames.
#[track_caller]
fn assert_calls(late: &Driven, source: &str, calls: &[(&str, &str)]) -> Vec<Value> {
    let stack = &late.blocked_in()["stack"];
    let frames = functions(&late.trace, stack, "user_frames").into_iter();
    // The standard library of a static program comes before them.
    let frames = frames.skip_while(|it| it["function"] != calls[0].0);
    let frames: Vec<Value> = frames.take(calls.len()).collect();
    assert_eq!(frames.len(), calls.len(), "{frames:?}");
    for (frame, (function, code)) in frames.iter().zip(calls) {
        assert_eq!(frame["function"], *function);
        let at = frame["line"].as_u64().expect("a line") as usize;
        let lines = source.lines().skip(at.saturating_sub(8)).take(12);
        assert!(
            lines.clone().any(|it| it.contains(code)),
            "{code} at {frame}"
        );
        let file = frame["file"].as_str().expect("a file");
        assert!(file.contains("/why/server."), "{frame}");
        assert_eq!(frame["module"], "late-server");
    }
    frames
}

/// The first connections may be explained without names, while the tracer reads the symbols.
#[test]
fn a_late_server_is_blamed_with_its_functions_and_their_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(program) = compile_c(folder.path()) else {
        return;
    };
    let late = drive(Command::new(program), |it| has_function(it, "save_state"));
    let function = in_read(&late)["function"].as_str().expect("a name");
    let said = late.line.text("late_because");
    let expected = format!("in read() ({function} ← save_state ← handle_request)");
    assert!(said.contains(&expected), "{expected} in {said}");
    let calls = [
        ("save_state", "read_one(0, &byte)"),
        ("handle_request", "save_state();"),
        ("main", "handle_request("),
    ];
    assert_calls(&late, include_str!("server.c"), &calls);
}

/// Rust's standard library is built with frame pointers, and the C library's read() needs none.
#[test]
fn a_static_rust_server_is_blamed_with_inlined_functions_and_their_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = [
        "--edition=2024",
        "-Copt-level=1",
        "-g",
        "-Ctarget-feature=+crt-static",
        "-Cforce-frame-pointers=yes",
    ];
    let Some(program) = compile("rustc", &options, "server.rs", folder.path()) else {
        return;
    };
    let late = drive(Command::new(program), |it| has_function(it, "save_state"));
    let function = in_read(&late)["function"].as_str().expect("a name");
    let said = late.line.text("late_because");
    let expected = format!("in read() ({function} ← server::read_state ← server::save_state)");
    assert!(said.contains(&expected), "{expected} in {said}");
    let calls = [
        ("server::read_state", "std::io::stdin().read("),
        ("server::save_state", "read_state(&mut state)"),
        ("server::handle_request", "save_state();"),
        ("server::main", "handle_request("),
    ];
    let frames = assert_calls(&late, include_str!("server.rs"), &calls);
    let inlined: Vec<&Value> = frames.iter().map(|it| &it["inlined"]).collect();
    assert_eq!(inlined, [true, false, false, false]);
}

/// strace stops the server at the begin and at the end of the system call, and measures the time in
/// between.
#[test]
fn strace_measures_the_same_block() {
    let folder = tempfile::tempdir().expect("a folder");
    if !is_installed("strace") {
        return;
    }
    let Some(program) = compile_c(folder.path()) else {
        return;
    };
    let output = folder.path().join("strace");
    let mut strace = Command::new("strace");
    // -D: the server is the child, and strace its grandchild. -T: the time of each call.
    strace.args(["-D", "-f", "-r", "-T", "-e", "trace=read", "-o"]);
    strace.arg(&output).arg(program);
    let late = drive(strace, |it| has_function(it, "save_state"));
    let told = in_read(&late)["ns"].as_u64().expect("a time");
    let text = eventually("strace to end", || {
        let text = std::fs::read_to_string(&output).ok()?;
        text.contains("+++ killed by SIGKILL +++").then_some(text)
    });
    let reads = text.lines().filter(|it| it.contains(" read(0, \"x\""));
    let times = reads.filter_map(|it| it.rsplit_once('<')?.1.strip_suffix('>'));
    let times: Vec<f64> = times.map(|it| it.parse().expect("seconds")).collect();
    // The last connection waited for the one before.
    let [.., before, _] = times[..] else {
        panic!("{text}");
    };
    let seen = Duration::from_secs_f64(before).as_nanos() as u64;
    assert_near("strace's read()", told, seen, &late.line);
}
