//! `clusterctl inventory`: an example to begin with, a schema for editors, a judgement before any machine is touched.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::up::Login;
use super::{Context, login};
use crate::cluster;
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::{self, Inventory, Loaded, Role};
use crate::ui::text::count;
use crate::ui::{Output, table};

/// Arguments of `inventory`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// What to do with inventories.
    #[command(subcommand)]
    pub verb: InventoryVerb,
}

/// What can be done with inventories.
#[derive(Debug, Clone, Subcommand)]
pub enum InventoryVerb {
    /// Print an inventory with every key and what it means
    Example,
    /// Print the JSON Schema of inventories, for editors
    Schema,
    /// Say everything that is wrong with an inventory, or what it comes to
    Check,
    /// Print the inventory of a cluster that is there, also of one that kubeadm made
    FromCluster(FromCluster),
}

/// Arguments of `from-cluster`.
#[derive(Debug, Clone, clap::Args)]
pub struct FromCluster {
    /// A control plane of the cluster, as SSH reaches it
    #[arg(value_name = "[USER@]HOST[:PORT]")]
    pub host: String,
    /// How to log in to it.
    #[command(flatten)]
    pub login: Login,
}

/// Does what was asked with an inventory.
pub async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    match &arguments.verb {
        InventoryVerb::Example => context.screen.print(inventory::EXAMPLE)?,
        InventoryVerb::Schema => {
            let schema = serde_json::to_string_pretty(&inventory::schema())
                .map_err(|error| Failure::new(Kind::Internal, "cannot write the schema").because(&error))?;
            context.screen.print(&format!("{schema}\n"))?;
        }
        InventoryVerb::Check => {
            let loaded = inventory::load_with_warnings(&context.inventory)?;
            let text = match context.screen.settings().output {
                Output::Human => {
                    if let Some(warnings) = &loaded.rendered_warnings {
                        context.screen.block(warnings);
                    }
                    human(&loaded.inventory)
                }
                Output::Json => json(&loaded),
            };
            context.screen.print(&text)?;
        }
        InventoryVerb::FromCluster(arguments) => from_cluster(arguments, context).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn from_cluster(arguments: &FromCluster, context: &Context) -> Result<()> {
    let (user, address) = match arguments.host.rsplit_once('@') {
        Some((user, address)) => (Some(user.to_owned()), address),
        None => (None, arguments.host.as_str()),
    };
    // The inventory of this one host, by the same rules as any other.
    let mut document = json!({ "hosts": { "control-plane": { "address": address, "role": "control-plane" } } });
    if let Some(user) = &user {
        document["ssh"] = json!({ "user": user });
    }
    let inventory = inventory::of_text(&crate::yaml::to_text(&document), &arguments.host)?;
    let inventory = login::settle(context, &arguments.login, inventory).await?;
    let port = Some(inventory.hosts[0].ssh.port).filter(|port| *port != 22);
    let settings = login::settings(context, &arguments.login, &Events::nowhere());
    let (text, warnings) = cluster::from_cluster(&inventory, user, port, &settings).await?;
    warnings.iter().for_each(|warning| context.screen.warn(warning));
    context.screen.print(&text)
}

fn role(role: Role) -> &'static str {
    match role {
        Role::ControlPlane => "control-plane",
        Role::Worker => "worker",
    }
}

fn human(inventory: &Inventory) -> String {
    let rows: Vec<Vec<String>> = inventory
        .hosts
        .iter()
        .map(|host| {
            let login = format!("{}@{}:{}", host.ssh.user, host.address, host.ssh.port);
            vec![host.name.clone(), role(host.role).to_owned(), login]
        })
        .collect();
    format!(
        "cluster {}: Kubernetes {}, {}, {}\n\n{}",
        inventory.cluster.name,
        inventory.cluster.kubernetes,
        count(inventory.control_planes().count() as u64, "control plane"),
        count(inventory.workers().count() as u64, "worker"),
        table(&["HOST", "ROLE", "LOGIN"], &rows)
    )
}

/// `{"cluster": ..., "kubernetes": ..., "hosts": [...], "warnings": [...]}` on one line.
fn json(loaded: &Loaded) -> String {
    let Loaded { inventory, warnings, .. } = loaded;
    let hosts: Vec<_> = inventory
        .hosts
        .iter()
        .map(|host| {
            let ssh = json!({"user": host.ssh.user, "port": host.ssh.port});
            json!({"name": host.name, "address": host.address, "role": role(host.role), "ssh": ssh})
        })
        .collect();
    let warnings: Vec<_> = warnings
        .iter()
        .map(|warning| json!({"line": warning.line, "column": warning.column, "message": warning.message}))
        .collect();
    let document = json!({
        "cluster": inventory.cluster.name,
        "kubernetes": inventory.cluster.kubernetes.to_string(),
        "hosts": hosts,
        "warnings": warnings,
    });
    format!("{document}\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use insta::assert_snapshot;

    use super::*;

    fn small() -> Loaded {
        let text = "cluster: {name: demo}\nssh: {user: ops, port: 2222}\nhosts:\n  \
                    cp1: {address: 10.0.0.11, role: control-plane}\n  w1: {address: 10.0.0.21, role: worker}\n";
        let judged = inventory::judge(text, Path::new("/nowhere/inventory.yaml"), Path::new("/nowhere"));
        let inventory = judged.inventory.unwrap_or_else(|| panic!("{:?}", judged.findings));
        Loaded { inventory, warnings: Vec::new(), rendered_warnings: None }
    }

    #[test]
    fn a_good_inventory_is_told_in_short() {
        assert_snapshot!(human(&small().inventory), @"
        cluster demo: Kubernetes 1.36.3, 1 control plane, 1 worker

        HOST  ROLE           LOGIN
        cp1   control-plane  ops@10.0.0.11:2222
        w1    worker         ops@10.0.0.21:2222
        ");
    }

    #[test]
    fn programs_get_the_same() {
        assert_snapshot!(json(&small()), @r#"{"cluster":"demo","kubernetes":"1.36.3","hosts":[{"name":"cp1","address":"10.0.0.11","role":"control-plane","ssh":{"user":"ops","port":2222}},{"name":"w1","address":"10.0.0.21","role":"worker","ssh":{"user":"ops","port":2222}}],"warnings":[]}"#);
    }
}
