//! What the kernel side keeps in maps at the lighter depths.

use aya::maps::{HashMap, MapData, PerCpuHashMap};
use tcptrace_ebpf::abi;
use zerocopy::IntoBytes;

use super::Capture;
use super::load::no_map;
use super::ring::Batch;
use crate::decode::tally;
use crate::event::Tally;

/// The lives that are not over.
pub struct Lives {
    /// Those that are not counted.
    pub records: Batch,
    /// The changes of state of those that are.
    pub tallied: u64,
}

impl Capture {
    /// What has been counted in the kernel so far; nothing but at [`Depth::Histogram`].
    pub fn tallies(&self) -> anyhow::Result<Vec<Tally>> {
        let map = self.ebpf.map("TALLIES").ok_or_else(no_map)?;
        let map: PerCpuHashMap<&MapData, [u8; size_of::<abi::TallyKey>()], tally::Value> =
            PerCpuHashMap::try_from(map)?;
        let mut tallies = vec![];
        for entry in map.iter() {
            let (key, values) = entry?;
            let key = zerocopy::transmute!(key);
            tallies.push(tally::tally(&key, &values));
        }
        // A map keeps no order.
        tallies.sort_by_key(|tally| (tally.netns, tally.port, tally.client));
        Ok(tallies)
    }

    /// The lives of the sockets that were still open when the trace ended, as records; to be asked
    /// for when nothing is attached any more.
    pub fn lives(&self, ended_ns: u64) -> anyhow::Result<Lives> {
        let map = self.ebpf.map("LIVES").ok_or_else(no_map)?;
        let lives: HashMap<&MapData, u64, [u8; size_of::<abi::Life>()]> = HashMap::try_from(map)?;
        let header = abi::Header {
            mono_ns: ended_ns,
            lost: 0,
            cpu: 0,
            kind: abi::kind::LIFE,
            version: abi::VERSION,
        };
        let mut records = vec![];
        let mut tallied = 0;
        for life in lives.iter() {
            let (_, life) = life?;
            let kept: abi::Life = zerocopy::transmute!(life);
            if kept.steps == 0 {
                // Its place is kept for the next.
                continue;
            }
            if kept.is_tallied != 0 {
                tallied += u64::from(kept.steps) + u64::from(kept.is_closed);
            } else {
                records.push([header.as_bytes(), &life].concat());
            }
        }
        let records = records.iter().map(Vec::as_slice).collect();
        Ok(Lives { records, tallied })
    }
}
