//! Facts about kernels in VMs: the prototypes of the hooked functions, compared with the hooks'
//! comments, and the verifier's work on each eBPF program.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use anyhow::{Result, bail, ensure};

use super::{Job, Kernel, Programs, build, machine, prototypes};

#[derive(clap::Args)]
pub struct Args {
    /// Kernel series to ask, or `all`
    #[arg(long, value_name = "SERIES", value_delimiter = ',', default_values = ["6.1", "6.12"])]
    pub kernels: Vec<String>,
}

/// The answers of one kernel.
#[derive(Default)]
struct Facts {
    series: String,
    /// Prototypes by function.
    prototypes: BTreeMap<String, String>,
    /// Number of instructions that the verifier processed, by program; `?` if the kernel does not
    /// report it.
    verified: BTreeMap<String, String>,
    /// Attach methods that failed, with the error.
    refused: Vec<(String, String)>,
}

/// Asks the kernels and prints the table. It is an error if a comment is wrong for one of them, or
/// a program does not load.
pub fn run(root: &Path, kernels: &[String]) -> Result<()> {
    let written = prototypes::read(root)?;
    let programs = build::kernel_facts(root)?;
    let mut answers = vec![];
    for kernel in Kernel::choose(root, kernels)? {
        answers.push(ask(root, &kernel, &programs, &written)?);
    }
    println!("{}", table(&answers));
    let mut differences = vec![];
    for facts in &answers {
        let series = &facts.series;
        differences.extend(prototypes::compare(&written, series, &facts.prototypes)?);
        for (methods, error) in &facts.refused {
            differences.push(format!("Linux {series} refuses {methods}: {error}"));
        }
    }
    for difference in &differences {
        println!("{difference}");
    }
    match differences.len() {
        0 => Ok(()),
        n => bail!("{n} differences between the kernels and the hooks"),
    }
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
        timeout: Duration::from_secs(120),
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
            let answers = match kind {
                "prototype" => &mut facts.prototypes,
                "program" => &mut facts.verified,
                "refused" => {
                    facts.refused.push((name.to_owned(), rest.to_owned()));
                    continue;
                }
                _ => continue,
            };
            answers.insert(name.to_owned(), rest.to_owned());
        }
        facts
    }
}

/// Formats a table with a column per kernel and a row per program.
fn table(answers: &[Facts]) -> String {
    let mut table = format!("{:<24}", "instructions verified");
    for facts in answers {
        table += &format!("{:>9}", facts.series);
    }
    let programs: BTreeSet<&String> = answers.iter().flat_map(|it| it.verified.keys()).collect();
    for program in programs {
        table += &format!("\n{program:<24}");
        for facts in answers {
            let count = facts.verified.get(program).map_or("-", String::as_str);
            table += &format!("{count:>9}");
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_two_kernels_make_a_table() {
        let old = Facts::read(
            "5.10",
            "program state_raw ?\nmissing f this kernel has no f\n",
        );
        let new = Facts::read("6.12", "prototype f int f(void)\nprogram state_btf 1209\n");
        assert_eq!(new.prototypes["f"], "int f(void)");
        assert!(old.prototypes.is_empty());
        assert_eq!(
            table(&[old, new]),
            "instructions verified        5.10     6.12\n\
             state_btf                       -     1209\n\
             state_raw                       ?        -"
        );
    }
}
