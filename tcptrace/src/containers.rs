//! The names of containers, from the files that container runtimes and the kubelet keep on this
//! machine. No service is asked.

mod files;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tcptrace_core::container::{Container, Text};

use self::files::Directory;

/// Upper bound on the size of a container's own file, in bytes.
const FILE_BYTES: u64 = 1 << 20;

/// Upper bound on the size of a list of all containers, in bytes.
const LIST_BYTES: u64 = 4 << 20;

/// Upper bound on the entries that are read from a directory.
const ENTRIES: usize = 16_384;

/// Upper bound on the length of a name in bytes. A longer name is unknown.
const NAME_BYTES: usize = 512;

/// The state directories of containerd. Each has a directory per containerd namespace, with a
/// bundle per container.
const CONTAINERD: [&str; 2] = [
    "run/containerd/io.containerd.runtime.v2.task",
    "run/k3s/containerd/io.containerd.runtime.v2.task",
];

/// The directories of containers/storage, which Podman and CRI-O use. Each has a directory per
/// storage driver, such as `overlay-containers`.
const STORAGE: [&str; 2] = ["run/containers/storage", "var/lib/containers/storage"];

/// The directory of Docker's containers.
const DOCKER: &str = "var/lib/docker/containers";

/// Links that the kubelet makes for the logs of its containers, by names such as
/// `POD_NAMESPACE_CONTAINER-ID.log`.
const KUBELET: &str = "var/log/containers";

/// The files of all container runtimes below a root directory.
pub struct Containers {
    root: PathBuf,
}

/// The part that is used of an OCI bundle's config.json (OCI runtime specification).
#[derive(Deserialize)]
struct Bundle {
    annotations: Option<BTreeMap<String, String>>,
}

/// The part that is used of Docker's config.v2.json.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerState {
    name: Option<String>,
    config: Option<DockerConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerConfig {
    image: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

/// A row of containers.json of containers/storage.
#[derive(Deserialize)]
struct Stored {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    /// JSON inside a string.
    metadata: Option<String>,
}

#[derive(Deserialize)]
struct StoredMetadata {
    #[serde(rename = "image-name")]
    image: Option<String>,
}

/// Annotations of bundles, or labels, by meaning. The first one that exists counts. `io.kubernetes.cri`
/// is containerd's prefix. CRI-O's annotations and Docker's labels are those of the kubelet
/// (`io.kubernetes.pod.name`).
const NAME: [&str; 2] = [
    "io.kubernetes.cri.container-name",
    "io.kubernetes.container.name",
];
const IMAGE: [&str; 2] = [
    "io.kubernetes.cri.image-name",
    "io.kubernetes.cri-o.ImageName",
];
const POD: [&str; 2] = ["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"];
const NAMESPACE: [&str; 2] = [
    "io.kubernetes.cri.sandbox-namespace",
    "io.kubernetes.pod.namespace",
];

impl Containers {
    /// Looks for the runtimes' files below this directory, which is `/` except in tests.
    pub fn below(root: &Path) -> Containers {
        Containers {
            root: root.to_owned(),
        }
    }

    /// Returns a container with its names, as far as a runtime's file has them. `id` is the full id
    /// of 64 hexadecimal digits.
    pub fn named(&self, id: &str) -> Container {
        let mut container = Container::new(id);
        self.add_containerd(&mut container);
        self.add_storage(&mut container);
        self.add_docker(&mut container);
        if container.pod.is_none() {
            self.add_kubelet(&mut container);
        }
        container
    }

    fn add_containerd(&self, container: &mut Container) {
        for state in CONTAINERD.map(|it| self.root.join(it)) {
            for namespace in entries(&state) {
                let path = Path::new(&namespace).join(&*container.id);
                let bundle = Directory::open(&state)
                    .and_then(|it| it.json::<Bundle>(&path.join("config.json"), FILE_BYTES));
                if let Some(annotations) = bundle.and_then(|it| it.annotations) {
                    add_annotations(container, &annotations);
                    return;
                }
            }
        }
    }

    fn add_storage(&self, container: &mut Container) {
        for storage in STORAGE.map(|it| self.root.join(it)) {
            let drivers = entries(&storage).into_iter();
            for driver in drivers.filter(|it| it.ends_with("-containers")) {
                let Some(driver) = Directory::open(&storage.join(driver)) else {
                    continue;
                };
                let bundle = Path::new(&*container.id).join("userdata/config.json");
                if let Some(bundle) = driver.json::<Bundle>(&bundle, FILE_BYTES) {
                    add_annotations(container, &bundle.annotations.unwrap_or_default());
                    add_stored(container, &driver);
                }
            }
        }
    }

    fn add_docker(&self, container: &mut Container) {
        let Some(docker) = Directory::open(&self.root.join(DOCKER)) else {
            return;
        };
        let state = Path::new(&*container.id).join("config.v2.json");
        if let Some(state) = docker.json::<DockerState>(&state, FILE_BYTES) {
            add_docker_state(container, state);
        }
    }

    fn add_kubelet(&self, container: &mut Container) {
        for link in entries(&self.root.join(KUBELET)) {
            let name = link.strip_suffix(".log");
            let name = name.and_then(|it| it.strip_suffix(&*container.id)?.strip_suffix('-'));
            // No name in Kubernetes contains an underscore (RFC 1123).
            let parts: Option<Vec<&str>> = name.map(|it| it.split('_').collect());
            if let Some([pod, namespace, name]) = parts.as_deref() {
                add(&mut container.pod, Some(pod));
                add(&mut container.namespace, Some(namespace));
                add(&mut container.name, Some(name));
                return;
            }
        }
    }
}

/// Adds the name and the image from the list of a storage driver's containers.
fn add_stored(container: &mut Container, driver: &Directory) {
    let stored = driver.json::<Vec<Stored>>("containers.json".as_ref(), LIST_BYTES);
    add_listed(container, stored.unwrap_or_default());
}

fn add_listed(container: &mut Container, stored: Vec<Stored>) {
    let mut stored = stored.into_iter();
    let Some(stored) = stored.find(|it| it.id == *container.id) else {
        return;
    };
    add(
        &mut container.name,
        stored.names.first().map(String::as_str),
    );
    let metadata = stored.metadata.unwrap_or_default();
    let metadata = serde_json::from_str::<StoredMetadata>(&metadata).ok();
    add(
        &mut container.image,
        metadata.and_then(|it| it.image).as_deref(),
    );
}

fn add_docker_state(container: &mut Container, state: DockerState) {
    if let Some(config) = state.config {
        add_annotations(container, &config.labels.unwrap_or_default());
        add(&mut container.image, config.image.as_deref());
    }
    // Docker stores the name with a slash before it.
    let name = state.name.as_deref();
    add(
        &mut container.name,
        name.map(|it| it.strip_prefix('/').unwrap_or(it)),
    );
}

fn add_annotations(container: &mut Container, annotations: &BTreeMap<String, String>) {
    let first = |keys: [&str; 2]| {
        let mut values = keys.iter().filter_map(|&key| annotations.get(key));
        values.next().map(String::as_str)
    };
    add(&mut container.name, first(NAME));
    add(&mut container.image, first(IMAGE));
    add(&mut container.pod, first(POD));
    add(&mut container.namespace, first(NAMESPACE));
}

/// Sets a name that is still unknown.
fn add(name: &mut Option<Text>, value: Option<&str>) {
    let value = value.filter(|it| (1..=NAME_BYTES).contains(&it.len()));
    if name.is_none() {
        *name = value.map(Text::from);
    }
}

/// Returns the names of a directory's entries, at most [`ENTRIES`]. Empty if it cannot be read.
fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let names = entries.take(ENTRIES).flatten();
    names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Returns a container with the names of files of these contents, for the fuzz targets.
pub(crate) fn from_contents(id: &str, bundle: &[u8], docker: &[u8], list: &[u8]) -> Container {
    let mut container = Container::new(id);
    if let Ok(bundle) = serde_json::from_slice::<Bundle>(bundle) {
        add_annotations(&mut container, &bundle.annotations.unwrap_or_default());
    }
    if let Ok(stored) = serde_json::from_slice::<Vec<Stored>>(list) {
        add_listed(&mut container, stored);
    }
    if let Ok(state) = serde_json::from_slice::<DockerState>(docker) {
        add_docker_state(&mut container, state);
    }
    container
}
