//! What kube-proxy in ipvs mode leaves: virtual servers, and sets of addresses. Programs for both are seldom on a host; where
//! one is missing, what it would remove is named.

use std::path::Path;

use super::plugins::Plugins;
use super::sweep::Sweep;
use crate::failure::{Failure, Kind, Result};
use crate::host::{Command, Host};

/// kube-proxy's interface in ipvs mode, as the kernel shows it.
const INTERFACE: &str = "/sys/class/net/kube-ipvs0";

/// The kernel's table of virtual servers.
const TABLE: &str = "/proc/net/ip_vs";

/// Beginning of the names of kube-proxy's sets.
const OWN_SETS: &str = "KUBE-";

/// Removes the virtual servers, while kube-proxy's interface still shows that they are its own: in this mode it removes those
/// of others itself. Answers whether the interface is there.
pub(super) async fn remove_servers(host: &dyn Host, sweep: &mut Sweep) -> bool {
    match host.entry(Path::new(INTERFACE)) {
        Ok(Some(_)) => {}
        Ok(None) => return false,
        Err(failure) => {
            sweep.resisted(failure);
            return false;
        }
    }
    let table = match host.read(Path::new(TABLE)) {
        Ok(table) => table.unwrap_or_default(),
        Err(failure) => {
            sweep.resisted(failure);
            return true;
        }
    };
    if servers(&String::from_utf8_lossy(&table)) > 0 {
        match run(host, "ipvsadm", &["--clear"]).await {
            Ran::Well => sweep.changed("virtual servers of IPVS removed"),
            Ran::Badly(failure) => sweep.resisted(failure),
            Ran::NotThere => {
                sweep.leave("virtual servers of IPVS stay until the next boot: `ipvsadm --clear` removes them")
            }
        }
    }
    true
}

/// How many virtual servers the kernel's table has.
fn servers(table: &str) -> usize {
    let is_server = |line: &&str| ["TCP ", "UDP ", "SCTP ", "FWM "].iter().any(|protocol| line.starts_with(protocol));
    table.lines().filter(is_server).count()
}

/// Removes kube-proxy's and the plugins' sets, once no rule names them any more. `was_ipvs` is what [`remove_servers`]
/// answered.
pub(super) async fn remove_sets(host: &dyn Host, plugins: &Plugins, was_ipvs: bool, sweep: &mut Sweep) {
    let Ok(listed) = host.run(Command::new("ipset", &["list", "-name"])).await else {
        if was_ipvs {
            sweep.leave("sets of addresses stay until the next boot: `ipset destroy` removes those named KUBE-*");
        }
        return;
    };
    let text = listed.text();
    for name in text.lines().filter(|name| listed.success() && (name.starts_with(OWN_SETS) || plugins.own_set(name))) {
        match run(host, "ipset", &["destroy", name]).await {
            Ran::Well => sweep.changed(format!("set {name} removed")),
            Ran::Badly(failure) => sweep.resisted(failure),
            Ran::NotThere => {}
        }
    }
}

enum Ran {
    Well,
    Badly(Failure),
    NotThere,
}

async fn run(host: &dyn Host, program: &str, arguments: &[&str]) -> Ran {
    let output: Result<_> = host.run(Command::new(program, arguments)).await;
    match output {
        // A program that is not there cannot be started.
        Err(_) => Ran::NotThere,
        Ok(output) if output.success() => Ran::Well,
        Ok(output) => {
            let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let sentence = format!("`{program} {}` fails", arguments.join(" "));
            Ran::Badly(Failure::new(Kind::Host, sentence).caused_by(words).may_pass())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Plugins, remove_servers, remove_sets};
    use crate::event::Events;
    use crate::host::fake::FakeHost;
    use crate::node::reset::sweep::Sweep;

    const TABLE: &str = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  \
                         -> RemoteAddress:Port Forward Weight ActiveConn InActConn\nTCP  0A600001:01BB rr\n  \
                         -> C0000202:192B Masq 1 0 0\n";

    fn host(table: &str) -> FakeHost {
        FakeHost::new().directory("/sys/class/net/kube-ipvs0").file("/proc/net/ip_vs", table)
    }

    async fn swept(host: &FakeHost) -> (crate::failure::Result<u32>, Vec<String>) {
        let mut sweep = Sweep::new(&Events::nowhere());
        let plugins = Plugins::read(host).unwrap();
        let was = remove_servers(host, &mut sweep).await;
        remove_sets(host, &plugins, was, &mut sweep).await;
        let left = sweep.left().to_vec();
        (sweep.finish(), left)
    }

    #[tokio::test]
    async fn servers_and_sets_go() {
        let host = host(TABLE)
            .answer(&["ipvsadm", "--clear"], 0, "")
            .answer(&["ipset", "list"], 0, "KUBE-CLUSTER-IP\nmine\ncali40s:x\n")
            .answer(&["ipset", "destroy"], 0, "");
        assert_eq!(swept(&host).await, (Ok(3), Vec::new()));
        let done = host.done();
        assert!(!done.iter().any(|line| line.contains("destroy mine")), "{done:?}");
    }

    #[tokio::test]
    async fn without_programs_they_are_named() {
        let (changes, left) = swept(&host(TABLE)).await;
        assert_eq!(changes, Ok(0));
        assert!(
            left.len() == 2 && left[0].contains("ipvsadm --clear") && left[1].contains("ipset destroy"),
            "{left:?}"
        );
    }

    #[tokio::test]
    async fn servers_of_others_are_left_alone_and_no_servers_want_no_program() {
        assert_eq!(swept(&FakeHost::new().file("/proc/net/ip_vs", TABLE)).await, (Ok(0), Vec::new()));
        let idle = host("IP Virtual Server version 1.2.1 (size=4096)\n").answer(&["ipset"], 0, "");
        assert_eq!(swept(&idle).await, (Ok(0), Vec::new()));
    }
}
