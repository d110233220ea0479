//! `clusterctl down`: take the cluster away and give the machines back.

use std::process::ExitCode;

use super::login::Patience;
use super::up::Login;
use super::{Context, login};
use crate::cluster;
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::kubernetes::configuration::Duration;
use crate::ui::Summary;
use crate::ui::text::count;

/// Arguments of `down`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Do not ask; needed without a terminal
    #[arg(short, long)]
    pub yes: bool,
    /// Take only this host out, of a cluster that goes on; may be given several times
    #[arg(long = "host", value_name = "NAME")]
    pub hosts: Vec<String>,
    /// With --host: how long pods may take to leave the host, as far as their disruption budgets let them
    #[arg(long, value_name = "DURATION", value_parser = str::parse::<Duration>, default_value = "5m0s", requires = "hosts")]
    pub drain_limit: Duration,
    /// With --host: let the host's pods end with it, instead of having them leave first
    #[arg(long, conflicts_with = "drain_limit", requires = "hosts")]
    pub no_drain: bool,
    /// Leave etcd's data in /var/lib/etcd
    #[arg(long, conflicts_with = "hosts")]
    pub keep_data: bool,
    /// What to do while another run holds the hosts.
    #[command(flatten)]
    pub patience: Patience,
    /// How to log in to the hosts.
    #[command(flatten)]
    pub login: Login,
}

impl Arguments {
    /// How long pods may take to leave; `None` when they need not.
    fn drain(&self) -> Option<std::time::Duration> {
        (!self.no_drain).then_some(self.drain_limit.0)
    }
}

/// Asks whether the cluster shall really go; returns if so.
///
/// # Errors
/// Kind [`Kind::Usage`] without a terminal to ask on; kind [`Kind::Interrupted`] if the answer is no.
pub async fn confirm(arguments: &Arguments, context: &Context, cluster: &str, hosts: usize) -> Result<()> {
    if arguments.yes {
        return Ok(());
    }
    let question = match arguments.hosts.as_slice() {
        [] => format!("Remove cluster {cluster} and all its data from {hosts} hosts?"),
        some => format!("Take {} out of cluster {cluster}?", some.join(", ")),
    };
    match context.prompts.confirm(&question).await {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::new(Kind::Interrupted, format!("cluster {cluster} is left as it is"))),
        None => {
            context.cancel.check()?;
            Err(Failure::new(Kind::Usage, "there is no terminal to ask on whether the cluster shall be removed")
                .advise("add --yes if it shall"))
        }
    }
}

/// Takes the cluster away.
pub async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    let inventory = login::inventory(context, &arguments.login).await?;
    confirm(arguments, context, &inventory.cluster.name, inventory.hosts.len()).await?;
    let (events, happened) = Events::channel();
    let display = context.screen.start(happened);
    let mut settings = login::settings(context, &arguments.login, &events);
    settings.patience = arguments.patience.duration();
    let result = match arguments.hosts.as_slice() {
        [] => cluster::down(&inventory, arguments.keep_data, &settings).await,
        some => cluster::remove(&inventory, some, arguments.drain(), &settings).await,
    };
    drop((events, settings));
    let run = display.finish().await;
    let down = result?;
    let mut summary = Summary::of(&run, &inventory);
    let name = &inventory.cluster.name;
    let some = arguments.hosts.join(", ");
    summary.headline = match (down.failures.is_empty(), some.is_empty()) {
        (true, true) => match proof(&down) {
            Some(proof) => format!("Cluster {name} is gone; {proof}"),
            None => format!("Cluster {name} is gone: its hosts are as they were"),
        },
        (false, true) => format!("Cluster {name} is not gone everywhere"),
        (true, false) => goes_on(name, &some, &down),
        (false, false) => format!("Cluster {name} still has some of {some}"),
    };
    tell(&mut summary, down);
    context.screen.summary(&summary);
    Ok(summary.exit_code())
}

/// Of a cluster that goes on without some hosts.
pub(super) fn goes_on(cluster: &str, without: &str, down: &cluster::Down) -> String {
    let proof = proof(down).map(|proof| format!("; {proof}")).unwrap_or_default();
    format!("Cluster {cluster} goes on without {without}{proof}")
}

/// Why it cannot be said that the hosts are as they were; `None` where it can.
fn proof(down: &cluster::Down) -> Option<String> {
    let different = (down.residue > 0)
        .then(|| format!("different from before on its hosts: {}", count(down.residue as u64, "thing")));
    let uncompared = (!down.uncompared.is_empty())
        .then(|| format!("not compared with what was there before: {}", down.uncompared.join(", ")));
    let doubts: Vec<String> = different.into_iter().chain(uncompared).collect();
    (!doubts.is_empty()).then(|| doubts.join("; "))
}

/// Has a summary tell what became of hosts that were given back.
pub(super) fn tell(summary: &mut Summary, down: cluster::Down) {
    summary.residue = Some(down.residue as u64);
    summary.not_compared = down.uncompared;
    summary.failed = down.failures;
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{goes_on, proof, tell};
    use crate::cluster::Down;
    use crate::ui::Summary;

    fn down(residue: usize, uncompared: &[&str]) -> Down {
        let uncompared = uncompared.iter().map(|name| (*name).to_owned()).collect();
        Down { done: Vec::new(), residue, uncompared, failures: Vec::new(), milliseconds: 0 }
    }

    #[rstest]
    #[case(0, &[], None)]
    #[case(2, &[], Some("different from before on its hosts: 2 things"))]
    #[case(0, &["cp1", "w1"], Some("not compared with what was there before: cp1, w1"))]
    #[case(1, &["w1"], Some("different from before on its hosts: 1 thing; not compared with what was there before: w1"))]
    fn only_what_was_compared_is_as_it_was(
        #[case] residue: usize,
        #[case] uncompared: &[&str],
        #[case] expected: Option<&str>,
    ) {
        assert_eq!(proof(&down(residue, uncompared)).as_deref(), expected);
    }

    #[test]
    fn hosts_that_leave_a_cluster_are_told_of_as_well() {
        assert_eq!(goes_on("demo", "w1", &down(0, &[])), "Cluster demo goes on without w1");
        let expected = "Cluster demo goes on without w1; different from before on its hosts: 3 things";
        assert_eq!(goes_on("demo", "w1", &down(3, &[])), expected);
        let mut summary = Summary::default();
        tell(&mut summary, down(3, &["w1"]));
        assert_eq!((summary.residue, summary.not_compared.join(" ").as_str()), (Some(3), "w1"));
    }
}
