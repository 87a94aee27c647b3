//! Names of real containers.

use tests::container::Runtimes;
use tests::run::{Running, tcptrace_trace};
use tests::trace::NULL;
use tests::{Lab, Tracer};

const OF_WEB: [(&str, &str); 2] = [
    ("io.kubernetes.pod.name", "web-0"),
    ("io.kubernetes.pod.namespace", "shop"),
];

/// Starts a trace that reads the files of these runtimes.
fn trace(lab: &Lab, runtimes: &Runtimes, filter: &[&str]) -> Tracer {
    let mut command = tcptrace_trace(&[&["-o", "json"], filter].concat());
    runtimes.put(&mut command);
    Tracer::spawn(lab, command)
}

/// Traces a helper that talks to itself in a container with a pod's annotations, so the client,
/// the server and the listener are in it.
#[track_caller]
fn a_container_has_names(lab: &Lab, runtimes: &Runtimes, annotations: &[(&str, &str)], name: &str) {
    let tracer = trace(lab, runtimes, &[]);
    let mut container = runtimes.run("lonely-web", annotations, lab.port());
    container.talk();
    tracer.wait_for_ends(2);
    let id = container.id.clone();
    container.end();
    let trace = tracer.stop();
    for line in [trace.listen(), trace.client(), trace.server()] {
        line.shows(&[
            ("container", &id),
            ("container_name", &name),
            ("container_image", &NULL),
            ("k8s_pod_name", &"web-0"),
            ("k8s_namespace_name", &"shop"),
        ]);
    }
}

#[test]
fn sockets_in_a_container_of_containerd_have_its_names() {
    let (lab, folder) = (Lab::new(), tempfile::tempdir().expect("a folder"));
    let Some(runtimes) = Runtimes::containerd(folder.path()) else {
        return;
    };
    let annotations = [
        ("io.kubernetes.cri.container-name", "app"),
        ("io.kubernetes.cri.sandbox-name", "web-0"),
        ("io.kubernetes.cri.sandbox-namespace", "shop"),
    ];
    a_container_has_names(&lab, &runtimes, &annotations, "app");
}

#[test]
fn sockets_in_a_container_of_podman_have_its_names() {
    let (lab, folder) = (Lab::new(), tempfile::tempdir().expect("a folder"));
    let Some(runtimes) = Runtimes::podman(folder.path()) else {
        return;
    };
    a_container_has_names(&lab, &runtimes, &OF_WEB, "lonely-web");
}

#[test]
fn container_filter_takes_the_first_digits_of_an_id() {
    let (lab, folder) = (Lab::new(), tempfile::tempdir().expect("a folder"));
    let Some(runtimes) = Runtimes::containerd(folder.path()) else {
        return;
    };
    let [own, other] = [lab.port(), lab.port()];
    let [mut wanted, mut unwanted] = [own, other].map(|port| runtimes.run("", &[], port));
    let tracer = trace(&lab, &runtimes, &["--container", &wanted.id[..12]]);
    unwanted.talk();
    unwanted.end();
    wanted.talk();
    tracer.wait_for_ends(2);
    let id = wanted.id.clone();
    wanted.end();
    let trace = tracer.stop_filtered(|tuple| tuple.lport == own || tuple.rport == own);
    for line in [trace.listen(), trace.client(), trace.server()] {
        line.shows(&[("container", &id), ("container_name", &NULL)]);
    }
}

#[test]
fn pod_filter_includes_containers_that_start_later() {
    let (lab, folder) = (Lab::new(), tempfile::tempdir().expect("a folder"));
    let Some(runtimes) = Runtimes::podman(folder.path()) else {
        return;
    };
    let [port, other, later] = [lab.port(), lab.port(), lab.port()];
    let mut first = runtimes.run("first", &OF_WEB, port);
    let mut other = runtimes.run("other", &[], other);
    let tracer = trace(&lab, &runtimes, &["--pod", "web-0.shop"]);
    other.talk();
    other.end();
    first.talk();
    tracer.wait_for_ends(2);
    let mut second = runtimes.run("second", &OF_WEB, later);
    // The search for new containers takes a while.
    let queued = |line: &tests::Line| line.is("connection") && line["verdict"] == "queued";
    tests::eventually("the second container to be traced", || {
        second.talk();
        std::thread::sleep(std::time::Duration::from_millis(500));
        let lines = tracer.wait_for(1, "a connection", queued);
        lines.iter().find(|it| it["lport"] == later).map(drop)
    });
    let ids = [first.id.clone(), second.id.clone()];
    first.end();
    second.end();
    let trace = tracer.stop_lossy();
    let names: Vec<_> = trace
        .own("connection")
        .map(|line| (line["container"].clone(), line["container_name"].clone()))
        .collect();
    for (id, name) in ids.iter().zip(["first", "second"]) {
        assert!(
            names.contains(&(id.as_str().into(), name.into())),
            "{names:?}"
        );
    }
    assert!(!names.iter().any(|(_, name)| name == "other"), "{names:?}");
}

#[test]
fn a_filter_without_a_running_container_is_refused_with_the_containers_there_are() {
    let (lab, folder) = (Lab::new(), tempfile::tempdir().expect("a folder"));
    let Some(runtimes) = Runtimes::podman(folder.path()) else {
        return;
    };
    let container = runtimes.run("lonely", &OF_WEB, lab.port());
    for (filter, what) in [
        ("--container=web", "container web"),
        ("--pod=web-0.test", "pod web-0.test"),
    ] {
        let mut command = tcptrace_trace(&[filter]);
        runtimes.put(&mut command);
        let ended = Running::run_to_end(command);
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        let line = format!("no running {what} was found; containers here: ");
        assert!(ended.stderr.contains(&line), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("lonely of pod web-0.shop"),
            "{}",
            ended.stderr
        );
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
    container.end();
}
