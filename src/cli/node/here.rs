//! This machine as the host to work on.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::agent::Lock;
use crate::cli::Context;
use crate::event::Events;
use crate::fact::Facts;
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::host::machine::Machine;
use crate::host::observe::{self, Unknown};
use crate::message::Holder;

/// How closely the machine is looked at before work on it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Everything that checks want to know.
    Everything,
    /// What defaults are taken from.
    NameCard(Unknown),
    /// Not at all: the work asks for nothing.
    Nothing,
}

/// Does `work` on this machine under its lock, with the facts that `look` finds, and shows what happens meanwhile.
///
/// # Errors
/// Kind `Preflight` unless we are root, or `ignore` names that check; `Busy` while another run is at work here; `Interrupted` when a person stops it;
/// what `work` fails with.
pub(super) async fn work<T>(
    context: &Context,
    verb: &str,
    ignore: &[String],
    look: Look,
    work: impl AsyncFnOnce(&dyn Host, &Facts, &Events) -> Result<T>,
) -> Result<T> {
    must_be_root(ignore)?;
    if !rustix::process::geteuid().is_root() {
        context.screen.warn(NOT_ROOT);
    }
    let since_seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let holder = Holder {
        who: "root on this host".to_owned(),
        verb: format!("node {verb}"),
        since_seconds,
        cluster: String::new(),
        run: String::new(),
    };
    let _lock = Lock::take(&holder).await?;
    let (events, happened) = Events::channel();
    let display = context.screen.start(happened);
    let working = async {
        let facts = match look {
            Look::Everything => observe::facts(&Machine).await?,
            Look::NameCard(unknown) => observe::name_card(&Machine, unknown).await?,
            Look::Nothing => Facts::default(),
        };
        work(&Machine, &facts, &events).await
    };
    let result = tokio::select! {
        result = working => result,
        () = context.cancel.cancelled() => Err(interrupted(verb)),
    };
    display.finish().await;
    result
}

/// A folder for what a dry run would write, for root alone; it stays for a person to look at.
pub(super) fn folder(verb: &str) -> Result<PathBuf> {
    let made = tempfile::Builder::new().prefix(&format!("clusterctl-{verb}-dryrun-")).tempdir();
    let failed = |error| Failure::new(Kind::Host, "cannot make a folder for the dry run").because(&error);
    Ok(made.map_err(failed)?.keep())
}

fn interrupted(verb: &str) -> Failure {
    Failure::new(Kind::Interrupted, format!("interrupted before `node {verb}` was done"))
        .advise("run the same command again to go on from here, or `clusterctl node reset` to begin anew")
        .may_pass()
}

const NOT_ROOT: &str = "IsPrivilegedUser: this must be run as root";

/// kubeadm's check IsPrivilegedUser. Whoever has it ignored finds out at the first thing that only root may do.
pub(super) fn must_be_root(ignore: &[String]) -> Result<()> {
    if rustix::process::geteuid().is_root() || is_ignored("IsPrivilegedUser", ignore) {
        return Ok(());
    }
    Err(Failure::new(Kind::Preflight, NOT_ROOT).advise("run it with sudo"))
}

/// Whether a check is among those that a person has ignored.
fn is_ignored(check: &str, ignore: &[String]) -> bool {
    ignore.iter().any(|name| name.eq_ignore_ascii_case("all") || name.eq_ignore_ascii_case(check))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::is_ignored;

    #[rstest]
    #[case(&["all"], true)]
    #[case(&["Swap", "isprivilegeduser"], true)]
    #[case(&["Swap"], false)]
    #[case(&[], false)]
    fn a_check_is_ignored_by_name(#[case] ignore: &[&str], #[case] expected: bool) {
        let ignore: Vec<String> = ignore.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(is_ignored("IsPrivilegedUser", &ignore), expected);
    }
}
