//! Filters by container and by Kubernetes pod. The kernel programs compare cgroups, so the
//! containers are found by their cgroups: at the start, and again while the trace runs.

use std::fmt;
use std::str::FromStr;

use rustc_hash::FxHashSet;
use tcptrace_core::container::Container;

use super::{Cgroup, Filter};
use crate::cgroups;
use crate::containers::Containers;
use crate::printable::printable;

/// Shortest part of a container's id that selects it. Runtimes show ids in this length.
const ID_DIGITS: usize = 12;

/// Upper bound on the names that an error lists.
const LISTED: usize = 5;

/// Containers by name, or by an id of at least 12 digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerName(String);

impl ContainerName {
    fn is(&self, container: &Container) -> bool {
        let is_id = self.0.len() >= ID_DIGITS && container.id.starts_with(&self.0);
        is_id || container.name.as_deref() == Some(&self.0)
    }
}

impl FromStr for ContainerName {
    type Err = String;

    fn from_str(text: &str) -> Result<ContainerName, String> {
        match text.is_empty() {
            true => Err("a container has a name, or an id of 12 to 64 digits".into()),
            false => Ok(ContainerName(text.to_owned())),
        }
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Kubernetes pods by name, in any namespace or in one: `NAME` or `NAME.NAMESPACE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodName(String);

impl PodName {
    fn is(&self, container: &Container) -> bool {
        let Some(pod) = container.pod.as_deref() else {
            return false;
        };
        // A pod's name may contain dots, and a namespace's may not (RFC 1123).
        let rest = self.0.strip_prefix(pod);
        rest.is_some_and(|rest| match rest.strip_prefix('.') {
            Some(namespace) => container.namespace.as_deref() == Some(namespace),
            None => rest.is_empty(),
        })
    }
}

impl FromStr for PodName {
    type Err = String;

    fn from_str(text: &str) -> Result<PodName, String> {
        match text.is_empty() || text.starts_with('.') || text.ends_with('.') {
            true => Err("a pod is given as NAME or NAME.NAMESPACE".into()),
            false => Ok(PodName(text.to_owned())),
        }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The search for the containers of a filter.
pub struct ContainerSearch {
    names: Vec<ContainerName>,
    pods: Vec<PodName>,
    containers: Containers,
    /// Cgroups of containers that were found before.
    known: FxHashSet<u64>,
}

impl ContainerSearch {
    /// Returns `None` for a filter without containers and pods.
    pub fn of(filter: &Filter, containers: Containers) -> Option<ContainerSearch> {
        (!filter.containers.is_empty() || !filter.pods.is_empty()).then(|| ContainerSearch {
            names: filter.containers.clone(),
            pods: filter.pods.clone(),
            containers,
            known: FxHashSet::default(),
        })
    }

    /// Returns the cgroups of the filter's containers that run now.
    ///
    /// # Errors
    /// If there is none, a line that says so.
    pub fn first(&mut self) -> Result<Vec<Cgroup>, String> {
        if cgroups::mount().is_none() {
            return Err(
                "--container and --pod need cgroups of version 2, which are not mounted here"
                    .into(),
            );
        }
        self.first_of(cgroups::containers())
    }

    fn first_of(&mut self, all: Vec<(u64, String)>) -> Result<Vec<Cgroup>, String> {
        let mut others = vec![];
        let found = self.new_of(all, |other| others.push(shown(other)));
        if !found.is_empty() {
            return Ok(found);
        }
        let wanted = self.names.iter().map(|it| format!("container {it}"));
        let wanted = wanted.chain(self.pods.iter().map(|it| format!("pod {it}")));
        let wanted: Vec<String> = wanted.collect();
        others.sort();
        others.dedup();
        let more = others.len().saturating_sub(LISTED);
        others.truncate(LISTED);
        let mut others = others.join(", ");
        if more > 0 {
            others += &format!(" and {more} more");
        }
        if others.is_empty() {
            others = "none with a cgroup of version 2".to_owned();
        }
        Err(format!(
            "no running {} was found; containers here: {others}",
            wanted.join(" or ")
        ))
    }

    /// Returns the cgroups of the filter's containers that have started since the last search.
    pub fn newer(&mut self) -> Vec<Cgroup> {
        self.new_of(cgroups::containers(), |_| {})
    }

    fn new_of(
        &mut self,
        all: Vec<(u64, String)>,
        mut unwanted: impl FnMut(&Container),
    ) -> Vec<Cgroup> {
        let mut found = vec![];
        let mut still = FxHashSet::default();
        for (cgroup, id) in all {
            if self.known.contains(&cgroup) {
                still.insert(cgroup);
                continue;
            }
            let container = self.containers.named(&id);
            // A name may appear later than the cgroup.
            if container != Container::new(&id) {
                still.insert(cgroup);
            }
            match self.takes(&container) {
                true => found.push(Cgroup::of_container(cgroup)),
                false => unwanted(&container),
            }
        }
        still.extend(found.iter().map(|it| it.id));
        self.known = still;
        found
    }

    fn takes(&self, container: &Container) -> bool {
        let mut names = self.names.iter();
        let mut pods = self.pods.iter();
        (self.names.is_empty() || names.any(|it| it.is(container)))
            && (self.pods.is_empty() || pods.any(|it| it.is(container)))
    }
}

/// Returns a container as a user would name it.
fn shown(container: &Container) -> String {
    let short = container.id.get(..ID_DIGITS).unwrap_or(&container.id);
    let name = container.name.as_deref().unwrap_or(short);
    let pod = container.pod.as_deref();
    let text = match (pod, container.namespace.as_deref()) {
        (Some(pod), Some(namespace)) => format!("{name} of pod {pod}.{namespace}"),
        _ => name.to_owned(),
    };
    printable(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn id(first: char) -> String {
        first.to_string().repeat(64)
    }

    /// Writes a bundle of containerd.
    fn bundle(root: &Path, id: &str, name: &str, pod: &str, namespace: &str) {
        let folder = root.join(format!(
            "run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}"
        ));
        fs::create_dir_all(&folder).unwrap();
        let annotations = format!(
            r#"{{"annotations": {{"io.kubernetes.cri.container-name": "{name}",
            "io.kubernetes.cri.sandbox-name": "{pod}",
            "io.kubernetes.cri.sandbox-namespace": "{namespace}"}}}}"#
        );
        fs::write(folder.join("config.json"), annotations).unwrap();
    }

    fn search(root: &Path, containers: &[&str], pods: &[&str]) -> ContainerSearch {
        let filter = Filter {
            containers: containers.iter().map(|it| it.parse().unwrap()).collect(),
            pods: pods.iter().map(|it| it.parse().unwrap()).collect(),
            ..Filter::default()
        };
        ContainerSearch::of(&filter, Containers::below(root)).unwrap()
    }

    #[test]
    fn containers_are_found_by_name_id_and_pod() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        bundle(root, &id('a'), "app", "web.example", "shop");
        bundle(root, &id('b'), "sidecar", "web.example", "shop");
        bundle(root, &id('c'), "app", "web.example", "test");
        let all = || vec![(1, id('a')), (2, id('b')), (3, id('c')), (4, id('d'))];
        for (containers, pods, expected) in [
            (&["app"][..], &[][..], &[1, 3][..]),
            (&["aaaaaaaaaaaa"], &[], &[1]),
            (&["dddddddddddd", "sidecar"], &[], &[2, 4]),
            (&[], &["web.example"], &[1, 2, 3]),
            (&[], &["web.example.shop"], &[1, 2]),
            (&["app"], &["web.example.shop"], &[1]),
        ] {
            let found = search(root, containers, pods).first_of(all()).unwrap();
            let found: Vec<u64> = found.iter().map(|it| it.id).collect();
            assert_eq!(found, expected, "{containers:?} {pods:?}");
        }
        for (containers, pods) in [
            (&["ap"][..], &[][..]),
            (&["aaaaaaaaaaa"], &[]),
            (&["APP"], &[]),
            (&[], &["web"]),
            (&[], &["web.example.sho"]),
            (&["sidecar"], &["web.example.test"]),
        ] {
            let error = search(root, containers, pods).first_of(all()).unwrap_err();
            assert!(error.starts_with("no running "), "{error}");
            let others = "app of pod web.example.shop, app of pod web.example.test, dddddddddddd, ";
            assert!(error.contains(others), "{error}");
        }
    }

    #[test]
    fn only_containers_that_have_started_since_are_found_again() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        bundle(root, &id('a'), "app", "web", "shop");
        let mut search = search(root, &["app"], &[]);
        let mut found = |all: &[(u64, char)]| {
            let all = all.iter().map(|&(cgroup, first)| (cgroup, id(first)));
            let found = search.new_of(all.collect(), |_| {});
            found.iter().map(|it| it.id).collect::<Vec<_>>()
        };
        assert_eq!(found(&[(1, 'a'), (2, 'b')]), [1]);
        assert_eq!(found(&[(1, 'a'), (2, 'b')]), [0; 0]);
        // The runtime writes its file after it has made the cgroup.
        bundle(root, &id('b'), "app", "web", "shop");
        assert_eq!(found(&[(1, 'a'), (2, 'b'), (3, 'a')]), [2, 3]);
        assert_eq!(found(&[(2, 'b')]), [0; 0]);
    }

    #[test]
    fn hostile_names_of_containers_are_escaped_in_the_error() {
        let root = tempfile::tempdir().unwrap();
        bundle(root.path(), &id('a'), r"\u001b[31m", "web", "shop");
        let mut search = search(root.path(), &["app"], &[]);
        let error = search.first_of(vec![(1, id('a'))]).unwrap_err();
        assert!(!error.contains(char::is_control), "{error:?}");
    }

    #[test]
    fn an_empty_name_is_refused() {
        assert!("".parse::<ContainerName>().is_err());
        for text in ["", ".shop", "web."] {
            assert!(text.parse::<PodName>().is_err(), "{text:?}");
        }
    }
}
