//! `clusterctl tunnel`: a port here that leads to the API server.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::up::Login;
use super::{Context, login};
use crate::cancel::Cancel;
use crate::cluster::{Settings, Tunnel};
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::host::Host as _;
use crate::host::machine::Machine;
use crate::inventory::Inventory;

/// A broken connection is made again after this long, for as long as nobody ends the program.
const PAUSE: Duration = Duration::from_secs(2);

/// Arguments of `tunnel`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// The port on 127.0.0.1; a free one if absent
    #[arg(short, long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    pub port: u16,
    /// Where to write the kubeconfig, which is taken away at the end; `-` prints it. Default: CLUSTER.tunnel.kubeconfig
    /// beside the inventory
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub kubeconfig: Option<PathBuf>,
    /// How to log in to the hosts.
    #[command(flatten)]
    pub login: Login,
}

/// Keeps the tunnel open until Ctrl-C; a connection that breaks is made again, through whichever control plane serves.
pub async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    let inventory = login::inventory(context, &arguments.login).await?;
    let settings = login::settings(context, &arguments.login, &Events::nowhere());
    let mut tunnel = Tunnel::open(&inventory, &settings, arguments.port).await?;
    let port = tunnel.address().port();
    let file = arguments.kubeconfig.clone().unwrap_or_else(|| beside(&inventory));
    let written = if file == Path::new("-") {
        context.screen.print(tunnel.kubeconfig.expose())?;
        None
    } else {
        let existing = Machine.read(&file)?;
        // Our own of a run that was killed may be replaced; somebody's kubeconfig may not.
        if existing.is_some() && arguments.kubeconfig.is_some() {
            return Err(Failure::new(Kind::Usage, format!("{} is there already", file.display()))
                .advise("name another file, or move that one away"));
        }
        Machine.write(&file, tunnel.kubeconfig.expose().as_bytes(), 0o600)?;
        Some(file)
    };
    context.screen.say(&format!("127.0.0.1:{port} leads to the API server through {}; Ctrl-C ends it", tunnel.host));
    if let Some(file) = &written {
        context.screen.say(&format!("kubectl --kubeconfig {} get nodes", file.display()));
    }
    while let Ok(failure) = tunnel.broken(&context.cancel).await {
        context.screen.warn(&format!("{failure}; connecting again"));
        drop(tunnel);
        match again(&inventory, &settings, port, context).await {
            Some(new) => tunnel = new,
            None => break,
        }
        context.screen.say(&format!("127.0.0.1:{port} leads to the API server through {}", tunnel.host));
    }
    if let Some(file) = &written {
        Machine.remove(file)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens the tunnel again, as often as it takes; `None` when the end is asked for.
async fn again(inventory: &Inventory, settings: &Settings, port: u16, context: &Context) -> Option<Tunnel> {
    let cancel: &Cancel = &context.cancel;
    let mut pauses = tokio::time::interval(PAUSE);
    let mut said = None;
    loop {
        tokio::select! {
            _ = pauses.tick() => {}
            () = cancel.cancelled() => return None,
        }
        let opened = tokio::select! {
            opened = Tunnel::open(inventory, settings, port) => opened,
            () = cancel.cancelled() => return None,
        };
        match opened {
            Ok(tunnel) => return Some(tunnel),
            Err(failure) if said.as_ref() != Some(&failure.sentence) => {
                context.screen.warn(&failure.to_string());
                said = Some(failure.sentence);
            }
            Err(_) => {}
        }
    }
}

fn beside(inventory: &Inventory) -> PathBuf {
    let folder = inventory.path.parent().unwrap_or(Path::new("."));
    folder.join(format!("{}.tunnel.kubeconfig", inventory.cluster.name))
}
