//! Records in the order in which they were taken out of the kernel's buffers.

use bytes::{BufMut, Bytes, BytesMut};

/// Records, each behind its length (`u32`, little-endian).
///
/// A record is copied once, out of the memory that is shared with the kernel. From there to the decoder,
/// or to a recording, the batch travels by reference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch(Bytes);

impl Batch {
    /// From the bytes of another batch. Bytes that are no whole record at the end are left out by
    /// [`records`](Batch::records).
    pub fn from_bytes(bytes: Bytes) -> Batch {
        Batch(bytes)
    }

    /// The records and their lengths.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes that it takes, lengths included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The records, in the order in which they were appended.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (record, tail) = split(rest)?;
            rest = tail;
            Some(record)
        })
    }

    /// Takes off the first records, as many as take no more than `most` bytes, but at least one. The value
    /// is empty when nothing is left.
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

/// Bytes of the length before each record.
const LEN: usize = size_of::<u32>();

/// The first record, and what follows it.
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
    fn a_batch_gives_back_its_records() {
        let records: [&[u8]; 4] = [b"one", b"", b"three", &[0; 300]];
        let batch: Batch = records.into_iter().collect();
        assert_eq!(batch.records().collect::<Vec<_>>(), records);
        assert_eq!(batch.len(), 308 + 4 * LEN);
        assert_eq!(Batch::default().records().count(), 0);
    }

    #[test]
    fn a_batch_is_divided_between_records() {
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
    fn a_length_that_is_too_large_ends_a_batch() {
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
