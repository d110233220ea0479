//! Options about reaching hosts become settings; passwords are asked for, read or computed once, before any host is
//! reached.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};

use super::Context;
use super::up::Login;
use crate::agent;
use crate::cluster;
use crate::event::Events;
use crate::failure::Result;
use crate::inventory::{self, Become, HostKeys, Inventory, SecretSource, Selector};
use crate::kubernetes::configuration::Duration;
use crate::secret::Secret;
use crate::ssh;
use crate::ui::Prompts;

/// How many processes of ssh say at once what stands in its configuration.
const PRINTING: usize = 16;

/// What to do while another run holds the hosts.
#[derive(Debug, Clone, clap::Args)]
pub struct Patience {
    /// How long to wait for the end of another run on these hosts, like 90s, 10m or 1h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub wait_lock: Option<std::time::Duration>,
}

impl Patience {
    /// How long to wait: as typed, else a moment.
    pub fn duration(&self) -> std::time::Duration {
        self.wait_lock.unwrap_or(agent::PATIENCE)
    }
}

fn duration(typed: &str) -> std::result::Result<std::time::Duration, String> {
    typed.parse::<Duration>().map(|duration| duration.0)
}

/// Asks a person on the terminal what logins need.
#[derive(Debug, Clone)]
pub struct Asker {
    prompts: Prompts,
    unlocked: ssh::Unlocked,
}

impl Asker {
    /// With the questions of this run.
    pub fn new(prompts: &Prompts) -> Self {
        Self { prompts: prompts.clone(), unlocked: ssh::Unlocked::default() }
    }
}

impl ssh::Prompt for Asker {
    fn passphrase(&self, file: &Path, again: bool) -> Option<Secret> {
        self.prompts.passphrase(file, again)
    }

    fn unlocked(&self) -> &ssh::Unlocked {
        &self.unlocked
    }

    fn password(&self, user: &str, host: &str) -> Option<Secret> {
        self.prompts.password(user, host)
    }

    fn answer(&self, user: &str, host: &str, question: &str) -> Option<Secret> {
        self.prompts.ask_each_time(&format!("{question} (for {user} on {host})"))
    }
}

/// Loads the inventory, lays the options over it and finds out every password it names.
pub async fn inventory(context: &Context, login: &Login) -> Result<Inventory> {
    settle(context, login, load(context)?).await
}

/// As [`inventory`], with the chosen hosts alone; passwords for root's rights only where those are wanted.
pub async fn chosen(context: &Context, login: &Login, selector: &Selector, root: bool) -> Result<Inventory> {
    let mut inventory = load(context)?;
    let names: BTreeSet<String> = selector.select(&inventory)?.iter().map(|host| host.name.clone()).collect();
    inventory.hosts.retain(|host| names.contains(&host.name));
    settle_for(context, login, inventory, root).await
}

/// Lays the options over an inventory and finds out every password it names.
pub async fn settle(context: &Context, login: &Login, inventory: Inventory) -> Result<Inventory> {
    settle_for(context, login, inventory, true).await
}

async fn settle_for(context: &Context, login: &Login, mut inventory: Inventory, root: bool) -> Result<Inventory> {
    if login.transport == cluster::Transport::Openssh {
        let settling = inventory.hosts.iter_mut().map(ssh::settle_by_openssh);
        futures::stream::iter(settling).buffer_unordered(PRINTING).try_collect::<()>().await?;
    } else {
        let configuration = ssh::Configuration::of_this_machine()?;
        let mut said = BTreeSet::new();
        for host in &mut inventory.hosts {
            // What many hosts have in common is said once.
            for sentence in tokio::task::block_in_place(|| configuration.settle(host))? {
                if said.insert(sentence.clone()) {
                    context.screen.warn(&sentence);
                }
            }
        }
    }
    for host in &mut inventory.hosts {
        let ssh = &mut host.ssh;
        if login.accept_new_host_keys {
            ssh.host_keys = HostKeys::AcceptNew;
            ssh.written.insert("host_keys");
        }
        if login.ask_password {
            ssh.password = Some(SecretSource::Ask);
        }
        if login.ask_become_password && ssh.become_root != Become::None {
            ssh.become_password = Some(SecretSource::Ask);
        }
        let user = ssh.user.clone();
        if !root {
            ssh.become_password = None;
        }
        for (source, what) in [(&mut ssh.password, "login"), (&mut ssh.become_password, "sudo")] {
            if let Some(known) = source {
                let secret = context.prompts.resolve(known, &format!("{what} password of {user}")).await?;
                *known = SecretSource::Known(secret);
            }
        }
    }
    Ok(inventory)
}

/// Loads the inventory and says its warnings.
pub fn load(context: &Context) -> Result<Inventory> {
    let loaded = inventory::load_with_warnings(&context.inventory)?;
    for warning in &loaded.warnings {
        context.screen.warn(&warning.one_line(&context.inventory));
    }
    Ok(loaded.inventory)
}

/// Settings for reaching hosts.
pub fn settings(context: &Context, login: &Login, events: &Events) -> cluster::Settings {
    cluster::Settings {
        transport: login.transport,
        parallel: usize::from(login.parallel),
        prompts: Arc::new(Asker::new(&context.prompts)),
        patience: agent::PATIENCE,
        cancel: context.cancel.clone(),
        events: events.clone(),
    }
}
