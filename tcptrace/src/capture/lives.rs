//! What the kernel side keeps in maps at the lighter depths.

use aya::maps::{HashMap, MapData, PerCpuHashMap};
use tcptrace_ebpf::abi;
use zerocopy::{FromBytes, IntoBytes};

use super::Capture;
use super::load::no_map;
use super::ring::Batch;
use crate::decode::tally;
use crate::event::Tally;

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
    pub fn lives(&self, ended_ns: u64) -> anyhow::Result<Batch> {
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
        for life in lives.iter() {
            let (_, life) = life?;
            let is_tallied = abi::Life::read_from_bytes(&life)
                .is_ok_and(|life| life.status & abi::life_flag::TALLIED != 0);
            if !is_tallied {
                records.push([header.as_bytes(), &life].concat());
            }
        }
        Ok(records.iter().map(Vec::as_slice).collect())
    }
}
