//! `clusterctl plan`: what `up` would do, and nothing done.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::up::{Login, bundle};
use super::{Context, login};
use crate::change::Preview;
use crate::cluster;
use crate::event::Events;
use crate::failure::{Kind, Result};
use crate::ui::{self, Output};

/// The exit code when there is something to do (README, "Exit codes").
const SOMETHING_TO_DO: u8 = 20;

/// Arguments of `plan`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// The bundle with the Kubernetes version to install; instead of the one the inventory names
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub bundle: Option<PathBuf>,
    /// Count nodes that the inventory does not name as to be taken out, as `up --prune` does
    #[arg(long)]
    pub prune: bool,
    /// How to log in to the hosts.
    #[command(flatten)]
    pub login: Login,
}

/// Prints every change on every host; exits with 0 when there is none.
pub async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    let inventory = login::inventory(context, &arguments.login).await?;
    let bundle = bundle(arguments.bundle.as_deref(), &inventory)?;
    let human = context.screen.settings().output == Output::Human;
    let (events, happened) = Events::channel();
    // For programs there is one document on standard output and nothing else.
    let display = human.then(|| context.screen.start(happened));
    let result = cluster::preview(
        &inventory,
        bundle.as_ref(),
        arguments.prune,
        &login::settings(context, &arguments.login, &events),
    )
    .await;
    drop(events);
    if let Some(display) = display {
        display.finish().await;
    }
    match result {
        Ok(preview) => {
            let verbose = context.screen.settings().verbose;
            let text = if human { ui::plan(&preview, context.screen.look_of_data(), verbose) } else { json(&preview) };
            context.screen.print(&text)?;
            Ok(if preview.changes() == 0 { ExitCode::SUCCESS } else { ExitCode::from(SOMETHING_TO_DO) })
        }
        Err(failures) => {
            context.screen.failures(&failures);
            let worst = failures.iter().map(|failure| failure.kind).max();
            Ok(ExitCode::from(worst.map_or(Kind::Internal.exit_code(), Kind::exit_code)))
        }
    }
}

/// One document on one line.
fn json(preview: &Preview) -> String {
    let document = json!({
        "cluster": preview.cluster,
        "changes": preview.changes(),
        "disrupts": preview.disrupts(),
        "hosts": preview.hosts,
        "whole": preview.whole,
        "warnings": preview.warnings,
    });
    format!("{document}\n")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::json;
    use crate::change::{Action, Change, HostPreview, Kind, Preview, Section};

    #[test]
    fn programs_get_one_document() {
        let change = Change::new(Kind::File, Action::Create, "/etc/a").disrupting(true);
        let steps = vec![Section::new("prepare", "prepare host").with(vec![change], Vec::new())];
        let hosts = vec![HostPreview { name: "cp1".into(), steps, ..HostPreview::default() }];
        let text = json(&Preview { cluster: "demo".into(), hosts, ..Preview::default() });
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&document["changes"], &document["disrupts"]), (&1.into(), &true.into()));
        let change = &document["hosts"][0]["steps"][0]["changes"][0];
        assert_eq!((&change["kind"], &change["action"]), (&"file".into(), &"create".into()));
    }
}
