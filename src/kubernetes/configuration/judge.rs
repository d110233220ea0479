//! Everything that is wrong with kubeadm documents, as strictly as can be told without a host: what is only warned about
//! elsewhere is an error here (`config validate`).

use super::{Documents, HostDefaults, load};
use crate::failure::{Failure, Result};

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judged {
    /// One sentence each.
    pub errors: Vec<String>,
    /// One sentence each.
    pub warnings: Vec<String>,
}

/// What begins the warning about a version that is going away.
const DEPRECATED: &str = "is written in kubeadm.k8s.io/v1beta3";

/// Judges a text; with `deprecated`, versions that are going away are only warned about.
pub fn judge(text: &str, deprecated: bool) -> Judged {
    let mut judged = Judged::default();
    let mut documents = match load(text) {
        Ok(documents) => documents,
        Err(failure) => {
            judged.errors.push(failure.to_string());
            return judged;
        }
    };
    for warning in std::mem::take(&mut documents.warnings) {
        if warning.contains(DEPRECATED) {
            let list = if deprecated { &mut judged.warnings } else { &mut judged.errors };
            list.push(warning);
        } else if warning.contains(" of kubeadm.k8s.io ") || warning.contains(" has no field ") {
            judged.errors.push(warning.trim_end_matches("; it is ignored").replace(" and is ignored", ""));
        } else {
            judged.warnings.push(warning);
        }
    }
    if documents == Documents::default() {
        judged.errors.push("there is no document of kubeadm's in it".to_owned());
    }
    let failures = complete_and_validate(documents).into_iter().filter_map(Result::err);
    failures.for_each(|failure| judged.errors.extend(sentences(&failure)));
    judged
}

/// What a host would be, where a document does not say.
fn any_host() -> HostDefaults {
    let address = std::net::Ipv4Addr::new(1, 2, 3, 4);
    HostDefaults { hostname: "node".to_owned(), default_route_address: Some(address.into()), cri_socket: None }
}

fn complete_and_validate(documents: Documents) -> Vec<Result<()>> {
    let host = any_host();
    let mut results = Vec::new();
    let mut port = 6443;
    if let Some(mut init) = documents.init {
        results.push(init.complete(&host).and_then(|()| init.validate()));
        port = init.local_api_endpoint.bind_port;
    }
    if let Some(mut cluster) = documents.cluster {
        results.push(cluster.complete(port).and_then(|()| cluster.validate()));
    }
    if let Some(mut join) = documents.join {
        results.push(join.complete(&host).and_then(|()| join.validate()));
    }
    if let Some(mut reset) = documents.reset {
        reset.complete();
        results.push(reset.validate());
    }
    results
}

/// A failure as sentences: its parts, where it has several.
fn sentences(failure: &Failure) -> Vec<String> {
    match &failure.detail {
        Some(detail) => detail.lines().map(str::to_owned).collect(),
        None => vec![failure.to_string()],
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::judge;

    const INIT: &str = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n";
    const CLUSTER: &str = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n";
    const UPGRADE: &str = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: UpgradeConfiguration\n";

    #[rstest]
    #[case(INIT, "")]
    #[case(CLUSTER, "kubernetesVersion: 1.36.3\n")]
    #[case(
        UPGRADE,
        "apply: {forceUpgrade: true, etcdUpgrade: false}\ndiff: {contextLines: 5}\nplan: {printConfig: true}\n"
    )]
    fn what_is_right_is_taken(#[case] header: &str, #[case] rest: &str) {
        let judged = judge(&format!("{header}{rest}"), false);
        assert!(judged.errors.is_empty(), "{judged:?}");
    }

    #[rstest]
    #[case(
        INIT,
        "nodeRegistration:\n  nam: x\n",
        "InitConfiguration has no field nodeRegistration.nam (line 4, column 3)"
    )]
    #[case(CLUSTER, "apiServer:\n  extraArgs:\n  - {name: a, valu: b}\n", "extraArgs[0].valu (line 5, column 15)")]
    #[case(UPGRADE, "appl: {}\n", "UpgradeConfiguration has no field appl (line 3, column 1)")]
    #[case(INIT, "nodeRegistration: {imagePullPolicy: Sometimes}\n", "imagePullPolicy")]
    #[case(INIT, "localAPIEndpoint: {bindPort: no}\n", "InitConfiguration has a wrong value")]
    #[case(INIT, "dryRun: true\ndryRun: false\n", "line 4, column 1")]
    #[case(CLUSTER, "kubernetesVersion: 1.12.0\n", "Kubernetes 1.12.0 is not supported")]
    #[case(
        "apiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\n",
        "",
        "unknown version kubeadm.k8s.io/v1beta2"
    )]
    #[case("apiVersion: kubeadm.k8s.io/v1beta4\nkind: Init\n", "", "Init of kubeadm.k8s.io is not known here")]
    #[case("", "", "there is no document of kubeadm's")]
    fn what_is_wrong_is_named(#[case] header: &str, #[case] rest: &str, #[case] part: &str) {
        let judged = judge(&format!("{header}{rest}"), false);
        assert!(judged.errors.iter().any(|error| error.contains(part)), "{judged:?}");
    }

    #[test]
    fn old_versions_are_for_a_person_to_allow() {
        let text = "apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\nkubernetesVersion: 1.36.3\n";
        assert_eq!(judge(text, false).errors.len(), 1);
        let allowed = judge(text, true);
        assert!(allowed.errors.is_empty() && allowed.warnings.len() == 1, "{allowed:?}");
    }
}
