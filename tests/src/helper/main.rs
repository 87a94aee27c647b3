//! The other process of scenarios that need one.

use std::io::{BufRead, Write};
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use tests::traffic::{accept, close, connect_queued, hear, listen, say};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["accept-in-turn", fd] => accept_in_turn(number(fd)),
        ["connect", port] => drop(connect_queued(number(port))),
        ["listen", port] => {
            let _listener = listen(number(port));
            println!("the helper listens");
            // To the end of its stdin.
            std::io::stdin().lock().lines().for_each(drop);
        }
        ["talk", port, code] => {
            talk(number(port));
            return ExitCode::from(number::<u8>(code));
        }
        ["sleep", seconds] => {
            println!("the helper sleeps");
            sleep(Duration::from_secs(number(seconds)));
        }
        _ => panic!("unknown role: {words:?}"),
    }
    ExitCode::SUCCESS
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("a number: {text}"))
}

/// Accepts one connection from an inherited listener for every line on stdin, and answers with
/// the client's port.
fn accept_in_turn(fd: i32) {
    // SAFETY: the parent left this descriptor for us.
    let listener = TcpListener::from(unsafe { OwnedFd::from_raw_fd(fd) });
    for line in std::io::stdin().lock().lines() {
        line.expect("read stdin");
        let accepted = accept(&listener);
        println!("{}", accepted.peer.port());
        std::io::stdout().flush().expect("write stdout");
    }
}

/// A whole connection with itself. What it prints must not get between the lines of the trace.
fn talk(port: u16) {
    println!("the helper talks");
    // The scenario takes a look at the tracer meanwhile.
    sleep(Duration::from_millis(300));
    let listener = listen(port);
    let mut client = connect_queued(port);
    say(&mut client);
    let mut server = accept(&listener).stream;
    hear(&mut server);
    close(client, server);
}
