//! `clusterctl status`: hosts and nodes side by side.

use std::process::ExitCode;

use super::up::Login;
use super::{Context, login};
use crate::cluster::{self, HostStatus, Status};
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::Role;
use crate::ui;

/// Arguments of `status`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// How to log in to the hosts.
    #[command(flatten)]
    pub login: Login,
}

/// Shows hosts and nodes. Exits with the code of the worst failure: a host that cannot be reached, an API that does not
/// answer.
pub async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    let inventory = login::inventory(context, &arguments.login).await?;
    let settings = login::settings(context, &arguments.login, &Events::nowhere());
    let status = cluster::status(&inventory, &settings).await?;
    let text = match context.screen.settings().output {
        ui::Output::Json => json(&status),
        ui::Output::Human => table(&status),
    };
    context.screen.print(&text)?;
    let failures: Vec<Failure> =
        status.hosts.iter().filter_map(|host| host.unreachable.as_ref()).chain(status.api.as_ref()).cloned().collect();
    context.screen.failures(&failures);
    let worst = failures.iter().map(|failure| failure.kind).max();
    Ok(worst.map(Kind::exit_code).map_or(ExitCode::SUCCESS, ExitCode::from))
}

fn role(host: &HostStatus) -> &'static str {
    match host.role {
        Some(Role::ControlPlane) => "control-plane",
        Some(Role::Worker) => "worker",
        None => "not in the inventory",
    }
}

/// What the node is, in a word or two.
fn state(host: &HostStatus) -> String {
    match (&host.unreachable, &host.node) {
        (_, Some(node)) if node.ready => "Ready".to_owned(),
        (_, Some(node)) => format!("NotReady: {}", node.reason),
        (Some(_), None) => "not reached".to_owned(),
        (None, None) => "no node".to_owned(),
    }
}

fn table(status: &Status) -> String {
    let rows: Vec<Vec<String>> = status
        .hosts
        .iter()
        .map(|host| {
            let node = host.node.as_ref();
            vec![
                host.name.clone(),
                host.address.clone(),
                role(host).to_owned(),
                state(host),
                node.map(|node| node.version.clone()).unwrap_or_default(),
                node.and_then(|node| node.pod_network()).map(|network| network.to_string()).unwrap_or_default(),
                host.system.clone(),
            ]
        })
        .collect();
    let mut text = ui::table(&["HOST", "ADDRESS", "ROLE", "NODE", "VERSION", "PODS", "SYSTEM"], &rows);
    if !status.waiting.is_empty() {
        text.push_str(&format!("\nnot running in kube-system: {}\n", status.waiting.join(", ")));
    }
    text
}

fn json(status: &Status) -> String {
    let hosts: Vec<serde_json::Value> = status
        .hosts
        .iter()
        .map(|host| {
            serde_json::json!({
                "name": host.name,
                "address": host.address,
                "role": role(host),
                "node": state(host),
                "version": host.node.as_ref().map(|node| node.version.clone()),
                "pods": host.node.as_ref().and_then(|node| node.pod_network()).map(|network| network.to_string()),
                "system": host.system,
            })
        })
        .collect();
    let document = serde_json::json!({ "hosts": hosts, "waiting": status.waiting });
    format!("{document}\n")
}
