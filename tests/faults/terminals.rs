//! Terminals that go away.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{SigHandler, Signal, signal};
use tests::programs::Programs;
use tests::run::{Running, tcptrace, tcptrace_trace};
use tests::terminal::tcptrace_top;
use tests::traffic::*;
use tests::{Lab, eventually};

use crate::{DONE, ended};

/// Starts a program on a new terminal, hangs up while it traces, and returns how it ended.
fn hung_up(port: u16, mut command: Command, ignores_sighup: bool) -> tests::run::Ended {
    let size = Winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = openpty(&size, None).expect("a pseudoterminal");
    let device = || pty.slave.try_clone().expect("a descriptor");
    command.stdin(device()).stdout(device()).stderr(device());
    // SAFETY: all are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            if ignores_sighup {
                signal(Signal::SIGHUP, SigHandler::SigIgn)?;
            }
            nix::unistd::setsid()?;
            match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    let mut running = Running::spawn(command);
    drop(pty.slave);
    // Nobody reads the terminal, which holds some kilobytes.
    eventually("the programs", || {
        (Programs::so_far(running.pid()).len() > 4).then_some(())
    });
    let programs = Programs::of(running.pid());
    talk(port);
    sleep(Duration::from_millis(300));
    drop(pty.master);
    let mut talks = 0;
    while running.is_running() && talks < 1000 {
        talk(port);
        sleep(Duration::from_millis(5));
        talks += 1;
    }
    ended(running, &programs)
}

#[test]
fn a_hangup_ends_top_and_the_log() {
    let lab = Lab::new();
    let port = lab.port();
    let ports = port.to_string();
    for command in [
        tcptrace_top(&["-p", &ports]),
        tcptrace_trace(&["-p", &ports]),
        tcptrace_trace(&["-o", "json", "-p", &ports]),
    ] {
        let ended = hung_up(port, command, false);
        assert_eq!((ended.code, ended.signal), (Some(DONE), None), "{ended:?}");
    }
}

/// Under nohup, writing to the terminal fails instead.
#[test]
fn a_hangup_that_is_ignored_ends_top_and_the_log_too() {
    let lab = Lab::new();
    let port = lab.port();
    let ports = port.to_string();
    for command in [
        tcptrace_top(&["-p", &ports]),
        tcptrace_trace(&["-p", &ports]),
        tcptrace_trace(&["-o", "json", "-p", &ports]),
    ] {
        let ended = hung_up(port, command, true);
        assert_eq!((ended.code, ended.signal), (Some(1), None), "{ended:?}");
    }
}

/// A recording goes on without its terminal, as with nohup.
#[test]
fn a_recording_goes_on_when_a_hangup_is_ignored() {
    let lab = Lab::new();
    let port = lab.port();
    let ports = port.to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("it.trace");
    let name = path.to_str().expect("a printable path");
    let command = tcptrace(&["record", "-o", name, "-p", &ports, "--duration", "3s"]);
    let ended = hung_up(port, command, true);
    assert_eq!((ended.code, ended.signal), (Some(DONE), None), "{ended:?}");
    let replayed = Running::run_to_end(tcptrace(&["replay", name, "-o", "json"]));
    assert_eq!((replayed.code, &*replayed.stderr), (Some(DONE), ""));
    let ends = replayed.stdout.matches(r#"{"event":"connection""#).count();
    assert!(ends > 100, "{ends}");
}
