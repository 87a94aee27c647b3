//! Files of this machine whose contents others choose: of the kernel, of runtimes, of containers.

use tcptrace::fuzzing;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Upper bound on a name, see `NAME_BYTES` in `containers.rs`.
const NAME_BYTES: usize = 512;

/// The first byte selects the kind of file, the rest is its contents.
pub fn run(data: &[u8]) {
    let Some((&form, rest)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(rest);
    let addresses = [
        0,
        0x10,
        0xfff,
        0x1000,
        0x10ff,
        u64::from(form) << 8,
        u64::MAX,
    ];
    match form % 8 {
        0 => {
            let middle = rest.len() / 2;
            let found = fuzzing::perf_map([&rest[..middle], rest], &addresses);
            assert!(found.iter().all(|it| !it.is_empty()));
        }
        1 => {
            for address in addresses {
                let found = fuzzing::kernel_symbol(rest, address);
                assert_ne!(found.as_deref(), Some(""));
            }
        }
        2 => {
            for address in addresses {
                let module = fuzzing::module(&text, address);
                assert!(module.is_none_or(|it| !it.is_empty() && !it.contains('/')));
            }
        }
        3 => {
            let _ = fuzzing::status(&text);
        }
        4 => {
            let _ = fuzzing::queue_counters(&text);
        }
        5 => {
            let _ = fuzzing::field_offset(&text, "skaddr");
        }
        _ => {
            let mut parts = rest.splitn(3, |&byte| byte == b'\n');
            let mut next = || parts.next().unwrap_or_default();
            let (bundle, docker, list) = (next(), next(), next());
            let container = fuzzing::container(ID, bundle, docker, list);
            let names = [
                container.name,
                container.image,
                container.pod,
                container.namespace,
            ];
            let mut names = names.into_iter().flatten();
            assert!(names.all(|it| (1..=NAME_BYTES).contains(&it.len())));
        }
    }
}
