//! Sizes of the tables whose entries may rest.

/// Of `CALLS`, unless the loader sets another.
pub const CALLS: u32 = 16384;
/// Of `LIVES`.
pub const LIVES: u32 = 65536;

/// Resting entries are counted in so many groups, a power of two.
pub const GROUPS: u32 = 64;

/// How many entries of a group may rest in a table for `entries`: of all groups an eighth of it.
pub const fn room(entries: u32) -> u32 {
    entries / 8 / GROUPS
}
