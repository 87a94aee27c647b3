//! A process in a container of the soak: a server with several listeners, and a client of others.
//!
//! It takes orders from its standard input, a line each, and ends with it. Then it prints how many
//! connections it has made.

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{setsockopt, sockopt::Linger},
};

/// An order to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Listen on a port.
    Open(u16),
    /// Close the listener of a port.
    Close(u16),
    /// Connect to a port, and close the connection after so many milliseconds.
    Connect(u16, u32),
    /// Connect to a port, and reset the connection.
    Reset(u16),
    /// Do nothing for so many milliseconds, so that connections wait in the accept queues.
    Sleep(u32),
}

impl Order {
    pub fn text(self) -> String {
        match self {
            Order::Open(port) => format!("open {port}\n"),
            Order::Close(port) => format!("close {port}\n"),
            Order::Connect(port, ms) => format!("connect {port} {ms}\n"),
            Order::Reset(port) => format!("reset {port}\n"),
            Order::Sleep(ms) => format!("sleep {ms}\n"),
        }
    }

    fn parse(line: &str) -> Option<Order> {
        let mut words = line.split(' ');
        let order = match (words.next()?, words.next()?.parse().ok()?) {
            ("open", port) => Order::Open(port),
            ("close", port) => Order::Close(port),
            ("connect", port) => Order::Connect(port, words.next()?.parse().ok()?),
            ("reset", port) => Order::Reset(port),
            ("sleep", ms) => Order::Sleep(ms.into()),
            _ => return None,
        };
        Some(order)
    }
}

/// Timeout for a connection over loopback. An accept queue that is full delays it by a second or
/// more.
const CONNECT: Duration = Duration::from_millis(300);

#[derive(Default)]
struct Member {
    listeners: Vec<(u16, TcpListener)>,
    /// Accepted connections. Each stays until its client closes it.
    served: Vec<TcpStream>,
    /// Connections of this client, with the time to close them.
    held: Vec<(TcpStream, Instant)>,
    made: u64,
    failed: u64,
}

/// Runs until the standard input ends.
pub fn run() -> Result<()> {
    let mut member = Member::default();
    // Not through the buffer of `Stdin`, into which poll() cannot see.
    let mut stdin = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut text = vec![];
    loop {
        let ready = member.wait(stdin.as_fd())?;
        if ready.input {
            let mut bytes = [0; 4096];
            let len = stdin.read(&mut bytes)?;
            if len == 0 {
                break;
            }
            text.extend(&bytes[..len]);
            while let Some(end) = text.iter().position(|it| *it == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let line = String::from_utf8(line)?;
                let order = Order::parse(line.trim_end());
                member.obey(order.with_context(|| format!("no order: {line:?}"))?)?;
            }
        }
        member.accept(&ready.listeners)?;
        member.serve(&ready.served);
        let now = Instant::now();
        member.held.retain(|(_, until)| *until > now);
    }
    writeln!(std::io::stdout(), "{} {}", member.made, member.failed)?;
    Ok(())
}

/// The descriptors that poll() has found ready.
struct Ready {
    input: bool,
    listeners: Vec<i32>,
    served: Vec<i32>,
}

impl Member {
    fn wait(&self, stdin: BorrowedFd<'_>) -> Result<Ready> {
        let listeners = self.listeners.iter().map(|(_, it)| it.as_fd());
        let served = self.served.iter().map(|it| it.as_fd());
        let all = [stdin].into_iter().chain(listeners).chain(served);
        let mut all: Vec<PollFd> = all.map(|it| PollFd::new(it, PollFlags::POLLIN)).collect();
        let first = self.held.iter().map(|(_, until)| *until).min();
        let timeout = match first {
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                PollTimeout::try_from(left + Duration::from_millis(1))?
            }
            None => PollTimeout::NONE,
        };
        match poll(&mut all, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("poll() failed"),
        }
        let is_ready = |it: &PollFd| it.revents().is_some_and(|it| !it.is_empty());
        let fds = |of: &[PollFd]| -> Vec<i32> {
            let ready = of.iter().filter(|it| is_ready(it));
            ready.map(|it| it.as_fd().as_raw_fd()).collect()
        };
        let (listeners, served) = all[1..].split_at(self.listeners.len());
        Ok(Ready {
            input: is_ready(&all[0]),
            listeners: fds(listeners),
            served: fds(served),
        })
    }

    fn obey(&mut self, order: Order) -> Result<()> {
        match order {
            Order::Open(port) => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
                let listener = listener.with_context(|| format!("cannot listen on {port}"))?;
                listener.set_nonblocking(true)?;
                self.listeners.push((port, listener));
            }
            Order::Close(port) => self.listeners.retain(|(it, _)| *it != port),
            Order::Connect(port, ms) => {
                if let Some(client) = self.connect(port)
                    && ms > 0
                {
                    let until = Instant::now() + Duration::from_millis(ms.into());
                    self.held.push((client, until));
                }
            }
            Order::Reset(port) => {
                if let Some(client) = self.connect(port) {
                    let at_once = libc::linger {
                        l_onoff: 1,
                        l_linger: 0,
                    };
                    setsockopt(&client.as_fd(), Linger, &at_once)?;
                }
            }
            Order::Sleep(ms) => thread::sleep(Duration::from_millis(ms.into())),
        }
        Ok(())
    }

    fn connect(&mut self, port: u16) -> Option<TcpStream> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let client = TcpStream::connect_timeout(&address, CONNECT).ok();
        match client {
            Some(_) => self.made += 1,
            None => self.failed += 1,
        }
        client
    }

    fn accept(&mut self, ready: &[i32]) -> Result<()> {
        let listeners = self.listeners.iter();
        for (_, listener) in listeners.filter(|(_, it)| ready.contains(&it.as_raw_fd())) {
            loop {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(true)?;
                        self.served.push(stream);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error).context("accept() failed"),
                }
            }
        }
        Ok(())
    }

    /// Closes the accepted connections that their clients have closed.
    fn serve(&mut self, ready: &[i32]) {
        self.served.retain_mut(|stream| {
            if !ready.contains(&stream.as_raw_fd()) {
                return true;
            }
            // The end, or a RST.
            matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_reads_each_order_that_is_written() {
        for order in [
            Order::Open(10_000),
            Order::Close(65_535),
            Order::Connect(1, 30_000),
            Order::Reset(2),
            Order::Sleep(50),
        ] {
            let text = order.text();
            let line = text.strip_suffix('\n').unwrap();
            assert_eq!(Order::parse(line), Some(order), "{text}");
        }
        for line in ["", "open", "open x", "connect 1", "listen 1"] {
            assert_eq!(Order::parse(line), None, "{line}");
        }
    }
}
