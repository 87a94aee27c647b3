//! Encoding of the page's data: JSON, compressed, in base64.

use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde::Serialize;

use crate::printable::Shown;

/// Returns the data as deflated JSON in base64, which has no character that is special in HTML.
pub fn deflated(data: &impl Serialize) -> String {
    let json = json(data);
    // One write for everything, because each `write` call clears the encoder's buffer.
    let mut to = ZlibEncoder::new(Vec::new(), Compression::default());
    let deflated = to.write_all(&json).and_then(|()| to.finish());
    BASE64_STANDARD.encode(deflated.expect("writing to a vector cannot fail"))
}

/// Returns JSON with unprintable characters escaped.
pub fn json(data: &impl Serialize) -> Vec<u8> {
    let mut json = vec![];
    let written = data.serialize(&mut serde_json::Serializer::with_formatter(
        &mut json, Shown,
    ));
    written.expect("all map keys are strings");
    json
}
