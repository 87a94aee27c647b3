//! The functions in which an acceptor was blocked.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};

use tests::Lab;
use tests::traffic::*;

use super::{CAUSE, WHY, adds_up, functions, is_named};

/// Compiles the server. Returns `None` without a C compiler, as in the VMs.
fn compile(folder: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/why/server.c");
    let program = folder.join("late-server");
    let mut cc = Command::new("cc");
    cc.args(["-g", "-O1", "-fno-omit-frame-pointer", "-o"]);
    match cc.arg(&program).arg(source).status() {
        Ok(status) => assert!(status.success(), "cc failed"),
        Err(error) => {
            println!("not run: there is no C compiler ({error})");
            return None;
        }
    }
    Some(program)
}

/// The first connections may be explained without names, while the tracer reads the symbols.
#[test]
fn a_late_server_is_blamed_with_its_functions_and_their_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(program) = compile(folder.path()) else {
        return;
    };
    let lab = Lab::alone();
    let port = lab.port();
    let tracer = lab.trace_with(&[WHY]);
    let mut server = Command::new(program);
    server.arg(port.to_string()).stdin(Stdio::piped());
    let mut server = server.stdout(Stdio::piped()).spawn().expect("the server");
    let mut stdin = server.stdin.take().expect("a pipe");
    let mut listening = String::new();
    let stdout = server.stdout.take().expect("a pipe");
    BufReader::new(stdout)
        .read_line(&mut listening)
        .expect("read");

    let mut served = vec![connect_queued(port)];
    let is_enough = AtomicBool::new(false);
    scope(|scope| {
        scope.spawn(|| {
            tracer.wait_for_line("names of functions", is_named);
            is_enough.store(true, Ordering::Relaxed);
        });
        while !is_enough.load(Ordering::Relaxed) {
            served.push(connect_queued(port));
            sleep(CAUSE);
            stdin.write_all(b"x").expect("write");
        }
    });
    let last = connect_queued(port);
    sleep(CAUSE);
    stdin.write_all(b"x").expect("write");
    let client_port = port_of(&last);
    let accepts = |line: &tests::trace::Line| line.is("accept") && line["rport"] == client_port;
    tracer.wait_for(1, "the last connection to be accepted", accepts);
    drop(stdin);
    assert!(server.wait().expect("wait").success());
    drop((served, last));
    let trace = tracer.stop_lossy();

    let line = trace.accept_of(client_port);
    adds_up(line);
    line.shows(&[("late_reason", &"blocked"), ("acceptor_tid", &server.id())]);
    let place = &line["acceptor_blocked_in"][0];
    assert_eq!(place["syscall"], "read");
    let function = place["function"]
        .as_str()
        .expect("a function of the kernel");
    assert!(function.contains("pipe_read"), "{function}");
    assert!(
        place["ns"].as_u64().is_some_and(|ns| ns > 190_000_000),
        "{place}"
    );
    let said = line.text("late_because");
    let expected = format!("in read() ({function} ← save_state ← handle_request)");
    assert!(said.contains(&expected), "{expected} in {said}");

    let user = functions(&trace, &place["stack"], "user_frames");
    let names: Vec<&str> = user
        .iter()
        .filter_map(|it| it["function"].as_str())
        .collect();
    assert_eq!(
        names.get(..3),
        Some(&["save_state", "handle_request", "main"][..])
    );
    for (frame, code) in user
        .iter()
        .zip(["read_one(0, &byte)", "save_state();", "handle_request("])
    {
        let at = frame["line"].as_u64().expect("a line") as usize;
        let mut lines = include_str!("server.c")
            .lines()
            .skip(at.saturating_sub(8))
            .take(12);
        assert!(lines.any(|it| it.contains(code)), "{code} at {frame}");
        assert!(
            frame["file"]
                .as_str()
                .is_some_and(|it| it.ends_with("server.c")),
            "{frame}"
        );
        assert_eq!(frame["module"], "late-server");
    }
}
