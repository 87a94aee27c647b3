//! Kernel BTF of any bytes: every query ends.

use tcptrace::capture::btf::Btf;

const HEADER: [u8; 8] = [0x9f, 0xeb, 1, 0, 24, 0, 0, 0];

/// Upper bound on the names that are looked up.
const NAMES: usize = 6;

/// The first byte selects whether the rest is the file, or types and strings behind a right header.
/// The names to look up are those of the file itself.
pub fn run(data: &[u8]) {
    let Some((&form, rest)) = data.split_first() else {
        return;
    };
    let blob = match form {
        255 => rest.to_vec(),
        _ => {
            let types = rest.len().min(usize::from(form) * 4);
            let words = [0, types, types, rest.len() - types];
            let words = words.map(|word| (word as u32).to_le_bytes());
            [&HEADER, words.as_flattened(), rest].concat()
        }
    };
    let names = names(rest);
    let Ok(btf) = Btf::parse(blob) else { return };
    for name in &names {
        let _ = btf.parameters(name);
        let _ = btf.tracepoint_arguments(name);
        let _ = btf.prototype(name);
        let _ = btf.enumerators(name);
        if !btf.has_struct(name) {
            assert!(btf.offset(name).is_err());
            continue;
        }
        for member in &names {
            let path = format!("{name}.{member}");
            if let (Ok(bytes), Ok(bits)) = (btf.offset(&path), btf.bit(&path)) {
                assert_eq!(bytes, bits / 8);
            }
            for inner in names.iter().take(2) {
                let _ = btf.offset(&format!("{path}.{inner}"));
            }
        }
    }
    let smaller = btf.names();
    assert!(
        Btf::parse(smaller).is_ok(),
        "the names alone are BTF as well"
    );
}

/// Returns the last strings of the file.
fn names(bytes: &[u8]) -> Vec<String> {
    let parts = bytes.rsplit(|&byte| byte == 0).filter(|it| !it.is_empty());
    // A dot separates the parts of a path.
    let names = parts.filter_map(|it| str::from_utf8(it).ok());
    let names = names.filter(|it| !it.contains('.'));
    names.take(NAMES).map(str::to_owned).collect()
}
