//! The terminal: taken over, and given back as it was, whatever happens.

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

/// How long it takes at most until a signal has stopped every thread.
const STOPPING: Duration = Duration::from_millis(50);

/// Whether the terminal is ours. There is one terminal in a process.
static OURS: AtomicBool = AtomicBool::new(false);

/// Whether something has panicked, and was told on the terminal: that stays on it.
static OVER: AtomicBool = AtomicBool::new(false);

/// The alternate screen of the terminal on stdout, in raw mode. Dropped, it gives the terminal back.
pub struct Screen {
    terminal: Terminal<Bounded>,
    /// Others have used the terminal, or may have.
    stale: bool,
}

impl Screen {
    /// Takes the terminal over. An error is the terminal's own.
    pub fn enter() -> io::Result<Screen> {
        let screen = Screen {
            terminal: terminal()?,
            stale: false,
        };
        take()?;
        Ok(screen)
    }

    /// Draws a frame; an error when the terminal is not ours any more, as after a panic elsewhere.
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

    /// Has the terminal taken again before it is drawn on: others may have used it.
    pub fn resumed(&mut self) {
        self.stale = true;
    }

    /// Gives the terminal back and stops the process, as Ctrl-Z does. Returns when it is continued.
    pub fn suspend(&mut self) {
        restore();
        self.stale = true;
        // SAFETY: a plain system call. The whole process group, as the terminal does it: sudo too.
        unsafe { libc::kill(0, libc::SIGTSTP) };
        // Another thread may be the one that takes the signal, a moment later.
        std::thread::sleep(STOPPING);
    }

    /// Takes the terminal, and draws everything the next time. (`Terminal::clear` would ask the
    /// terminal where its cursor is, and wait for the answer.)
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

/// The terminal on stdout, of which no more is used than [`MOST`]: a terminal may say that it has
/// 65535 lines of 65535 columns, and there is no memory for these.
struct Bounded(CrosstermBackend<Stdout>);

/// More than the largest screens have with the smallest fonts.
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

/// Whether the terminal listens to this process: a job in the background must let it be.
pub fn in_foreground() -> bool {
    // SAFETY: plain system calls. One that fails, as on a terminal that is gone, gives -1, and then
    // drawing says what is wrong.
    let (front, own) = unsafe { (libc::tcgetpgrp(libc::STDOUT_FILENO), libc::getpgrp()) };
    front == own || front == -1
}

fn take() -> io::Result<()> {
    // Who is in raw mode already, as far as crossterm knows, is not brought there again, although a
    // shell may have changed that while the process was stopped.
    if OURS.swap(true, Ordering::Relaxed) {
        disable_raw_mode()?;
    }
    let taken = enable_raw_mode().and_then(|()| execute!(stdout(), EnterAlternateScreen, Hide));
    if taken.is_err() {
        restore();
    }
    taken
}

/// Gives the terminal back, from any thread, if it is ours. Nothing can be done where that fails.
pub fn restore() {
    if OURS.swap(false, Ordering::Relaxed) {
        let _ = execute!(stdout(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

/// Has a panic, whichever thread's, told on the terminal as it was.
pub fn restore_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        OVER.store(true, Ordering::Relaxed);
        restore();
        tell(panic);
    }));
}
