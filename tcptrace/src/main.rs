use std::process::ExitCode;

use tcptrace::cli::{Cli, Task};
use tcptrace::{demo, doctor, exit, explain, replay, report, run, top};

fn main() -> ExitCode {
    let cli = match Cli::from_args() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            runtime.block_on(async {
                match cli.task {
                    None => run::run(&cli.trace).await,
                    Some(Task::Demo(options)) => demo::run(&options).await,
                    Some(Task::Doctor(options)) => doctor::run(&options).await,
                    Some(Task::Explain(options)) => explain::run(&options),
                    Some(Task::Replay(options)) => replay::run(&options),
                    Some(Task::Report(options)) => report::run(&options),
                    Some(Task::Top(options)) => top::run(&options).await,
                }
            })
        });
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("tcptrace: {error:#}");
            exit::code_of(&error)
        }
    }
}
