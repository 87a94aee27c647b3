//! A helper process for scenarios that need a second process.

use std::ffi::CString;
use std::io::{BufRead, IoSlice, IoSliceMut, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};
use tests::traffic::{
    accept, close, connect_queued, listen, listen_sharing, port_of, receive_text, send_text,
};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["accept-in-turn", fd] => accept_in_turn(number(fd)),
        ["accept-late", port] => accept_late(number(port)),
        ["activated", program, ref args @ ..] => activated(program, args),
        ["connect", port] => drop(connect_queued(number(port))),
        ["leave-listener", port, name] => leave_listener(number(port), name),
        ["hand-over", port, name] => hand_over(number(port), name),
        ["in-a-pid-namespace", port, ref args @ ..] => {
            return in_a_pid_namespace(number(port), args);
        }
        ["listen", port] => {
            let _listener = listen(number(port));
            println!("the helper listens");
            // Keeps the listener open until stdin ends.
            std::io::stdin().lock().lines().for_each(drop);
        }
        ["listen-sharing", port] => {
            let _listener = listen_sharing(number(port));
            println!("the helper listens");
            std::io::stdin().lock().lines().for_each(drop);
        }
        ["talk-when-asked", port] => {
            println!("the helper waits");
            // Each line on stdin asks for a connection.
            for line in std::io::stdin().lock().lines() {
                line.expect("read stdin");
                talk(number(port));
            }
        }
        ["talk", port, code] => {
            talk(number(port));
            return ExitCode::from(number::<u8>(code));
        }
        ["no-descriptors", port] => without_descriptors(number(port)),
        ["sleep", seconds] => {
            println!("the helper sleeps");
            sleep(Duration::from_secs(number(seconds)));
        }
        _ => panic!("unknown role: {words:?}"),
    }
    ExitCode::SUCCESS
}

/// Becomes a program that gets descriptor 3 as systemd passes a socket (sd_listen_fds(3)).
fn activated(program: &str, args: &[&str]) {
    let mut command = Command::new(program);
    let pid = std::process::id().to_string();
    command
        .args(args)
        .env("LISTEN_FDS", "1")
        .env("LISTEN_PID", pid);
    panic!("{program}: {}", command.exec());
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("a number: {text}"))
}

/// For every line on stdin, accepts one connection from an inherited listener and prints the
/// client's port.
fn accept_in_turn(fd: i32) {
    // SAFETY: the scenario passes this descriptor to this process, and nothing else here owns it.
    let listener = TcpListener::from(unsafe { OwnedFd::from_raw_fd(fd) });
    for line in std::io::stdin().lock().lines() {
        line.expect("read stdin");
        let accepted = accept(&listener);
        println!("{}", accepted.peer.port());
        std::io::stdout().flush().expect("write stdout");
    }
}

/// Accepts one connection of its own, queues a second one and prints the port of its client.
/// Accepts it after the line "go" on stdin. The line "compute N" makes it use N ms of CPU time. Prints
/// the CPU time that it used in between, in nanoseconds.
fn accept_late(port: u16) {
    let listener = listen(port);
    let first = connect_queued(port);
    drop(accept(&listener).stream);
    drop(first);
    let second = connect_queued(port);
    println!("{}", port_of(&second));
    std::io::stdout().flush().expect("write stdout");
    let used = || {
        let clock = nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID;
        Duration::from(nix::time::clock_gettime(clock).expect("a clock"))
    };
    let used_before = used();
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("read stdin");
        let Some(ms) = line.strip_prefix("compute ") else {
            break;
        };
        let ms = number(ms);
        let until = used() + Duration::from_millis(ms);
        while used() < until {
            std::hint::spin_loop();
        }
    }
    let used = used() - used_before;
    drop(accept(&listener).stream);
    drop(second);
    println!("{}", used.as_nanos());
}

/// Listens without a free descriptor. For every line on stdin, calls accept() or restores the
/// limit, and prints the errno (0 for success).
fn without_descriptors(port: u16) {
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
    // The kernel assigns the lowest free number, so all below this one are taken.
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

/// Plays a whole connection with itself. The scenario checks that its output stays out of the
/// trace.
fn talk(port: u16) {
    println!("the helper talks");
    // Gives the scenario time to inspect the tracer.
    sleep(Duration::from_millis(300));
    let listener = listen(port);
    let mut client = connect_queued(port);
    send_text(&mut client);
    let mut server = accept(&listener).stream;
    receive_text(&mut server);
    close(client, server);
}

/// Listens, leaves the listener to a child process with this name, and exits. The child process
/// prints its pid and keeps the listener until stdin ends.
fn leave_listener(port: u16, name: &str) {
    let _listener = listen(port);
    // SAFETY: this process has one thread.
    if let ForkResult::Child = unsafe { fork() }.expect("fork") {
        take_name(name);
        println!("{}", std::process::id());
        std::io::stdin().lock().lines().for_each(drop);
    }
}

/// Accepts a connection, passes it to a child process with this name, and exits. The child process
/// prints its pid, answers one message, closes the connection, and lives until stdin ends.
fn hand_over(port: u16, name: &str) {
    let (to, from) = UnixStream::pair().expect("a socket pair");
    let listener = listen(port);
    // SAFETY: this process has one thread.
    if let ForkResult::Parent { .. } = unsafe { fork() }.expect("fork") {
        let accepted = accept(&listener).stream;
        send(&to, &accepted);
        return;
    }
    drop((to, listener));
    take_name(name);
    println!("{}", std::process::id());
    let mut connection = receive(&from);
    receive_text(&mut connection);
    drop(connection);
    std::io::stdin().lock().lines().for_each(drop);
}

fn take_name(name: &str) {
    let name = CString::new(name).expect("a name");
    nix::sys::prctl::set_name(&name).expect("PR_SET_NAME");
}

/// Sends a descriptor with SCM_RIGHTS.
fn send(to: &UnixStream, connection: &TcpStream) {
    let descriptors = [connection.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let byte = [IoSlice::new(b"x")];
    sendmsg::<()>(to.as_raw_fd(), &byte, &rights, MsgFlags::empty(), None).expect("sendmsg");
}

fn receive(from: &UnixStream) -> TcpStream {
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let flags = MsgFlags::empty();
    let message = recvmsg::<()>(from.as_raw_fd(), &mut bytes, Some(&mut space), flags);
    let message = message.expect("recvmsg");
    let descriptor = message.cmsgs().expect("room").find_map(|it| match it {
        ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
        _ => None,
    });
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(descriptor.expect("a descriptor")) }.into()
}

/// Connects to itself in a PID namespace with a private /proc, and runs a command there. `PID` in
/// its arguments becomes the process's number in that namespace.
fn in_a_pid_namespace(port: u16, args: &[&str]) -> ExitCode {
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS).expect("unshare");
    // SAFETY: this process has one thread.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => {
            let status = waitpid(child, None).expect("wait");
            match status {
                nix::sys::wait::WaitStatus::Exited(_, code) => ExitCode::from(code as u8),
                other => panic!("{other:?}"),
            }
        }
        ForkResult::Child => {
            let none = None::<&str>;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(none, "/", none, private, none).expect("private mounts");
            mount(none, "/proc", Some("proc"), MsFlags::empty(), none).expect("/proc");
            // SAFETY: this process still has one thread.
            match unsafe { fork() }.expect("fork") {
                ForkResult::Child => loop {
                    tests::traffic::talk(port);
                    sleep(Duration::from_millis(50));
                },
                ForkResult::Parent { child } => {
                    let args = args.iter().map(|it| it.replace("PID", &child.to_string()));
                    let args: Vec<String> = args.collect();
                    let status = Command::new(&args[0]).args(&args[1..]).status();
                    // The namespace and all its processes end with the first process.
                    let code = status.expect("run it").code().expect("a code");
                    ExitCode::from(code as u8)
                }
            }
        }
    }
}
