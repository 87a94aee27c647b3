//! Batches: undecoded records in the order in which they were read from the ring buffer.

use bytes::{BufMut, Bytes, BytesMut};

/// Records, each preceded by its length (`u32`, little-endian).
///
/// A record is copied once, out of the memory that is shared with the kernel. The decoder and the
/// recording share that copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch(Bytes);

impl Batch {
    /// Makes a batch from the bytes of another batch. [`records`](Batch::records) ignores an
    /// incomplete record at the end.
    pub fn from_bytes(bytes: Bytes) -> Batch {
        Batch(bytes)
    }

    /// Returns the records with their lengths.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns whether the batch has no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the size in bytes, lengths included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the records in the order in which they were appended.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (record, tail) = split(rest)?;
            rest = tail;
            Some(record)
        })
    }

    /// Splits off the first records, at most `most` bytes of them but at least one record. Returns an
    /// empty batch when none is left.
    pub fn take(&mut self, most: usize) -> Batch {
        let mut rest = &self.0[..];
        let mut len = 0;
        while let Some((record, tail)) = split(rest) {
            let with = len + LEN + record.len();
            if with > most && len > 0 {
                break;
            }
            (rest, len) = (tail, with);
        }
        if rest.is_empty() || len == 0 {
            len = self.0.len();
        }
        Batch(self.0.split_to(len))
    }

    /// Appends a record to the bytes of a batch.
    pub fn append(bytes: &mut BytesMut, record: &[u8]) {
        bytes.put_u32_le(record.len() as u32);
        bytes.put_slice(record);
    }
}

/// Size in bytes of the length before each record.
const LEN: usize = size_of::<u32>();

/// Splits the bytes into the first record and the bytes after it.
#[inline]
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, tail) = bytes.split_first_chunk::<LEN>()?;
    tail.split_at_checked(u32::from_le_bytes(*len) as usize)
}

impl<'a> FromIterator<&'a [u8]> for Batch {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(records: I) -> Batch {
        let mut bytes = BytesMut::new();
        let records = records.into_iter();
        records.for_each(|record| Batch::append(&mut bytes, record));
        Batch(bytes.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_returns_the_records_it_was_made_from() {
        let records: [&[u8]; 4] = [b"one", b"", b"three", &[0; 300]];
        let batch: Batch = records.into_iter().collect();
        assert_eq!(batch.records().collect::<Vec<_>>(), records);
        assert_eq!(batch.len(), 308 + 4 * LEN);
        assert_eq!(Batch::default().records().count(), 0);
    }

    #[test]
    fn take_splits_a_batch_between_records() {
        let records: [&[u8]; 4] = [b"one", b"", b"three", &[0; 300]];
        let mut batch: Batch = records.into_iter().collect();
        let mut parts = vec![];
        while !batch.is_empty() {
            parts.push(batch.take(20));
        }
        let counts: Vec<_> = parts.iter().map(|it| it.records().count()).collect();
        assert_eq!(counts, [3, 1]);
        let again: Vec<_> = parts.iter().flat_map(Batch::records).collect();
        assert_eq!(again, records);
    }

    #[test]
    fn records_stop_at_a_length_beyond_the_end() {
        let whole: Batch = [&b"one"[..], b"two"].into_iter().collect();
        for len in 0..whole.len() {
            let cut = Batch::from_bytes(Bytes::copy_from_slice(&whole.bytes()[..len]));
            assert_eq!(cut.records().count(), len / 7);
        }
        let mut odd = Batch::from_bytes(Bytes::from_static(&[0xff; 7]));
        assert_eq!(odd.records().count(), 0);
        assert_eq!(odd.take(1).len(), 7);
        assert!(odd.is_empty());
    }
}
