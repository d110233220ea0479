//! The administrator's kubeconfig on the laptop: where it lies, whom it names, when it is written.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::plan::Plan;
use crate::failure::Result;
use crate::host::Host as _;
use crate::host::machine::Machine;
use crate::inventory::{Endpoint, Inventory};
use crate::kubernetes::certificates::Certificate;
use crate::kubernetes::kubeconfig::{Kubeconfig, judge_holder};
use crate::secret::Secret;

/// A certificate that ends so much later, in seconds, is a renewed one.
const DAY_SECONDS: i64 = 24 * 3600;

/// Where the admin kubeconfig of an inventory lies: beside it, `<cluster>.kubeconfig`.
pub fn path(inventory: &Inventory) -> PathBuf {
    let folder = inventory.path.parent().unwrap_or(Path::new("."));
    folder.join(format!("{}.kubeconfig", inventory.cluster.name))
}

/// The API server that a kubeconfig on the laptop is to name, where the endpoint is one that only nodes can reach: that of
/// the first control plane that is there.
pub fn server_for_laptop(inventory: &Inventory, plan: &Plan, joined: &BTreeSet<String>, port: u16) -> Option<String> {
    if inventory.cluster.endpoint != Some(Endpoint::BuiltIn) {
        return None;
    }
    let mut there = inventory.control_planes().filter(|host| joined.contains(&host.name));
    let name = &there.next()?.name;
    let host = plan.hosts.iter().find(|host| host.name == *name)?;
    Some(format!("https://{}", SocketAddr::new(host.node.address, port)))
}

/// The admin kubeconfig of a control plane as it belongs beside the inventory.
fn beside(kubeconfig: &Secret, server: Option<&str>) -> Result<Secret> {
    let Some(server) = server else { return Ok(kubeconfig.clone()) };
    let mut changed = Kubeconfig::parse(kubeconfig.expose())?;
    changed.point_to(server);
    Ok(changed.to_text())
}

/// Whether a kubeconfig that is there does what another one would: the same contexts, clusters and users, of which the one in
/// use has a certificate of the same holder that leads to the cluster's CA and lasts as long but for a day. Each control plane
/// has a certificate of its own: which of them answered first is no reason to write.
fn does_as_well(there: &[u8], wanted: &Secret, now_seconds: u64) -> bool {
    if there == wanted.expose().as_bytes() {
        return true;
    }
    let there_text = String::from_utf8_lossy(there);
    let (Ok(there), Ok(wanted)) = (Kubeconfig::parse(&there_text), Kubeconfig::parse(wanted.expose())) else {
        return false;
    };
    let holder = |kubeconfig: &Kubeconfig| {
        let certificate = kubeconfig.client_certificates().ok()?.into_iter().next()?;
        Some(((certificate.common_name, certificate.organizations), certificate.not_after))
    };
    let (Some((who, until)), Some((wanted_who, wanted_until))) = (holder(&there), holder(&wanted)) else {
        return false;
    };
    let authorities = wanted.current_cluster().and_then(|cluster| Certificate::parse_pem(&cluster.ca_pem().ok()?).ok());
    let is_good = authorities.is_some_and(|them| judge_holder(&there_text, &them, now_seconds) == Ok(None));
    let same = there.without_credentials() == wanted.without_credentials() && who == wanted_who;
    same && is_good && until.saturating_add(DAY_SECONDS) >= wanted_until
}

/// Whether [`write`] would write.
///
/// # Errors
/// As it.
pub fn differs(inventory: &Inventory, kubeconfig: &Secret, server: Option<&str>) -> Result<bool> {
    let wanted = beside(kubeconfig, server)?;
    let there = Machine.read(&path(inventory))?;
    Ok(!there.is_some_and(|there| does_as_well(&there, &wanted, now_seconds())))
}

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Writes the admin kubeconfig beside the inventory, readable by its owner only, with `server` in place of the nodes' own
/// endpoint if one is given; returns whether it changed.
///
/// # Errors
/// Kind `Cluster` for a kubeconfig that cannot be read; kind `Host` for a file that cannot be written.
pub fn write(inventory: &Inventory, kubeconfig: &Secret, server: Option<&str>) -> Result<bool> {
    let kubeconfig = beside(kubeconfig, server)?;
    let path = path(inventory);
    let machine = Machine;
    let content = kubeconfig.expose().as_bytes();
    let existing = machine.read(&path)?;
    if existing.as_ref().is_some_and(|there| does_as_well(there, &kubeconfig, now_seconds())) {
        return Ok(false);
    }
    if existing.is_some() {
        // A former cluster's credentials may be somebody's only copy.
        machine.rename(&path, &path.with_extension("kubeconfig.backup"))?;
    }
    machine.write(&path, content, 0o600)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::{differs, does_as_well, path, write};
    use crate::inventory::{self, Inventory};
    use crate::kubernetes::certificates::{Authority, KeyAlgorithm, KeyPool, PrivateKey};
    use crate::kubernetes::configuration::{ApiEndpoint, ClusterConfiguration};
    use crate::kubernetes::kubeconfig::{ADMIN, Kubeconfig, KubeconfigOrder};
    use crate::secret::Secret;

    fn inventory(folder: &Path) -> Inventory {
        let text = "cluster: {name: demo}\nssh: {user: root}\nhosts: [cp1]\n";
        inventory::parse(text, &folder.join("inventory.yaml"), Path::new("/home/ann"))
            .unwrap_or_else(|findings| panic!("{findings:?}"))
    }

    fn kubeconfig(server: &str) -> Secret {
        Secret::new(format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: demo\n  cluster: {{server: \"{server}\"}}\nusers: \
             []\ncontexts: []\ncurrent-context: demo\n"
        ))
    }

    #[test]
    fn the_kubeconfig_is_written_once_and_one_of_before_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let inventory = inventory(folder.path());
        let path = path(&inventory);
        let (first, second) = (kubeconfig("https://10.0.0.11:6443"), kubeconfig("https://10.0.0.12:6443"));
        assert!(differs(&inventory, &first, None).unwrap());
        assert!(write(&inventory, &first, None).unwrap());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, std::fs::read_to_string(&path).unwrap().as_str()), (0o600, first.expose()));
        assert!(!differs(&inventory, &first, None).unwrap());
        assert!(!write(&inventory, &first, None).unwrap());
        assert!(write(&inventory, &second, None).unwrap());
        let backup = std::fs::read_to_string(path.with_extension("kubeconfig.backup")).unwrap();
        assert_eq!(backup, first.expose());
    }

    #[test]
    fn a_laptop_is_told_a_server_that_it_reaches() {
        let folder = tempfile::tempdir().unwrap();
        let inventory = inventory(folder.path());
        let server = Some("https://10.0.0.11:6443");
        assert!(write(&inventory, &kubeconfig("https://127.0.0.1:6444"), server).unwrap());
        let text = std::fs::read_to_string(path(&inventory)).unwrap();
        assert!(text.contains("https://10.0.0.11:6443") && !text.contains("127.0.0.1"), "{text}");
    }

    /// An administrator's kubeconfig by a certificate of its own, made at `seconds`.
    fn issued(authority: &Authority, seconds: u64) -> Kubeconfig {
        let mut cluster = ClusterConfiguration { control_plane_endpoint: "api:6443".into(), ..Default::default() };
        cluster.complete(6443).unwrap();
        let local = ApiEndpoint { advertise_address: "10.0.0.11".into(), bind_port: 6443 };
        let order =
            KubeconfigOrder { cluster: &cluster, node_name: "cp1", local: &local, authority, now_seconds: seconds };
        ADMIN.issue(&order, &mut KeyPool::new(KeyAlgorithm::EcdsaP256)).unwrap()
    }

    #[test]
    fn a_certificate_of_another_control_plane_is_no_reason_to_write() {
        const THEN: u64 = 1_800_000_000;
        const DAY: u64 = 24 * 3600;
        let fresh = || {
            let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
            Authority::fresh("kubernetes", key, THEN - DAY, 3650 * DAY).unwrap()
        };
        let authority = fresh();
        let there = issued(&authority, THEN);
        let kept = |there: &Kubeconfig, wanted: &Kubeconfig, now: u64| {
            does_as_well(there.to_text().expose().as_bytes(), &wanted.to_text(), now)
        };
        assert!(kept(&there, &issued(&authority, THEN + 3600), THEN + 7200));
        assert!(kept(&issued(&authority, THEN + 40 * DAY), &there, THEN + 50 * DAY));
        // A renewed one is wanted, and one of another cluster, of another server, or in place of one whose time is over.
        assert!(!kept(&there, &issued(&authority, THEN + 40 * DAY), THEN + 50 * DAY));
        assert!(!kept(&there, &issued(&fresh(), THEN), THEN));
        assert!(!kept(&there, &issued(&authority, THEN + 3600), THEN + 400 * DAY));
        let mut elsewhere = issued(&authority, THEN);
        elsewhere.point_to("https://10.0.0.12:6443");
        assert!(!kept(&there, &elsewhere, THEN));
        // Nor is a key kept that is none of the certificate's.
        let mut torn = there.clone();
        torn.users[0].user.client_key_data = issued(&authority, THEN).users[0].user.client_key_data.clone();
        assert!(!kept(&torn, &there, THEN));
    }
}
