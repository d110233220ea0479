//! Network interfaces and routes that pods leave behind.

use serde_json::Value;

use super::plugins::Plugins;
use super::sweep::Sweep;
use crate::failure::{Failure, Kind, Result};
use crate::host::{Command, Host};

/// The interface of our pod network between subnets, and kube-proxy's in ipvs mode.
const OWN_LINKS: &[&str] = &["clusterctl-vx", "kube-ipvs0"];

/// Removes the bridge of our pod network with what is attached to it, our own interfaces and those of plugins that are known;
/// their routes go with them.
pub(super) async fn remove(host: &dyn Host, bridge: Option<&str>, plugins: &Plugins, sweep: &mut Sweep) {
    let links = match links(host).await {
        Ok(links) => links,
        Err(failure) => return sweep.resisted(failure),
    };
    for name in doomed(&links, bridge, plugins) {
        sweep.changes_of(delete(host, &name).await, &format!("interface {name} removed"));
    }
    for link in links.iter().filter(|link| link.up && plugins.lowers(&link.name)) {
        sweep.changes_of(lower(host, &link.name).await, &format!("interface {} set down", link.name));
    }
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    name: String,
    master: Option<String>,
    up: bool,
}

async fn links(host: &dyn Host) -> Result<Vec<Link>> {
    let output = host.run(Command::new("ip", &["-json", "link", "show"])).await?;
    let unreadable = || Failure::new(Kind::Host, "`ip -json link show` does not list the interfaces");
    if !output.success() {
        return Err(unreadable().caused_by(String::from_utf8_lossy(&output.stderr).trim()));
    }
    let list: Value = serde_json::from_slice(&output.stdout).map_err(|error| unreadable().because(&error))?;
    let text = |link: &Value, key: &str| link[key].as_str().map(str::to_owned);
    let list = list.as_array().into_iter().flatten();
    let up = |link: &Value| link["flags"].as_array().is_some_and(|flags| flags.contains(&Value::from("UP")));
    let link = |link: &Value| Some(Link { name: text(link, "ifname")?, master: text(link, "master"), up: up(link) });
    Ok(list.filter_map(link).collect())
}

/// What is to be removed: what is attached to the bridge, the bridge, our own interfaces, those of plugins.
fn doomed(links: &[Link], bridge: Option<&str>, plugins: &Plugins) -> Vec<String> {
    let attached = links.iter().filter(|link| bridge.is_some() && link.master.as_deref() == bridge);
    let is_own = |name: &str| bridge == Some(name) || OWN_LINKS.contains(&name) || plugins.own_link(name);
    let named = links.iter().filter(|link| is_own(&link.name));
    attached.chain(named).map(|link| link.name.clone()).collect()
}

/// Deletes an interface; one that is gone by itself (its pod's namespace ended) is fine.
async fn delete(host: &dyn Host, name: &str) -> Result<bool> {
    let output = host.run(Command::new("ip", &["link", "delete", "dev", name])).await?;
    let words = String::from_utf8_lossy(&output.stderr);
    match output.success() {
        true => Ok(true),
        false if words.contains("Cannot find device") => Ok(false),
        false => Err(Failure::new(Kind::Host, format!("interface {name} cannot be removed")).caused_by(words.trim())),
    }
}

/// Takes its addresses from an interface that cannot be removed, and sets it down.
async fn lower(host: &dyn Host, name: &str) -> Result<bool> {
    for arguments in [["address", "flush", "dev", name].as_slice(), &["link", "set", "dev", name, "down"]] {
        let output = host.run(Command::new("ip", arguments)).await?;
        if !output.success() {
            let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Failure::new(Kind::Host, format!("interface {name} cannot be set down")).caused_by(words));
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::remove;
    use crate::event::Events;
    use crate::host::fake::FakeHost;
    use crate::node::reset::plugins::Plugins;
    use crate::node::reset::sweep::Sweep;

    const LINKS: &str = r#"[{"ifname": "lo"}, {"ifname": "eth0"}, {"ifname": "cni0"}, {"ifname": "veth1", "master": "cni0"},
        {"ifname": "veth2", "master": "br0"}, {"ifname": "br0"}, {"ifname": "clusterctl-vx"}]"#;

    #[tokio::test]
    async fn the_bridge_goes_with_what_hangs_on_it_and_nothing_else() {
        let host = FakeHost::new().answer(&["ip", "-json"], 0, LINKS).answer(&["ip", "link", "delete"], 0, "");
        let mut sweep = Sweep::new(&Events::nowhere());
        remove(&host, Some("cni0"), &Plugins::read(&host).unwrap(), &mut sweep).await;
        assert_eq!(sweep.finish(), Ok(3));
        assert_eq!(
            host.done()[1..],
            ["run ip link delete dev veth1", "run ip link delete dev cni0", "run ip link delete dev clusterctl-vx"]
        );
    }

    #[tokio::test]
    async fn a_bridge_that_is_not_ours_stays() {
        let host = FakeHost::new().answer(&["ip", "-json"], 0, r#"[{"ifname": "cni0"}]"#);
        let mut sweep = Sweep::new(&Events::nowhere());
        remove(&host, None, &Plugins::read(&host).unwrap(), &mut sweep).await;
        assert_eq!(sweep.finish(), Ok(0));
    }

    #[tokio::test]
    async fn links_of_a_plugin_go_and_the_kernels_tunnel_is_set_down() {
        let links = r#"[{"ifname": "tunl0", "flags": ["NOARP", "UP"]}, {"ifname": "cali1"}, {"ifname": "vxlan.calico"}, {"ifname": "eth0", "flags": ["UP"]}]"#;
        let host = FakeHost::new()
            .file("/etc/cni/net.d/10-calico.conflist", "{}")
            .answer(&["ip", "-json"], 0, links)
            .answer(&["ip"], 0, "");
        let mut sweep = Sweep::new(&Events::nowhere());
        remove(&host, None, &Plugins::read(&host).unwrap(), &mut sweep).await;
        assert_eq!(sweep.finish(), Ok(3));
        assert_eq!(
            host.done()[1..],
            [
                "run ip link delete dev cali1",
                "run ip link delete dev vxlan.calico",
                "run ip address flush dev tunl0",
                "run ip link set dev tunl0 down"
            ]
        );
    }
}
