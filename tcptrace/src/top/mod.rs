//! `tcptrace top`: the listeners of this machine as they are now, on a terminal.
//!
//! The pipeline feeds the [`Model`]; a thread takes a [`model::View`] of it now and then, and draws
//! that. The lock between them is held for a line, or for a view: drawing takes none.

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
use crate::sink::Show;
use crate::stdio::say;
use crate::tracing::{Outputs, Plan, Tracing, Until};

/// How soon the screen notices that the trace has ended.
const NOTICE: Duration = Duration::from_millis(100);

/// How long the screen may take to notice; a terminal that is gone may never let it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs `tcptrace top`; the value is the exit code.
pub async fn run(options: &Top) -> anyhow::Result<u8> {
    if let Some(why) = no_screen() {
        say(why);
        return Ok(exit::USAGE);
    }
    let shared = Shared::new(options.window.as_secs());
    let fed = shared.clone();
    let output = Output {
        name: "the screen".to_owned(),
        sink: Box::new(Show {
            wanted: Model::wants(),
            show: move |line: &Line| fed.model().line(line),
        }),
    };
    let selection = options.filters.selection();
    // What goes wrong here is told on a screen that is as it was.
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
    // The terminal first: detaching may take a moment.
    shared.quit.store(true, Ordering::Relaxed);
    let shown = shared.leave(screen).await;
    traced?;
    tracing.end().await?;
    shown?;
    Ok(exit::DONE)
}

/// Why there is nothing to draw on, and what to do.
fn no_screen() -> Option<&'static str> {
    let terminals = io::stdout().is_terminal() && io::stdin().is_terminal();
    if !terminals {
        Some("top needs a terminal to draw on; for programs and files: tcptrace -o json")
    } else if std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        Some("top cannot draw on a terminal with TERM=dumb; the log does without: tcptrace")
    } else {
        None
    }
}

/// Between the pipeline, the screen and the signals.
#[derive(Clone)]
struct Shared {
    model: Arc<Mutex<Model>>,
    /// The screen is to be left.
    quit: Arc<AtomicBool>,
    /// The terminal may have been used by others.
    resumed: Arc<AtomicBool>,
    left: Arc<Notify>,
}

impl Shared {
    fn new(window_s: u64) -> Shared {
        Shared {
            model: Arc::new(Mutex::new(Model::new(window_s))),
            quit: Arc::default(),
            resumed: Arc::default(),
            left: Arc::default(),
        }
    }

    /// Whoever panicked while it held the model has ended the program as well.
    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the screen's end.
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

/// A terminal that comes back is drawn again.
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

/// Starts the thread that draws. It ends the trace when it ends, however that comes.
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
                // All that has been typed, before the screen is drawn again.
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
