//! How a recording writes what JSON has no form for.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Comm, Sk};

/// In hexadecimal, as the kernel prints pointers.
impl Serialize for Sk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Sk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Sk, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16)
            .map(Sk)
            .map_err(|_| de::Error::custom(format!("{text:?} is no address")))
    }
}

/// Of a name that was asked for.
impl<'de> Deserialize<'de> for Comm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Comm, D::Error> {
        comm::deserialize(deserializer)
    }
}

/// A thread's name byte for byte: text where it is UTF-8, else its bytes.
pub(super) mod comm {
    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Name {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub fn serialize<S: Serializer>(comm: &Comm, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_bytes(comm.bytes());
        }
        let bytes = comm.bytes().to_vec();
        match String::from_utf8(bytes) {
            Ok(text) => Name::Text(text),
            Err(error) => Name::Bytes(error.into_bytes()),
        }
        .serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Comm, D::Error> {
        let name = if deserializer.is_human_readable() {
            match Name::deserialize(deserializer)? {
                Name::Text(text) => text.into_bytes(),
                Name::Bytes(bytes) => bytes,
            }
        } else {
            <&[u8]>::deserialize(deserializer)?.to_vec()
        };
        let mut bytes = [0; 16];
        if name.len() >= bytes.len() {
            return Err(de::Error::custom("a thread's name has at most 15 bytes"));
        }
        bytes[..name.len()].copy_from_slice(&name);
        Ok(Comm::new(bytes))
    }
}
