//! `clusterctl node reset`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueHint::FilePath;
use serde_json::json;

use super::flags::{self, Form};
use super::{here, words};
use crate::cancel::Cancel;
use crate::cli::Context;
use crate::failure::{Failure, Kind, Result};
use crate::message::ResetOrder;
use crate::node::{self, phases};

/// Arguments of `node reset`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    override_usage = "clusterctl node reset [OPTIONS]\n       clusterctl node reset phase NAME [OPTIONS]",
    after_help = phases::RESET.help()
)]
pub struct Arguments {
    /// `phase NAME`: only this phase
    #[arg(value_name = "PHASE", hide = true, num_args = 0..=3)]
    words: Vec<String>,
    /// kubeadm documents: a ResetConfiguration
    #[arg(long, value_name = "FILE", value_hint = FilePath)]
    config: Option<PathBuf>,
    /// Do not ask, and go on although etcd loses its quorum
    #[arg(short, long, conflicts_with = "config")]
    force: bool,
    /// How to print the result
    #[arg(short = 'o', value_name = "FORM", value_enum)]
    form: Option<Form>,
}

/// Takes the node apart.
pub(super) async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    words::read(&arguments.words, &phases::RESET, false)?;
    let reset = match &arguments.config {
        Some(path) => flags::documents(path, context)?.reset.unwrap_or_default(),
        None => Default::default(),
    };
    here::must_be_root()?;
    let force = arguments.force || reset.force;
    if !force {
        confirm(context).await?;
    }
    let changes = here::work(context, "reset", async |host, _, events| {
        let order = ResetOrder { force, ..ResetOrder::default() };
        node::reset(host, &order, events).await
    });
    let changes = changes.await?;
    let text = || "This host is no node any more.\n".to_owned();
    context.screen.print(&Form::of(arguments.form, context).write(&json!({ "changes": changes }), text))?;
    Ok(ExitCode::SUCCESS)
}

async fn confirm(context: &Context) -> Result<()> {
    let question =
        "Changes made to this host by `node init` or `node join` will be reverted. Are you sure you want to proceed?";
    match context.prompts.confirm(question).await {
        Some(true) => Ok(()),
        Some(false) if context.cancel.requested() => Err(Cancel::failure()),
        Some(false) => Err(Failure::new(Kind::Interrupted, "the reset was not confirmed; nothing was altered")),
        None => Err(Failure::new(Kind::Usage, "there is no terminal to ask on whether to reset this host")
            .advise("give --force to reset it without a question")),
    }
}
