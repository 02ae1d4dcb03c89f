//! The agent's command line.

use std::process::ExitCode;

use clap::Parser as _;

mod cli;

fn main() -> ExitCode {
    let arguments = match cli::Cli::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers, not errors.
            let code = if error.use_stderr() { 2 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match arguments.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(cli::Failure::Usage(why)) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
        Err(cli::Failure::Run(error)) => {
            eprintln!("valtronics-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
