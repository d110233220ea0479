//! Joining by hand, as a person does it on the host: by tokens of each sort, by a file from an https server, as a further
//! control plane with patches and without some phases; and what goes wrong: each a sentence with advice and its exit code,
//! nothing left half-joined, and the same host joins afterwards.
//!
//! Where each sort of bad input has its test; those in `src` need no host:
//!
//! | bad input | code | test |
//! |---|---:|---|
//! | token expired, foreign, or with another secret | 11 | [`what_goes_wrong_leaves_nothing_half_joined`]; `node::join::discovery::tests::a_token_the_cluster_does_not_know_is_named_without_its_secret` |
//! | wrong hash of the CA | 11 | [`what_goes_wrong_leaves_nothing_half_joined`]; `discovery::tests::one_of_several_pins_is_enough_and_none_if_asked_for` |
//! | cluster-info tampered with | 11 | [`crate::unsound::a_cluster_out_of_its_time_or_altered_is_not_joined`]; `discovery::tests::an_altered_text_is_not`, `::a_cluster_info_that_was_altered_on_the_way_is_refused`, `::a_server_that_cannot_prove_the_ca_it_told_of_is_refused` |
//! | certificate key wrong, Secret expired | 3, 11 | [`what_goes_wrong_leaves_nothing_half_joined`]; `node::join::download_certs::tests` |
//! | clock skewed by hours | 11 | [`crate::unsound::a_cluster_out_of_its_time_or_altered_is_not_joined`] (the host's clock, and the API server's certificate alone); `discovery::tests::certificates_out_of_place_or_time_are_told` |
//! | CA expired, or not valid yet | 3, 11 | [`crate::unsound::an_authority_that_cannot_be_used_is_named_before_anything_is_made`]; `kubernetes::certificates::issue_tests::an_authority_out_of_its_time_is_refused`, `discovery::tests::certificates_out_of_place_or_time_are_told` |
//! | CA without its key | 3 | [`crate::unsound::an_authority_that_cannot_be_used_is_named_before_anything_is_made`]; `issue_tests::an_authority_without_a_key_wants_all_its_leaves`, `::an_external_authority_is_judged_as_a_whole` |
//! | key that does not match | 3 | [`crate::unsound::an_authority_that_cannot_be_used_is_named_before_anything_is_made`]; `issue_tests::a_file_that_does_not_fit_is_named` |
//! | file that is not there or cannot be read | 3 | [`what_goes_wrong_leaves_nothing_half_joined`]; `discovery::tests::a_file_that_cannot_be_used_is_named_with_the_reason` |
//! | patch that does not parse, or does not fit | 3 | [`what_goes_wrong_leaves_nothing_half_joined`]; `kubernetes::patches::tests::what_does_not_parse_is_named_with_its_line` |
//! | API server that hangs or dies during join | 11 | [`what_goes_wrong_leaves_nothing_half_joined`], [`crate::unsound::a_cluster_out_of_its_time_or_altered_is_not_joined`] |
//! | etcd without quorum | 4, 11 | [`crate::unsound::without_a_quorum_nothing_is_half_done_and_all_goes_on_with_it`]; `node::etcd::enter::tests::without_a_quorum_nothing_is_added`, `node::etcd::leave::tests::a_quorum_is_not_broken_unless_told` |
//! | version that is not supported, skew | 3, 8 | `node::join::cluster::tests::a_cluster_of_a_version_we_do_not_know_is_left_alone`, `node::preflight::tests::a_prepared_host_is_checked` |

use std::time::Duration;

use serde_json::Value;

use crate::bed::Bed;
use crate::both_ways::{KEY, KUBECTL, Side, cluster, is_as_it_was, is_reset, network_and_mounts, wait_for};
use crate::program::Finished;

pub const NODE: &str = "/root/clusterctl node";

/// The token of the cluster's configuration.
pub const TOKEN: &str = "abcdef.0123456789abcdef";

/// Checks that are none of this: the bed's hosts have control groups of old.
const IGNORED: &str = "--ignore-preflight-errors=SystemVerification";

/// A cluster of one control plane, and a prepared host beside it.
pub struct Cluster {
    pub bed: Bed,
    pub endpoint: String,
    pub pin: String,
    before: String,
}

impl Cluster {
    pub fn new() -> Self {
        let bed = cluster(Side::Ours);
        let endpoint = format!("{}:6443", bed.hosts[0].address);
        let printed = bed.sh(&bed.hosts[0].name, &format!("{NODE} token create --print-join-command"));
        let pin = printed.split_whitespace().find(|word| word.starts_with("sha256:")).expect("a pin").to_owned();
        let before = network_and_mounts(&bed, &bed.hosts[1].name);
        Self { bed, endpoint, pin, before }
    }

    pub fn first(&self, command: &str) -> String {
        self.bed.sh(&self.bed.hosts[0].name, command)
    }

    pub fn other(&self, command: &str) -> String {
        self.bed.sh(&self.bed.hosts[1].name, command)
    }

    pub fn try_other(&self, command: &str) -> Finished {
        self.bed.try_sh(&self.bed.hosts[1].name, command)
    }

    pub fn write(&self, path: &str, text: &str) {
        self.other(&format!("mkdir -p $(dirname {path}) && printf '%s' '{text}' > {path}"));
    }

    /// A JoinConfiguration with short limits.
    pub fn configuration(&self, token: &str, pin: &str, more: &str) -> String {
        format!(
            "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\ndiscovery:\n  bootstrapToken: {{token: {token}, \
             apiServerEndpoint: \"{}\", caCertHashes: [\"{pin}\"]}}\ntimeouts: {{discovery: 3s, tlsBootstrap: 15s}}\n\
             nodeRegistration: {{ignorePreflightErrors: [SystemVerification]}}\n{more}",
            self.endpoint
        )
    }

    /// A join that must fail: its exit code, words of what is said, and that advice is given.
    #[track_caller]
    pub fn refused(&self, command: &str, code: i32, words: &[&str]) {
        let finished = self.try_other(command);
        assert_eq!(finished.code, code, "{command}\n{}\n{}", finished.stdout, finished.stderr);
        for word in words {
            assert!(finished.stderr.contains(word), "no «{word}» in:\n{}", finished.stderr);
        }
        assert!(finished.stderr.contains("hint:"), "no advice in:\n{}", finished.stderr);
    }

    /// Nothing of a join lies on the host, and the cluster has no trace of it.
    #[track_caller]
    pub fn untouched(&self) {
        let left =
            self.other("ls /etc/kubernetes /var/lib/etcd 2>/dev/null | grep -v -e : -e manifests -e '^$' || true");
        assert_eq!(left, "", "something was left on the host");
        assert_eq!(self.nodes().len(), 1);
    }

    pub fn nodes(&self) -> Vec<String> {
        let nodes = self.first(&format!("{KUBECTL} get nodes -o name"));
        nodes.lines().map(|line| line.trim_start_matches("node/").to_owned()).collect()
    }

    /// What etcd lists, learners and those that never started included.
    fn listed(&self) -> Vec<String> {
        let certificates = "--cacert /etc/kubernetes/pki/etcd/ca.crt --cert /etc/kubernetes/pki/etcd/server.crt --key \
                            /etc/kubernetes/pki/etcd/server.key";
        let host = &self.bed.hosts[0].name;
        let pod = format!("{KUBECTL} -n kube-system get pod etcd-{host}");
        wait_for("etcd's pod", Duration::from_secs(60), || self.bed.try_sh(host, &pod).code == 0);
        let list = format!("{KUBECTL} -n kube-system exec etcd-{host} -- etcdctl {certificates} member list");
        self.first(&list).lines().map(str::to_owned).collect()
    }

    fn members(&self) -> usize {
        let votes = |line: &&String| line.contains(", started, ") && line.ends_with(", false");
        self.listed().iter().filter(votes).count()
    }

    /// The host is given back, so that the next join begins anew.
    pub fn reset(&self) {
        let other = &self.bed.hosts[1].name;
        self.other(&format!("{NODE} reset --force"));
        is_reset(&self.bed, other);
        is_as_it_was(&self.bed, other, &self.before);
        self.first(&format!("{KUBECTL} delete node {other} --ignore-not-found"));
    }
}

#[test]
#[ignore = "takes minutes: make test-all"]
fn what_goes_wrong_leaves_nothing_half_joined() {
    let cluster = Cluster::new();
    let zeros = format!("sha256:{}", "0".repeat(64));
    let join = |file: &str| format!("{NODE} join --config {file}");
    let first = cluster.bed.hosts[0].name.clone();

    // Another cluster answers, as far as the pin can tell.
    cluster.write("/root/bad/hash.yaml", &cluster.configuration(TOKEN, &zeros, ""));
    cluster.refused(&join("/root/bad/hash.yaml"), 11, &["none of the hashes", &cluster.pin]);
    // A token of another cluster, and one that was ours and has expired.
    cluster.write("/root/bad/foreign.yaml", &cluster.configuration("zzzzzz.0123456789abcdef", &cluster.pin, ""));
    let unknown = ["did not give its cluster-info within 3 seconds", "does not know the bootstrap token zzzzzz"];
    cluster.refused(&join("/root/bad/foreign.yaml"), 11, &unknown);
    cluster.first(&format!("{NODE} token create short1.0123456789abcdef --ttl 3s"));
    let gone = || !cluster.first(&format!("{KUBECTL} -n kube-public get cm cluster-info -o yaml")).contains("short1");
    wait_for("the signature of the short token", Duration::from_secs(20), || !gone());
    wait_for("the end of the short token", Duration::from_secs(60), gone);
    cluster.write("/root/bad/expired.yaml", &cluster.configuration("short1.0123456789abcdef", &cluster.pin, ""));
    cluster.refused(&join("/root/bad/expired.yaml"), 11, &["does not know the bootstrap token short1"]);
    // The secret part is wrong: what the cluster shows is not signed with it.
    cluster.write("/root/bad/secret.yaml", &cluster.configuration("abcdef.ffffffffffffffff", &cluster.pin, ""));
    cluster.refused(&join("/root/bad/secret.yaml"), 11, &["is not signed with our bootstrap token"]);
    // Nobody is there.
    let nowhere = cluster.configuration(TOKEN, &cluster.pin, "").replace(":6443", ":6399");
    cluster.write("/root/bad/nowhere.yaml", &nowhere);
    cluster.refused(&join("/root/bad/nowhere.yaml"), 11, &["did not give its cluster-info", "Connection refused"]);
    // Files that cannot be read, and patches that do not parse.
    cluster.refused(&format!("{NODE} join --config /root/bad"), 3, &["/root/bad"]);
    cluster.refused(&format!("{NODE} join --config /root/none.yaml"), 3, &["there is no file /root/none.yaml"]);
    cluster.write("/root/patches/kubeletconfiguration+merge.yaml", "maxPods: [\n");
    let more = "patches: {directory: /root/patches}\n";
    cluster.write("/root/bad/patches.yaml", &cluster.configuration(TOKEN, &cluster.pin, more));
    cluster.refused(&join("/root/bad/patches.yaml"), 3, &["/root/patches/kubeletconfiguration+merge.yaml:"]);
    cluster.untouched();
    // One that parses, and does not fit.
    cluster.write("/root/unfit/kubeletconfiguration+json.yaml", "[{op: remove, path: /none}]\n");
    let more = "patches: {directory: /root/unfit}\n";
    cluster.write("/root/bad/unfit.yaml", &cluster.configuration(TOKEN, &cluster.pin, more));
    cluster.refused(&join("/root/bad/unfit.yaml"), 3, &["/root/unfit/kubeletconfiguration+json.yaml"]);
    cluster.untouched();

    // A control plane with a key that opens nothing; and without anything to open.
    let other_key = "f".repeat(64);
    let more = |key: &str| format!("controlPlane: {{certificateKey: \"{key}\"}}\n");
    cluster.write("/root/bad/key.yaml", &cluster.configuration(TOKEN, &cluster.pin, &more(&other_key)));
    cluster.refused(&join("/root/bad/key.yaml"), 3, &["certificate key"]);
    cluster.first(&format!("{KUBECTL} -n kube-system delete secret kubeadm-certs"));
    cluster.write("/root/bad/gone.yaml", &cluster.configuration(TOKEN, &cluster.pin, &more(KEY)));
    cluster.refused(&join("/root/bad/gone.yaml"), 11, &["there are no uploaded certificates", "2 hours"]);
    cluster.untouched();
    assert_eq!(cluster.members(), 1);

    // The API server dies while the kubelet waits for its certificate, which nobody signs meanwhile. The token does not
    // stay behind.
    cluster.bed.sh(&first, "pkill -STOP -f '^kube-controller-manager '");
    cluster.write("/root/good.yaml", &cluster.configuration(TOKEN, &cluster.pin, ""));
    cluster.other("systemd-run --quiet --unit=join --remain-after-exit --property=StandardError=file:/root/join.log /root/clusterctl node join --config /root/good.yaml");
    wait_for("the kubelet's request", Duration::from_secs(30), || {
        cluster.try_other("test -e /etc/kubernetes/bootstrap-kubelet.conf").code == 0
    });
    cluster.bed.sh(&first, "pkill -STOP -f '^kube-apiserver '");
    let state = || cluster.other("systemctl show join --property=SubState,ExecMainStatus --value || true");
    wait_for("the end of the join", Duration::from_secs(90), || !state().contains("running"));
    cluster.bed.sh(&first, "pkill -CONT -f '^kube-(apiserver|controller-manager) '");
    let (state, log) = (
        state(),
        cluster.other(
            "cat /root/join.log; systemctl reset-failed join 2>/dev/null; systemctl stop join 2>/dev/null; true",
        ),
    );
    assert!(state.contains("11"), "{state}: {log}");
    assert!(log.contains("within 15 seconds") && log.contains("hint:"), "{log}");
    assert_eq!(cluster.try_other("test -e /etc/kubernetes/bootstrap-kubelet.conf").code, 1);
    // The same command finishes it.
    wait_for("the API server", Duration::from_secs(60), || {
        cluster.bed.try_sh(&first, &format!("{KUBECTL} get --raw /readyz")).code == 0
    });
    cluster.other(&join("/root/good.yaml"));
    assert_eq!(cluster.nodes().len(), 2);
    // What joined does not join again, and says whose it is.
    cluster.other(&join("/root/good.yaml"));
    cluster.reset();
    cluster.untouched();
}

/// Serves a folder by https, with a certificate of an authority that the other host trusts.
fn serve_by_https(cluster: &Cluster, folder: &str) {
    let address = &cluster.bed.hosts[0].address;
    let make = format!(
        "cd {folder} && openssl req -quiet -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=our-ca \
         -keyout ca.key -out ca.crt -addext basicConstraints=critical,CA:TRUE 2>/dev/null && \
         openssl req -quiet -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=files -keyout web.key -out web.csr \
         2>/dev/null && printf 'subjectAltName=IP:{address}\\nextendedKeyUsage=serverAuth\\n' > web.ext && \
         openssl x509 -req -in web.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile web.ext -out web.crt \
         2>/dev/null && systemd-run --quiet --unit=files --working-directory={folder} \
         openssl s_server -accept 8443 -cert web.crt -key web.key -WWW -quiet && cat ca.crt"
    );
    let ca = cluster.first(&make);
    cluster.write("/usr/local/share/ca-certificates/our-ca.crt", &ca);
    cluster.other("update-ca-certificates >/dev/null 2>&1");
}

#[test]
#[ignore = "takes minutes: make test-all"]
fn a_host_joins_by_a_file_from_an_https_server_and_by_two_tokens() {
    let cluster = Cluster::new();
    let (address, other) = (cluster.bed.hosts[0].address.clone(), cluster.bed.hosts[1].name.clone());
    // Who finds the cluster with one token gets the certificate with another.
    cluster.first(&format!("{NODE} token create sign01.0123456789abcdef"));
    cluster.first(&format!("{NODE} token create auth01.0123456789abcdef --usages authentication"));
    let by_tokens = format!(
        "{NODE} join {} --discovery-token sign01.0123456789abcdef --tls-bootstrap-token auth01.0123456789abcdef \
         --discovery-token-ca-cert-hash {} {IGNORED}",
        cluster.endpoint, cluster.pin
    );
    cluster.other(&by_tokens);
    assert!(cluster.nodes().contains(&other));
    cluster.reset();
    // What the cluster is found with is no matter, when the other token is none of its own.
    let foreign = by_tokens.replace("auth01.0123456789abcdef", "zzzzzz.0123456789abcdef");
    cluster.refused(&foreign, 11, &["does not accept the bootstrap token"]);

    // The public kubeconfig of the cluster lies on a web server; the token for the certificate is given beside it.
    let info = format!("{KUBECTL} -n kube-public get cm cluster-info -o jsonpath='{{.data.kubeconfig}}'");
    cluster.first(&format!("mkdir -p /root/web && {info} > /root/web/discovery.conf"));
    let by = |file: &str| format!("{NODE} join --discovery-file {file} --tls-bootstrap-token {TOKEN} {IGNORED}");
    // It may as well lie on the host.
    cluster.write("/root/discovery.conf", &cluster.first("cat /root/web/discovery.conf"));
    cluster.other(&by("/root/discovery.conf"));
    assert!(cluster.nodes().contains(&other));
    cluster.reset();
    let url = format!("https://{address}:8443/discovery.conf");
    let by_url = by(&url);
    cluster.refused(&by_url, 3, &["cannot be fetched from", &url]);
    serve_by_https(&cluster, "/root/web");
    cluster.other(&by_url);
    assert!(cluster.nodes().contains(&other));
    cluster.reset();
    // From a server whose authority the host does not trust nothing is taken.
    cluster.other("rm /usr/local/share/ca-certificates/our-ca.crt && update-ca-certificates --fresh >/dev/null 2>&1");
    cluster.refused(&by_url, 3, &["cannot be fetched from", "trusts its certificate"]);
    cluster.untouched();
}

#[test]
#[ignore = "takes minutes: make test-all"]
fn a_control_plane_joins_by_hand_with_patches_and_without_some_phases() {
    let cluster = Cluster::new();
    let other = cluster.bed.hosts[1].name.clone();
    cluster.write("/root/patches/kube-apiserver0+merge.yaml", "metadata: {labels: {patched: by-hand}}\n");
    cluster.write("/root/patches/etcd+merge.yaml", "metadata: {annotations: {patched: by-hand}}\n");
    cluster.write("/root/patches/kubeletconfiguration+merge.yaml", "maxPods: 77\nhealthzPort: 10348\n");
    let more = format!(
        "controlPlane: {{certificateKey: {KEY}}}\npatches: {{directory: /root/patches}}\nskipPhases: [control-plane-join]\n"
    );
    cluster.write("/root/join.yaml", &cluster.configuration(TOKEN, &cluster.pin, &more));

    let told = cluster.other(&format!("{NODE} join --config /root/join.yaml --dry-run -o json"));
    let told: Value = serde_json::from_str(told.trim()).unwrap_or_else(|error| panic!("{error}: {told}"));
    let host: Vec<&str> = told["host"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(host.iter().any(|line| line.contains("/etc/kubernetes/manifests/kube-apiserver.yaml")), "{host:#?}");
    assert!(told["leftOut"].as_array().unwrap().iter().any(|phase| phase == "etcd-join"), "{told}");
    cluster.untouched();
    assert_eq!(cluster.members(), 1);

    cluster.other(&format!("{NODE} join --config /root/join.yaml"));
    assert_eq!(cluster.members(), 2);
    let node: Value = serde_json::from_str(&cluster.first(&format!("{KUBECTL} get node {other} -o json"))).unwrap();
    let labels = &node["metadata"]["labels"];
    assert!(labels.get("node-role.kubernetes.io/control-plane").is_none(), "the phase was left out: {labels}");
    for (file, words) in [
        ("/etc/kubernetes/manifests/kube-apiserver.yaml", "patched: by-hand"),
        ("/etc/kubernetes/manifests/etcd.yaml", "patched: by-hand"),
        ("/var/lib/kubelet/config.yaml", "maxPods: 77"),
        ("/var/lib/kubelet/config.yaml", "healthzPort: 10348"),
    ] {
        assert!(cluster.other(&format!("cat {file}")).contains(words), "no «{words}» in {file}");
    }
    // The phase that was left out, alone, and etcd's health: admin.conf leads to the cluster, without a token.
    cluster.other(&format!("{NODE} join phase check-etcd --control-plane"));
    cluster.other(&format!("{NODE} join phase control-plane-join mark-control-plane --control-plane"));
    let node: Value = serde_json::from_str(&cluster.first(&format!("{KUBECTL} get node {other} -o json"))).unwrap();
    assert_eq!(node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"], "");
    // It serves on its own: its API server answers for itself.
    let address = &cluster.bed.hosts[1].address;
    wait_for("its API server", Duration::from_secs(60), || {
        let ask = format!("{KUBECTL} --server https://{address}:6443 get --raw /readyz");
        cluster.bed.try_sh(&cluster.bed.hosts[0].name, &ask).code == 0
    });
    cluster.reset();
    assert_eq!(cluster.members(), 1);
}

/// Its member is in etcd when a control plane breaks off that joins: one that never started, or one that votes. The reset takes
/// it out again, and the next join finds nothing of it.
#[test]
#[ignore = "takes minutes: make test-all"]
fn a_control_plane_that_broke_off_leaves_etcd_and_joins_afterwards() {
    let cluster = Cluster::new();
    let patched = |folder: &str| {
        let more = format!("controlPlane: {{certificateKey: {KEY}}}\npatches: {{directory: /root/{folder}}}\n");
        let limits = "timeouts: {controlPlaneComponentHealthCheck: 20s, etcdAPICall: 20s, ";
        cluster.configuration(TOKEN, &cluster.pin, &more).replace("timeouts: {", limits)
    };
    let join = format!("{NODE} join --config /root/join.yaml");
    for part in ["etcd", "kube-apiserver"] {
        // No program takes it, so that the pod ends again and again.
        let unknown = "- {op: add, path: /spec/containers/0/command/-, value: --of-nobody}\n";
        cluster.write(&format!("/root/{part}/{part}+json.yaml"), unknown);
        cluster.write("/root/join.yaml", &patched(part));
        cluster.refused(&join, 11, &[part]);
        let listed = cluster.listed();
        eprintln!("a join that broke off at {part} leaves {listed:#?}");
        assert_eq!(listed.len(), 2, "{listed:#?}");
        cluster.reset();
        let listed = cluster.listed();
        assert!(listed.len() == 1 && cluster.members() == 1, "{listed:#?}");
    }
    cluster.other("mkdir /root/none");
    cluster.write("/root/join.yaml", &patched("none"));
    cluster.other(&join);
    assert_eq!((cluster.members(), cluster.nodes().len()), (2, 2));
    cluster.reset();
    assert_eq!(cluster.listed().len(), 1);
}
