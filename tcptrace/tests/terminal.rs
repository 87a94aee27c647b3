//! `tcptrace top` on a pseudo-terminal: a panic restores the terminal before its message is
//! printed, and a huge terminal is drawn on.

use std::fs::File;
use std::io::Read;
use std::process::Command;

use nix::pty::openpty;
use nix::sys::termios::tcgetattr;
use tcptrace::top::{Screen, restore_on_panic};

/// Environment variable of the child process that panics.
const PANICS: &str = "TCPTRACE_TEST_PANICS";

const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

#[test]
fn a_panic_restores_the_terminal_before_its_message() {
    if std::env::var_os(PANICS).is_some() {
        return take_the_terminal_and_panic();
    }
    let pty = openpty(None, None).unwrap();
    let before = tcgetattr(&pty.slave).unwrap();
    let device = || pty.slave.try_clone().unwrap();
    // Runs this test in a child process on the terminal.
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args([
            "--exact",
            "--nocapture",
            "a_panic_restores_the_terminal_before_its_message",
        ])
        .env(PANICS, "1")
        .stdin(device())
        .stdout(device())
        .stderr(device());
    // The parent's descriptors keep the terminal open, so the little output can be read later.
    let status = child.status().unwrap();
    drop(child);
    assert!(!status.success(), "{status}");
    assert_eq!(tcgetattr(&pty.slave).unwrap(), before);

    drop(pty.slave);
    let mut shown = vec![];
    // Reading ends with EIO after the last descriptor of the device is closed.
    let _ = File::from(pty.master).read_to_end(&mut shown);
    let shown = String::from_utf8_lossy(&shown);
    let at = |what: &str| {
        shown
            .find(what)
            .unwrap_or_else(|| panic!("{what:?} in {shown:?}"))
    };
    let (enter, leave, message) = (at(ENTER), at(LEAVE), at("on purpose"));
    assert!(enter < leave && leave < message, "{shown:?}");
    assert!(
        at("\x1b[?25l") < shown.rfind("\x1b[?25h").unwrap(),
        "the cursor: {shown:?}"
    );
}

fn take_the_terminal_and_panic() {
    restore_on_panic();
    let mut screen = Screen::enter().unwrap();
    screen.draw(|_| {}).unwrap();
    // The panic is in another thread than the drawing.
    let failed = std::thread::spawn(|| panic!("on purpose")).join();
    assert!(failed.is_err());
    assert!(
        screen.draw(|_| {}).is_err(),
        "the panic message must not be covered"
    );
    panic!("and this one, too");
}

/// Environment variable of the child process that draws.
const DRAWS: &str = "TCPTRACE_TEST_DRAWS";

/// Two buffers of 4 billion cells each would not fit in memory.
#[test]
fn a_huge_terminal_is_drawn_on_with_a_bounded_buffer() {
    if std::env::var_os(DRAWS).is_some() {
        let mut screen = Screen::enter().unwrap();
        let mut drawn = None;
        screen.draw(|frame| drawn = Some(frame.area())).unwrap();
        let area = drawn.unwrap();
        assert!(
            area.width >= 500 && area.height >= 200 && area.area() < 1 << 20,
            "{area}"
        );
        return;
    }
    let size = nix::pty::Winsize {
        ws_row: u16::MAX,
        ws_col: u16::MAX,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = openpty(&size, None).unwrap();
    let device = || pty.slave.try_clone().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args([
            "--exact",
            "--nocapture",
            "a_huge_terminal_is_drawn_on_with_a_bounded_buffer",
        ])
        .env(DRAWS, "1")
        .stdin(device())
        .stdout(device())
        .stderr(device());
    let status = child.status().unwrap();
    assert!(status.success(), "{status}");
}
