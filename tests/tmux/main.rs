//! `tcptrace top` in a real terminal emulator of 80 by 24: tmux.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

/// Timeout for anything that is certain to happen.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A private tmux server with one window. Killed when it is dropped.
struct Tmux {
    socket: tempfile::TempDir,
}

impl Tmux {
    /// Starts a shell with a plain prompt.
    fn start() -> Tmux {
        let tmux = Tmux {
            socket: tempfile::tempdir().expect("a folder"),
        };
        let shell = "PS1='ready> ' exec sh";
        tmux.tmux(&["new-session", "-d", "-x", "80", "-y", "24", shell]);
        tmux.shows(&["ready>"]);
        tmux
    }

    fn tmux(&self, args: &[&str]) -> Output {
        let mut tmux = Command::new("tmux");
        tmux.arg("-S").arg(self.socket.path().join("socket"));
        let output = tmux.args(["-f", "/dev/null"]).args(args).output();
        let output = output.unwrap_or_else(|error| {
            panic!("tmux: {error}; `cargo xtask test --install` installs what the tests need")
        });
        assert!(output.status.success(), "{args:?}: {output:?}");
        output
    }

    fn screen(&self) -> String {
        let screen = self.tmux(&["capture-pane", "-p"]).stdout;
        String::from_utf8(screen).expect("UTF-8")
    }

    /// Types a text, or a key by its name.
    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Waits until all of these are on the screen.
    fn shows(&self, parts: &[&str]) -> String {
        let began = Instant::now();
        loop {
            let screen = self.screen();
            if parts.iter().all(|part| screen.contains(part)) {
                return screen;
            }
            assert!(began.elapsed() < TIMEOUT, "{parts:?} are not on\n{screen}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // An error cannot be reported here.
        let _ = Command::new("tmux")
            .arg("-S")
            .arg(self.socket.path().join("socket"))
            .arg("kill-server")
            .output();
    }
}

#[test]
fn the_queue_is_shown_and_the_screen_is_restored() {
    let program = std::env::var("TCPTRACE_BIN").expect("TCPTRACE_BIN names the program");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    let at = listener.local_addr().expect("an address");

    let tmux = Tmux::start();
    tmux.press(&["echo above", "Enter"]);
    tmux.shows(&["\nabove\n"]);
    tmux.press(&[&format!("{program} top -p {}", at.port()), "Enter"]);
    tmux.shows(&["1 listener", &at.to_string(), "q quit"]);

    let client = TcpStream::connect(at).expect("a connection");
    let screen = tmux.shows(&["Waiting for accept() 1 ", "ESTABLISHED"]);
    let widest = screen.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(80), "{screen}");
    assert!(!screen.contains("above"), "{screen}");

    drop((listener.accept().expect("it is queued"), client));
    tmux.shows(&["Waiting for accept() 0 ", "queued: the kernel finished"]);

    tmux.press(&["q"]);
    // The shell's prompt is below the earlier contents.
    let screen = tmux.shows(&["\nabove\n", "\nready>\n"]);
    assert!(!screen.contains("Waiting for accept()"), "{screen}");
    tmux.press(&["echo below", "Enter"]);
    tmux.shows(&["\nabove\n", "\nbelow\n"]);
}
