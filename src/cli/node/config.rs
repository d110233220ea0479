//! `clusterctl node config`: kubeadm's configuration documents.

use std::process::ExitCode;

use clap::Subcommand;

use super::migrate;
use crate::cli::Context;
use crate::failure::Result;

/// Arguments of `node config`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// What to do with a configuration.
    #[command(subcommand)]
    verb: ConfigVerb,
}

/// What can be done with configurations.
#[derive(Debug, Clone, Subcommand)]
enum ConfigVerb {
    /// Write a configuration of an older version as the newest has it
    Migrate(migrate::Arguments),
}

/// Does what was asked with a configuration.
pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    match &arguments.verb {
        ConfigVerb::Migrate(arguments) => migrate::run(arguments, context),
    }
}
