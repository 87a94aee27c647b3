//! How the page carries its data: JSON, compressed, in base64.

use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde::Serialize;

use crate::printable::Shown;

/// JSON, deflated, in base64, which has no character that HTML knows.
pub fn deflated(data: &impl Serialize) -> String {
    let json = json(data);
    // In one piece: every write costs the encoder a clean buffer.
    let mut to = ZlibEncoder::new(Vec::new(), Compression::default());
    let deflated = to.write_all(&json).and_then(|()| to.finish());
    BASE64_STANDARD.encode(deflated.expect("a vector takes everything"))
}

/// JSON with texts that can be shown.
pub fn json(data: &impl Serialize) -> Vec<u8> {
    let mut json = vec![];
    let written = data.serialize(&mut serde_json::Serializer::with_formatter(
        &mut json, Shown,
    ));
    written.expect("no map has keys that are no texts");
    json
}
