//! `clusterctl node config migrate`: configurations of old, written as today.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueHint::FilePath;

use crate::cli::Context;
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::host::machine::Machine;
use crate::kubernetes::configuration::migrate;
use crate::ui::Output;
use crate::yaml;

/// Arguments of `node config migrate`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Reads kubeadm.k8s.io/v1alpha2 (the MasterConfiguration of Kubernetes 1.11), v1alpha3, v1beta1, v1beta2 \
                        and v1beta3, and writes v1beta4. What has no place any more is named with its line."
)]
pub struct Arguments {
    /// The configuration to read
    #[arg(long, value_name = "FILE", value_hint = FilePath)]
    old_config: PathBuf,
    /// Where to write it; standard output when absent
    #[arg(long, value_name = "FILE", value_hint = FilePath)]
    new_config: Option<PathBuf>,
    /// Taken for kubeadm's sake: no version that is written is experimental
    #[arg(long, hide = true)]
    allow_experimental_api: bool,
}

/// Rewrites a configuration.
pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    let path = &arguments.old_config;
    let content = Machine
        .read(path)?
        .ok_or_else(|| Failure::new(Kind::Configuration, format!("there is no file {}", path.display())))?;
    let text = String::from_utf8(content)
        .map_err(|_| Failure::new(Kind::Configuration, format!("{} is not text", path.display())))?;
    let migrated = migrate(&text).map_err(|findings| {
        let sentence = format!("{} cannot be migrated", path.display());
        Failure::new(Kind::Configuration, sentence).detailed(yaml::render(&findings, &text, path))
    })?;
    if context.screen.settings().output == Output::Json {
        migrated.warnings.iter().for_each(|warning| context.screen.warn(&warning.one_line(path)));
    } else if !migrated.warnings.is_empty() {
        context.screen.block(&yaml::render(&migrated.warnings, &text, path));
    }
    if !migrated.changed {
        context.screen.say(&format!("{} is written in the newest version already", path.display()));
    }
    match &arguments.new_config {
        // It may hold tokens, which are nobody else's business.
        Some(path) => Machine.write(path, migrated.text.expose().as_bytes(), 0o600)?,
        None => context.screen.print(migrated.text.expose())?,
    }
    Ok(ExitCode::SUCCESS)
}
