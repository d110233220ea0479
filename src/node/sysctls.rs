//! Kernel settings that kubelet and kube-proxy change by themselves: noted before they run, put back when the node is
//! taken apart.

use std::collections::BTreeMap;
use std::path::Path;

use super::files;
use crate::failure::Result;
use crate::host::Host;
use crate::host::listing::CHANGED_BY_KUBERNETES as CHANGED;

/// Where the values of before stand: in upstream's folder for what is not part of a node.
const NOTE: &str = "/etc/kubernetes/tmp/clusterctl-sysctls.json";

/// Notes the values, unless they are noted already.
pub(super) fn note(host: &dyn Host) -> Result<()> {
    if host.entry(Path::new(NOTE))?.is_some() {
        return Ok(());
    }
    let mut values = BTreeMap::new();
    for name in CHANGED {
        // A kernel without the setting has no file; one that cannot be read cannot be changed either.
        if let Ok(Some(content)) = host.read(&Path::new("/proc/sys").join(name)) {
            values.insert(*name, String::from_utf8_lossy(&content).trim().to_owned());
        }
    }
    let text = serde_json::to_string_pretty(&values).unwrap_or_default();
    files::ensure(host, Path::new(NOTE), text.as_bytes(), 0o600).map(drop)
}

/// Puts the noted values back; answers with a line for each that differed.
pub(super) fn restore(host: &dyn Host) -> Result<Vec<String>> {
    let Some(text) = files::text(host, Path::new(NOTE))? else { return Ok(Vec::new()) };
    let values: BTreeMap<String, String> = serde_json::from_str(&text).unwrap_or_default();
    let mut changes = Vec::new();
    for (name, value) in values.iter().filter(|(name, _)| CHANGED.contains(&name.as_str())) {
        let path = Path::new("/proc/sys").join(name);
        let now = host.read(&path)?.map(|content| String::from_utf8_lossy(&content).trim().to_owned());
        if now.is_some_and(|now| now != *value) {
            host.poke(&path, value.as_bytes())?;
            changes.push(format!("sysctl {} is {value} again", name.replace('/', ".")));
        }
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::{note, restore};
    use crate::host::Host as _;
    use crate::host::fake::FakeHost;

    #[test]
    fn what_changed_is_put_back_and_nothing_else() {
        let path = "/proc/sys/net/ipv4/conf/all/route_localnet";
        let host = FakeHost::new().file(path, "0\n").file("/proc/sys/kernel/panic", "5\n");
        note(&host).unwrap();
        host.poke(path.as_ref(), b"1").unwrap();
        note(&host).unwrap();
        assert_eq!(restore(&host).unwrap(), ["sysctl net.ipv4.conf.all.route_localnet is 0 again"]);
        assert_eq!(host.text(path).unwrap(), "0");
        assert!(restore(&host).unwrap().is_empty());
    }

    #[test]
    fn a_host_without_a_note_is_left_alone() {
        assert!(restore(&FakeHost::new()).unwrap().is_empty());
    }
}
