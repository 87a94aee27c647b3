//! The terminal: taken over, and given back as it was, whatever happens.

use std::io::{self, Stdout, stdout};
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{Frame, Terminal};

/// Whether the terminal is ours. There is one terminal in a process.
static OURS: AtomicBool = AtomicBool::new(false);

/// The alternate screen of the terminal on stdout, in raw mode. Dropped, it gives the terminal back.
pub struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    /// Takes the terminal over. An error is the terminal's own.
    pub fn enter() -> io::Result<Screen> {
        let screen = Screen(Terminal::new(CrosstermBackend::new(stdout()))?);
        take()?;
        Ok(screen)
    }

    /// Draws a frame; an error when the terminal is not ours any more, as after a panic elsewhere.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame)) -> io::Result<()> {
        if !OURS.load(Ordering::Relaxed) {
            return Err(io::Error::other("it was given back"));
        }
        self.0.draw(draw)?;
        Ok(())
    }

    /// Takes the terminal again, after others may have used it.
    pub fn again(&mut self) -> io::Result<()> {
        if OURS.load(Ordering::Relaxed) {
            take()?;
            self.0.clear()?;
        }
        Ok(())
    }

    /// Gives the terminal back, stops the process as Ctrl-Z does, and goes on when it is continued.
    pub fn suspend(&mut self) -> io::Result<()> {
        restore();
        // SAFETY: a plain system call. The whole process group, as the terminal does it: sudo too.
        unsafe { libc::kill(0, libc::SIGTSTP) };
        take()?;
        self.0.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

fn take() -> io::Result<()> {
    OURS.store(true, Ordering::Relaxed);
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
        restore();
        tell(panic);
    }));
}
