//! The PID namespaces and containers of processes, which the records do not have.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::container::{Container, Text};
use crate::event::{Kind, Note, Place, Task};

/// Upper bound on the containers that are remembered. The containers of later processes are unknown.
const CONTAINERS: usize = 65_536;

/// A process in a PID namespace or in a container of its own, with what records do not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number in its own PID namespace. `None` if that is the kernel's, or unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nspid: Option<u32>,
    /// Its container. Only with cgroups of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
}

/// The places of the processes that run.
#[derive(Default)]
pub struct Places {
    processes: FxHashMap<u32, Place>,
    containers: Vec<Container>,
    numbers: FxHashMap<Text, u32>,
}

impl Places {
    pub fn learn(&mut self, forget: bool, processes: &BTreeMap<u32, Process>) {
        if forget {
            self.processes.clear();
        }
        for (pid, process) in processes {
            let place = Place {
                nspid: process.nspid.unwrap_or(0),
                container: self.number(process.container.as_ref()),
            };
            match place == Place::default() {
                true => self.processes.remove(pid),
                false => self.processes.insert(*pid, place),
            };
        }
    }

    /// Returns the number of a container, from 1.
    fn number(&mut self, container: Option<&Container>) -> u32 {
        let Some(container) = container else {
            return 0;
        };
        if let Some(number) = self.numbers.get(&container.id) {
            return *number;
        }
        if self.containers.len() >= CONTAINERS {
            return 0;
        }
        self.containers.push(container.clone());
        let number = self.containers.len() as u32;
        self.numbers.insert(container.id.clone(), number);
        number
    }

    /// Returns the container with this number.
    pub fn container(&self, number: u32) -> Option<&Container> {
        self.containers.get(number.checked_sub(1)? as usize)
    }

    /// Adds the places of an event's processes.
    #[inline]
    pub fn see(&mut self, kind: &mut Kind) {
        if self.processes.is_empty() {
            return;
        }
        match kind {
            Kind::SetState(it) => {
                if let Some(task) = &mut it.task {
                    self.put(task);
                }
            }
            Kind::Accept(it) => self.put(&mut it.task),
            Kind::Note(Note::Holders(it)) => {
                it.holders.iter_mut().for_each(|it| self.put(&mut it.task));
            }
            _ => {}
        }
    }

    pub fn put(&self, task: &mut Task) {
        if let Some(place) = self.processes.get(&task.pid) {
            task.place = *place;
        }
    }
}
