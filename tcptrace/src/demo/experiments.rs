//! The four experiments. Each runs a server and a client, and concludes from the trace.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::evidence::Evidence;
use crate::duration::Human;
use crate::fields::{Side, Verdict};

/// The client's message, eighteen bytes.
const GREETING: &[u8] = b"This is tcp client";

/// How late the server calls accept() in the first experiment, and how long it blocks in the
/// second.
const PAUSE: Duration = Duration::from_millis(500);

pub struct Experiment {
    pub title: &'static str,
    pub plot: &'static str,
    /// Runs the experiment. Returns the conclusion, or an error if the trace does not show it.
    pub play: fn(Stage, &Evidence) -> anyhow::Result<String>,
}

pub const EXPERIMENTS: [Experiment; 4] = [
    Experiment {
        title: "A server that listens, and calls accept() half a second late",
        plot: "The client connects and sends its 18 bytes \"This is tcp client\" at once.",
        play: late_accept,
    },
    Experiment {
        title: "A server that is already blocked in accept() when the client comes",
        plot: "The usual picture, in which accept() seems to do the handshake.",
        play: early_accept,
    },
    Experiment {
        title: "A server that listens and never calls accept()",
        plot: "The client connects and sends its 18 bytes, which nobody reads.",
        play: no_accept,
    },
    Experiment {
        title: "A server that writes to disk for half a second before it calls accept()",
        plot: "The client waits in the queue meanwhile. Why is accept() late?",
        play: busy_with_disk,
    },
];

/// A port for one experiment. Binding reserves it; the socket does not listen yet.
pub struct Stage {
    socket: OwnedFd,
    addr: SocketAddr,
}

impl Stage {
    /// Binds to a loopback port that the kernel chooses.
    pub fn new() -> io::Result<Stage> {
        // std binds and listens in one step, but the trace should show the listen().
        // SAFETY: plain system calls on a new descriptor that nothing else owns.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        // SAFETY: all zeros is a valid sockaddr_in.
        let mut addr: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        addr.sin_family = libc::AF_INET as libc::sa_family_t;
        addr.sin_addr.s_addr = u32::from(Ipv4Addr::LOCALHOST).to_be();
        let len = size_of_val(&addr) as libc::socklen_t;
        // SAFETY: `addr` is a sockaddr_in of `len` bytes.
        if unsafe { libc::bind(socket.as_raw_fd(), (&raw const addr).cast(), len) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // `TcpListener` is used for local_addr() only. The socket does not listen yet.
        let named = TcpListener::from(socket);
        let addr = named.local_addr()?;
        Ok(Stage {
            socket: named.into(),
            addr,
        })
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    fn listen(self) -> io::Result<TcpListener> {
        // SAFETY: plain system call on our own descriptor.
        if unsafe { libc::listen(self.socket.as_raw_fd(), 8) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(TcpListener::from(self.socket))
    }
}

/// Starts a thread with this name, which the trace shows as comm.
fn role<T: Send + 'static>(
    name: &str,
    play: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<JoinHandle<anyhow::Result<T>>> {
    Ok(thread::Builder::new().name(name.into()).spawn(play)?)
}

fn join<T>(role: JoinHandle<anyhow::Result<T>>) -> anyhow::Result<T> {
    role.join()
        .unwrap_or_else(|_| Err(anyhow::anyhow!("a thread of the experiment has panicked")))
}

/// A client that has connected and sent its greeting.
struct Client {
    addr: SocketAddr,
    close: Sender<()>,
    role: JoinHandle<anyhow::Result<()>>,
}

impl Client {
    fn connect(to: SocketAddr) -> anyhow::Result<Client> {
        let (connected, addr) = channel();
        let (close, closing) = channel();
        let role = role("client", move || {
            let mut stream = TcpStream::connect(to)?;
            stream.write_all(GREETING)?;
            connected.send(stream.local_addr()?)?;
            closing.recv()?;
            Ok(())
        })?;
        let Ok(addr) = addr.recv() else {
            join(role)?;
            bail!("the client gave up");
        };
        Ok(Client { addr, close, role })
    }

    fn close(self) -> anyhow::Result<()> {
        // A send error means that the client has ended. `join` returns its error.
        let _ = self.close.send(());
        join(self.role)
    }
}

fn late_accept(stage: Stage, evidence: &Evidence) -> anyhow::Result<String> {
    let (addr, port) = (stage.addr, stage.port());
    let (connected, wait) = channel();
    let (listening, ready) = channel();
    let server = role("server", move || {
        let listener = stage.listen()?;
        listening.send(())?;
        wait.recv()?;
        thread::sleep(PAUSE);
        let (mut stream, peer) = listener.accept()?;
        let mut greeting = [0; GREETING.len()];
        stream.read_exact(&mut greeting)?;
        ensure!(greeting == GREETING, "the server read something else");
        let own = stream.local_addr()?;
        // The client closes first, so the server's end passes through CLOSE_WAIT.
        stream.read_to_end(&mut vec![])?;
        Ok((own, peer))
    })?;
    ready.recv().context("the server could not listen")?;
    let client = Client::connect(addr)?;
    let clients_addr = client.addr;
    connected.send(())?;
    thread::sleep(PAUSE + PAUSE / 5);
    client.close()?;
    let (own, peer) = join(server)?;

    let traced = evidence.server_connection(port)?;
    ensure!(
        traced.verdict == Some(Verdict::Queued),
        "the verdict was {:?}, not queued",
        traced.verdict
    );
    let waited = traced.accept_queue_ns.context("no accept-queue wait")?;
    ensure!(
        waited >= PAUSE.as_nanos() as u64,
        "the wait was only {}",
        Human(waited)
    );
    ensure!(own.port() == port, "accept() made a new port, {own}");
    ensure!(
        peer == clients_addr,
        "the peer is {peer}, not {clients_addr}"
    );
    ensure!(
        traced.subject.rport == Some(peer.port()),
        "another connection was traced"
    );
    Ok(format!(
        "So: ESTABLISHED {} before accept() returned; the 18 bytes were waiting there.\n\
         What accept() returned is {own} with peer {peer}: the server's own port and the \
         client's.\nNo new port is made.",
        Human(waited)
    ))
}

fn early_accept(stage: Stage, evidence: &Evidence) -> anyhow::Result<String> {
    let (addr, port) = (stage.addr, stage.port());
    let (listening, ready) = channel();
    let server = role("server", move || {
        let listener = stage.listen()?;
        listening.send(())?;
        let (mut stream, _) = listener.accept()?;
        stream.read_to_end(&mut vec![])?;
        Ok(())
    })?;
    ready.recv().context("the server could not listen")?;
    // Give the server time to block in accept().
    thread::sleep(PAUSE);
    Client::connect(addr)?.close()?;
    join(server)?;

    let traced = evidence.server_connection(port)?;
    ensure!(
        traced.verdict == Some(Verdict::Awaited),
        "the verdict was {:?}, not awaited",
        traced.verdict
    );
    let waited = traced.accept_queue_ns.context("no accept-queue wait")?;
    Ok(format!(
        "So: even then ESTABLISHED came first, and {} later accept() returned.",
        Human(waited)
    ))
}

fn no_accept(stage: Stage, evidence: &Evidence) -> anyhow::Result<String> {
    let (addr, port) = (stage.addr, stage.port());
    let listener = join(role("server", move || Ok(stage.listen()?))?)?;
    let client = Client::connect(addr)?;
    evidence.established(Side::Client, port)?;
    evidence.established(Side::Server, port)?;
    thread::sleep(PAUSE);
    ensure!(!evidence.any_accept(port), "somebody called accept()");
    client.close()?;
    join(role("server", move || {
        drop(listener);
        Ok(())
    })?)?;

    let traced = evidence.server_connection(port)?;
    ensure!(
        traced.verdict == Some(Verdict::NeverAccepted),
        "the verdict was {:?}, not never_accepted",
        traced.verdict
    );
    Ok(
        "So: both ends were ESTABLISHED, and the client could send; accept() was never called."
            .into(),
    )
}

fn busy_with_disk(stage: Stage, evidence: &Evidence) -> anyhow::Result<String> {
    let (addr, port) = (stage.addr, stage.port());
    let (connected, wait) = channel();
    let (listening, ready) = channel();
    let server = role("server", move || {
        let listener = stage.listen()?;
        listening.send(())?;
        wait.recv()?;
        save_state()?;
        let (mut stream, _) = listener.accept()?;
        stream.read_to_end(&mut vec![])?;
        Ok(())
    })?;
    ready.recv().context("the server could not listen")?;
    let client = Client::connect(addr)?;
    connected.send(())?;
    client.close()?;
    join(server)?;

    let traced = evidence.server_connection(port)?;
    let waited = traced.accept_queue_ns.context("no accept-queue wait")?;
    ensure!(
        waited >= PAUSE.as_nanos() as u64,
        "the wait was only {}",
        Human(waited)
    );
    if !evidence.sees_acceptors() {
        return Ok(
            "This kernel does not show what the server did meanwhile, see tcptrace doctor.".into(),
        );
    }
    let late = traced.late.context("no explanation of the wait")?;
    Ok(format!(
        "So: the connection waited {}, and accept() was {}.",
        Human(waited),
        late.late_because
    ))
}

/// Writes to a temporary file, and waits until it is on the disk, again and again for the time of
/// [`PAUSE`].
#[inline(never)]
fn save_state() -> io::Result<()> {
    let mut file = temporary_file()?;
    let began = Instant::now();
    while began.elapsed() < PAUSE {
        file.write_all(&[0; 4096])?;
        file.sync_all()?;
    }
    Ok(())
}

/// The folders for the file of an experiment, in the order in which they are tried. `/var/tmp` is on a
/// disk where `/tmp` is in memory. A container may have neither.
pub const FOLDERS: [&str; 3] = ["/var/tmp", "/tmp", "."];

/// Creates a file without a name.
fn temporary_file() -> io::Result<File> {
    let name = format!("tcptrace-demo-{}", std::process::id());
    let create = |folder: &str| {
        let path = Path::new(folder).join(&name);
        let file = File::create_new(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    };
    let [first, second, third] = FOLDERS;
    let created = create(first).or_else(|_: io::Error| create(second));
    created.or_else(|_| create(third))
}
