//! `clusterctl completion`: scripts for shells.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{CommandLine, Context};
use crate::failure::Result;

/// Arguments of `completion`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "For bash: clusterctl completion bash > ~/.local/share/bash-completion/completions/clusterctl")]
pub struct Arguments {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// Prints the script.
pub fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut CommandLine::command(), "clusterctl", &mut script);
    context.screen.print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
