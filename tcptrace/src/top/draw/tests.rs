//! Tests of the drawn screen at several sizes.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};

use super::*;
use crate::event::{Comm, Hook, State};
use crate::fields::*;
use crate::sink::samples::{self, NOW};
use crate::top::model::Model;
use crate::top::ui::Wish;

const MS: u64 = 1_000_000;
const COLOR: Theme = Theme { color: true };

/// A listener with two waiting connections and an accepted one, and an unused listener.
fn model() -> Model {
    let mut model = Model::new(10);
    let hooks = [Hook::InetCskAccept, Hook::RequestSock];
    let mut lines = vec![
        crate::fields::Line::Session(Session {
            hooks: hooks.map(|hook| (hook, Some("fentry".to_owned()))).into(),
            ..samples::session()
        }),
        crate::fields::Line::Transition(Transition {
            subject: samples::listener(),
            oldstate: State::Close,
            newstate: State::Listen,
            backlog: Backlog {
                backlog_max: Some(4),
                ..Backlog::default()
            },
            ..samples::transition()
        }),
        crate::fields::Line::Preexisting(Preexisting {
            subject: Subject {
                conn: Some(2),
                laddr: "::".parse().unwrap(),
                lport: Some(443),
                comm: Some(Comm::from("\x1b[31mevil")),
                ..samples::listener()
            },
            backlog_len: Some(0),
            ..samples::preexisting()
        }),
    ];
    for conn in 3..6 {
        lines.push(crate::fields::Line::Transition(Transition {
            mono_ns: NOW + conn * 100 * MS,
            subject: Subject {
                conn: Some(conn),
                rport: Some(39700 + conn as u16),
                ..samples::server()
            },
            ..samples::transition()
        }));
    }
    lines.push(crate::fields::Line::Accept(Accept {
        mono_ns: NOW + 800 * MS,
        subject: Subject {
            rport: Some(39703),
            ..samples::accept().subject
        },
        established_mono_ns: Some(NOW + 300 * MS),
        accept_queue_ns: Some(500 * MS),
        backlog_len: 2,
        backlog_max: 4,
        ..samples::accept_with_verdict()
    }));
    lines.iter().for_each(|line| model.line(line));
    model
}

fn view() -> View {
    model().view(NOW + 2_000 * MS)
}

fn drawn(view: &View, ui: &mut Ui, (width, height): (u16, u16), theme: Theme) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, view, ui, theme)).unwrap();
    terminal.backend().buffer().clone()
}

fn lines(buffer: &Buffer) -> Vec<String> {
    let width = usize::from(buffer.area.width).max(1);
    let rows = buffer.content.chunks(width);
    let text = |row: &[ratatui::buffer::Cell]| row.iter().map(|it| it.symbol()).collect::<String>();
    rows.map(|row| text(row).trim_end().to_owned()).collect()
}

fn screen(ui: &mut Ui, size: (u16, u16)) -> Vec<String> {
    lines(&drawn(&view(), ui, size, COLOR))
}

fn press(ui: &mut Ui, keys: &str) -> Wish {
    let mut wish = Wish::Draw;
    for c in keys.chars() {
        let code = match c {
            '\t' => KeyCode::Tab,
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            c => KeyCode::Char(c),
        };
        wish = ui.key(KeyEvent::new(code, KeyModifiers::NONE));
    }
    wish
}

#[test]
fn a_terminal_of_80_by_24_shows_all_panes() {
    let screen = screen(&mut Ui::default(), (80, 24));
    let expected = "\
tcptrace top  0:02  2 listeners, 1.5 conn/s, 2 waiting  port 7878
 Listeners 2, last 10 s ────────────────────────────────────────────────────────
LISTENER       CONN/s  ACC/s HALF        QUEUE      P99      MAX WAITS    OVERFL
127.0.0.1:7878    1.5    0.5    0 ██▌···   2/4 500.0 ms 500.0 ms      ▆        -
[::]:443            0      0    0 ······ 0/128        -        -               -
listens: server[4711] · accepted last: server[4711] · waits p50 500.0 ms p99
500.0 ms max 500.0 ms · total 3 established, 1 accepted, 0 never accepted
 Waiting for accept() 2 ────────────────────────────────────────────────────────
  WAITED CONN FROM → TO                      STATE       PROCESS
 1.600 s #4   127.0.0.1:39704 → :7878        ESTABLISHED server[4711]?
 1.500 s #5   127.0.0.1:39705 → :7878        ESTABLISHED server[4711]?
 Last verdicts ─────────────────────────────────────────────────────────────────
     AGO CONN FROM → TO               VERDICT
 1.200 s #3   127.0.0.1:39703 → :7878 queued: the kernel finished the handshake
";
    let expected: Vec<&str> = expected.lines().collect();
    assert_eq!(screen[..expected.len()], expected, "{screen:#?}");
    assert!(
        screen[23].starts_with("q quit  ? help  Tab pane"),
        "{screen:#?}"
    );
}

#[test]
fn a_wide_terminal_shows_every_column() {
    let screen = screen(&mut Ui::default(), (200, 60));
    for title in [
        "CONN/s",
        "HALF",
        "P50",
        "P99",
        "MAX",
        "WAITS",
        "OVERFL",
        "ACCEPTED BY",
    ] {
        assert!(screen[2].contains(title), "{title}: {}", screen[2]);
    }
    assert!(screen[3].ends_with("server[4711]"), "{}", screen[3]);
    assert!(
        screen.iter().any(|line| line.ends_with(samples_reason())),
        "{screen:#?}"
    );
}

fn samples_reason() -> &'static str {
    "5.003 s before accept() returned to server[4711]"
}

#[test]
fn a_small_terminal_shows_one_pane_with_the_most_important_columns() {
    let mut ui = Ui::default();
    let small = screen(&mut ui, (40, 10));
    assert_eq!(small[2], "LISTENER              QUEUE      P99");
    assert_eq!(small[3], "127.0.0.1:7878 ██▌···   2/4 500.0 ms");
    press(&mut ui, "\t");
    let small = screen(&mut ui, (40, 10));
    assert!(small[1].contains("Waiting for accept() 2"), "{small:#?}");
    assert!(small[3].contains("#4"), "{small:#?}");
}

#[test]
fn drawing_works_at_every_size() {
    for width in [0, 1, 2, 3, 7, 20, 79] {
        for height in [0, 1, 2, 3, 4, 5, 12, 16, 17] {
            let mut ui = Ui::default();
            for keys in ["", "\t", "\t", "?", "x", "/7", "\n", "zzz"] {
                press(&mut ui, keys);
                screen(&mut ui, (width, height));
            }
        }
    }
}

#[test]
fn an_empty_view_says_that_there_is_nothing() {
    let view = Model::new(10).view(NOW);
    let screen = lines(&drawn(&view, &mut Ui::default(), (80, 24), COLOR));
    let all = screen.join("\n");
    for text in [
        "0 listeners, 0 conn/s",
        "None yet: no listening socket",
        "Last verdicts",
    ] {
        assert!(all.contains(text), "{text}: {all}");
    }
}

#[test]
fn connections_queued_before_the_trace_are_not_called_accepted() {
    let view = View {
        waiting_unnamed: 512,
        waiting: vec![],
        ..view()
    };
    let screen = lines(&drawn(&view, &mut Ui::default(), (100, 24), COLOR));
    let has = |text: &str| screen.iter().any(|line| line.contains(text));
    assert!(has("+512 not seen arriving"), "{screen:#?}");
    assert!(has("were queued before this trace"), "{screen:#?}");
    assert!(!has("has been accepted"), "{screen:#?}");
}

#[test]
fn lost_events_are_highlighted_and_mark_the_queue_depths() {
    for theme in [COLOR, Theme { color: false }] {
        let mut model = model();
        model.line(&crate::fields::Line::Lost(samples::lost()));
        let buffer = drawn(&model.view(NOW), &mut Ui::default(), (80, 24), theme);
        let screen = lines(&buffer);
        assert!(screen[1].starts_with("LOST 1234 events: "), "{screen:#?}");
        assert!(
            screen.iter().any(|line| line.contains("2?/4")),
            "{screen:#?}"
        );
        let cell = &buffer[(0, 1)];
        let stands_out = cell.bg == Color::Red || cell.modifier.contains(Modifier::REVERSED);
        assert!(stands_out, "{cell:?}");
    }
}

#[test]
fn without_colours_no_cell_is_coloured() {
    let mut ui = Ui::default();
    let buffer = drawn(&view(), &mut ui, (200, 60), Theme { color: false });
    for cell in &buffer.content {
        assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset));
    }
}

#[test]
fn a_hostile_process_name_is_escaped() {
    let mut ui = Ui::default();
    screen(&mut ui, (200, 60));
    press(&mut ui, "j");
    let all = screen(&mut ui, (200, 60)).join("\n");
    assert!(all.contains(r"listens: \u{1b}[31mevil[4711]"), "{all}");
    assert!(!all.contains('\x1b'), "{all}");
}

#[test]
fn keys_sort_filter_and_pause() {
    let mut ui = Ui::default();
    let listener = |ui: &mut Ui| screen(ui, (80, 24))[3].clone();
    assert!(
        listener(&mut ui).starts_with("127.0.0.1:7878"),
        "the deepest queue"
    );
    press(&mut ui, "r");
    assert!(listener(&mut ui).starts_with("[::]:443"));
    press(&mut ui, "rssss");
    assert!(listener(&mut ui).starts_with("[::]:443"), "by port");
    press(&mut ui, "/EVIL");
    let typing = screen(&mut ui, (80, 24));
    assert!(typing[23].starts_with("/EVIL"), "{typing:#?}");
    assert!(typing[1].contains("Listeners 1 of 2"), "{typing:#?}");
    assert!(
        typing
            .join(
                "
        "
            )
            .contains("No row contains the filter's text."),
        "{typing:#?}"
    );
    // While the filter is typed, letters are not commands.
    assert_eq!(press(&mut ui, "q"), Wish::Draw);
    assert_eq!(press(&mut ui, "\x1b"), Wish::Draw);
    assert!(screen(&mut ui, (80, 24))[1].contains("Listeners 2,"));
    press(&mut ui, "p");
    assert!(screen(&mut ui, (80, 24))[0].contains("PAUSED"));
    assert_eq!(press(&mut ui, "q"), Wish::Quit);
    assert_eq!(press(&mut ui, "\x1b"), Wish::Quit);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(ui.key(interrupt), Wish::Quit);
}

#[test]
fn enter_filters_by_the_listener_under_the_cursor() {
    let mut ui = Ui::default();
    screen(&mut ui, (80, 24));
    press(&mut ui, "\n");
    let only = screen(&mut ui, (80, 24));
    assert!(only[1].contains("Listeners 1 of 2"), "{only:#?}");
    assert!(
        only.join("\n").contains("Waiting for accept() 2"),
        "{only:#?}"
    );
}

#[test]
fn the_cursor_stays_on_its_listener_when_the_order_changes() {
    let mut ui = Ui::default();
    screen(&mut ui, (80, 24));
    press(&mut ui, "j");
    screen(&mut ui, (80, 24));
    let on = ui.cursor;
    press(&mut ui, "r");
    let buffer = drawn(&view(), &mut ui, (80, 24), COLOR);
    assert_eq!(ui.cursor, on);
    assert!(lines(&buffer)[3].starts_with("[::]:443"));
    assert!(buffer[(0, 3)].modifier.contains(Modifier::REVERSED));
}

#[test]
fn the_help_lists_what_this_trace_cannot_show() {
    let mut ui = Ui::default();
    press(&mut ui, "?");
    let top = screen(&mut ui, (80, 24)).join("\n");
    assert!(top.contains("Ctrl-C") && top.contains("↑↓ scroll"), "{top}");
    press(&mut ui, &"j".repeat(100));
    let bottom = screen(&mut ui, (80, 24)).join("\n");
    assert!(bottom.contains("no hook could be attached"), "{bottom}");
    assert_eq!(press(&mut ui, "q"), Wish::Quit);
    press(&mut ui, "x");
    assert!(!screen(&mut ui, (80, 24)).join("\n").contains("Help:"));
}

#[test]
fn a_long_list_scrolls_to_its_end_and_no_further() {
    let mut model = model();
    for conn in 100..200 {
        model.line(&crate::fields::Line::Transition(Transition {
            subject: Subject {
                conn: Some(conn),
                ..samples::server()
            },
            mono_ns: NOW + 900 * MS + conn,
            ..samples::transition()
        }));
    }
    let view = model.view(NOW + 1_000 * MS);
    let mut ui = Ui::default();
    press(&mut ui, "\t");
    let first = lines(&drawn(&view, &mut ui, (80, 24), COLOR)).join("\n");
    assert!(first.contains("#4 ") && !first.contains("#199"), "{first}");
    press(&mut ui, "GGjjj");
    let last = lines(&drawn(&view, &mut ui, (80, 24), COLOR)).join("\n");
    assert!(last.contains("#199") && !last.contains("#4 "), "{last}");
    press(&mut ui, "g");
    let again = lines(&drawn(&view, &mut ui, (80, 24), COLOR)).join("\n");
    assert_eq!(again, first);
}

#[test]
fn why_accept_was_late_has_a_column_if_the_trace_explains_it() {
    use crate::top::model::Cause;
    let mut view = model().explaining(true).view(NOW + 2_000 * MS);
    let cause = |reason, place: Option<&str>| Cause {
        reason,
        place: place.map(str::to_owned),
    };
    view.listeners[1].late = vec![
        (cause(LateReason::Blocked, Some("fsync()")), 402 * MS),
        (cause(LateReason::Cpu, None), 98 * MS),
    ];
    let shown = |view: &View, size| lines(&drawn(view, &mut Ui::default(), size, COLOR));
    let screen = shown(&view, (80, 24));
    let expected = "\
LISTENER       CONN/s  ACC/s HALF        QUEUE      P99 OVERFL WHY LATE
127.0.0.1:7878    1.5    0.5    0 ██▌···   2/4 500.0 ms      - blocked fsync()
[::]:443            0      0    0 ······ 0/128        -      - -
listens: server[4711] · accepted last: server[4711] · waits p50 500.0 ms p99
500.0 ms max 500.0 ms · late by: blocked fsync() 402.0 ms, no CPU 98.00 ms ·
";
    let expected: Vec<&str> = expected.lines().collect();
    assert_eq!(screen[2..2 + expected.len()], expected, "{screen:#?}");
    // Less room drops other columns first, and the column itself below that.
    let screen = shown(&view, (60, 10));
    assert_eq!(
        screen[3],
        "127.0.0.1:7878    1.5 ██▌···   2/4 500.0 ms blocked fsync()"
    );
    let screen = shown(&view, (40, 10));
    assert_eq!(screen[3], "127.0.0.1:7878 ██▌···   2/4 500.0 ms");
    // A long place is cut.
    view.listeners[1].late[0].0.place = Some("a_function_with_a_long_name".to_owned());
    let screen = shown(&view, (120, 24));
    assert!(
        screen[3].contains(" blocked a_function_with…"),
        "{screen:#?}"
    );
    // Without --why there is no column.
    view.explains = false;
    let screen = shown(&view, (200, 24));
    assert!(!screen[2].contains("WHY"), "{screen:#?}");
}
