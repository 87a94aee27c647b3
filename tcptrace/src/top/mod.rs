//! `tcptrace top`: the listeners of this machine, live on a terminal.
//!
//! The pipeline feeds the [`Model`]. A thread takes a [`model::View`] of it at intervals and draws
//! the view. The lock between them is held for one line or one view, never while drawing.

mod draw;
pub(crate) mod model;
mod screen;
mod ui;

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use self::draw::Theme;
use self::model::Model;
pub use self::screen::{Screen, restore_on_panic};
use self::ui::{Ui, Wish};
use crate::cli::Top;
use crate::clock::{Clock, mono_now_ns};
use crate::depth::Depth;
use crate::exit;
use crate::fields::Line;
use crate::pipeline::Output;
use crate::privileges;
use crate::sink::Show;
use crate::stdio::say;
use crate::tracing::{Needed, Outputs, Plan, Tracing, Until};

/// How often the screen checks whether the trace has ended.
const NOTICE: Duration = Duration::from_millis(100);

/// How long to wait for the screen's end. A terminal that has gone away may block it forever.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs `tcptrace top`. Returns the exit code.
pub async fn run(options: &Top) -> anyhow::Result<u8> {
    if let Some(why) = no_screen() {
        say(why);
        return Ok(exit::USAGE);
    }
    let shared = Shared::new(options);
    let fed = shared.clone();
    let output = Output {
        name: "the screen".to_owned(),
        sink: Box::new(Show {
            wanted: Model::wants(),
            show: move |line: &Line| fed.model().line(line),
        }),
    };
    let selection = options.filters.selection();
    // Errors up to here are printed before the terminal switches to the alternate screen.
    let request = options.request();
    let clock = Clock::measure();
    let open = || {
        Ok(Outputs {
            lines: vec![output],
            recording: None,
        })
    };
    let plan = Plan {
        request: &request,
        clock,
        selection,
        depth: Depth::Events,
        count: None,
    };
    let mut tracing = Tracing::start(plan, open)?;
    tracing.confine(Needed::NOTHING)?;
    let theme = Theme {
        color: options.color.on_stdout(),
    };
    watch_resumption(&shared)?;
    let screen = show(shared.clone(), options.interval, theme, tracing.stop())?;
    let until = Until {
        duration: options.duration,
        ..Until::default()
    };
    let traced = tracing.trace(until, None).await;
    // Restore the terminal first, because detaching may take a moment.
    shared.quit.store(true, Ordering::Relaxed);
    let shown = shared.leave(screen).await;
    traced?;
    tracing.end().await?;
    shown?;
    Ok(exit::DONE)
}

/// Returns why `top` cannot draw, or `None`.
fn no_screen() -> Option<&'static str> {
    let terminals = io::stdout().is_terminal() && io::stdin().is_terminal();
    if !terminals {
        Some("top needs a terminal to draw on; for programs and files: tcptrace -o json")
    } else if std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        Some("top cannot draw on a terminal with TERM=dumb; use the log instead: tcptrace")
    } else {
        None
    }
}

/// State that the pipeline, the screen and the signals share.
#[derive(Clone)]
struct Shared {
    model: Arc<Mutex<Model>>,
    /// The screen should end.
    quit: Arc<AtomicBool>,
    /// The process was stopped and continued (SIGCONT), so others may have drawn on the terminal.
    resumed: Arc<AtomicBool>,
    left: Arc<Notify>,
}

impl Shared {
    fn new(options: &Top) -> Shared {
        let model = Model::new(options.window.as_secs()).explaining(options.why.ns().is_some());
        Shared {
            model: Arc::new(Mutex::new(model)),
            quit: Arc::default(),
            resumed: Arc::default(),
            left: Arc::default(),
        }
    }

    /// Locks the model. A poisoned lock is ignored: the panic that poisoned it also ends the
    /// program.
    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end of the screen.
    async fn leave(&self, screen: JoinHandle<io::Result<()>>) -> anyhow::Result<()> {
        let left = tokio::time::timeout(PATIENCE, self.left.notified()).await;
        if left.is_err() {
            screen::restore();
            return Ok(());
        }
        match screen.join() {
            Ok(shown) => shown.context("cannot draw on the terminal"),
            Err(_) => Err(anyhow!("the screen has failed")),
        }
    }
}

/// Redraws the whole screen after SIGCONT.
fn watch_resumption(shared: &Shared) -> io::Result<()> {
    let mut resume = signal(SignalKind::from_raw(libc::SIGCONT))?;
    let resumed = shared.resumed.clone();
    tokio::spawn(async move {
        while resume.recv().await.is_some() {
            resumed.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// Starts the thread that draws. The trace ends when the thread ends, even by a panic.
fn show(
    shared: Shared,
    interval: Duration,
    theme: Theme,
    stop: Arc<Notify>,
) -> io::Result<JoinHandle<io::Result<()>>> {
    struct End(Arc<Notify>, Arc<Notify>);
    impl Drop for End {
        fn drop(&mut self) {
            self.0.notify_one();
            self.1.notify_one();
        }
    }
    exit::before(screen::restore);
    restore_on_panic();
    std::thread::Builder::new()
        .name("screen".into())
        .spawn(move || {
            privileges::give_up();
            let _end = End(shared.left.clone(), stop);
            let mut screen = Screen::enter()?;
            watch(&shared, &mut screen, interval, theme)
        })
}

fn watch(shared: &Shared, screen: &mut Screen, interval: Duration, theme: Theme) -> io::Result<()> {
    let mut ui = Ui::default();
    let mut view = shared.model().view(mono_now_ns());
    loop {
        if !ui.paused {
            view = shared.model().view(mono_now_ns());
        }
        if shared.resumed.swap(false, Ordering::Relaxed) {
            screen.resumed();
        }
        while !screen::in_foreground() {
            screen.resumed();
            if shared.quit.load(Ordering::Relaxed) {
                return Ok(());
            }
            std::thread::sleep(NOTICE);
        }
        screen.draw(|frame| draw::draw(frame, &view, &mut ui, theme))?;
        let next = Instant::now() + interval;
        loop {
            if shared.quit.load(Ordering::Relaxed) {
                return Ok(());
            }
            let left = next.saturating_duration_since(Instant::now());
            if event::poll(left.min(NOTICE))? {
                // Handle all pending keys before drawing again.
                while event::poll(Duration::ZERO)? {
                    let Event::Key(key) = event::read()? else {
                        continue;
                    };
                    if key.kind == KeyEventKind::Release {
                        continue;
                    }
                    match ui.key(key) {
                        Wish::Draw => {}
                        Wish::Quit => return Ok(()),
                        Wish::Suspend => screen.suspend(),
                    }
                }
                break;
            }
            if left.is_zero() || shared.resumed.load(Ordering::Relaxed) {
                break;
            }
        }
    }
}
