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

/// Judges a text; with `deprecated`, versions that are going away are not even warned about.
pub fn judge(text: &str, deprecated: bool) -> Judged {
    let mut judged = Judged::default();
    let mut documents = match load(text) {
        Ok(documents) => documents,
        Err(failure) => {
            judged.errors = sentences(&failure);
            return judged;
        }
    };
    for warning in std::mem::take(&mut documents.warnings) {
        if warning.contains(DEPRECATED) {
            judged.warnings.extend((!deprecated).then_some(warning));
        } else if warning.contains(" is not known here ") || warning.contains(" has no field ") {
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
    HostDefaults {
        hostname: "node".to_owned(),
        default_route_addresses: vec![address.into()],
        loopback_addresses: vec![address.into()],
        cri_sockets: Vec::new(),
    }
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
    const KUBELET: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
    const KUBE_PROXY: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
    const UPGRADE: &str = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: UpgradeConfiguration\n";

    #[rstest]
    #[case(INIT, "")]
    #[case(CLUSTER, "kubernetesVersion: 1.36.3\n")]
    #[case(INIT, "localAPIEndpoint: {advertiseAddress: 127.0.0.1}\n")]
    #[case(KUBELET, "maxPods: 42\nimageMaximumGCAge: 1h\nevictionHard: {memory.available: 100Mi}\n")]
    #[case(KUBE_PROXY, "mode: ipvs\nlogging: {flushFrequency: 5s, verbosity: 2}\n")]
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
    #[case(
        INIT,
        "localAPIEndpoint: {bindPort: no}\n",
        "InitConfiguration has a wrong value: localAPIEndpoint.bindPort"
    )]
    #[case(INIT, "bootstrapTokens:\n- expires: tomorrow\n", "bootstrapTokens[0].expires must be a moment")]
    #[case(INIT, "bootstrapTokens:\n- expires: 2030-01-01T00:00:00Z\n  ttl: 1h\n", "exclude each other")]
    #[case(CLUSTER, "imageRepository: https://mirror.example/k8s\n", "imageRepository: ")]
    #[case(KUBELET, "maxPod: 42\n", "KubeletConfiguration has no field maxPod (line 3, column 1)")]
    #[case(KUBELET, "maxPods: many\n", "maxPods must be a whole number, and is a text (line 3, column 10)")]
    #[case(
        KUBE_PROXY,
        "ipvs:\n  strictArp: true\n",
        "KubeProxyConfiguration has no field ipvs.strictArp (line 4, column 3)"
    )]
    #[case("apiVersion: example.com/v1\nkind: Thing\n", "", "Thing of example.com/v1 is not known here")]
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
    fn all_that_cannot_be_read_is_named() {
        let twice = judge(&format!("{INIT}dryRun: true\ndryRun: false\nskipPhases: []\nskipPhases: []\n"), false);
        assert_eq!(twice.errors.len(), 2, "{twice:?}");
        let wrong = judge(&format!("{CLUSTER}clusterName: 1\nscheduler: 2\n"), false);
        assert_eq!(
            wrong.errors,
            [
                "ClusterConfiguration has a wrong value: clusterName must be a text, and is a number; write it in quotes (line 3, \
                 column 14)",
                "ClusterConfiguration has a wrong value: scheduler must be a mapping, and is a number (line 4, column 12)",
            ]
        );
    }

    #[test]
    fn old_versions_are_warned_about_unless_a_person_allows_them() {
        let text = "apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\nkubernetesVersion: 1.36.3\n";
        let judged = judge(text, false);
        assert!(judged.errors.is_empty() && judged.warnings.len() == 1, "{judged:?}");
        assert_eq!(judge(text, true), super::Judged::default());
    }
}
