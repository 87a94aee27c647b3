//! Behaviour of the page that its readers rely on.

use std::fs;

use tcptrace_core::event::State;

use crate::browser::{Browser, key};
use crate::recordings::{LATE_ACCEPT, LOSS, LateAccept, Workspace, many, report};

const ROWS: &str = "document.querySelectorAll('.rows tbody tr[data-index]').length";

/// Returns the JavaScript expression for the text of a row of the visible table.
fn row(n: usize) -> String {
    format!("document.querySelector(\".rows tr[data-index='{n}']\").innerText")
}

#[test]
fn the_page_shows_the_same_texts_as_the_log() {
    let desk = Workspace::new();
    let page = desk.page("late.trace", LATE_ACCEPT);
    let browser = Browser::start();
    browser.open(&page, "");
    assert_eq!(
        browser.text("document.title"),
        "late.trace – tcptrace report"
    );
    assert_eq!(browser.get(ROWS), 2);
    let server = browser.text(&row(1));
    for shown in [
        "#3",
        "queued",
        "127.0.0.1:44070 → :22024",
        "≈ 20.00 µs",
        "418.8 ms",
        "accepting::late[26215]",
        "closed in good order",
    ] {
        assert!(server.contains(shown), "{shown} in {server}");
    }
    let all = browser.text("document.body.innerText");
    for shown in [
        "Linux 6.18.44",
        "port 22024-22031",
        "accepts by io_uring",
        "fentry: EPERM",
    ] {
        assert!(all.contains(shown), "{shown} in {all}");
    }
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn rows_are_found_and_sorted() {
    let desk = Workspace::new();
    let browser = Browser::start();
    browser.open(&desk.page("loss.trace", LOSS), "");
    assert_eq!(browser.get(ROWS), 17);
    for (text, found) in [
        ("side:server", "9 of 17"),
        ("verdict:queued wait>1ms", "5 of 17"),
        ("-is:incomplete side:server", "3 of 17"),
        ("is:incomplete side:client wait<1", "0 of 17"),
        ("port:22193 conn>=13", "7 of 17"),
        ("\"still established\" :22192", "10 of 17"),
    ] {
        let shown = browser.search(text);
        assert!(shown.starts_with(found), "{text}: {shown}");
    }
    assert!(browser.search("colour:red").contains("no field “colour”"));
    assert!(browser.search("wait>long").contains("a number"));
    browser.search("side:server");
    browser.click(".rows th:nth-child(6) button");
    let longest = browser.text(&row(0));
    assert!(longest.contains("15.75 ms"), "{longest}");
    let sorted = "document.querySelector('.rows th:nth-child(6)').getAttribute('aria-sort')";
    assert_eq!(browser.text(sorted), "descending");
    browser.click(".rows th:nth-child(6) button");
    assert!(!browser.text(&row(0)).contains("15.75 ms"));
    // Unknown values are last in both directions.
    assert!(browser.text(&row(8)).contains("unknown"));
    // Each figure of the overview links to its connections.
    browser.click("#tiles .v-awaited");
    browser.wait("document.getElementById('search').value === 'verdict:awaited'");
    assert_eq!(browser.get(ROWS), 1);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_connection_opens_with_its_diagram() {
    let desk = Workspace::new();
    let page = desk.page("late.trace", LATE_ACCEPT);
    let browser = Browser::start();
    browser.open(&page, "conn=3");
    browser.wait("document.querySelector('dialog[open] svg.diagram')");
    let shown = browser.text("document.getElementById('detail').innerText");
    assert!(
        shown.contains("the kernel finished the handshake 418.8 ms before accept()"),
        "{shown}"
    );
    let drawn = browser.text("document.querySelector('svg.diagram').textContent");
    for it in [
        "server process",
        "connect()",
        "SYN-ACK",
        "ESTABLISHED",
        "accept()",
        "queued",
        "LAST_ACK",
    ] {
        assert!(drawn.contains(it), "{it} in {drawn}");
    }
    // No segment was recorded, so no arrow is drawn as a segment.
    let shafts = "[...document.querySelectorAll('.shaft')].map(it => it.getAttribute('class'))";
    let shafts = browser.get(shafts).to_string();
    assert!(
        shafts.contains("inferred") && !shafts.contains("seen"),
        "{shafts}"
    );
    // The wait is drawn from ESTABLISHED to the return of accept().
    let drawn = "(name => { const it = document.querySelector(name).getBoundingClientRect(); \
                 return [Math.round(it.top), Math.round(it.bottom)]; })";
    let wait = browser.get(&format!("{drawn}('.wait .queue')"));
    let accept = browser.get(&format!("{drawn}('.call:has(text) .call-bar[x=\"772\"]')"));
    assert_eq!(wait[1], accept[1], "{wait} {accept}");
    assert!(wait[0].as_i64() < accept[0].as_i64(), "{wait} {accept}");

    browser.keys(&key::ESCAPE.to_string());
    browser.wait("!document.getElementById('detail').open && location.hash === ''");
    browser.get("(location.hash = 'conn=99')");
    browser.wait("document.querySelector('dialog[open]')?.innerText.includes('no connection #99')");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_late_accept_is_explained_by_what_the_acceptor_did() {
    let mut late = LateAccept::new();
    late.explain("handle_request");
    let desk = Workspace::new();
    let browser = Browser::start();
    browser.open(&desk.page("why.trace", &late.bytes()), "conn=3");
    browser.wait("document.querySelector('dialog[open] svg.diagram')");
    let because = browser.text("document.querySelector('.late-because').textContent");
    let expected = "was blocked 300.0 ms in fsync() (ext4_sync_file ← save_state ← handle_request)";
    assert!(because.contains(expected), "{because}");
    // The activities add up to the wait.
    let rows = "[...document.querySelectorAll('.late tbody tr')].map(row => \
                [...row.cells].slice(0, 4).map(cell => cell.innerText.trim()))";
    assert_eq!(
        browser.get(rows),
        serde_json::json!([
            ["running on a CPU", "108.8 ms", "26 %", ""],
            ["waiting for a CPU", "10.00 ms", "2.39 %", ""],
            ["blocked", "300.0 ms", "71.6 %", "1"],
        ])
    );
    browser.click(".late summary");
    let stack = browser.text("document.querySelector('.late pre').innerText");
    assert_eq!(
        stack,
        "kernel:\n  ext4_sync_file\nuser:\n  save_state  src/state.rs:17  (inlined)\n  handle_request"
    );
    // The lane is as high as the queue's bar, and its segments have the shares of the table.
    let lane = "(() => { const all = [...document.querySelectorAll('.lane rect')]; \
                const of = document.querySelector('.wait .queue').getAttribute('height'); \
                return all.map(it => `${it.getAttribute('class')} ${Math.round(100 * \
                it.getAttribute('height') / of)}`); })()";
    assert_eq!(
        browser.get(lane),
        serde_json::json!(["a-running 26", "a-runnable 2", "a-blocked 72"])
    );
    browser.get("document.querySelectorAll('.lane')[2].focus()");
    let tip = browser.text("document.getElementById('tip').textContent");
    assert!(
        tip.starts_with("blocked 300.0 ms in fsync(), ext4_sync_file\nkernel:"),
        "{tip}"
    );
    assert!(
        tip.ends_with("save_state  src/state.rs:17  (inlined)\n  handle_request"),
        "{tip}"
    );
    browser.keys(&key::ESCAPE.to_string());
    // The listener's total, and the search.
    let listener = browser.text("document.querySelector('#listener-table .late-cell').innerText");
    assert_eq!(listener.trim(), "418.8 ms blocked");
    assert!(browser.search("why:blocked").starts_with("1 of 2"));
    assert!(browser.search("why:fsync").starts_with("1 of 2"));
    assert!(browser.search("why:quota").starts_with("0 of 2"));
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn every_function_is_reachable_by_keyboard() {
    let desk = Workspace::new();
    let browser = Browser::start();
    browser.open(&desk.page("loss.trace", LOSS), "");
    browser.keys("/");
    browser.wait("document.activeElement.id === 'search'");
    browser.keys("side:server");
    browser.wait("document.getElementById('search-result').textContent.startsWith('9 of 17')");
    browser.get("document.querySelector('.rows tr[tabindex=\"0\"]').focus()");
    browser.keys(&format!("{}{}{}", key::DOWN, key::DOWN, key::ENTER));
    browser.wait(
        "document.querySelector('dialog[open] #detail-title')?.textContent.startsWith('#7 ')",
    );
    browser.keys(&key::RIGHT.to_string());
    browser.wait("document.querySelector('#detail-title').textContent.startsWith('#9 ')");
    browser.wait("location.hash === '#q=side%3Aserver&conn=9'");
    browser.keys(&key::ESCAPE.to_string());
    browser.wait("document.activeElement.tagName === 'TR'");
    browser.keys(&key::END.to_string());
    browser.wait("document.activeElement.dataset.index === '8'");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn lost_events_are_shown_in_a_notice() {
    let desk = Workspace::new();
    let browser = Browser::start();
    browser.open(&desk.page("loss.trace", LOSS), "");
    let notice = browser.text("document.getElementById('notices').innerText");
    assert!(
        notice.contains("10\u{202f}968 events were lost"),
        "{notice}"
    );
    let marks = browser.get("document.querySelectorAll('.rows .warn').length");
    let incomplete = browser.search("is:incomplete");
    assert!(
        incomplete.starts_with(&format!("{marks} of 17")),
        "{marks}, {incomplete}"
    );
}

#[test]
fn a_truncated_recording_is_shown_up_to_its_end() {
    let desk = Workspace::new();
    // The server is ESTABLISHED, and accept() has not returned.
    let mut part = LateAccept::new();
    part.until(State::Established);
    let (page, output) = desk.report("part.trace", &part.bytes());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let browser = Browser::start();
    browser.open(&page, "");
    let notice = browser.text("document.getElementById('notices').innerText");
    assert!(notice.contains("is damaged"), "{notice}");
    assert!(notice.contains("its summary is missing"), "{notice}");
    let server = browser.text(&row(1));
    assert!(server.contains("still ESTABLISHED"), "{server}");
    assert!(server.contains("unknown"), "{server}");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn markup_in_names_is_shown_as_text() {
    const MARKUP: &str = "</script><img src=x onerror=\"document.title='taken'\">";
    let mut late = LateAccept::new();
    for record in &mut late.records {
        const NAME: &[u8] = b"accepting::late";
        let places = 0..=record.len() - NAME.len();
        for at in places {
            if record[at..].starts_with(NAME) {
                record[at..at + NAME.len()].copy_from_slice("</script><b>\u{202e}".as_bytes());
            }
        }
    }
    // Texts about the trace and the connection that a stranger may have chosen.
    late.begin.kernel = MARKUP.to_owned();
    late.begin.filters.insert("port".into(), MARKUP.into());
    late.contain(MARKUP);
    late.explain(MARKUP);
    let desk = Workspace::new();
    let page = desk.page("<img src=x>.trace", &late.bytes());
    // The page's source contains no text of a trace verbatim.
    let text = fs::read_to_string(&page).unwrap();
    assert!(!text.contains("onerror") && !text.contains("img src=x"));
    let browser = Browser::start();
    browser.open(&page, "conn=3");
    browser.wait("document.querySelector('dialog[open] svg.diagram')");
    assert_eq!(
        browser.text("document.title"),
        "<img src=x>.trace – tcptrace report"
    );
    assert_eq!(
        browser
            .get("document.querySelectorAll('img, main b:not(figcaption b, .caption b)').length"),
        0
    );
    let shown = browser.text("document.getElementById('detail').innerText");
    assert!(shown.contains(MARKUP), "{shown}");
    // As in the log, characters that reverse the text direction are escaped.
    assert!(shown.contains("</script><b>\\u{202e}[26215]"), "{shown}");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn the_content_security_policy_blocks_foreign_scripts() {
    let desk = Workspace::new();
    let page = desk.page("late.trace", LATE_ACCEPT);
    let text = fs::read_to_string(&page).unwrap();
    let foreign = "<script>document.title = 'taken'</script>\
                   <p style=\"color: red\" id=\"foreign\" onclick=\"document.title = 'taken'\">x</p>\
                   <img src=\"https://example.invalid/x.png\"></body>";
    fs::write(&page, text.replace("</body>", foreign)).unwrap();
    let browser = Browser::start();
    browser.open(&page, "");
    browser.get("document.getElementById('foreign').click()");
    assert_eq!(
        browser.text("document.title"),
        "late.trace – tcptrace report"
    );
    let complaints = browser.complaints().join("\n");
    for refused in ["script", "style", "event handler", "image"] {
        assert!(complaints.contains(refused), "{refused}: {complaints}");
    }
    // Even the page's own script cannot turn text into markup.
    browser.wait("(() => { try { document.body.innerHTML = 'x'; } catch { return true; } })()");
}

#[test]
fn durations_are_written_as_in_the_log() {
    // One connection for each duration of connect().
    let durations = [
        (0u64, "0 ns"),
        (950, "950 ns"),
        (9_999, "9.999 µs"),
        (99_995, "100.0 µs"),
        (999_950, "1.000 ms"),
        (23_414, "23.41 µs"),
        (999_950_000, "1.000 s"),
        (86_400_000_000_000, "86400 s"),
    ];
    let mut late = LateAccept::new();
    late.handshakes(durations.iter().map(|(ns, _)| *ns));
    let desk = Workspace::new();
    let browser = Browser::start();
    browser.open(&desk.page("durations.trace", &late.bytes()), "");
    for (n, (_, expect)) in durations.iter().enumerate() {
        browser.search(&format!("conn:{}", 2 + n));
        let shown = browser.text(
            "document.querySelector('.rows tr[data-index=\"0\"] td:nth-child(5)').textContent",
        );
        assert_eq!(shown, *expect);
    }
}

#[test]
fn a_page_of_a_hundred_thousand_connections_is_usable() {
    let desk = Workspace::new();
    let file = desk.path("many.trace");
    many(&file, 100_000);
    let (page, output) = report(&file);
    assert!(output.status.success(), "{output:?}");
    let size = fs::metadata(&page).unwrap().len();
    assert!(size < 30_000_000, "{size} bytes");
    let browser = Browser::start();
    browser.open(&page, "");
    let drawn = browser.get(ROWS).as_u64().unwrap();
    assert!((10..200).contains(&drawn), "{drawn} rows exist");
    assert!(browser.text(&row(0)).contains("#2"));
    browser.get("(document.querySelector('.viewport').scrollTop = 1e9)");
    browser.wait(
        "document.querySelector('.rows tr[data-index=\"99999\"]')?.innerText.includes('#100001')",
    );
    assert!(browser.get(ROWS).as_u64().unwrap() < 200);
    let found = browser.search("verdict:queued port:2000");
    assert!(found.starts_with("1 of 100\u{202f}000"), "{found}");
    browser.get("(location.hash = 'conn=77777')");
    browser.wait("document.querySelector('dialog[open] svg.diagram')");
    let title = browser.text("document.getElementById('detail-title').textContent");
    assert!(title.starts_with("#77777 "), "{title}");
    assert_eq!(browser.complaints(), [""; 0]);
}
