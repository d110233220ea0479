//! `clusterctl version`.

use std::process::ExitCode;

use serde_json::json;

use super::Context;
use crate::failure::Result;
use crate::inventory;
use crate::ui::Output;

/// Prints the version.
pub fn run(context: &Context) -> Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    let (system, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    let minors = inventory::SUPPORTED_MINORS;
    let (first, last) = (format!("1.{}", minors.start()), format!("1.{}", minors.end()));
    let text = match context.screen.settings().output {
        Output::Human => format!("clusterctl {version} ({system} {architecture})\nKubernetes {first} to {last}\n"),
        Output::Json => {
            let kubernetes = json!({"first": first, "last": last});
            let document = json!({
                "clusterctl": version, "system": system, "architecture": architecture, "kubernetes": kubernetes
            });
            format!("{document}\n")
        }
    };
    context.screen.print(&text)?;
    Ok(ExitCode::SUCCESS)
}
