//! Names of the values of an enum in BTF.

use std::collections::BTreeMap;

use super::{Btf, kind, vlen};

impl Btf {
    /// Returns the names of an enum's values, without the enum's own name as prefix. Empty if the
    /// kernel has no such enum.
    pub fn enumerators(&self, name: &str) -> BTreeMap<u32, String> {
        let prefix = format!("{}_", name.to_uppercase());
        let Some(at) = self
            .find(name, kind::ENUM)
            .and_then(|id| self.type_at(id).ok())
        else {
            return BTreeMap::new();
        };
        let count = self.word(at + 4).map_or(0, vlen);
        (0..count)
            .filter_map(|index| {
                let entry = at + 12 + 8 * index;
                let (name, value) = (self.word(entry).ok()?, self.word(entry + 4).ok()?);
                let name = String::from_utf8_lossy(self.name(name));
                Some((
                    value,
                    name.strip_prefix(&prefix).unwrap_or(&name).to_owned(),
                ))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::MAGIC;
    use super::*;

    #[test]
    fn enumerators_are_named_without_the_prefix_of_the_enum() {
        let strings = b"\0sk_rst_reason\0SK_RST_REASON_NO_SOCKET\0OTHER\0";
        #[rustfmt::skip]
        let types: [u32; 7] = [
            1, kind::ENUM << 24 | 2, 4,
                15, 1,
                39, 7,
        ];
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut blob = MAGIC.to_ne_bytes().to_vec();
        blob.extend([1, 0]);
        for word in [24, 0, types.len(), types.len(), strings.len()] {
            blob.extend((word as u32).to_ne_bytes());
        }
        blob.extend(types);
        blob.extend(strings);
        let btf = Btf::parse(blob).unwrap();
        let expected = [(1, "NO_SOCKET".to_owned()), (7, "OTHER".to_owned())];
        assert_eq!(btf.enumerators("sk_rst_reason"), expected.into());
        assert!(btf.enumerators("nosuch").is_empty());
    }
}
