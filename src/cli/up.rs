//! `clusterctl up`: make the cluster, or bring it to what the inventory says.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;

use super::down::{goes_on, tell};
use super::login::Patience;
use super::{Context, login, plan};
use crate::bundle::{Bundle, Manifest};
use crate::change::Preview;
use crate::cluster;
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::{Fetch, Inventory};
use crate::kubernetes::configuration::Duration;
use crate::ui::{self, Look, Summary};

/// How many hosts that are not done stand in the headline.
const NAMED: usize = 8;

/// Arguments of `up`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Go on without asking, also where something that runs is interrupted
    #[arg(short, long)]
    pub yes: bool,
    /// Say what would be done and do nothing, as `plan` does
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Take nodes out of the cluster that the inventory does not name (any more)
    #[arg(long)]
    pub prune: bool,
    /// With --prune: how long pods may take to leave a node, as far as their disruption budgets let them
    #[arg(long, value_name = "DURATION", value_parser = str::parse::<Duration>, default_value = "5m0s", requires = "prune")]
    pub drain_limit: Duration,
    /// The bundle with the Kubernetes version to install; instead of the one the inventory names
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub bundle: Option<PathBuf>,
    /// Go on as long as no more hosts than this cannot be reached or fail; without it, any number of workers but no
    /// control plane
    #[arg(long, value_name = "N")]
    pub max_failures: Option<usize>,
    /// How many workers change at the same time when what runs on them has to start anew; without it, a fifth of them
    #[arg(long, value_name = "N")]
    pub batch: Option<NonZeroUsize>,
    /// What to do while another run holds the hosts.
    #[command(flatten)]
    pub patience: Patience,
    /// How to log in to the hosts.
    #[command(flatten)]
    pub login: Login,
}

/// How hosts are reached; the same for all verbs that connect.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Options for SSH")]
pub struct Login {
    /// Accept the keys of hosts that are not in known_hosts yet and remember them; a changed key is still refused
    #[arg(long)]
    pub accept_new_host_keys: bool,
    /// How many hosts to log in to at the same time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub parallel: u16,
    /// Who makes the connections
    #[arg(long, value_enum, value_name = "WHO", default_value_t)]
    pub transport: cluster::Transport,
    /// Ask for the login password on the terminal, once for all hosts
    #[arg(long)]
    pub ask_password: bool,
    /// Ask for the password of sudo on the terminal, once for all hosts
    #[arg(long)]
    pub ask_become_password: bool,
}

/// Makes the cluster.
pub async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    if arguments.dry_run {
        let arguments = arguments.clone();
        let Arguments { bundle, max_failures, prune, login, .. } = arguments;
        return plan::run(&plan::Arguments { bundle, max_failures, prune, login }, context).await;
    }
    let inventory = login::inventory(context, &arguments.login).await?;
    let nothing = || Bundle::on_hosts(Manifest::empty(&inventory.cluster.kubernetes));
    let bundle = Arc::new(bundle(arguments.bundle.as_deref(), &inventory)?.unwrap_or_else(nothing));
    // Scripts, which have no terminal, are not stopped.
    let asks = !arguments.yes && context.prompts.has_terminal();
    let agreed = Mutex::default();
    let made = make(arguments, context, &inventory, &bundle, asks.then_some(&agreed)).await;
    if !arguments.prune || !made.failed.is_empty() {
        return Ok(made.exit_code());
    }
    let agreed = agreed.into_inner().unwrap_or_else(PoisonError::into_inner);
    match prune(arguments, context, &inventory, &agreed).await? {
        // The others forget the ways to those that left; nothing else is to do.
        Some(pruned) if pruned.failed.is_empty() => {
            Ok(make(arguments, context, &inventory, &bundle, None).await.exit_code())
        }
        Some(pruned) => Ok(pruned.exit_code()),
        None => Ok(made.exit_code()),
    }
}

/// Makes the cluster and shows what became of it. With `agreed` a person is asked where something would be interrupted, and
/// the nodes are noted in it that may be taken out afterwards.
async fn make(
    arguments: &Arguments,
    context: &Context,
    inventory: &Inventory,
    bundle: &Arc<Bundle>,
    agreed: Option<&Mutex<BTreeSet<String>>>,
) -> Summary {
    let (events, happened) = Events::channel();
    let display = context.screen.start(happened);
    let approve = |preview: Preview| -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let leaving = preview.leaving();
            let yes = approve(context, preview).await;
            if let Some(agreed) = agreed.filter(|_| yes) {
                agreed.lock().unwrap_or_else(PoisonError::into_inner).extend(leaving);
            }
            yes
        })
    };
    let approve: &cluster::Approve<'_> = &approve;
    let tolerance = cluster::Tolerance { most: arguments.max_failures };
    let batch = arguments.batch.map(NonZeroUsize::get);
    let options = cluster::Options { tolerance, batch, approve: agreed.map(|_| approve), prune: arguments.prune };
    let mut settings = login::settings(context, &arguments.login, &events);
    settings.patience = arguments.patience.duration();
    let result = cluster::up(inventory, Arc::clone(bundle), options, &settings).await;
    drop((events, settings));
    let run = display.finish().await;
    let mut summary = Summary::of(&run, inventory);
    match result {
        Ok(outcome) => {
            summary.headline = headline(inventory, &outcome);
            summary.next = outcome
                .kubeconfig
                .as_ref()
                .map(|_| format!("clusterctl kubectl -i {} -- get nodes", context.inventory.display()));
            summary.kubeconfig = outcome.kubeconfig;
            summary.failed = outcome.failures;
        }
        Err(failures) => {
            summary.headline = format!("Cluster {} was not begun: no host was altered", inventory.cluster.name);
            summary.failed = failures;
        }
    }
    context.screen.summary(&summary);
    summary
}

/// Takes nodes out that have no line in the inventory, when everything else is as it should be; `None` when there is none.
/// Those that are not in `agreed` are asked about.
async fn prune(
    arguments: &Arguments,
    context: &Context,
    inventory: &Inventory,
    agreed: &BTreeSet<String>,
) -> Result<Option<Summary>> {
    let (events, happened) = Events::channel();
    let display = context.screen.start(happened);
    let mut settings = login::settings(context, &arguments.login, &events);
    settings.patience = arguments.patience.duration();
    let ask = |names: Vec<String>| -> BoxFuture<'_, Result<()>> { Box::pin(may_go(context, inventory, names)) };
    let ask: &cluster::Ask<'_> = &ask;
    let consent = cluster::Consent { given: agreed, ask: (!arguments.yes).then_some(ask) };
    let result = cluster::prune(inventory, consent, Some(arguments.drain_limit.0), &settings).await;
    drop((events, settings));
    let run = display.finish().await;
    let Some(pruned) = result? else { return Ok(None) };
    let mut summary = Summary::of(&run, inventory);
    let names: Vec<&str> = pruned.done.iter().map(|(name, _)| name.as_str()).collect();
    let name = &inventory.cluster.name;
    summary.headline = match pruned.failures.is_empty() {
        true => goes_on(name, &names.join(", "), &pruned),
        false => format!("Cluster {name} still has nodes that are not in the inventory"),
    };
    tell(&mut summary, pruned);
    context.screen.summary(&summary);
    Ok(Some(summary))
}

/// Asks whether nodes may go that nobody has agreed to.
async fn may_go(context: &Context, inventory: &Inventory, names: Vec<String>) -> Result<()> {
    let (cluster, names) = (&inventory.cluster.name, names.join(", "));
    match context
        .prompts
        .confirm(&format!("Take {names} out of cluster {cluster}? The inventory does not name them."))
        .await
    {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::new(Kind::Interrupted, format!("{names}: left in cluster {cluster}, as you said"))),
        None => {
            context.cancel.check()?;
            let sentence =
                format!("there is no terminal to ask on whether {names} shall be taken out of cluster {cluster}");
            Err(Failure::new(Kind::Usage, sentence).advise("add --yes if they shall"))
        }
    }
}

/// Shows what would be done and asks.
async fn approve(context: &Context, preview: Preview) -> bool {
    let look = Look { color: false, ..context.screen.look() };
    context.screen.lay_out(&ui::plan(&preview, look, context.screen.settings().verbose));
    context.prompts.confirm("Apply?").await.unwrap_or(false)
}

fn headline(inventory: &Inventory, outcome: &cluster::Outcome) -> String {
    let name = &inventory.cluster.name;
    match (outcome.failures.is_empty(), outcome.changes()) {
        (true, 0) => format!("Cluster {name} is as the inventory wants it: nothing was to do"),
        (true, _) => format!("Cluster {name} is ready"),
        (false, _) => partly(name, &outcome.hosts),
    }
}

/// Who is done and who is not, where some are.
fn partly(name: &str, hosts: &[cluster::HostOutcome]) -> String {
    let (failed, done): (Vec<_>, Vec<_>) =
        hosts.iter().partition(|host| matches!(host.state, cluster::State::Failed(_)));
    let ready = done.iter().all(|host| host.state == cluster::State::Ready);
    if done.is_empty() || failed.is_empty() || !ready {
        return format!("Cluster {name} is not finished");
    }
    let names: Vec<&str> = failed.iter().take(NAMED).map(|host| host.name.as_str()).collect();
    let more = match failed.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let (done, all) = (done.len(), hosts.len());
    format!("Cluster {name} is ready on {done} of {all} hosts; not done: {}{more}", names.join(", "))
}

/// The bundle of an `up`; `None` where hosts download themselves.
pub(super) fn bundle(typed: Option<&Path>, inventory: &Inventory) -> Result<Option<Bundle>> {
    match (inventory.transfer.fetch, typed) {
        (Fetch::Bundle, _) => Bundle::open(&bundle_path(typed, inventory)?).map(Some),
        (Fetch::OnHost, None) => Ok(None),
        (Fetch::OnHost, Some(_)) => {
            let sentence = "a bundle was named, but hosts download themselves (`fetch: on-host` of `transfer`)";
            Err(Failure::new(Kind::Usage, sentence).advise("leave --bundle out, or take `fetch` out of the inventory"))
        }
    }
}

/// The bundle that was typed, else the inventory's.
pub(super) fn bundle_path(typed: Option<&Path>, inventory: &Inventory) -> Result<PathBuf> {
    typed.map(Path::to_owned).or_else(|| inventory.cluster.bundle.clone()).ok_or_else(|| {
        Failure::new(Kind::Bundle, "no bundle was named")
            .advise("name one with --bundle FILE or `cluster.bundle`, or make one with `clusterctl bundle create`")
    })
}

#[cfg(test)]
mod tests {
    use super::partly;
    use crate::cluster::{HostOutcome, State};
    use crate::failure::{Failure, Kind};
    use crate::inventory::Role;

    fn hosts(states: &[(&str, State)]) -> Vec<HostOutcome> {
        let host = |(name, state): &(&str, State)| HostOutcome {
            name: (*name).to_owned(),
            address: String::new(),
            role: Role::Worker,
            state: state.clone(),
            changes: 0,
            milliseconds: 0,
        };
        states.iter().map(host).collect()
    }

    #[test]
    fn the_headline_names_who_is_not_done() {
        let failed = || State::Failed(Failure::new(Kind::Connection, "no"));
        let some = hosts(&[("cp1", State::Ready), ("w1", failed()), ("w2", State::Ready)]);
        assert_eq!(partly("demo", &some), "Cluster demo is ready on 2 of 3 hosts; not done: w1");
        assert_eq!(partly("demo", &hosts(&[("cp1", failed())])), "Cluster demo is not finished");
        let unready = hosts(&[("cp1", State::Joined), ("w1", failed())]);
        assert_eq!(partly("demo", &unready), "Cluster demo is not finished");
    }
}
