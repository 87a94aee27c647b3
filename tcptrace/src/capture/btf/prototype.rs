//! Formatting of a function's prototype as C source.

use super::{Btf, BtfError, kind, vlen};

impl Btf {
    /// Returns a prototype such as `void security_sock_graft(struct sock *sk, struct socket
    /// *parent)`.
    pub fn prototype(&self, function: &str) -> Result<String, BtfError> {
        let id = self
            .find(function, kind::FUNC)
            .ok_or_else(|| BtfError::NoFunction(function.into()))?;
        let prototype = self.type_at(self.word(self.type_at(id)? + 8)?)?;
        let result = self.declare(self.word(prototype + 8)?, function)?;
        let count = vlen(self.word(prototype + 4)?);
        let parameters: Vec<String> = (0..count)
            .map(|index| {
                let parameter = prototype + 12 + 8 * index;
                let (name, type_id) = (self.word(parameter)?, self.word(parameter + 4)?);
                self.declare(type_id, &String::from_utf8_lossy(self.name(name)))
            })
            .collect::<Result<_, _>>()?;
        Ok(format!("{result}({})", parameters.join(", ")))
    }

    fn declare(&self, type_id: u32, name: &str) -> Result<String, BtfError> {
        // Real chains have only a few types. The limit stops a damaged chain that loops.
        let mut declaration = self.type_name(type_id, 64)?;
        if !declaration.ends_with('*') {
            declaration.push(' ');
        }
        Ok(declaration + name)
    }

    /// Arrays and function pointers are abbreviated: no hooked function has them.
    fn type_name(&self, id: u32, depth: u32) -> Result<String, BtfError> {
        if id == 0 {
            return Ok("void".into());
        }
        let depth = depth.checked_sub(1).ok_or(BtfError::Malformed)?;
        let at = self.type_at(id)?;
        let name = String::from_utf8_lossy(self.name(self.word(at)?));
        let inner = || self.type_name(self.word(at + 8)?, depth);
        // A qualifier precedes its type, but follows a pointer.
        let qualified = |word: &str| -> Result<String, BtfError> {
            let inner = inner()?;
            Ok(match inner.ends_with('*') {
                true => format!("{inner} {word}"),
                false => format!("{word} {inner}"),
            })
        };
        // The kind flag of a forward declaration marks a union.
        let is_union = self.word(at + 4)? >> 31 != 0;
        Ok(match self.kind(id)? {
            kind::PTR => {
                let inner = inner()?;
                let space = if inner.ends_with('*') { "" } else { " " };
                format!("{inner}{space}*")
            }
            kind::CONST => qualified("const")?,
            kind::VOLATILE => qualified("volatile")?,
            kind::RESTRICT | kind::TYPE_TAG => inner()?,
            kind::STRUCT => format!("struct {name}"),
            kind::UNION => format!("union {name}"),
            kind::FWD if is_union => format!("union {name}"),
            kind::FWD => format!("struct {name}"),
            kind::ENUM | kind::ENUM64 => format!("enum {name}"),
            kind::INT | kind::TYPEDEF | kind::FLOAT => name.into_owned(),
            kind::ARRAY => "(array)".into(),
            kind::FUNC_PROTO => "(function)".into(),
            other => return Err(BtfError::UnknownKind(other)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::btf::MAGIC;

    fn btf(types: &[u32], strings: &str) -> Btf {
        let mut blob = MAGIC.to_ne_bytes().to_vec();
        blob.extend([1, 0]);
        let types_len = 4 * types.len();
        for word in [24, 0, types_len, types_len, strings.len()] {
            blob.extend((word as u32).to_ne_bytes());
        }
        blob.extend(types.iter().flat_map(|word| word.to_ne_bytes()));
        blob.extend(strings.bytes());
        Btf::parse(blob).unwrap()
    }

    #[test]
    fn a_prototype_reads_as_in_c() {
        // Names:       1    5     10 13      18
        let strings = "\0int\0sock\0sk\0bool\0accept\0";
        let info = |kind: u32, vlen: u32| kind << 24 | vlen;
        #[rustfmt::skip]
        let types = [
            1, info(kind::INT, 0), 4, 0x0100_0020,    // 1: int
            5, info(kind::STRUCT, 0), 0,              // 2: struct sock
            0, info(kind::CONST, 0), 2,               // 3: const struct sock
            0, info(kind::PTR, 0), 3,                 // 4: const struct sock *
            0, info(kind::PTR, 0), 4,                 // 5: const struct sock **
            13, info(kind::TYPEDEF, 0), 1,            // 6: bool
            0, info(kind::CONST, 0), 4,               // 7: const struct sock * const
            0, info(kind::FUNC_PROTO, 4), 4,          // 8
                10, 5,  10, 6,  10, 7,  10, 1,
            18, info(kind::FUNC, 0), 8,               // 9
        ];
        let btf = btf(&types, strings);
        assert_eq!(
            btf.prototype("accept").unwrap(),
            "const struct sock *accept(const struct sock **sk, bool sk, \
             const struct sock * const sk, int sk)"
        );
        assert!(btf.has_struct("sock") && !btf.has_struct("bool"));
        assert_eq!(
            btf.prototype("nosuch").unwrap_err().to_string(),
            "this kernel has no function nosuch"
        );
    }

    #[test]
    fn a_type_that_refers_to_itself_is_malformed() {
        #[rustfmt::skip]
        let types = [
            0, kind::PTR << 24, 1,
            0, kind::FUNC_PROTO << 24, 1,
            1, kind::FUNC << 24, 2,
        ];
        assert!(btf(&types, "\0loop\0").prototype("loop").is_err());
    }
}
