//! Filters by network namespace, user and cgroup.

use tests::cgroup::Cgroup;
use tests::netns::Netns;
use tests::run::{self, Running};
use tests::task::{become_user, join, spawn};

use super::*;

const USER: u32 = 12_345;

/// Makes a connection in the lab's namespace, and one in another.
fn talk_in_both(netns: impl Fn(&Lab) -> String) {
    let lab = Lab::new();
    let (own, other) = (lab.port(), lab.port());
    let tracer = lab.trace_with(&["--netns", &netns(&lab)]);
    let elsewhere = move || {
        Netns::enter();
        talk(other);
    };
    join(spawn(elsewhere).1);
    talk(own);
    let trace = sides(tracer, 2, |tuple| tuple.lport == own || tuple.rport == own);

    shows_only(&trace, |_| true);
    trace.server().shows(&[("lport", &own)]);
    let netns = |line: &&Line| line.0.get("netns").is_some();
    for line in trace.lines.iter().filter(netns) {
        line.shows(&[("netns", &lab.netns.inode)]);
    }
}

#[test]
fn netns_filter_takes_an_inode() {
    talk_in_both(|lab| lab.netns.inode.to_string());
}

/// tcptrace runs in the lab's namespace.
#[test]
fn netns_filter_takes_the_tracers_own_namespace() {
    talk_in_both(|_| "self".to_owned());
}

#[test]
fn netns_filter_takes_a_file() {
    talk_in_both(|_| {
        format!("/proc/self/task/{}/ns/net", tests::task::tid())
            .replace("self", &tests::task::pid().to_string())
    });
}

#[test]
fn uid_filter_selects_sockets_of_a_user() {
    let lab = Lab::new();
    let (port, other) = (lab.port(), lab.port());
    let tracer = lab.trace_with(&["--uid", &USER.to_string()]);
    talk(other);
    let (sender, receiver) = std::sync::mpsc::channel();
    let server = move || {
        become_user(USER);
        let listener = listen(port);
        sender.send(()).expect("the receiver exists");
        let mut accepted = accept(&listener).stream;
        receive_end(&mut accepted);
    };
    let (_, server) = spawn(server);
    receiver.recv().expect("a listener");
    drop(connect(port));
    join(server);
    let trace = sides(tracer, 1, |tuple| tuple.lport == port);

    shows_only(&trace, |line| line["lport"] == port);
    trace.server().shows(&[("uid", &USER), ("complete", &true)]);
    assert_eq!(trace.accepts().len(), 1);
    assert!(trace.connections("client").is_empty());
    trace.session()["filters"]["uid"]
        .as_str()
        .expect("the filter");
}

/// A segment without a known owner is shown with its connection.
#[test]
fn cgroup_filter_includes_nested_cgroups() {
    let (lab, outer) = (Lab::new(), Cgroup::new());
    let inner = outer.child("inner");
    let sibling = Cgroup::new();
    let [other, a, b] = [lab.port(), lab.port(), lab.port()];
    let path = outer.path.to_str().expect("a plain name");
    let tracer = lab.trace_with(&["--segments", "--cgroup", path]);
    for (cgroup, port) in [(&sibling, other), (&inner, a), (&outer, b)] {
        let mut helper = run::helper(&["talk", &port.to_string(), "0"]);
        cgroup.put(&mut helper);
        assert_eq!(Running::run_to_end(helper).code, Some(0));
    }
    let wanted = [a, b];
    let trace = sides(tracer, 4, |tuple| {
        wanted.contains(&tuple.lport) || wanted.contains(&tuple.rport)
    });

    let is_wanted = |line: &Line| {
        let is_of = |port: &u16| line["lport"] == *port || line["rport"] == *port;
        wanted.iter().any(is_of)
    };
    shows_only(&trace, is_wanted);
    for (port, cgroup) in [(a, &inner), (b, &outer)] {
        let server = |line: &&&Line| line["lport"] == port;
        let servers = trace.connections("server");
        let server = servers.iter().find(server).expect("a server");
        server.shows(&[("cgroup", &cgroup.id()), ("verdict", &"queued")]);
    }
    let segments: Vec<_> = trace.own("segment").collect();
    assert!(!segments.is_empty());
    for line in segments {
        assert!(is_wanted(line) && !line["conn"].is_null(), "{line}");
    }
}

#[test]
fn an_unknown_user_or_namespace_is_refused() {
    for (option, message) in [
        ("--uid=nosuch", "no such user"),
        ("--netns=nosuch", "/run/netns/nosuch"),
        ("--netns=/proc/self/ns/mnt", "is no network namespace"),
        ("--cgroup=/nosuch/at/all", "no"),
    ] {
        let ended = Running::run_to_end(run::tcptrace(&[option]));
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        assert!(ended.stderr.contains(message), "{ended:?}");
    }
}
