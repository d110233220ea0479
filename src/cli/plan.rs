//! `clusterctl plan`: what `up` would do, and nothing done.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::up::{Login, bundle};
use super::{Context, login};
use crate::change::Preview;
use crate::cluster;
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::ui::{self, Output};

/// The exit code when there is something to do (README, "Exit codes").
const SOMETHING_TO_DO: u8 = 20;

/// Arguments of `plan`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// The bundle with the Kubernetes version to install; instead of the one the inventory names
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub bundle: Option<PathBuf>,
    /// As for `up`: say what is to do without the hosts that cannot be reached or are not fit, as long as they are no more
    /// than this; without it, any number of workers but no control plane
    #[arg(long, value_name = "N")]
    pub max_failures: Option<usize>,
    /// Count nodes that the inventory does not name as to be taken out, as `up --prune` does
    #[arg(long)]
    pub prune: bool,
    /// How to log in to the hosts.
    #[command(flatten)]
    pub login: Login,
}

/// Prints every change on every host; exits with 0 when there is none, and as `up` would where it leaves hosts out.
pub async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    context.screen.one_document();
    let inventory = login::inventory(context, &arguments.login).await?;
    let bundle = bundle(arguments.bundle.as_deref(), &inventory)?;
    let human = context.screen.settings().output == Output::Human;
    let (events, happened) = Events::channel();
    // For programs there is one document on standard output and nothing else.
    let display = human.then(|| context.screen.start(happened));
    let tolerance = cluster::Tolerance { most: arguments.max_failures };
    let wish = cluster::Wish { tolerance, prune: arguments.prune };
    let settings = login::settings(context, &arguments.login, &events);
    let result = cluster::preview(&inventory, bundle.as_ref(), wish, &settings).await;
    drop(settings);
    drop(events);
    if let Some(display) = display {
        display.finish().await;
    }
    match result {
        Ok(preview) => {
            let verbose = context.screen.settings().verbose;
            let text = if human { ui::plan(&preview, context.screen.look_of_data(), verbose) } else { json(&preview) };
            context.screen.print(&text)?;
            if human {
                context.screen.failures(&preview.missing);
            }
            Ok(ExitCode::from(code(&preview)))
        }
        Err(failures) => {
            context.screen.failures(&failures);
            Ok(ExitCode::from(worst(&failures).unwrap_or_else(|| Kind::Internal.exit_code())))
        }
    }
}

/// The exit code of the worst of these failures.
fn worst(failures: &[Failure]) -> Option<u8> {
    failures.iter().map(|failure| failure.kind).max().map(Kind::exit_code)
}

/// The exit code of a preview: with hosts left out that of `up`, which does not end well then.
fn code(preview: &Preview) -> u8 {
    let something = if preview.changes() == 0 { 0 } else { SOMETHING_TO_DO };
    worst(&preview.missing).unwrap_or(something)
}

/// One document on one line.
fn json(preview: &Preview) -> String {
    let document = json!({
        "cluster": preview.cluster,
        "changes": preview.changes(),
        "disrupts": preview.disrupts(),
        "hosts": preview.hosts,
        "whole": preview.whole,
        "left_out": preview.missing,
        "warnings": preview.warnings,
    });
    format!("{document}\n")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{code, json};
    use crate::change::{Action, Change, HostPreview, Kind, Preview, Section};
    use crate::failure::{self, Failure};

    #[test]
    fn programs_get_one_document() {
        let change = Change::new(Kind::File, Action::Create, "/etc/a").disrupting(true);
        let steps = vec![Section::new("prepare", "prepare host").with(vec![change], Vec::new())];
        let hosts = vec![HostPreview { name: "cp1".into(), steps, ..HostPreview::default() }];
        let mut preview = Preview { cluster: "demo".into(), hosts, ..Preview::default() };
        assert_eq!((code(&Preview::default()), code(&preview)), (0, 20));
        preview.missing = vec![Failure::new(failure::Kind::Connection, "it does not answer").on("w1")];
        assert_eq!(code(&preview), 4);
        let text = json(&preview);
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&document["changes"], &document["disrupts"]), (&1.into(), &true.into()));
        let change = &document["hosts"][0]["steps"][0]["changes"][0];
        assert_eq!((&change["kind"], &change["action"]), (&"file".into(), &"create".into()));
        assert_eq!(document["left_out"][0]["host"], "w1");
    }
}
