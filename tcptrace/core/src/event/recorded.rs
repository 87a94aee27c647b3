//! Serde forms of event types in a recording.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Comm, Sk};

/// Written in hexadecimal, as the kernel prints pointers.
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
            .map_err(|_| de::Error::custom(format!("{text:?} is not an address")))
    }
}

/// Reads the text form of [`Comm`]. Invalid UTF-8 was written as U+FFFD. It is read as the byte
/// 0xFF, which is also invalid and is written as U+FFFD again. Therefore the text stays the same, and the
/// name does not get longer.
impl<'de> Deserialize<'de> for Comm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Comm, D::Error> {
        struct Text;

        impl de::Visitor<'_> for Text {
            type Value = Comm;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a thread's name, at most 15 bytes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Comm, E> {
                let mut bytes = [0; 16];
                let mut len = 0;
                for c in text.chars() {
                    let mut utf8 = [0; 4];
                    let name = match c {
                        char::REPLACEMENT_CHARACTER => &[0xff],
                        _ => c.encode_utf8(&mut utf8).as_bytes(),
                    };
                    let to = bytes[..15].get_mut(len..len + name.len());
                    to.ok_or_else(|| E::invalid_length(text.len(), &self))?
                        .copy_from_slice(name);
                    len += name.len();
                }
                Ok(Comm::new(bytes))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// A compact form of a thread. Its process nearly always has the same name as the thread.
#[derive(Serialize, Deserialize)]
pub(super) struct Task {
    pid: u32,
    tid: u32,
    #[serde(with = "comm")]
    comm: Comm,
    process: Process,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Process {
    Unknown,
    /// The process has the same name as the thread.
    Same,
    Called(#[serde(with = "comm")] Comm),
}

impl From<super::Task> for Task {
    fn from(task: super::Task) -> Task {
        Task {
            pid: task.pid,
            tid: task.tid,
            comm: task.comm,
            process: match task.process() {
                None => Process::Unknown,
                Some(process) if process == task.comm => Process::Same,
                Some(process) => Process::Called(process),
            },
        }
    }
}

impl From<Task> for super::Task {
    fn from(task: Task) -> super::Task {
        super::Task {
            pid: task.pid,
            tid: task.tid,
            comm: task.comm,
            process: match task.process {
                Process::Unknown => Comm::default(),
                Process::Same => task.comm,
                Process::Called(process) => process,
            },
            place: super::Place::default(),
        }
    }
}

/// The exact bytes of a thread's name: text if they are UTF-8, else an array of bytes.
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
