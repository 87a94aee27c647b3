//! Drops at a full queue that no hook sees: suspected drops of one connection.

use serde::{Deserialize, Serialize};

use super::accept_queue::Full;
use super::dropped_syns::{DropSeries, Times};
use crate::duration::Human;

/// The segments of one connection that probably met a full queue.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Suspected {
    pub syn: Option<DropSeries>,
    pub ack: Option<DropSeries>,
    /// Number of SYN retransmissions seen.
    pub syn_again: u32,
}

impl Suspected {
    /// Notes a SYN that was sent while the queue was full.
    pub fn note_syn(&mut self, mono_ns: u64, listener: u64, full: Full) {
        self.syn = Some(DropSeries::suspected(self.syn, mono_ns, listener, full));
    }

    /// Notes a SYN-ACK retransmission while the queue is full, or was full at the final ACK.
    pub fn note_ack(&mut self, mono_ns: u64, listener: u64, full: Full) {
        self.ack = Some(DropSeries::suspected(self.ack, mono_ns, listener, full));
    }

    /// Returns the text for a client. `syn_again`: its SYN retransmissions, from the socket's
    /// counters. `answered`: it became ESTABLISHED. `silent`: no other answer came. `waited_ns` and
    /// `late_ns`: see [`super::dropped_syns::Drops::of_client`].
    pub fn of_client(
        &self,
        syn_again: Option<u32>,
        answered: bool,
        silent: bool,
        waited_ns: Option<u64>,
        late_ns: Option<u64>,
    ) -> Option<String> {
        let again = self.syn_again.max(syn_again.unwrap_or(0));
        let mut parts = vec![];
        // The last SYN was not dropped if it was answered.
        let dropped = again + u32::from(!answered);
        if let Some(series) = self.syn.filter(|_| again > 0 || silent)
            && let Some(series) = series.at_most(dropped)
        {
            let then = match again {
                0 => "no answer came".to_owned(),
                n => format!("it was sent again {}", Times(n)),
            };
            let so = waited_ns.map(|ns| format!(", so SYN_SENT lasted {}", Human(ns)));
            let so = so.unwrap_or_default();
            parts.push(format!(
                "its SYN likely met {series}: the queue was full when the SYN was sent, and {then}{so}"
            ));
        }
        if let Some(series) = self.ack {
            let so = match late_ns {
                Some(ns) => format!("the server's end was ESTABLISHED {} later", Human(ns)),
                None => "the server's end was not seen to become ESTABLISHED".to_owned(),
            };
            parts.push(format!("its final ACK likely met {series}: {so}"));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// Returns the text after the verdict on a server's connection: `; its final ACK likely met a
    /// full accept queue (5 queued, limit 4) once: the SYN-ACK was sent again once`.
    pub fn of_server(&self, synack_retransmits: Option<u32>) -> Option<String> {
        let series = self.ack?.anonymous();
        let again = Times(synack_retransmits?.max(1));
        Some(format!(
            "; its final ACK likely met {series}: the SYN-ACK was sent again {again}"
        ))
    }

    /// Returns the suspected drops of the final ACK, without the listener's connection number.
    pub fn ack_drops(&self) -> Option<DropSeries> {
        self.ack.map(DropSeries::anonymous)
    }
}
