//! `init` as a person types it on the host: kubeadm's checks of an untouched host first, then everything in one go.

use std::path::Path;

use super::plan::Plan;
use super::{begin, finish, prepared};
use crate::event::Events;
use crate::fact::Facts;
use crate::failure::Result;
use crate::host::Host;
use crate::kubernetes::version;
use crate::message::{InitOrder, Initialised};
use crate::node::preflight::{self, Finding, Purpose};
use crate::node::{files, images};

/// There from the first change of a whole `init` to its end: with it, what lies on the host is our own unfinished work,
/// and not in the way.
const UNDER_WAY: &str = "/etc/kubernetes/tmp/clusterctl-init";

/// What an earlier run leaves on a host when it breaks off.
const LEFT_BEHIND: &[&str] = &["Port-", "FileAvailable-", "DirAvailable-"];

/// Does the whole workflow, or with `only` one phase of it.
///
/// # Errors
/// As [`super::init`]; kind `Usage` for a phase there is not.
pub async fn init_by_hand(
    host: &dyn Host,
    facts: &Facts,
    order: &InitOrder,
    only: Option<&str>,
    events: &Events,
) -> Result<Initialised> {
    let mut plan = Plan::load_phases(host, facts, order, only, events)?;
    // As kubeadm does: every run makes a token of its own.
    plan.tokens_given = true;
    if plan.phases.wants("preflight") {
        check(host, facts, &plan, events).await?;
    }
    let whole = plan.phases.is_whole();
    if whole {
        files::ensure(host, Path::new(UNDER_WAY), b"", 0o600)?;
    }
    let mut done = begin(host, &plan, events).await?;
    done.joined.changes += finish(host, &plan, events).await?;
    if whole {
        host.remove(Path::new(UNDER_WAY))?;
    }
    Ok(done)
}

/// Phase preflight: the host, what was prepared on it, and its images.
async fn check(host: &dyn Host, facts: &Facts, plan: &Plan, events: &Events) -> Result<()> {
    let node = &plan.init.node_registration;
    let unfinished = host.entry(Path::new(UNDER_WAY))?.is_some();
    let checks = preflight::Plan {
        purpose: Purpose::Init,
        cluster: "",
        kubernetes: &plan.version,
        bind_port: plan.init.local_api_endpoint.bind_port,
        local_etcd: plan.cluster.etcd.external.is_none(),
        ignore: &node.ignore_preflight_errors,
    };
    let mut findings = preflight::preflight(facts, &checks);
    if unfinished {
        findings.retain(|finding| !left_behind(finding));
    }
    findings.extend(prepared(host, plan).await?);
    preflight::judge(&findings, events)?;
    let wanted = version::images(&plan.cluster)?;
    images::fetch(host, node, &wanted.wanted(&plan.cluster, true), events).await.map(drop)
}

fn left_behind(finding: &Finding) -> bool {
    LEFT_BEHIND.iter().any(|beginning| finding.name.starts_with(beginning))
}
