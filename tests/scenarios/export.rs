//! `tcptrace export`: its metrics are those of another trace of the same seconds, and its server
//! answers whatever clients do.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::run::{Ended, Running, helper, tcptrace};
use tests::task::{join, spawn, wait_until_in_accept};
use tests::trace::Line;
use tests::traffic::*;
use tests::{Lab, TIMEOUT, eventually};

const FAILURE: i32 = 1;
const USAGE: i32 = 2;

const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";

/// The default port, which is free in the namespace of a scenario.
const AT: u16 = 9807;

/// Builds `tcptrace export` for connections at one port.
fn export(port: u16) -> Command {
    tcptrace(&["export", "-p", &port.to_string()])
}

/// Starts an exporter and waits until it answers.
fn start(command: Command) -> Running {
    let running = Running::start(command);
    eventually("the exporter to answer", || {
        let answer = request("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        answer.ok().filter(|it| it.status == 200)
    });
    running
}

/// Ends an exporter with SIGTERM.
fn end(running: Running) -> Ended {
    running.signal(Signal::SIGTERM);
    let ended = running.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let headers = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut found = headers.filter(|(it, _)| it.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value)
    }
}

/// Sends bytes and reads the answer to its end.
fn request(text: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect((LOOPBACK, AT))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(text.as_bytes())?;
    answer(stream)
}

fn answer(mut stream: TcpStream) -> io::Result<Answer> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok());
    Ok(Answer {
        status: status.unwrap_or_else(|| panic!("no status: {head:?}")),
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

fn get(path: &str, accept: &str) -> Answer {
    let text = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n");
    request(&text).expect("an answer")
}

/// Returns the values of `/metrics`, by name and labels.
fn scrape() -> BTreeMap<String, f64> {
    let answer = get("/metrics", "text/plain");
    assert_eq!(answer.status, 200, "{}", answer.head);
    let samples = answer.body.lines().filter(|line| !line.starts_with('#'));
    let samples = samples.map(|line| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().expect("a number"))
    });
    samples.collect()
}

/// Returns the values of one metric that are not 0, by the value of a label.
fn by_label(metrics: &BTreeMap<String, f64>, name: &str, label: &str) -> BTreeMap<String, u64> {
    let mut values = BTreeMap::new();
    for (series, value) in metrics {
        let labels = series
            .strip_prefix(name)
            .and_then(|it| it.strip_prefix('{'));
        let found = labels.and_then(|it| it.split(&format!("{label}=\"")).nth(1));
        if let Some(found) = found.filter(|_| *value > 0.0) {
            let key = found.split('"').next().expect("a value").to_owned();
            *values.entry(key).or_default() += *value as u64;
        }
    }
    values
}

/// Counts lines by the value of a field.
fn counted<'a>(lines: impl IntoIterator<Item = &'a Line>, field: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in lines {
        let value = line[field].as_str().expect("a value").to_owned();
        *counts.entry(value).or_default() += 1;
    }
    counts
}

#[test]
fn the_metrics_equal_the_lines_of_another_trace_of_the_same_seconds() {
    let lab = Lab::new();
    let port = lab.port();
    let exporter = start(export(port));
    let tracer = lab.trace_with(&["-p", &port.to_string()]);
    let listener = listen_at((LOOPBACK, port).into(), 8);

    // Waits of 30 ms and more, in the middle of a bucket.
    for _ in 0..3 {
        let client = connect_queued(port);
        std::thread::sleep(Duration::from_millis(30));
        close(client, accept(&listener).stream);
    }
    let (acceptor, accepting) = spawn(move || (accept(&listener), listener));
    wait_until_in_accept(acceptor);
    let client = connect(port);
    let (accepted, listener) = join(accepting);
    close(client, accepted.stream);
    let client = connect_queued(port);
    let server = accept(&listener).stream;
    reset(client);
    drop(server);
    tracer.wait_for_ends(10);

    // A connection counts when it is accepted, and two wait.
    let waiting = [connect_queued(port), connect_queued(port)];
    let queue = |name: &str| {
        let name = format!("tcptrace_accept_queue_{name}{{listener=\"127.0.0.1:{port}\"");
        let metrics = scrape();
        let mut found = metrics
            .iter()
            .filter(|(series, _)| series.starts_with(&name));
        found.next().map(|(_, value)| *value)
    };
    eventually("two connections in the queue", || {
        (queue("length") == Some(2.0)).then_some(())
    });
    assert_eq!(queue("limit"), Some(8.0));
    drop(listener);
    eventually("no length of a closed listener", || {
        queue("length").is_none().then_some(())
    });
    drop(waiting);
    tracer.wait_for_ends(14);
    let ended = || {
        let metrics = scrape();
        let ended = by_label(&metrics, "tcptrace_connections_ended_total", "how");
        (ended.values().sum::<u64>() == 14).then_some(metrics)
    };
    let metrics = eventually("the end of each connection", ended);
    end(exporter);
    let trace = tracer.stop();

    let servers = trace.connections("server");
    let verdicts = by_label(&metrics, "tcptrace_connections_total", "verdict");
    assert_eq!(verdicts, counted(servers.iter().copied(), "verdict"));
    assert_eq!(verdicts["never_accepted"], 2, "{verdicts:?}");
    let all = servers.iter().copied().chain(trace.connections("client"));
    let ended = by_label(&metrics, "tcptrace_connections_ended_total", "how");
    assert_eq!(ended, counted(all, "ended"));

    let labels = format!("{{listener=\"127.0.0.1:{port}\"");
    let of = |name: &str, more: &str| {
        let begin = format!("{name}{labels}");
        let mut found = metrics.iter();
        let found = found.find(|(it, _)| it.starts_with(&begin) && it.contains(more));
        *found
            .unwrap_or_else(|| panic!("{begin} {more}: {metrics:#?}"))
            .1
    };
    const WAIT: &str = "tcptrace_accept_queue_wait_seconds";
    let waits = servers
        .iter()
        .filter_map(|it| it["accept_queue_ns"].as_u64());
    let waits: Vec<u64> = waits.collect();
    assert_eq!(of(&format!("{WAIT}_count"), ""), waits.len() as f64);
    let bucket = |le| of(&format!("{WAIT}_bucket"), &format!("le=\"{le}\""));
    let up_to = |ns| waits.iter().filter(|wait| **wait <= ns).count() as f64;
    assert_eq!(bucket("0.025"), up_to(25_000_000));
    assert_eq!(bucket("+Inf"), 5.0);
    // The programs of the two traces run one after the other.
    let sum = waits.iter().sum::<u64>() as f64 / 1e9;
    let difference = (of(&format!("{WAIT}_sum"), "") - sum).abs();
    assert!(difference < 0.005, "{difference}");
    for role in ["server", "client"] {
        let known = trace.connections(role);
        let known = known.iter().filter(|it| !it["handshake_ns"].is_null());
        let name = "tcptrace_handshake_duration_seconds_count";
        let mut found = metrics.iter();
        let found =
            found.find(|(it, _)| it.starts_with(name) && it.contains(&format!("role=\"{role}\"")));
        assert_eq!(found.map(|it| *it.1), Some(known.count() as f64), "{role}");
    }
}

#[test]
fn the_server_answers_each_request_with_its_status_and_form() {
    let lab = Lab::new();
    let port = lab.port();
    let exporter = start(export(port));

    let text = get("/metrics", "text/plain");
    assert_eq!(
        text.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert!(text.body.contains("\ntcptrace_build_info{version="));
    assert!(!text.body.contains("# EOF"));
    let open = get("/metrics", OPENMETRICS);
    let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(open.header("content-type"), Some(form));
    assert!(open.body.ends_with("# EOF\n"), "{}", open.body);
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        let value = open.body.lines().find(|line| line.starts_with(name));
        let value = value.and_then(|line| line.split(' ').nth(1)?.parse().ok());
        assert!(value.is_some_and(|it: f64| it > 0.0), "{name} {value:?}");
    }

    let health = get("/healthz", "*/*");
    assert_eq!((health.status, &*health.body), (200, "ok\n"));
    assert_eq!(get("/", "*/*").status, 404);
    assert_eq!(get("/metrics/", "*/*").status, 404);
    let head = request("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("an answer");
    assert_eq!((head.status, &*head.body), (200, ""));
    let length = head.header("content-length").and_then(|it| it.parse().ok());
    assert!(length.is_some_and(|it: usize| it > 100), "{}", head.head);
    let post = request("POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("an answer");
    assert_eq!(
        (post.status, post.header("allow")),
        (405, Some("GET, HEAD"))
    );
    let long = format!(
        "GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n",
        "x".repeat(1 << 16)
    );
    // The server may close the connection before it has read everything.
    if let Ok(answer) = request(&long) {
        assert_eq!(answer.status, 431);
    }
    assert_eq!(request("nonsense\r\n\r\n").expect("an answer").status, 400);
    assert_eq!(get("/healthz", "*/*").status, 200);
    end(exporter);
}

#[test]
fn slow_and_idle_clients_keep_nobody_waiting_and_are_cut_off() {
    let lab = Lab::new();
    let port = lab.port();
    let exporter = start(export(port));
    let connect = || TcpStream::connect((LOOPBACK, AT)).expect("connect");
    let mut slow = connect();
    slow.write_all(b"GET /metrics HT")
        .expect("send half a request");
    let idle: Vec<TcpStream> = (0..100).map(|_| connect()).collect();
    let began = Instant::now();
    assert_eq!(get("/healthz", "*/*").status, 200);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    for mut stream in idle.into_iter().chain([slow]) {
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        let end = stream.read_to_end(&mut vec![]);
        let is_reset = |it: &io::Error| it.kind() == io::ErrorKind::ConnectionReset;
        assert!(
            end.as_ref().is_ok() || end.as_ref().is_err_and(is_reset),
            "{end:?}"
        );
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    end(exporter);
}

#[test]
fn a_port_in_use_is_refused_with_one_line() {
    let lab = Lab::new();
    let _other = listen(AT);
    let ended = Running::run_to_end(export(lab.port()));
    assert_eq!(ended.code, Some(FAILURE));
    assert_eq!(
        ended.stderr,
        "tcptrace: cannot listen on 127.0.0.1:9807: Address already in use\n"
    );
    assert_eq!(ended.stdout, "");
}

/// Passes a descriptor as number 3.
fn pass(command: &mut Command, fd: &impl AsRawFd) {
    let fd = fd.as_raw_fd();
    // SAFETY: dup2 and fcntl are async-signal-safe. A new descriptor lacks FD_CLOEXEC, but dup2 does
    // nothing if the descriptor is 3 already.
    unsafe {
        command.pre_exec(
            move || match (libc::dup2(fd, 3), libc::fcntl(3, libc::F_SETFD, 0)) {
                (3, 0) => Ok(()),
                _ => Err(io::Error::last_os_error()),
            },
        );
    }
}

/// Builds an exporter that gets a socket as systemd passes it.
fn activated(args: &[&str]) -> Command {
    let program = tcptrace(&[]);
    let program = program.get_program().to_str().expect("a path");
    helper(&[&["activated", program, "export"], args].concat())
}

#[test]
fn a_socket_that_systemd_passes_takes_precedence_over_listen() {
    let lab = Lab::new();
    let port = lab.port().to_string();
    let listener = listen(AT);
    // Nothing can listen at the address of --listen.
    let used = lab.port();
    let _other = listen(used);
    let used = format!("127.0.0.1:{used}");
    let mut command = activated(&["-p", &port, "--listen", &used]);
    pass(&mut command, &listener);
    let exporter = start(command);
    assert_eq!(get("/metrics", "*/*").status, 200);
    let ended = end(exporter);
    let told = "tcptrace: metrics are at http://127.0.0.1:9807/metrics\n";
    assert_eq!(ended.stderr, told);
}

#[test]
fn a_passed_descriptor_that_does_not_listen_is_refused_with_one_line() {
    let lab = Lab::new();
    let listener: TcpListener = listen(lab.port());
    let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("connect");
    let mut command = activated(&[]);
    pass(&mut command, &client);
    let ended = Running::run_to_end(command);
    assert_eq!(ended.code, Some(USAGE));
    let complaint = "tcptrace: cannot use the socket of LISTEN_FDS: it does not listen\n";
    assert_eq!(ended.stderr, complaint);
}

#[test]
fn systemd_is_notified_of_the_start_of_progress_and_of_the_end() {
    let lab = Lab::new();
    let port = lab.port();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    let next = || {
        let mut message = [0; 100];
        let len = socket.recv(&mut message).expect("a notification");
        String::from_utf8_lossy(&message[..len]).trim().to_owned()
    };
    let mut command = export(port);
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "400000");
    let exporter = Running::start(command);
    assert_eq!(next(), "READY=1");
    let began = Instant::now();
    for _ in 0..4 {
        assert_eq!(next(), "WATCHDOG=1");
    }
    // Each half of the time.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(500), "{took:?}");
    exporter.signal(Signal::SIGTERM);
    let mut last = next();
    while last == "WATCHDOG=1" {
        last = next();
    }
    assert_eq!(last, "STOPPING=1");
    assert_eq!(exporter.wait().code, Some(0));
}
