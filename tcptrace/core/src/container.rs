//! Containers, and the names that their runtimes give them.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A container with the names that are known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Recorded", into = "Recorded")]
pub struct Container {
    /// The id, 64 hexadecimal digits.
    pub id: Text,
    /// The name. In Kubernetes, it is the name in the pod's specification.
    pub name: Option<Text>,
    /// The image's name, as the runtime wrote it.
    pub image: Option<Text>,
    /// The name of the Kubernetes pod.
    pub pod: Option<Text>,
    /// The Kubernetes namespace of the pod.
    pub namespace: Option<Text>,
}

impl Container {
    /// Makes a container whose names are unknown.
    pub fn new(id: &str) -> Container {
        Container {
            id: Text::from(id),
            name: None,
            image: None,
            pod: None,
            namespace: None,
        }
    }
}

/// A container as recordings store it. A container without names is its id, as in recordings of
/// earlier versions.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Recorded {
    Id(Text),
    Named {
        id: Text,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<Text>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<Text>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pod: Option<Text>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<Text>,
    },
}

impl From<Recorded> for Container {
    fn from(recorded: Recorded) -> Container {
        match recorded {
            Recorded::Id(id) => Container::new(&id),
            Recorded::Named {
                id,
                name,
                image,
                pod,
                namespace,
            } => Container {
                id,
                name,
                image,
                pod,
                namespace,
            },
        }
    }
}

impl From<Container> for Recorded {
    fn from(container: Container) -> Recorded {
        if container == Container::new(&container.id) {
            return Recorded::Id(container.id);
        }
        Recorded::Named {
            id: container.id,
            name: container.name,
            image: container.image,
            pod: container.pod,
            namespace: container.namespace,
        }
    }
}

/// A string that many lines share. A clone copies a pointer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Arc<str>);

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text(text.into())
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Text, D::Error> {
        String::deserialize(from).map(|text| Text(text.into()))
    }
}

impl JsonSchema for Text {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        String::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_of_an_earlier_version_is_read_as_an_id_without_names() {
        let read: Container = serde_json::from_str(r#""4f66""#).unwrap();
        assert_eq!(read, Container::new("4f66"));
        assert_eq!(serde_json::to_string(&read).unwrap(), r#""4f66""#);
    }

    #[test]
    fn recorded_names_are_read_back() {
        let container = Container {
            name: Some(Text::from("app")),
            pod: Some(Text::from("web-0")),
            ..Container::new("4f66")
        };
        let json = serde_json::to_string(&container).unwrap();
        assert_eq!(json, r#"{"id":"4f66","name":"app","pod":"web-0"}"#);
        assert_eq!(serde_json::from_str::<Container>(&json).unwrap(), container);
    }
}
