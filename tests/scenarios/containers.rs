//! Names of real containers.

use tests::container::Runtimes;
use tests::run::tcptrace_trace;
use tests::trace::NULL;
use tests::{Lab, Tracer};

/// Traces a helper that talks to itself in a container with a pod's annotations, so the client,
/// the server and the listener are in it.
#[track_caller]
fn a_container_has_names(lab: &Lab, runtimes: &Runtimes, annotations: &[(&str, &str)], name: &str) {
    let mut command = tcptrace_trace(&["-o", "json"]);
    runtimes.put(&mut command);
    let tracer = Tracer::spawn(lab, command);
    let port = lab.port().to_string();
    let container = runtimes.run("lonely-web", annotations, &["talk-and-stay", &port]);
    tracer.wait_for_ends(2);
    let id = container.id.clone();
    let ended = runtimes.end(container);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
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
    let annotations = [
        ("io.kubernetes.pod.name", "web-0"),
        ("io.kubernetes.pod.namespace", "shop"),
    ];
    a_container_has_names(&lab, &runtimes, &annotations, "lonely-web");
}
