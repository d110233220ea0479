//! `clusterctl copy`: files and folders to hosts, or from them.

use std::path::PathBuf;
use std::process::ExitCode;

use super::exec::count;
use super::up::Login;
use super::{Context, login};
use crate::cluster::copy::{self, Order};
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::Selector;
use crate::ui::Summary;

/// Arguments of `copy`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// What to copy: a path here, or HOSTS:PATH
    #[arg(value_name = "FROM", value_hint = clap::ValueHint::AnyPath)]
    pub from: String,
    /// Where to: HOSTS:PATH, or a path here; from several hosts a folder that gets one for each of them. HOSTS is a
    /// name or any selector of `--on`
    #[arg(value_name = "TO", value_hint = clap::ValueHint::AnyPath)]
    pub to: String,
    /// Read or write on the hosts as root, by the way the inventory's `ssh.become` names
    #[arg(long)]
    pub sudo: bool,
    /// How to log in to the hosts.
    #[command(flatten)]
    pub login: Login,
}

/// Copies; the exit code is the number of hosts on which it failed.
pub async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    let (selector, order) = order(&arguments.from, &arguments.to)?;
    let inventory = login::chosen(context, &arguments.login, &selector, arguments.sudo).await?;
    let (events, happened) = Events::channel();
    let display = context.screen.start(happened);
    let settings = login::settings(context, &arguments.login, &events);
    let result = copy::copy(&inventory, &order, arguments.sudo, &settings).await;
    drop((events, settings));
    let run = display.finish().await;
    let failures = result?;
    let mut summary = Summary::of(&run, &inventory);
    summary.headline = if failures.is_empty() { "Copied" } else { "Not copied everywhere" }.to_owned();
    summary.failed.clone_from(&failures);
    context.screen.summary(&summary);
    match context.cancel.requested() {
        true => Ok(ExitCode::from(Kind::Interrupted.exit_code())),
        false => Ok(count(&failures)),
    }
}

/// Which of the two is on hosts. A colon after a slash belongs to a path here, as with scp.
fn remote(text: &str) -> Option<(&str, &str)> {
    let (hosts, path) = text.split_once(':')?;
    (!hosts.is_empty() && !hosts.starts_with(['/', '.', '~'])).then_some((hosts, path))
}

fn order(from: &str, to: &str) -> Result<(Selector, Order)> {
    let (hosts, order) = match (remote(from), remote(to)) {
        (None, Some((hosts, path))) => (hosts, Order::There { from: PathBuf::from(from), to: path.to_owned() }),
        (Some((hosts, path)), None) => (hosts, Order::Here { from: path.to_owned(), to: PathBuf::from(to) }),
        (Some(_), Some(_)) => {
            return Err(Failure::new(Kind::Usage, "both places are on hosts")
                .advise("copy to this machine first, or write a local path with a colon as ./PATH"));
        }
        (None, None) => {
            return Err(Failure::new(Kind::Usage, "neither place is on a host").advise("write one as HOST:PATH"));
        }
    };
    let selector = hosts
        .parse()
        .map_err(|sentence: String| Failure::new(Kind::Usage, sentence).advise("see `clusterctl exec --help`"))?;
    Ok((selector, order))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Order, order};

    #[rstest]
    #[case("a", "w1:/b", "There a /b")]
    #[case("w1:/a", ".", "Here /a .")]
    #[case("role=worker,!w2:a", "out", "Here a out")]
    #[case("label=example.com/rack=a7:a", "out", "Here a out")]
    #[case("./x:y", "w1:", "There ./x:y ")]
    #[case("w1:a", "w2:b", "both places are on hosts")]
    #[case("a", "b", "neither place is on a host")]
    #[case("disk=ssd:a", "b", "hosts are not chosen by")]
    fn one_of_two_places_is_on_hosts(#[case] from: &str, #[case] to: &str, #[case] expected: &str) {
        let said = match order(from, to) {
            Ok((_, Order::There { from, to })) => format!("There {} {to}", from.display()),
            Ok((_, Order::Here { from, to })) => format!("Here {from} {}", to.display()),
            Err(failure) => failure.sentence,
        };
        assert!(said.starts_with(expected), "{said}");
    }
}
