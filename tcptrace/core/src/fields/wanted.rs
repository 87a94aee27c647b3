//! Kinds of lines, and the set of kinds that the sinks read.

use std::ops::BitOr;

/// A kind of line, `event` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Session,
    Preexisting,
    Transition,
    Accept,
    Overflow,
    Segment,
    Connection,
    Retransmit,
    Reset,
    TimeWait,
    Histogram,
    Stack,
    Lost,
    Summary,
}

impl Kind {
    /// Every kind, in the order of the schema.
    pub const ALL: [Kind; 14] = [
        Kind::Session,
        Kind::Preexisting,
        Kind::Transition,
        Kind::Accept,
        Kind::Overflow,
        Kind::Segment,
        Kind::Connection,
        Kind::Retransmit,
        Kind::Reset,
        Kind::TimeWait,
        Kind::Histogram,
        Kind::Stack,
        Kind::Lost,
        Kind::Summary,
    ];

    /// Returns the kind's name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Session => "session",
            Kind::Preexisting => "preexisting",
            Kind::Transition => "transition",
            Kind::Accept => "accept",
            Kind::Overflow => "overflow",
            Kind::Segment => "segment",
            Kind::Connection => "connection",
            Kind::Retransmit => "retransmit",
            Kind::Reset => "reset",
            Kind::TimeWait => "time_wait",
            Kind::Histogram => "histogram",
            Kind::Stack => "stack",
            Kind::Lost => "lost",
            Kind::Summary => "summary",
        }
    }
}

/// The kinds of lines that the sinks read, and whether they read the texts of [`Wanted::WORDS`].
/// The correlator may leave out all other lines and texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted(u32);

impl Wanted {
    pub const NOTHING: Wanted = Wanted(0);
    /// The texts that follow from other fields: `evidence`, and `reason` where it follows from the
    /// verdict and the times.
    pub const WORDS: Wanted = Wanted(1 << Kind::ALL.len());
    /// Of the `transition` lines, only those of listeners, and those of connections that enter an
    /// accept queue ([`Transition::is_of_queue`](super::Transition::is_of_queue)).
    pub const QUEUES: Wanted = Wanted(Wanted::WORDS.0 << 1);
    /// Of the `transition` lines, only those that leave ESTABLISHED.
    pub const CLOSINGS: Wanted = Wanted(Wanted::QUEUES.0 << 1);
    /// Every kind of line.
    pub const LINES: Wanted = Wanted((1 << Kind::ALL.len()) - 1);
    pub const ALL: Wanted = Wanted(Wanted::LINES.0 | Wanted::WORDS.0);

    /// Returns the set of one kind of line, without [`Wanted::WORDS`].
    pub fn kind(kind: Kind) -> Wanted {
        Wanted(1 << kind as u32)
    }

    /// Returns whether a kind of line is wanted.
    pub fn has(self, kind: Kind) -> bool {
        self.0 & Wanted::kind(kind).0 != 0
    }

    /// Returns whether the texts of [`Wanted::WORDS`] are wanted.
    pub fn has_words(self) -> bool {
        self.0 & Wanted::WORDS.0 != 0
    }

    /// Returns whether the lines of [`Wanted::QUEUES`] are wanted.
    pub fn has_queues(self) -> bool {
        self.0 & Wanted::QUEUES.0 != 0
    }

    /// Returns whether the lines of [`Wanted::CLOSINGS`] are wanted.
    pub fn has_closings(self) -> bool {
        self.0 & Wanted::CLOSINGS.0 != 0
    }

    /// Keeps the kinds for which `keep` is true. Does not change whether [`Wanted::WORDS`],
    /// [`Wanted::QUEUES`] and [`Wanted::CLOSINGS`] are wanted.
    pub fn filter(self, keep: impl Fn(Kind) -> bool) -> Wanted {
        let kept = Kind::ALL
            .into_iter()
            .filter(|&kind| self.has(kind) && keep(kind));
        Wanted(kept.collect::<Wanted>().0 | self.0 & !Wanted::LINES.0)
    }
}

impl BitOr for Wanted {
    type Output = Wanted;
    fn bitor(self, other: Wanted) -> Wanted {
        Wanted(self.0 | other.0)
    }
}

impl FromIterator<Kind> for Wanted {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Wanted {
        let kinds = kinds.into_iter().map(Wanted::kind);
        kinds.fold(Wanted::NOTHING, BitOr::bitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn union_and_filter_of_wanted_keep_the_words_flag() {
        let wanted = Wanted::kind(Kind::Accept) | Wanted::kind(Kind::Summary);
        let has: Vec<Kind> = Kind::ALL.into_iter().filter(|&it| wanted.has(it)).collect();
        assert_eq!(has, [Kind::Accept, Kind::Summary]);
        assert!(!wanted.has_words() && (wanted | Wanted::WORDS).has_words());
        let lines = Wanted::ALL.filter(|it| it != Kind::Session);
        assert!(lines.has_words() && lines.has(Kind::Lost) && !lines.has(Kind::Session));
        assert!(!lines.has_queues() && (lines | Wanted::QUEUES).has_queues());
        let closings = (lines | Wanted::CLOSINGS).filter(|_| false);
        assert!(closings.has_closings() && !closings.has_queues() && !lines.has_closings());
        assert_eq!(
            Kind::ALL.into_iter().collect::<Wanted>() | Wanted::WORDS,
            Wanted::ALL
        );
    }
}
