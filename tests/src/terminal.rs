//! A program on a terminal: a pseudoterminal, and an emulator of its screen.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{Termios, tcgetattr};

use crate::eventually;
use crate::run::{Ended, Running, tcptrace};

/// Builds `tcptrace top ARGS…`, with `TCPTRACE_TEST_ARGS`.
pub fn tcptrace_top(args: &[&str]) -> Command {
    let mode = std::env::var("TCPTRACE_TEST_ARGS").unwrap_or_default();
    let mode: Vec<&str> = mode.split_whitespace().collect();
    let mut command = tcptrace(&[&["top"], &mode[..], args].concat());
    command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
    command
}

pub struct Terminal {
    program: Running,
    keyboard: File,
    /// Kept open so that the terminal outlives the program.
    device: OwnedFd,
    /// The terminal's modes before the program started.
    before: Termios,
    shown: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// Starts a program on a new terminal, as the leader of its session.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Terminal {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).expect("a pseudoterminal");
        let device = || pty.slave.try_clone().expect("a descriptor");
        let before = tcgetattr(&pty.slave).expect("the terminal's modes");
        command.stdin(device()).stdout(device()).stderr(device());
        // SAFETY: both are async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let size = |n| NonZeroU16::new(n).expect("a size that is not 0");
        let shown = vt100::Parser::new(size(rows), size(columns), 0);
        let shown = Arc::new(Mutex::new(shown));
        let keyboard = File::from(pty.master);
        let mut output = keyboard.try_clone().expect("a descriptor");
        let parser = shown.clone();
        // The thread ends when the last descriptor of the device is closed.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                let mut parser = parser.lock().unwrap_or_else(PoisonError::into_inner);
                parser.process(&bytes[..n]);
            }
        });
        Terminal {
            program: Running::spawn(command),
            keyboard,
            device: pty.slave,
            before,
            shown,
        }
    }

    pub fn program(&self) -> &Running {
        &self.program
    }

    /// Returns the screen's text.
    pub fn screen(&self) -> String {
        self.parser(|parser| parser.screen().contents())
    }

    /// Waits until all of these texts are on the screen.
    #[track_caller]
    pub fn shows(&self, texts: &[&str]) {
        self.wait_for(&format!("{texts:?}"), |screen| {
            texts.iter().all(|text| screen.contains(text))
        });
    }

    /// Waits until the screen satisfies a condition.
    #[track_caller]
    pub fn wait_for(&self, what: &str, is_there: impl Fn(&str) -> bool) {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(what, || is_there(&self.screen()).then_some(()));
        }));
        assert!(result.is_ok(), "waited for {what} on\n{}", self.screen());
    }

    /// Types keys.
    pub fn press(&mut self, keys: &str) {
        self.keyboard
            .write_all(keys.as_bytes())
            .expect("a terminal");
    }

    /// Changes the terminal's size, as dragging its window does.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        let size = libc::winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let number = |n| NonZeroU16::new(n).expect("a size that is not 0");
        let (rows, columns) = (number(rows), number(columns));
        let mut parser = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        parser.screen_mut().set_size(rows, columns);
        // SAFETY: TIOCSWINSZ reads a winsize.
        let set = unsafe { libc::ioctl(self.device.as_raw_fd(), libc::TIOCSWINSZ, &size) };
        assert_eq!(set, 0, "the terminal's size");
    }

    /// Whether a program uses the alternate screen or has changed the terminal's modes.
    pub fn is_taken(&self) -> bool {
        let modes = tcgetattr(&self.device).expect("the terminal's modes");
        self.parser(|parser| parser.screen().alternate_screen()) || modes != self.before
    }

    /// Waits until the program has ended and has restored the terminal's modes, screen and cursor.
    /// Returns the screen.
    #[track_caller]
    pub fn end(self) -> (Ended, String) {
        let Terminal {
            program,
            device,
            before,
            shown,
            keyboard,
        } = self;
        let ended = program.wait();
        let parser = || shown.lock().unwrap_or_else(PoisonError::into_inner);
        // The program's last output may still be unread.
        eventually("the screen and the cursor to be given back", || {
            let parser = parser();
            let screen = parser.screen();
            (!screen.alternate_screen() && !screen.hide_cursor()).then_some(())
        });
        let after = tcgetattr(&device).expect("the terminal's modes");
        assert_eq!(after, before, "the terminal's modes");
        let screen = parser().screen().contents();
        drop(keyboard);
        (ended, screen)
    }

    fn parser<T>(&self, ask: impl FnOnce(&vt100::Parser) -> T) -> T {
        ask(&self.shown.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
