//! Facts about kernels in VMs: the prototypes of the hooked functions, compared with the hooks'
//! comments; how each hook attaches, and the verifier's work on each eBPF program, compared with the
//! committed table.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Result, bail, ensure};

use super::{
    Arch, Job, Kernel, Programs, build,
    known::{self, Known, Table},
    machine, prototypes,
};

#[derive(clap::Args)]
pub struct Args {
    /// Processor: x86_64 or aarch64
    #[arg(long, value_enum, hide_possible_values = true, default_value_t = Arch::X86_64)]
    pub arch: Arch,
    /// Install the Debian packages that this needs
    #[arg(long)]
    pub install: bool,
    /// Write the answers into the committed table, instead of comparing them with it
    #[arg(long)]
    pub update: bool,
    /// Kernel series to ask, or `all`
    #[arg(long, value_name = "SERIES", value_delimiter = ',', default_values = ["6.1", "6.12"])]
    pub kernels: Vec<String>,
}

/// The answers of one kernel.
#[derive(Default)]
struct Facts {
    /// Such as `6.12`.
    series: String,
    /// Prototypes by function.
    prototypes: BTreeMap<String, String>,
    /// Attach methods that failed, with the error.
    refused: Vec<(String, String)>,
    known: Known,
}

/// Asks the kernels and prints the table. It is an error if a comment is wrong for one of them, if a
/// program does not load, or if the committed table says something else.
pub fn run(root: &Path, args: &Args) -> Result<()> {
    let written = prototypes::read(root)?;
    let programs = build::kernel_facts(root, args.arch)?;
    let (mut found, mut differences) = (Table::default(), vec![]);
    for kernel in Kernel::choose(root, args.arch, &args.kernels)? {
        let facts = ask(root, &kernel, &programs, &written)?;
        let (name, series) = (kernel.name(), &facts.series);
        differences.extend(prototypes::compare(&written, series, &facts.prototypes)?);
        for (methods, error) in &facts.refused {
            if can_attach(&kernel, methods) {
                differences.push(format!("Linux {name} refuses {methods}: {error}"));
            }
        }
        found.insert(name, facts.known);
    }
    println!("{}", known::page(&found));
    let mut committed = known::read(root)?;
    if args.update {
        committed.extend(found);
        known::write(root, &committed)?;
    } else {
        differences.extend(known::compare(&committed, &found));
    }
    for difference in &differences {
        println!("{difference}");
    }
    match differences.len() {
        0 => Ok(()),
        n => bail!("{n} differences between the kernels and the hooks"),
    }
}

/// Returns whether the kernel has an attach method. On arm64 fentry needs Linux 6.4, which can call
/// programs directly from functions (CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS).
pub fn can_attach(kernel: &Kernel, method: &str) -> bool {
    let is_old = matches!(kernel.series.as_str(), "5.10" | "6.1");
    !method.starts_with("fentry") || kernel.arch != Arch::Aarch64 || !is_old
}

fn ask(
    root: &Path,
    kernel: &Kernel,
    programs: &Programs,
    written: &[prototypes::Prototype],
) -> Result<Facts> {
    let functions = prototypes::functions(written);
    let job = Job {
        words: std::iter::once("/bin/kernel".into())
            .chain(functions.iter().map(Into::into))
            .collect(),
        environment: vec![],
        timeout: Duration::from_secs(240),
    };
    let mut output = String::new();
    let code = machine::run(root, kernel, programs, &job, |line| {
        output += line;
        output.push('\n');
    })?;
    ensure!(
        code == 0,
        "Linux {} could not be asked:\n{output}",
        kernel.series
    );
    Ok(Facts::read(&kernel.series, &output))
}

impl Facts {
    /// Parses the output of tcptrace/examples/kernel.rs. The kernel's own lines may be in between.
    fn read(series: &str, output: &str) -> Facts {
        let mut facts = Facts {
            series: series.to_owned(),
            ..Facts::default()
        };
        for line in output.lines() {
            let mut words = line.splitn(3, ' ');
            let (Some(kind), Some(name), Some(rest)) = (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let (name, rest) = (name.to_owned(), rest.to_owned());
            match kind {
                "prototype" => {
                    facts.prototypes.insert(name, rest);
                }
                "refused" => facts.refused.push((name, rest)),
                "hook" => facts.known.add_method(name, rest),
                "lacks" => {
                    facts.known.lacks.insert(name);
                }
                // The kernel reports the count since Linux 5.16.
                "program" => {
                    if let Ok(count) = rest.parse() {
                        facts.known.verified.insert(name, count);
                    }
                }
                _ => {}
            }
        }
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_from_the_lines_of_the_helper() {
        let facts = Facts::read(
            "6.12",
            "prototype f int f(void)\n[ 1.2] a line of the kernel\nhook h fentry\nhook h kprobe\n\
             hook h fentry\nhook g -\nlacks a.b no member b\nprogram p 1209\nprogram q ?\n\
             refused fentry+tp_btf no such\nmissing f this kernel has no f\n",
        );
        assert_eq!(facts.prototypes["f"], "int f(void)");
        assert_eq!(facts.known.methods["h"], "fentry, kprobe");
        assert_eq!(facts.known.methods["g"], "-");
        assert_eq!(facts.known.lacks.len(), 1);
        assert_eq!(facts.known.verified.get("p"), Some(&1209));
        assert_eq!(facts.known.verified.get("q"), None);
        assert_eq!(facts.refused, [("fentry+tp_btf".into(), "no such".into())]);
    }
}
