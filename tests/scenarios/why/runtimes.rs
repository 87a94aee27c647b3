//! Servers in Python and Node.

use std::process::Command;

use super::driven::{drive, has_function, is_installed};
use super::{assert_mainly, assert_near, delay_ns};

/// Returns the path of a server's source.
fn source(name: &str) -> String {
    format!("{}/scenarios/why/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn python(cause: &str) -> Option<Command> {
    // Debian's own, because other installations may start it through a script.
    let debians = "/usr/bin/python3";
    let program = ["python3", debians][usize::from(std::path::Path::new(debians).exists())];
    is_installed(program).then(|| {
        let mut python = Command::new(program);
        python.args([&source("server.py"), cause]);
        python
    })
}

/// CPython until 3.11 writes no perf map, and is built without frame pointers: the system call and
/// the C library's function are known, and no function of the program.
#[test]
fn a_python_server_that_sleeps_is_blocked_in_clock_nanosleep() {
    let Some(server) = python("sleep") else {
        return;
    };
    let late = drive(server, |stack| has_function(stack, "clock_nanosleep"));
    let line = &late.line;
    assert_mainly(line, "blocked");
    let said = line.text("late_because");
    assert!(said.contains("in clock_nanosleep() ("), "{said}");
    let place = late.blocked_in();
    assert_eq!(
        (&place["syscall"], &place["times"]),
        (&"clock_nanosleep".into(), &1.into())
    );
    assert_near("the sleep", place["ns"].as_u64().unwrap(), delay_ns(), line);
    let user = late.user_functions(&place["stack"]);
    assert!(user[0].contains("clock_nanosleep"), "{user:?}");
}

#[test]
fn a_python_server_that_waits_for_a_lock_names_the_thread_that_released_it() {
    let Some(server) = python("lock") else {
        return;
    };
    let late = drive(server, |_| true);
    let line = &late.line;
    assert_mainly(line, "lock");
    let place = late.blocked_in();
    assert_eq!(place["syscall"], "futex");
    assert_near("the lock", place["ns"].as_u64().unwrap(), delay_ns(), line);
    // The last connection waited while the server handled the one before.
    let [.., before, _] = &late.printed[..] else {
        panic!("{:?}", late.printed);
    };
    let (holder, waited) = before.split_once(' ').expect("two numbers");
    let released_by = place["woken_by"].as_str().expect("a thread");
    assert!(
        released_by.ends_with(&format!("[{holder}]")),
        "{holder} in {line}"
    );
    let told = place["ns"].as_u64().expect("a time");
    assert_near("the lock", told, waited.parse().expect("a time"), line);
}

/// The names come from the perf map that Node writes. Its functions of JavaScript have frame
/// pointers.
#[test]
fn a_node_server_that_computes_is_blamed_with_the_functions_of_its_perf_map() {
    if !is_installed("node") {
        return;
    }
    let mut server = Command::new("node");
    // The second option gives each interpreted function a name.
    server.args(["--perf-basic-prof", "--interpreted-frames-native-stack"]);
    server.arg(source("server.js"));
    // V8 also writes a log into its working directory.
    let folder = tempfile::tempdir().expect("a folder");
    server.current_dir(folder.path());
    let late = drive(server, |stack| {
        has_function(stack, "crunch") && has_function(stack, "handleRequest")
    });
    let line = &late.line;
    let running_ns = line.num("acceptor_running_ns");
    assert_near("the computation", running_ns, delay_ns(), line);
    let places = line["acceptor_running_in"].as_array().expect("a list");
    let stacks = places.iter().filter(|it| it["user_mode"] == true);
    let mut stacks = stacks.map(|it| late.user_functions(&it["stack"]));
    // The innermost function may be one of V8 or of the C library.
    let calls = |names: &Vec<String>| {
        let at = |name: &str| names.iter().position(|it| it.contains(name));
        let (Some(inner), Some(outer)) = (at("crunch"), at("handleRequest")) else {
            return false;
        };
        inner < outer && names[inner].contains("server.js:")
    };
    assert!(stacks.any(|it| calls(&it)), "{line}");
}
