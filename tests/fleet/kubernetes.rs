//! The files of `deploy/kubernetes`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::{file, run};

/// The directories to apply, with the files by which their runtime names containers.
const NODES: [(&str, &[&str]); 4] = [
    (
        "containerd",
        &["/run/containerd/io.containerd.runtime.v2.task"],
    ),
    (
        "crio",
        &[
            "/run/containers/storage/overlay-containers",
            "/var/lib/containers/storage/overlay-containers",
        ],
    ),
    ("docker", &["/var/lib/docker/containers"]),
    (
        "k3s",
        &["/run/k3s/containerd/io.containerd.runtime.v2.task"],
    ),
];

fn python(program: &str) -> Command {
    Command::new(file("target/tables/bin").join(program))
}

/// Checks resources against the API of Kubernetes. Unknown fields are refused.
#[track_caller]
fn validate(path: &Path, resources: usize) {
    let said = run(python("kubernetes-validate").arg("--strict").arg(path), "");
    assert_eq!(
        said.matches(" passed for resource ").count(),
        resources,
        "{said}"
    );
}

/// Reads the resources of YAML text.
fn read(yaml: &str) -> Vec<Value> {
    const PROGRAM: &str =
        "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))";
    let json = run(python("python").args(["-c", PROGRAM]), yaml);
    serde_json::from_str(&json).expect("JSON")
}

/// Returns the strings at a path of each element.
fn each<'a>(list: &'a Value, path: &str) -> BTreeSet<&'a str> {
    let list = list.as_array().expect("a list").iter();
    list.filter_map(|it| it.pointer(path)?.as_str()).collect()
}

#[test]
fn the_daemon_set_has_no_more_rights_than_it_says() {
    let base = file("deploy/kubernetes/base");
    for name in ["namespace.yaml", "serviceaccount.yaml", "daemonset.yaml"] {
        validate(&base.join(name), 1);
    }
    let text = |name: &str| std::fs::read_to_string(base.join(name)).expect("a file");
    let account = read(&text("serviceaccount.yaml"));
    assert_eq!(account[0]["automountServiceAccountToken"], false);
    let set = read(&text("daemonset.yaml"));
    let spec = &set[0]["spec"]["template"]["spec"];
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["hostPID"], true);
    assert_eq!(spec["hostNetwork"], Value::Null);
    let container = &spec["containers"][0];
    let security = &container["securityContext"];
    assert_eq!(security["privileged"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]));
    let added = each(&security["capabilities"]["add"], "");
    let expected = [
        "BPF",
        "DAC_READ_SEARCH",
        "PERFMON",
        "SYS_NICE",
        "SYS_PTRACE",
    ];
    assert_eq!(added, BTreeSet::from(expected));
    let image = format!("tcptrace:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(container["image"], image);
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        assert_eq!(container[probe]["httpGet"]["path"], "/healthz", "{probe}");
    }
    let annotations = &set[0]["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations["prometheus.io/port"], "9807");
}

#[test]
fn each_kustomization_adds_the_names_of_its_runtime() {
    if Command::new("kubectl")
        .arg("version")
        .arg("--client")
        .output()
        .is_err()
    {
        eprintln!("skipped: kubectl is not installed");
        return;
    }
    let base = [
        "/sys/kernel/btf",
        "/sys/kernel/tracing",
        "/sys/fs/cgroup",
        "/var/log/containers",
    ];
    let folder = tempfile::tempdir().expect("a folder");
    for (nodes, names) in NODES {
        let mut kustomize = Command::new("kubectl");
        kustomize
            .arg("kustomize")
            .arg(file("deploy/kubernetes").join(nodes));
        let yaml = run(&mut kustomize, "");
        let path = folder.path().join(format!("{nodes}.yaml"));
        std::fs::write(&path, &yaml).expect("write");
        validate(&path, 3);
        let resources = read(&yaml);
        let set = resources.iter().find(|it| it["kind"] == "DaemonSet");
        let spec = &set.expect("a DaemonSet")["spec"]["template"]["spec"];
        let paths = each(&spec["volumes"], "/hostPath/path");
        assert_eq!(
            paths,
            base.iter().chain(names).copied().collect(),
            "{nodes}"
        );
        let mounts = &spec["containers"][0]["volumeMounts"];
        let mounts = mounts.as_array().expect("mounts");
        assert_eq!(mounts.len(), paths.len(), "{nodes}");
        assert!(mounts.iter().all(|it| it["readOnly"] == true), "{mounts:?}");
    }
}
