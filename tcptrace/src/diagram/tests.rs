//! Diagrams of recorded traces.

use std::path::Path;

use super::*;
use crate::replay::Recorded;

fn diagrams(name: &str) -> Vec<Diagram> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let recorded = Recorded::open(&folder.join(name).with_extension("events")).unwrap();
    let mut collector = Collector::new(Keep::UntilGone);
    let mut groups: Vec<Group> = vec![];
    for line in recorded {
        groups.extend(collector.take(&line.unwrap()));
    }
    groups.extend(collector.finish());
    groups
        .iter()
        .map(|group| Diagram::of(group).unwrap())
        .collect()
}

#[test]
fn look() {
    let name = std::env::var("NAME").unwrap();
    for d in diagrams(&name) {
        println!("{:?}", d.conns().collect::<Vec<_>>());
        println!(
            "{}",
            text::draw(
                &d,
                text::Look {
                    color: false,
                    ascii: false
                }
            )
        );
    }
}
