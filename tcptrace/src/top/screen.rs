//! The terminal: alternate screen and raw mode. It is restored on every exit path.

use std::io::{self, Stdout, stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::backend::{self, Backend, CrosstermBackend, WindowSize};
use ratatui::buffer::Cell;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::layout::{Position, Size};
use ratatui::{Frame, Terminal};

/// Upper bound on the time until a stop signal has stopped every thread. `suspend` sleeps that long
/// after it sends the signal.
const STOPPING: Duration = Duration::from_millis(50);

/// The alternate screen is active. A process has one terminal, so this is a static.
static OURS: AtomicBool = AtomicBool::new(false);

/// A panic message has been printed on the terminal. The screen must not cover it.
static OVER: AtomicBool = AtomicBool::new(false);

/// The alternate screen of the terminal on stdout, in raw mode. Restores the terminal on drop.
pub struct Screen {
    terminal: Terminal<Bounded>,
    /// Other programs have, or may have, drawn on the terminal.
    stale: bool,
}

impl Screen {
    /// Enters the alternate screen.
    ///
    /// # Errors
    /// The terminal's own.
    pub fn enter() -> io::Result<Screen> {
        let screen = Screen {
            terminal: terminal()?,
            stale: false,
        };
        take()?;
        Ok(screen)
    }

    /// Draws a frame.
    ///
    /// # Errors
    /// The terminal's own, or that another thread has panicked.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame)) -> io::Result<()> {
        if OVER.load(Ordering::Relaxed) {
            return Err(io::Error::other("the trace has failed"));
        }
        if self.stale {
            self.anew()?;
        }
        self.terminal.draw(draw)?;
        Ok(())
    }

    /// Redraws everything next time, because other programs may have used the terminal.
    pub fn resumed(&mut self) {
        self.stale = true;
    }

    /// Restores the terminal and stops the process, as Ctrl-Z does. Returns when the process
    /// continues.
    pub fn suspend(&mut self) {
        restore();
        self.stale = true;
        // SAFETY: a plain system call. It signals the whole process group, including sudo, as the
        // terminal does.
        unsafe { libc::kill(0, libc::SIGTSTP) };
        // Another thread may handle the signal, a moment later.
        std::thread::sleep(STOPPING);
    }

    /// Enters the alternate screen again with an empty buffer. `Terminal::clear` is not used,
    /// because it queries the cursor position and waits for the terminal's answer.
    fn anew(&mut self) -> io::Result<()> {
        take()?;
        execute!(stdout(), Clear(ClearType::All))?;
        self.terminal = terminal()?;
        self.stale = false;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

fn terminal() -> io::Result<Terminal<Bounded>> {
    Terminal::new(Bounded(CrosstermBackend::new(stdout())))
}

/// The terminal on stdout, limited to the size [`MOST`]. A terminal may report 65535 × 65535 cells,
/// and a buffer of that size does not fit in memory.
struct Bounded(CrosstermBackend<Stdout>);

/// Upper bound on the size of the buffer. It has more cells than the largest screens with the
/// smallest fonts.
const MOST: Size = Size::new(640, 360);

impl Backend for Bounded {
    type Error = io::Error;

    fn size(&self) -> io::Result<Size> {
        let Size { width, height } = self.0.size()?;
        Ok(Size::new(width.min(MOST.width), height.min(MOST.height)))
    }

    fn draw<'a, I: Iterator<Item = (u16, u16, &'a Cell)>>(&mut self, content: I) -> io::Result<()> {
        self.0.draw(content)
    }

    fn append_lines(&mut self, n: u16) -> io::Result<()> {
        self.0.append_lines(n)
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        self.0.hide_cursor()
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        self.0.show_cursor()
    }

    fn get_cursor_position(&mut self) -> io::Result<Position> {
        self.0.get_cursor_position()
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> io::Result<()> {
        self.0.set_cursor_position(position)
    }

    fn clear(&mut self) -> io::Result<()> {
        self.0.clear()
    }

    fn clear_region(&mut self, region: backend::ClearType) -> io::Result<()> {
        self.0.clear_region(region)
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        self.0.window_size()
    }

    fn flush(&mut self) -> io::Result<()> {
        Backend::flush(&mut self.0)
    }
}

/// Returns true if this process is in the terminal's foreground. A background job must not draw.
pub fn in_foreground() -> bool {
    // SAFETY: plain system calls. A failed call returns -1, for example if the terminal has gone.
    // Drawing then reports the error.
    let (front, own) = unsafe { (libc::tcgetpgrp(libc::STDOUT_FILENO), libc::getpgrp()) };
    front == own || front == -1
}

fn take() -> io::Result<()> {
    // crossterm skips `enable_raw_mode` if it believes that raw mode is on. A shell may have
    // changed the mode while the process was stopped, so turn it off first.
    if OURS.swap(true, Ordering::Relaxed) {
        disable_raw_mode()?;
    }
    let taken = enable_raw_mode().and_then(|()| execute!(stdout(), EnterAlternateScreen, Hide));
    if taken.is_err() {
        restore();
    }
    taken
}

/// Restores the terminal if the alternate screen is active. Errors are ignored. May be called from
/// any thread.
pub fn restore() {
    if OURS.swap(false, Ordering::Relaxed) {
        let _ = execute!(stdout(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

/// Installs a panic hook that restores the terminal before the message of any thread is printed.
pub fn restore_on_panic() {
    let print_message = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        OVER.store(true, Ordering::Relaxed);
        restore();
        print_message(panic);
    }));
}
