//! Clusters and hosts that must not be built upon: certificates out of their time, a cluster-info that somebody altered,
//! authorities that cannot sign, an etcd without its quorum. Each is a sentence with advice and its exit code, nothing is
//! left half-made, and the same command works once it is put right.

use std::time::Duration;

use crate::bed::{Bed, bed};
use crate::both_ways::KUBECTL;
use crate::high_availability::{all_serve, changes_nothing, inventory_text, ready};
use crate::joining::{Cluster, NODE, TOKEN};
use crate::program::{clusterctl, down, kubectl, refused, run, succeeds, up, wait_for};

/// Signs the API server's certificate anew, for a time between two offsets of `date`; the authority stays.
fn certify_server(cluster: &Cluster, from: &str, until: &str) {
    let moment = |offset: &str| format!("$(date -u -d '{offset}' +%Y%m%d%H%M%SZ)");
    cluster.first(&format!(
        "cd /etc/kubernetes/pki && openssl x509 -in apiserver.crt -CA ca.crt -CAkey ca.key -set_serial 77 -not_before {} \
         -not_after {} -out /root/apiserver.crt 2>/dev/null && cat /root/apiserver.crt > apiserver.crt",
        moment(from),
        moment(until)
    ));
    is_shown(cluster);
}

/// The API server has noticed its new certificate.
fn is_shown(cluster: &Cluster) {
    let shown =
        format!("openssl s_client -connect {} </dev/null 2>/dev/null | openssl x509 -noout -dates", cluster.endpoint);
    wait_for("the new certificate of the API server", Duration::from_secs(90), || {
        cluster.first(&shown) == cluster.first("openssl x509 -noout -dates -in /etc/kubernetes/pki/apiserver.crt")
    });
}

#[test]
#[ignore = "takes minutes: make test-all"]
fn a_cluster_out_of_its_time_or_altered_is_not_joined() {
    let cluster = Cluster::new();
    let join = format!("{NODE} join --config /root/join.yaml");
    cluster.write("/root/join.yaml", &cluster.configuration(TOKEN, &cluster.pin, ""));

    // The host that joins is hours behind.
    let behind = cluster.bed.hosts[1].name.as_str();
    bed(&["host", "clock", behind, "-18000"]);
    cluster.refused(&join, 11, &["not valid before", "clock of this host", "chrony"]);
    bed(&["host", "clock", behind, "0"]);

    // The same of the API server alone: a certificate of the future, and an old one.
    cluster.first("cp /etc/kubernetes/pki/apiserver.crt /root/kept.crt");
    certify_server(&cluster, "5 hours", "2 days");
    cluster.refused(&join, 11, &["not valid before", "clock of this host", "chrony"]);
    certify_server(&cluster, "2 days ago", "5 hours ago");
    cluster.refused(&join, 11, &["has expired", "certs renew apiserver"]);
    cluster.first("cat /root/kept.crt > /etc/kubernetes/pki/apiserver.crt");
    is_shown(&cluster);
    cluster.untouched();

    cluster_info_is_altered(&cluster, &join);
    cluster.untouched();

    the_server_dies_while_a_host_joins(&cluster);
    cluster.reset();
    cluster.untouched();
}

/// The controller manager stands still from now on. One that could not renew its lease has ended, and is started again.
fn nobody_signs(cluster: &Cluster) {
    cluster.first("timeout 60 sh -c 'until pkill -STOP -f \"^kube-controller-manager \"; do :; done'");
}

/// Where nodes are sent to is signed with the token; whom they trust is pinned besides, against whoever can sign.
fn cluster_info_is_altered(cluster: &Cluster, join: &str) {
    let first = &cluster.bed.hosts[0].name;
    let get = format!("{KUBECTL} -n kube-public get configmap cluster-info -o json");
    // Whichever version is there: the controller may sign in between.
    let put = format!("grep -v '\"resourceVersion\"' | {KUBECTL} -n kube-public replace -f -");
    let signed = || cluster.first(&get).contains("jws-kubeconfig-abcdef");
    cluster.first(&format!("{get} > /root/info.json"));
    // Nobody signs what is altered now.
    nobody_signs(cluster);
    cluster.first(&format!("sed 's#https://{}#https://192.0.2.66:6443#' /root/info.json | {put}", cluster.endpoint));
    cluster.refused(join, 11, &["is not signed with our bootstrap token", "token list"]);
    cluster.bed.sh(first, "pkill -CONT -f '^kube-controller-manager '");
    // Another authority, signed: who has the token could show it.
    let key = "openssl req -quiet -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=kubernetes \
               -keyout /dev/null -out /root/other.crt 2>/dev/null";
    cluster.first(&format!(
        "{key}; {get} | sed \"s#certificate-authority-data: [A-Za-z0-9+/=]*#certificate-authority-data: $(base64 -w0 \
         /root/other.crt)#\" | {put}"
    ));
    wait_for("the signature of what was altered", Duration::from_secs(60), || {
        let refusal = cluster.try_other(join);
        assert_eq!(refusal.code, 11, "{}", refusal.stderr);
        refusal.stderr.contains("none of the hashes")
    });
    // A ConfigMap that is made anew is signed anew.
    let bare = "jq 'del(.metadata.resourceVersion, .metadata.uid)' 2>/dev/null";
    let bare = format!("(command -v jq >/dev/null && {bare} || grep -v -e '\"resourceVersion\"' -e '\"uid\"')");
    cluster.first(&format!("{KUBECTL} -n kube-public delete configmap cluster-info"));
    cluster.first(&format!("{bare} < /root/info.json | {KUBECTL} create -f -"));
    wait_for("the signature of cluster-info", Duration::from_secs(60), signed);
}

/// The API server is killed between the kubelet's request and its answer; the kubelet of its host brings it back, and the
/// join that waits for it goes on by itself.
fn the_server_dies_while_a_host_joins(cluster: &Cluster) {
    let first = &cluster.bed.hosts[0].name;
    let patient = cluster.configuration(TOKEN, &cluster.pin, "").replace("tlsBootstrap: 15s", "tlsBootstrap: 2m");
    cluster.write("/root/patient.yaml", &patient);
    // Nobody signs meanwhile, so that it is still waiting.
    nobody_signs(cluster);
    cluster.other("systemd-run --quiet --unit=join --remain-after-exit --property=StandardError=file:/root/join.log /root/clusterctl node join --config /root/patient.yaml");
    wait_for("the kubelet's request", Duration::from_secs(60), || {
        cluster.first(&format!("{KUBECTL} get csr -o name")).contains("csr-")
    });
    cluster.bed.sh(first, "pkill -KILL -f '^kube-apiserver '");
    cluster.bed.sh(first, "pkill -CONT -f '^kube-controller-manager '");
    let state = || cluster.other("systemctl show join --property=SubState,Result --value || true");
    wait_for("the end of the join", Duration::from_secs(150), || !state().contains("running"));
    let (state, log) = (state(), cluster.other("cat /root/join.log; systemctl stop join; true"));
    assert!(state.contains("success"), "{state}: {log}");
    assert_eq!(cluster.nodes().len(), 2);
    assert_eq!(cluster.try_other("test -e /etc/kubernetes/bootstrap-kubelet.conf").code, 1);
}

/// Puts an authority for the cluster into a folder of the host.
fn authority(bed: &Bed, folder: &str, from: &str, until: &str) {
    let moment = |offset: &str| format!("$(date -u -d '{offset}' +%Y%m%d%H%M%SZ)");
    bed.sh(
        &bed.hosts[0].name,
        &format!(
            "rm -rf {folder} && mkdir -p {folder} && cd {folder} && openssl req -quiet -x509 -newkey ec -pkeyopt \
             ec_paramgen_curve:P-256 -nodes -subj /CN=kubernetes -keyout ca.key -out ca.crt -not_before {} -not_after {} \
             -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,digitalSignature 2>/dev/null",
            moment(from),
            moment(until)
        ),
    );
}

/// As with upstream, to whom its chain does not verify; what is advised mends it.
fn a_certificate_out_of_its_time_is_refused_until_it_is_renewed(bed: &Bed, folder: &str, make: &str) {
    let host = &bed.hosts[0].name;
    authority(bed, folder, "1 day ago", "10 days");
    let made = bed.try_sh(host, make);
    assert_eq!(made.code, 0, "{}", made.stderr);
    // It ends before what it has just signed.
    assert!(made.stderr.contains("they are worth nothing once it has expired"), "{}", made.stderr);
    let moment = |offset: &str| format!("$(date -u -d '{offset}' +%Y%m%d%H%M%SZ)");
    bed.sh(
        host,
        &format!(
            "cd {folder} && openssl x509 -in apiserver.crt -CA ca.crt -CAkey ca.key -set_serial 77 -not_before {} \
             -not_after {} -out /root/apiserver.crt 2>/dev/null && cat /root/apiserver.crt > apiserver.crt",
            moment("2 days ago"),
            moment("5 hours ago")
        ),
    );
    refused(&bed.try_sh(host, make), 3, &["apiserver.crt", "has expired", "certs renew apiserver"]);
    let header = "apiVersion: kubeadm.k8s.io/v1beta4\\nkind: ClusterConfiguration\\nkubernetesVersion: v1.36.3\\n";
    bed.sh(host, &format!("printf '{header}' > /root/cluster.yaml"));
    bed.sh(host, &format!("{NODE} certs renew apiserver --config /root/cluster.yaml"));
    bed.sh(host, make);
}

#[test]
#[ignore = "takes minutes: make test-all"]
fn an_authority_that_cannot_be_used_is_named_before_anything_is_made() {
    let bed = Bed::bare(1);
    let host = &bed.hosts[0].name;
    bed.send(host, &[&clusterctl()], "/root");
    let folder = "/etc/kubernetes/pki";
    let make = format!(
        "{NODE} init phase certs all --kubernetes-version v1.36.3 --apiserver-advertise-address {}",
        bed.hosts[0].address
    );
    let made = || bed.sh(host, &format!("ls -R {folder} | grep -c -e crt -e key || true")).trim().to_owned();

    authority(&bed, folder, "2 days ago", "5 hours ago");
    refused(&bed.try_sh(host, &make), 3, &["ca.crt", "has expired", "valid until"]);
    assert_eq!(made(), "2");
    authority(&bed, folder, "5 hours", "10 days");
    refused(&bed.try_sh(host, &make), 3, &["ca.crt", "not valid before", "clock of this host"]);
    authority(&bed, folder, "1 day ago", "10 days");
    bed.sh(host, &format!("mv {folder}/ca.key /root/ca.key"));
    refused(&bed.try_sh(host, &make), 3, &["external certificate authority"]);
    assert_eq!(made(), "1");
    bed.sh(host, &format!("openssl ecparam -name prime256v1 -genkey -noout -out {folder}/ca.key"));
    refused(&bed.try_sh(host, &make), 3, &["ca.crt", "the private key does not belong to the certificate"]);
    assert_eq!(made(), "2");
    a_certificate_out_of_its_time_is_refused_until_it_is_renewed(&bed, folder, &make);

    // `up` finds the same, says on which host, and makes no cluster; with an authority that can sign it goes on.
    authority(&bed, folder, "2 days ago", "5 hours ago");
    let inventory = bed.inventory();
    let finished = up(&inventory);
    refused(&finished, 3, &[host, "ca.crt", "has expired"]);
    assert_eq!(bed.try_sh(host, "ls /etc/kubernetes/manifests/kube-apiserver.yaml").code, 2);
    authority(&bed, folder, "1 day ago", "10 days");
    let brought = bed.sh(host, &format!("cat {folder}/ca.crt"));
    succeeds(up(&inventory));
    assert_eq!(bed.sh(host, &format!("cat {folder}/ca.crt")), brought);
    assert_eq!(kubectl(&inventory, &["get", "nodes", "--no-headers"]).matches(" Ready ").count(), 1);
}

/// Two of three control planes are gone, so nothing can be written: whoever wants to alter the cluster is told so, and with
/// the others back everything goes on.
#[test]
#[ignore = "takes minutes: make test-all"]
fn without_a_quorum_nothing_is_half_done_and_all_goes_on_with_it() {
    let bed = Bed::bare(4);
    let inventory = bed.write_inventory(&inventory_text(&bed, "3"));
    succeeds(up(&inventory));
    let [first, worker] = [0, 3].map(|at| bed.hosts[at].name.clone());
    for host in [&first, &worker] {
        bed.send(host, &[&clusterctl()], "/root");
    }
    // The worker leaves by hand, so that its machine is prepared and no node.
    let printed = bed.sh(&first, &format!("{NODE} token create --print-join-command"));
    let word =
        |after: &str| printed.split(after).nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a word");
    let (token, pin) = (word("--token "), word("--discovery-token-ca-cert-hash "));
    bed.sh(&worker, &format!("{NODE} reset --force"));
    kubectl(&inventory, &["delete", "node", &worker]);
    let configuration = format!(
        "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\ndiscovery:\n  bootstrapToken: {{token: {token}, \
         apiServerEndpoint: \"{}:6443\", caCertHashes: [\"{pin}\"]}}\ntimeouts: {{discovery: 25s}}\n\
         nodeRegistration: {{ignorePreflightErrors: [SystemVerification]}}\n",
        bed.hosts[0].address
    );
    bed.sh(&worker, &format!("printf '%s' '{configuration}' > /root/join.yaml"));

    for lost in &bed.hosts[1..3] {
        crate::bed::bed(&["host", "kill", &lost.name]);
    }
    wait_for("an API server without its etcd", Duration::from_secs(60), || !all_serve(&bed));
    let join = format!("{NODE} join --config /root/join.yaml");
    refused(&bed.try_sh(&worker, &join), 11, &["did not give its cluster-info", "quorum"]);
    let left = bed.sh(&worker, "ls /etc/kubernetes/*.conf /etc/kubernetes/pki 2>/dev/null || true");
    assert_eq!(left, "", "something was left on the host");
    // A reset that nobody forces would make it lasting. Without a terminal it asks nobody; `script` is one, and what is
    // typed before the question is no answer to it.
    let ask = format!(
        "{{ timeout 60 sh -c 'until grep -qs y/N /root/seen; do sleep 0.2; done'; echo y; }} | script -qfec '{NODE} reset' \
         /root/seen 2>&1"
    );
    let reset = bed.try_sh(&first, &ask);
    assert_eq!(reset.code, 11, "{}", reset.stdout);
    assert!(reset.stdout.contains("etcd") && reset.stdout.contains("hint:"), "{}", reset.stdout);
    assert_eq!(bed.try_sh(&first, "test -e /etc/kubernetes/manifests/etcd.yaml").code, 0);
    // From the laptop: who is missing, and that nothing is begun beside them.
    refused(&up(&inventory), 4, &[&bed.hosts[1].name, &bed.hosts[2].name]);
    let bundle = crate::program::bundle();
    let strict = ["--yes", "--max-failures", "2", "--bundle", bundle.to_str().unwrap()];
    refused(&run("up", &inventory, &strict), 11, &["no other control plane serves one"]);

    for lost in &bed.hosts[1..3] {
        crate::bed::bed(&["host", "start", &lost.name]);
    }
    wait_for("all API servers", Duration::from_secs(180), || all_serve(&bed));
    bed.sh(&worker, &join);
    succeeds(up(&inventory));
    assert_eq!(ready(&inventory), 4);
    changes_nothing(&inventory);
    succeeds(down(&inventory));
}
