//! A panic while `tcptrace top` has the terminal: told on the screen as it was, and the terminal is
//! given back.

use std::fs::File;
use std::io::Read;
use std::process::Command;

use nix::pty::openpty;
use nix::sys::termios::tcgetattr;
use tcptrace::top::{Screen, restore_on_panic};

/// Set in the process that panics.
const PANICS: &str = "TCPTRACE_TEST_PANICS";

const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

#[test]
fn a_panic_is_told_on_the_terminal_as_it_was() {
    if std::env::var_os(PANICS).is_some() {
        return take_the_terminal_and_panic();
    }
    let pty = openpty(None, None).unwrap();
    let before = tcgetattr(&pty.slave).unwrap();
    let device = || pty.slave.try_clone().unwrap();
    // This test again, alone and on the terminal.
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args([
            "--exact",
            "--nocapture",
            "a_panic_is_told_on_the_terminal_as_it_was",
        ])
        .env(PANICS, "1")
        .stdin(device())
        .stdout(device())
        .stderr(device());
    // The parent's descriptors stay open, so what is written waits to be read: it is little.
    let status = child.status().unwrap();
    drop(child);
    assert!(!status.success(), "{status}");
    assert_eq!(tcgetattr(&pty.slave).unwrap(), before);

    drop(pty.slave);
    let mut shown = vec![];
    // Ends with EIO, once nobody has the device.
    let _ = File::from(pty.master).read_to_end(&mut shown);
    let shown = String::from_utf8_lossy(&shown);
    let at = |what: &str| {
        shown
            .find(what)
            .unwrap_or_else(|| panic!("{what:?} in {shown:?}"))
    };
    let (enter, leave, told) = (at(ENTER), at(LEAVE), at("on purpose"));
    assert!(enter < leave && leave < told, "{shown:?}");
    assert!(
        at("\x1b[?25l") < shown.rfind("\x1b[?25h").unwrap(),
        "the cursor: {shown:?}"
    );
}

fn take_the_terminal_and_panic() {
    restore_on_panic();
    let mut screen = Screen::enter().unwrap();
    screen.draw(|_| {}).unwrap();
    // The thread that draws is another one than the one that fails.
    let failed = std::thread::spawn(|| panic!("on purpose")).join();
    assert!(failed.is_err());
    assert!(
        screen.draw(|_| {}).is_err(),
        "what was told stays on the screen"
    );
    panic!("and this one, too");
}

/// Set in the process that draws.
const DRAWS: &str = "TCPTRACE_TEST_DRAWS";

/// Two buffers of 4 billion cells each would be more than there is memory.
#[test]
fn a_terminal_that_claims_to_be_huge_is_drawn_on() {
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
            "a_terminal_that_claims_to_be_huge_is_drawn_on",
        ])
        .env(DRAWS, "1")
        .stdin(device())
        .stdout(device())
        .stderr(device());
    let status = child.status().unwrap();
    assert!(status.success(), "{status}");
}
