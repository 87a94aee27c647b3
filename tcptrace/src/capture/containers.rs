//! The cgroups of the containers that a filter names.

use std::borrow::Cow;
use std::path::Path;
use std::time::{Duration, Instant};

use aya::Ebpf;

use super::error::CaptureError;
use super::filter;
use super::request::Request;
use crate::containers::Containers;
use crate::exit::Usage;
use crate::filter::ContainerSearch;
use crate::privileges::Lookups;
use crate::stdio::say;

/// A search is followed by a pause of this many times its duration.
const PAUSE_FACTOR: u32 = 20;

/// A search that is repeated while the trace runs.
pub struct Followed {
    /// `None` after a failed search.
    search: Option<ContainerSearch>,
    /// The time of the next search.
    next: Instant,
    is_full: bool,
}

/// Adds the cgroups of the filter's running containers to the filter. Without containers in the
/// filter, returns the request as it is.
///
/// # Errors
/// If no running container belongs to the filter.
pub fn resolve(request: &Request) -> Result<(Cow<'_, Request>, Option<Followed>), CaptureError> {
    let containers = Containers::below(Path::new("/"));
    let Some(mut search) = ContainerSearch::of(&request.filter, containers) else {
        return Ok((Cow::Borrowed(request), None));
    };
    let found = search.first();
    let found = found.map_err(|text| CaptureError::Failed(Usage(text).into()))?;
    let mut request = request.clone();
    request.filter.cgroups.extend(found);
    let followed = Followed {
        search: Some(search),
        next: Instant::now(),
        is_full: false,
    };
    Ok((Cow::Owned(request), Some(followed)))
}

impl Followed {
    /// Adds containers that have started since the last search to the filter of the programs. Does
    /// nothing during the pause after a search.
    pub fn follow(&mut self, ebpf: &mut Ebpf, lookups: &Lookups) {
        let began = Instant::now();
        if began < self.next || self.is_full {
            return;
        }
        let Some(mut search) = self.search.take() else {
            return;
        };
        let found = lookups.run(move || {
            let newer = search.newer();
            (search, newer)
        });
        let Some((search, newer)) = found else { return };
        self.search = Some(search);
        for cgroup in newer {
            if filter::add_cgroup(ebpf, cgroup.id).is_err() {
                self.is_full = true;
                say("too many containers have started: later ones are not traced");
                return;
            }
        }
        let took: Duration = began.elapsed();
        self.next = began + took * PAUSE_FACTOR;
    }
}
