//! `tcptrace top` on a terminal: its contents, its keys, and that it restores the terminal.

use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;

use nix::sys::signal::Signal;
use tests::Lab;
use tests::run::{Running, tcptrace};
use tests::terminal::{Terminal, tcptrace_top};
use tests::traffic::*;

const USAGE: i32 = 2;
const NOT_PERMITTED: i32 = 3;

/// Returns the screen's first line with this beginning.
fn row(screen: &str, begins: &str) -> String {
    let mut lines = screen.lines();
    let row = lines.find(|line| line.trim_start().starts_with(begins));
    row.unwrap_or_default().to_owned()
}

#[test]
fn the_queue_and_its_connections_are_shown_as_they_change() {
    let lab = Lab::new();
    let port = lab.port();
    let ports = format!("{}-{}", lab.ports.first, lab.ports.last);
    let listener = listen_at((LOOPBACK, port).into(), 4);
    // Two connections are queued before tcptrace starts.
    let old = [connect_queued(port), connect_queued(port)];

    let mut top = Terminal::start(tcptrace_top(&["-p", &ports]), 100, 30);
    let name = format!("127.0.0.1:{port} ");
    top.shows(&["1 listener", "+2 not seen arriving"]);
    assert!(
        row(&top.screen(), &name).contains(" 2/4 "),
        "{}",
        top.screen()
    );

    let new = connect_queued(port);
    let tuple = format!("127.0.0.1:{} → :{port}", port_of(&new));
    top.shows(&[" 3/4 ", "Waiting for accept() 1, +2", &tuple, "ESTABLISHED"]);

    // The oldest connection leaves first, then the others.
    drop(accept(&listener));
    top.shows(&[" 2/4 ", "+1 not seen arriving"]);
    drop((accept(&listener), accept(&listener)));
    top.shows(&[
        " 0/4 ",
        "Waiting for accept() 0 ",
        "queued: the kernel finished",
    ]);
    let wait = row(&top.screen(), &name);
    assert!(
        wait.contains(" ms ") || wait.contains(" s "),
        "a p99: {wait}"
    );

    top.press("?");
    top.shows(&["Help:", "Ctrl-C"]);
    top.press("x");
    top.wait_for("no help", |screen| !screen.contains("Help:"));
    top.press("/none of them");
    top.shows(&["Listeners 0 of 1", "No row contains the filter's text."]);
    top.press("\x1b");
    top.shows(&["Listeners 1,"]);
    top.press("p");
    top.shows(&["PAUSED"]);
    drop((old, new));
    top.press("q");
    let (ended, screen) = top.end();
    assert_eq!(ended.code, Some(0), "{screen}");
    assert_eq!(screen.trim(), "", "nothing is left behind");
}

#[test]
fn the_terminal_is_restored_however_top_ends() {
    let lab = Lab::new();
    let port = lab.port().to_string();
    let by_key = ["q", "\x03", "\x1b"].map(Ok);
    let by_signal = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].map(Err);
    for end in by_key.into_iter().chain(by_signal) {
        let mut top = Terminal::start(tcptrace_top(&["-p", &port]), 80, 24);
        top.shows(&["tcptrace top", "quit"]);
        assert!(top.is_taken());
        match end {
            Ok(key) => top.press(key),
            Err(signal) => top.program().signal(signal),
        }
        let (ended, screen) = top.end();
        assert_eq!(ended.code, Some(0), "{end:?}: {screen}");
    }
    let top = Terminal::start(tcptrace_top(&["-p", &port, "--duration", "1s"]), 80, 24);
    top.shows(&["tcptrace top"]);
    assert_eq!(top.end().0.code, Some(0));
}

#[test]
fn the_screen_follows_a_changed_size() {
    let lab = Lab::new();
    let port = lab.port();
    let _listener = listen(port);
    let mut top = Terminal::start(tcptrace_top(&["-p", &port.to_string()]), 80, 24);
    top.shows(&["LISTENER", "CONN/s", "quit"]);
    top.resize(40, 8);
    top.wait_for("fewer columns", |screen| {
        screen.contains("LISTENER") && !screen.contains("CONN/s")
    });
    top.resize(200, 50);
    top.shows(&["ACCEPTED BY"]);
    top.press("q");
    assert_eq!(top.end().0.code, Some(0));
}

#[test]
fn an_error_at_start_leaves_the_screen_untouched() {
    const NOBODY: u32 = 65534;
    let binary = std::fs::File::open(tcptrace(&[]).get_program()).unwrap();
    let path = format!("/proc/self/fd/{}", binary.as_raw_fd());
    let mut command = std::process::Command::new(path);
    command.arg("top").env("TERM", "xterm");
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    let top = Terminal::start(command, 120, 24);
    top.shows(&["tcptrace: not permitted", "CAP_BPF"]);
    let (ended, _) = top.end();
    assert_eq!(ended.code, Some(NOT_PERMITTED));
}

#[test]
fn without_a_terminal_top_suggests_alternatives() {
    let ended = Running::run_to_end(tcptrace_top(&[]));
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(USAGE), ""));
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("tcptrace -o json"),
        "{}",
        ended.stderr
    );

    let mut command = tcptrace_top(&[]);
    command.env("TERM", "dumb");
    let top = Terminal::start(command, 80, 24);
    top.shows(&["tcptrace: top cannot draw", "TERM=dumb"]);
    assert_eq!(top.end().0.code, Some(USAGE));
}

#[test]
fn filters_that_would_hide_the_queue_are_refused() {
    for filter in [["--state", "LISTEN"], ["--side", "client"]] {
        let ended = Running::run_to_end(tcptrace_top(&filter));
        assert_eq!(ended.code, Some(USAGE));
        assert!(ended.stderr.contains(filter[0]), "{}", ended.stderr);
    }
}
