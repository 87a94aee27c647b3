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
        ["starve", port] => starve(number(port)),
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

/// Listens without a descriptor to spare. For every line on stdin it calls accept(), or raises its
/// limit again, and answers with the errno, 0 for success.
fn starve(port: u16) {
    use std::os::fd::AsRawFd;

    let set = |soft: u64| {
        let limit = libc::rlimit {
            rlim_cur: soft,
            rlim_max: 1 << 10,
        };
        // SAFETY: the kernel reads a struct rlimit.
        let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    };
    let listener = listen(port);
    // Descriptors are given from the lowest number on, so all below this one are taken.
    let next = std::fs::File::open("/dev/null")
        .expect("a file")
        .as_raw_fd();
    set(next as u64);
    println!("the helper listens");
    let mut accepted = vec![];
    for line in std::io::stdin().lock().lines() {
        let errno = match line.expect("read stdin").as_str() {
            "raise" => {
                set(1 << 10);
                0
            }
            _ => match listener.accept() {
                Ok(connection) => {
                    accepted.push(connection);
                    0
                }
                Err(error) => error.raw_os_error().unwrap_or(-1),
            },
        };
        println!("{errno}");
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
