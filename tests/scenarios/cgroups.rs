//! The cgroup and the container of a socket.

use tests::cgroup::Cgroup;
use tests::run::Running;
use tests::trace::NULL;
use tests::traffic::*;
use tests::{Lab, run};

const CONTAINER: &str = "4f66ad9a0b2e8b3c1d5e7f90a1b2c3d4e5f60718293a4b5c6d7e8f9001122334";

#[test]
fn a_socket_has_the_cgroup_and_the_container_of_its_process() {
    let (lab, outer) = (Lab::new(), Cgroup::new());
    let cgroup = outer.child(&format!("docker-{CONTAINER}.scope"));
    let port = lab.port();
    let tracer = lab.trace();
    let mut helper = run::helper(&["talk", &port.to_string(), "0"]);
    cgroup.put(&mut helper);
    assert_eq!(Running::run_to_end(helper).code, Some(0));
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    for line in [trace.listen(), trace.client(), trace.server()] {
        line.shows(&[("cgroup", &cgroup.id()), ("container", &CONTAINER)]);
    }
}

/// On a host with cgroups of version 1, the kernel's sockets know the cgroup of version 2 only, which
/// is the root.
#[test]
fn a_container_with_cgroups_of_version_1_is_that_of_the_process() {
    let Some(cgroup) = Cgroup::version_1(&format!("tcptrace-test/{CONTAINER}")) else {
        eprintln!("skipped: no cgroups of version 1 here");
        return;
    };
    let lab = Lab::new();
    let [port, other] = [lab.port(), lab.port()];
    let tracer = lab.trace_with(&["--port", &format!("{port},{other}")]);
    talk(other);
    let mut helper = run::helper(&["talk-when-asked", &port.to_string()]);
    cgroup.put(&mut helper);
    helper.stdin(std::process::Stdio::piped());
    let mut helper = Running::start(helper);
    helper.write_line();
    tracer.wait_for_ends(4);
    assert_eq!(helper.wait_without_input().code, Some(0));
    let trace = tracer.stop();

    for line in trace.own("connection") {
        let is_inside = line["lport"] == port || line["rport"] == port;
        match is_inside {
            true => line.shows(&[("container", &CONTAINER), ("container_name", &NULL)]),
            false => line.shows(&[("container", &NULL)]),
        }
    }
    let mut listeners = trace
        .own("transition")
        .filter(|it| it["newstate"] == "LISTEN");
    let listener = listeners.find(|it| it["lport"] == port);
    listener
        .expect("a listener")
        .shows(&[("container", &CONTAINER)]);
}

/// The kernel gives a child socket the cgroup of its listener, whichever process accepts the
/// connection.
#[test]
fn a_server_has_its_listeners_cgroup() {
    let (lab, cgroup) = (Lab::new(), Cgroup::new());
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let mut helper = run::helper(&["connect", &port.to_string()]);
    cgroup.put(&mut helper);
    assert_eq!(Running::run_to_end(helper).code, Some(0));
    drop(accept(&listener));
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    trace
        .client()
        .shows(&[("cgroup", &cgroup.id()), ("container", &NULL)]);
    let own = trace.listen()["cgroup"].clone();
    assert_ne!(own, cgroup.id());
    trace.server().shows(&[("cgroup", &own)]);
}

#[test]
fn a_preexisting_socket_has_its_cgroup() {
    let (lab, cgroup) = (Lab::new(), Cgroup::new());
    let port = lab.port();
    let mut helper = run::helper(&["listen", &port.to_string()]);
    cgroup.put(&mut helper);
    helper.stdin(std::process::Stdio::piped());
    let helper = Running::start(helper);
    let listens = |lines: &[String]| (!lines.is_empty()).then_some(());
    helper.stdout().wait_until("the helper to listen", listens);
    let tracer = lab.trace();
    tracer.wait_for(1, "the old listener", |line| line.is("preexisting"));
    let trace = tracer.stop();

    let mut old = trace.own("preexisting");
    let line = old.next().expect("the listener");
    line.shows(&[("lport", &port), ("cgroup", &cgroup.id())]);
}
