use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::sync::mpsc;
use std::time::Duration;

use super::*;

const ID: &str = "4f66ad9a0b2e8b3c1d5e7f90a1b2c3d4e5f60718293a4b5c6d7e8f9001122334";

/// A root directory with files of runtimes. `ID` in their paths and contents stands for [`ID`].
struct Root(tempfile::TempDir);

impl Root {
    fn new(files: &[(&str, &str)]) -> Root {
        let root = Root(tempfile::tempdir().unwrap());
        for (path, contents) in files {
            fs::write(root.path(path), contents.replace("ID", ID)).unwrap();
        }
        root
    }

    /// Returns the path of a file, and makes the directories above it.
    fn path(&self, path: &str) -> PathBuf {
        let path = self.0.path().join(path.replace("ID", ID));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Returns name, image, pod and namespace; "" where they are unknown.
    #[track_caller]
    fn names(&self) -> [String; 4] {
        // A reader that opens a FIFO would wait forever.
        let (found, names) = mpsc::channel();
        let root = self.0.path().to_owned();
        std::thread::spawn(move || found.send(Containers::below(&root).named(ID)));
        let found = names
            .recv_timeout(Duration::from_secs(20))
            .expect("an answer");
        assert_eq!(&*found.id, ID);
        [found.name, found.image, found.pod, found.namespace]
            .map(|it| it.map_or(String::new(), |it| it.to_string()))
    }
}

const CONTAINERD_BUNDLE: &str =
    "run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json";
const CRIO_BUNDLE: &str = "run/containers/storage/overlay-containers/ID/userdata/config.json";
const PODMAN_BUNDLE: &str = "var/lib/containers/storage/overlay-containers/ID/userdata/config.json";
const PODMAN_LIST: &str = "var/lib/containers/storage/overlay-containers/containers.json";
const DOCKER_STATE: &str = "var/lib/docker/containers/ID/config.v2.json";
const UNKNOWN: [&str; 4] = ["", "", "", ""];

#[test]
fn containerd_names_are_read_from_the_annotations_of_the_bundle() {
    let config = r#"{"ociVersion": "1.1.0", "process": {"args": ["/app"]}, "annotations": {
        "io.kubernetes.cri.container-name": "app", "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.image-name": "docker.io/library/nginx:1.25",
        "io.kubernetes.cri.sandbox-id": "77", "io.kubernetes.cri.sandbox-name": "web-0",
        "io.kubernetes.cri.sandbox-namespace": "shop"}}"#;
    let expected = ["app", "docker.io/library/nginx:1.25", "web-0", "shop"];
    assert_eq!(Root::new(&[(CONTAINERD_BUNDLE, config)]).names(), expected);
    let k3s = CONTAINERD_BUNDLE.replace("run/", "run/k3s/");
    assert_eq!(Root::new(&[(&k3s, config)]).names(), expected);
}

#[test]
fn crio_names_are_read_from_the_annotations_of_the_bundle() {
    let config = r#"{"annotations": {"io.kubernetes.container.name": "app",
        "io.kubernetes.cri-o.ContainerName": "k8s_app_web-0_shop_1b2c_0",
        "io.kubernetes.cri-o.ImageName": "registry.example/nginx:1.25",
        "io.kubernetes.pod.name": "web-0", "io.kubernetes.pod.namespace": "shop"}}"#;
    assert_eq!(
        Root::new(&[(CRIO_BUNDLE, config)]).names(),
        ["app", "registry.example/nginx:1.25", "web-0", "shop"]
    );
}

#[test]
fn podman_names_are_read_from_the_list_of_containers() {
    let list = r#"[{"id": "0000", "names": ["other"]},
        {"id": "ID", "names": ["web", "alias"], "image": "a6bd", "layer": "c6", "flags": {},
         "metadata": "{\"image-name\":\"docker.io/library/nginx:1.25\",\"name\":\"web\"}"}]"#;
    let files = [
        (PODMAN_BUNDLE, r#"{"annotations": {}}"#),
        (PODMAN_LIST, list),
    ];
    let expected = ["web", "docker.io/library/nginx:1.25", "", ""];
    assert_eq!(Root::new(&files).names(), expected);
    // A container that is only in the list has been removed.
    assert_eq!(Root::new(&files[1..]).names(), UNKNOWN);
}

#[test]
fn docker_names_are_read_from_its_state() {
    let state = r#"{"ID": "ID", "Name": "/web", "Image": "sha256:a6bd",
        "Config": {"Image": "nginx:1.25", "Labels": {"maintainer": "x"}}}"#;
    let expected = ["web", "nginx:1.25", "", ""];
    assert_eq!(Root::new(&[(DOCKER_STATE, state)]).names(), expected);
    let of_pod = r#"{"Name": "/k8s_app_web-0_shop_1b2c_0", "Config": {"Image": "nginx@sha256:a6bd",
        "Labels": {"io.kubernetes.container.name": "app", "io.kubernetes.pod.name": "web-0",
                   "io.kubernetes.pod.namespace": "shop"}}}"#;
    let expected = ["app", "nginx@sha256:a6bd", "web-0", "shop"];
    assert_eq!(Root::new(&[(DOCKER_STATE, of_pod)]).names(), expected);
}

#[test]
fn pod_names_are_read_from_the_log_links_of_the_kubelet() {
    let root = Root::new(&[("var/log/containers/other-1_shop_app-0000.log", "")]);
    symlink(
        "/nowhere",
        root.path("var/log/containers/web-0_shop_my-app-ID.log"),
    )
    .unwrap();
    assert_eq!(root.names(), ["my-app", "", "web-0", "shop"]);
    for no_link in [
        "ID.log",
        "a_b-ID.log",
        "a_b_c_d-ID.log",
        "web-0_shop_app-ID",
    ] {
        let path = format!("var/log/containers/{no_link}");
        assert_eq!(Root::new(&[(&path, "")]).names(), UNKNOWN, "{no_link}");
    }
}

#[test]
fn a_container_without_files_has_no_names() {
    assert_eq!(Root::new(&[]).names(), UNKNOWN);
}

#[test]
fn an_empty_or_long_name_is_unknown() {
    let config = |name: &str| {
        let annotations = format!(r#"{{"annotations": {{"io.kubernetes.pod.name": "{name}"}}}}"#);
        Root::new(&[(CONTAINERD_BUNDLE, &annotations)]).names()[2].clone()
    };
    let longest = "x".repeat(NAME_BYTES);
    assert_eq!(config(&longest), longest);
    assert_eq!(config(&format!("{longest}x")), "");
    assert_eq!(config(""), "");
}

/// Contents of each file that would give names if the file was an ordinary one.
const GOOD: [(&str, &str); 4] = [
    (
        CONTAINERD_BUNDLE,
        r#"{"annotations": {"io.kubernetes.cri.sandbox-name": "x"}}"#,
    ),
    (
        CRIO_BUNDLE,
        r#"{"annotations": {"io.kubernetes.pod.name": "x"}}"#,
    ),
    (
        PODMAN_BUNDLE,
        r#"{"annotations": {"io.kubernetes.pod.name": "x"}}"#,
    ),
    (DOCKER_STATE, r#"{"Name": "/x"}"#),
];

#[test]
fn broken_json_gives_no_names() {
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    for (path, good) in GOOD {
        assert_ne!(Root::new(&[(path, good)]).names(), UNKNOWN, "{path}");
        for broken in [
            "",
            "{",
            "null",
            "[]",
            "[1,2",
            &good[..good.len() - 1],
            r#"{"annotations": [], "Name": 7}"#,
            r#"{"annotations": {"io.kubernetes.pod.name": {}}, "Name": {}}"#,
            &format!(r#"{{"annotations": {deep}, "Name": {deep}}}"#),
        ] {
            let names = Root::new(&[(path, broken)]).names();
            let shown: String = broken.chars().take(60).collect();
            assert_eq!(names, UNKNOWN, "{path}: {shown}");
        }
        let ignored = format!(r#"{{"x": {deep}, {}"#, &good[1..]);
        assert_ne!(Root::new(&[(path, &ignored)]).names(), UNKNOWN, "{path}");
        let root = Root::new(&[]);
        fs::write(root.path(path), b"\xff\xfe{}").unwrap();
        assert_eq!(root.names(), UNKNOWN, "{path}");
    }
}

#[test]
fn a_broken_list_of_podman_gives_no_names() {
    for broken in [
        "",
        "{}",
        "[{}]",
        r#"[{"id": "ID", "names": "x"}]"#,
        r#"[{"id": "ID", "names": [], "metadata": "{"}]"#,
        r#"[{"id": "ID", "names": [""], "metadata": "7"}]"#,
    ] {
        let root = Root::new(&[(PODMAN_BUNDLE, "{}"), (PODMAN_LIST, broken)]);
        assert_eq!(root.names(), UNKNOWN, "{broken}");
    }
}

#[test]
fn a_file_that_is_too_large_gives_no_names() {
    for (path, good) in GOOD {
        let padded = |bytes: u64| {
            let padding = bytes as usize - good.len();
            let root = Root::new(&[]);
            fs::write(root.path(path), format!("{good}{}", " ".repeat(padding))).unwrap();
            root.names()
        };
        assert_ne!(padded(FILE_BYTES), UNKNOWN, "{path}");
        assert_eq!(padded(FILE_BYTES + 1), UNKNOWN, "{path}");
        // Terabytes that take no space on the disk.
        let root = Root::new(&[]);
        let file = fs::File::create(root.path(path)).unwrap();
        file.set_len(1 << 40).unwrap();
        assert_eq!(root.names(), UNKNOWN, "{path}");
    }
}

#[test]
fn a_file_that_is_not_regular_gives_no_names() {
    for (path, good) in GOOD {
        let root = Root::new(&[]);
        let fifo = CString::new(root.path(path).as_os_str().as_bytes()).unwrap();
        // SAFETY: the path ends with NUL.
        assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
        assert_eq!(root.names(), UNKNOWN, "a FIFO: {path}");

        let root = Root::new(&[]);
        fs::create_dir(root.path(path)).unwrap();
        assert_eq!(root.names(), UNKNOWN, "a directory: {path}");

        let root = Root::new(&[("elsewhere.json", good)]);
        symlink(root.path("elsewhere.json"), root.path(path)).unwrap();
        assert_eq!(root.names(), UNKNOWN, "a link to a file: {path}");

        let root = Root::new(&[(&format!("elsewhere/{path}"), good)]);
        let directory = |path: &str| root.path(path).parent().unwrap().to_owned();
        let (real, link) = (directory(&format!("elsewhere/{path}")), directory(path));
        fs::remove_dir(&link).unwrap();
        symlink(real, link).unwrap();
        assert_eq!(root.names(), UNKNOWN, "a link to a directory: {path}");
    }
}

#[test]
fn a_directory_with_too_many_entries_is_read_in_part() {
    let root = Root::new(&[]);
    for n in 0..ENTRIES + 100 {
        fs::File::create(root.path(&format!("x/{n}"))).unwrap();
    }
    assert_eq!(entries(&root.path("x")).len(), ENTRIES);
}
