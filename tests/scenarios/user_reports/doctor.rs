//! `tcptrace doctor` agrees with the session line of a trace about each hook.

use serde_json::Value;
use tests::run::{Running, tcptrace};

fn json(args: &[&str]) -> Value {
    let ended = Running::run_to_end(tcptrace(args));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let first = ended.stdout.lines().next().expect("a line");
    serde_json::from_str(first).expect("JSON")
}

/// Returns the session line of a trace with all optional hooks.
fn session() -> Value {
    json(&["-o", "json", "--segments", "--why", "--duration", "100ms"])
}

#[test]
fn doctor_reports_the_attach_methods_of_a_trace() {
    let (session, doctor) = (session(), json(&["doctor", "-o", "json"]));
    let hooks = doctor["hooks"].as_array().expect("hooks");
    let attached = session["hooks"].as_object().expect("hooks");
    assert_eq!(hooks.len(), attached.len(), "{doctor} {session}");
    for hook in hooks {
        let name = hook["hook"].as_str().expect("a name");
        assert_eq!(hook["method"], session["hooks"][name], "{hook}");
        assert_eq!(
            hook["failed_methods"], session["failed_methods"][name],
            "{hook}"
        );
        assert_eq!(
            hook["without"].is_null(),
            !hook["method"].is_null(),
            "{hook}"
        );
    }
    assert_eq!(doctor["unseen"], session["unseen"]);
    assert_eq!(doctor["kernel"], session["kernel"]);
    // tcptrace does not work without this hook.
    assert!(
        session["hooks"]["inet_sock_set_state"].is_string(),
        "{session}"
    );
}

#[test]
fn doctor_text_has_one_line_per_hook() {
    let session = session();
    let ended = Running::run_to_end(tcptrace(&["doctor", "-v"]));
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for (hook, method) in session["hooks"].as_object().expect("hooks") {
        let mut rows = ended.stdout.lines().filter(|line| {
            let mut words = line.split_whitespace();
            matches!(words.next(), Some("✓" | "✗")) && words.next() == Some(hook)
        });
        let row = rows
            .next()
            .unwrap_or_else(|| panic!("{hook} in {}", ended.stdout));
        assert_eq!(rows.next(), None, "one line per hook");
        let says = match method.as_str() {
            Some(method) => format!(" by {method}"),
            None => "✗".to_owned(),
        };
        assert!(row.contains(&says), "{row}: {says}");
        for refused in session["failed_methods"][hook].as_array().expect("a list") {
            let method = refused["method"].as_str().expect("a name");
            let reason = refused["error"].as_str().expect("a reason");
            let (_, after) = row.split_once(&format!(" {method} ")).expect(row);
            assert!(after.contains(&format!("({reason})")), "{row}: {reason}");
        }
    }
}

#[test]
fn doctor_is_brief_without_verbose() {
    let ended = Running::run_to_end(tcptrace(&["doctor"]));
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let widest = ended.stdout.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{}", ended.stdout);
    assert!(ended.stdout.contains("\nWhat to do\n"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("instructions"), "{}", ended.stdout);
}
