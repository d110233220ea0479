//! Every field of kubeadm's documents and what becomes of it: nothing that a person writes is passed over in silence.

mod components;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::load;
use super::shape::{self, Shape};

/// Fields by kind; behind each what it does, or why it is refused.
const VERDICTS: &[(&str, &str)] = &[
    (
        "InitConfiguration",
        "
        apiVersion                               read: chooses the conversion
        kind                                     read: chooses the type
        bootstrapTokens                          made by phase bootstrap-token
        bootstrapTokens[].token                  the token; random when absent
        bootstrapTokens[].description            in its Secret
        bootstrapTokens[].ttl                    its expiration in the Secret
        bootstrapTokens[].expires                its expiration in the Secret, before ttl
        bootstrapTokens[].usages                 in its Secret
        bootstrapTokens[].groups                 in its Secret
        dryRun                                   as --dry-run; refused by `up`
        nodeRegistration                         below
        nodeRegistration.name                    the Node's name, --hostname-override
        nodeRegistration.criSocket               instance-config.yaml or flag and annotation
        nodeRegistration.taints                  set by mark-control-plane
        nodeRegistration.taints[].key            as it is
        nodeRegistration.taints[].value          as it is
        nodeRegistration.taints[].effect         as it is
        nodeRegistration.taints[].timeAdded      as it is
        nodeRegistration.kubeletExtraArgs        in kubeadm-flags.env
        nodeRegistration.kubeletExtraArgs[].name as it is
        nodeRegistration.kubeletExtraArgs[].value as it is
        nodeRegistration.ignorePreflightErrors   errors of these checks are warnings
        nodeRegistration.imagePullPolicy         what preflight by hand fetches
        nodeRegistration.imagePullSerial         whether it fetches one after the other
        localAPIEndpoint                         below
        localAPIEndpoint.advertiseAddress        certificates, manifests, kubeconfigs
        localAPIEndpoint.bindPort                manifests, kubeconfigs
        certificateKey                           encrypts the uploaded certificates
        skipPhases                               left out; add-ons remembered in the cluster
        patches                                  below
        patches.directory                        laid over manifests, kubelet's configuration, add-ons
        timeouts                                 below
        timeouts.controlPlaneComponentHealthCheck wait-control-plane, startup probes
        timeouts.kubeletHealthCheck              wait-control-plane
        timeouts.kubernetesAPICall               every write to the cluster
        timeouts.etcdAPICall                     etcd's members, when others join
        timeouts.tlsBootstrap                    of joining; init does not wait for it, as upstream
        timeouts.discovery                       of joining; init does not wait for it, as upstream
        timeouts.upgradeManifests                of upgrading; init does not wait for it, as upstream
        ",
    ),
    (
        "ClusterConfiguration",
        "
        apiVersion                               read: chooses the conversion
        kind                                     read: chooses the type
        etcd                                     below
        etcd.local                               a member on each control plane
        etcd.local.imageRepository               etcd's image
        etcd.local.imageTag                      etcd's image
        etcd.local.dataDir                       manifest, directory
        etcd.local.extraArgs                     manifest
        etcd.local.extraArgs[].name              as it is
        etcd.local.extraArgs[].value             as it is
        etcd.local.extraEnvs                     manifest
        etcd.local.extraEnvs[].name              as it is
        etcd.local.extraEnvs[].value             as it is
        etcd.local.extraEnvs[].valueFrom         as it is
        etcd.local.extraEnvs[].valueFrom.fieldRef below
        etcd.local.extraEnvs[].valueFrom.fieldRef.apiVersion as it is
        etcd.local.extraEnvs[].valueFrom.fieldRef.fieldPath as it is
        etcd.local.extraEnvs[].valueFrom.resourceFieldRef below
        etcd.local.extraEnvs[].valueFrom.resourceFieldRef.containerName as it is
        etcd.local.extraEnvs[].valueFrom.resourceFieldRef.resource as it is
        etcd.local.extraEnvs[].valueFrom.resourceFieldRef.divisor as it is
        etcd.local.extraEnvs[].valueFrom.configMapKeyRef below
        etcd.local.extraEnvs[].valueFrom.configMapKeyRef.name as it is
        etcd.local.extraEnvs[].valueFrom.configMapKeyRef.key as it is
        etcd.local.extraEnvs[].valueFrom.configMapKeyRef.optional as it is
        etcd.local.extraEnvs[].valueFrom.secretKeyRef below
        etcd.local.extraEnvs[].valueFrom.secretKeyRef.name as it is
        etcd.local.extraEnvs[].valueFrom.secretKeyRef.key as it is
        etcd.local.extraEnvs[].valueFrom.secretKeyRef.optional as it is
        etcd.local.extraEnvs[].valueFrom.fileKeyRef below
        etcd.local.extraEnvs[].valueFrom.fileKeyRef.volumeName as it is
        etcd.local.extraEnvs[].valueFrom.fileKeyRef.path as it is
        etcd.local.extraEnvs[].valueFrom.fileKeyRef.key as it is
        etcd.local.extraEnvs[].valueFrom.fileKeyRef.optional as it is
        etcd.local.serverCertSANs                certificate etcd/server
        etcd.local.peerCertSANs                  certificate etcd/peer
        etcd.external                            no member here
        etcd.external.endpoints                  the API server's --etcd-servers
        etcd.external.httpEndpoints              stored for upstream from 1.35 on
        etcd.external.caFile                     the API server's --etcd-cafile, mounted
        etcd.external.certFile                   the API server's --etcd-certfile, mounted
        etcd.external.keyFile                    the API server's --etcd-keyfile, mounted
        networking                               below
        networking.serviceSubnet                 manifests, certificates, DNS
        networking.podSubnet                     manifests, kube-proxy
        networking.dnsDomain                     manifests, certificates, kubelet, DNS
        kubernetesVersion                        images and rules; labels such as stable-1 are refused: nothing is asked of the internet
        controlPlaneEndpoint                     kubeconfigs, certificates, cluster-info
        apiServer                                below
        apiServer.extraArgs                      manifest
        apiServer.extraArgs[].name               as it is
        apiServer.extraArgs[].value              as it is
        apiServer.extraVolumes                   manifest
        apiServer.extraVolumes[].name            as it is
        apiServer.extraVolumes[].hostPath        as it is
        apiServer.extraVolumes[].mountPath       as it is
        apiServer.extraVolumes[].readOnly        as it is
        apiServer.extraVolumes[].pathType        as it is
        apiServer.extraEnvs                      manifest
        apiServer.extraEnvs[].name               as it is
        apiServer.extraEnvs[].value              as it is
        apiServer.extraEnvs[].valueFrom          as it is
        apiServer.extraEnvs[].valueFrom.fieldRef below
        apiServer.extraEnvs[].valueFrom.fieldRef.apiVersion as it is
        apiServer.extraEnvs[].valueFrom.fieldRef.fieldPath as it is
        apiServer.extraEnvs[].valueFrom.resourceFieldRef below
        apiServer.extraEnvs[].valueFrom.resourceFieldRef.containerName as it is
        apiServer.extraEnvs[].valueFrom.resourceFieldRef.resource as it is
        apiServer.extraEnvs[].valueFrom.resourceFieldRef.divisor as it is
        apiServer.extraEnvs[].valueFrom.configMapKeyRef below
        apiServer.extraEnvs[].valueFrom.configMapKeyRef.name as it is
        apiServer.extraEnvs[].valueFrom.configMapKeyRef.key as it is
        apiServer.extraEnvs[].valueFrom.configMapKeyRef.optional as it is
        apiServer.extraEnvs[].valueFrom.secretKeyRef below
        apiServer.extraEnvs[].valueFrom.secretKeyRef.name as it is
        apiServer.extraEnvs[].valueFrom.secretKeyRef.key as it is
        apiServer.extraEnvs[].valueFrom.secretKeyRef.optional as it is
        apiServer.extraEnvs[].valueFrom.fileKeyRef below
        apiServer.extraEnvs[].valueFrom.fileKeyRef.volumeName as it is
        apiServer.extraEnvs[].valueFrom.fileKeyRef.path as it is
        apiServer.extraEnvs[].valueFrom.fileKeyRef.key as it is
        apiServer.extraEnvs[].valueFrom.fileKeyRef.optional as it is
        apiServer.certSANs                       certificate apiserver
        controllerManager                        below
        controllerManager.extraArgs              manifest
        controllerManager.extraArgs[].name       as it is
        controllerManager.extraArgs[].value      as it is
        controllerManager.extraVolumes           manifest
        controllerManager.extraVolumes[].name    as it is
        controllerManager.extraVolumes[].hostPath as it is
        controllerManager.extraVolumes[].mountPath as it is
        controllerManager.extraVolumes[].readOnly as it is
        controllerManager.extraVolumes[].pathType as it is
        controllerManager.extraEnvs              manifest
        controllerManager.extraEnvs[].name       as it is
        controllerManager.extraEnvs[].value      as it is
        controllerManager.extraEnvs[].valueFrom  as it is
        controllerManager.extraEnvs[].valueFrom.fieldRef below
        controllerManager.extraEnvs[].valueFrom.fieldRef.apiVersion as it is
        controllerManager.extraEnvs[].valueFrom.fieldRef.fieldPath as it is
        controllerManager.extraEnvs[].valueFrom.resourceFieldRef below
        controllerManager.extraEnvs[].valueFrom.resourceFieldRef.containerName as it is
        controllerManager.extraEnvs[].valueFrom.resourceFieldRef.resource as it is
        controllerManager.extraEnvs[].valueFrom.resourceFieldRef.divisor as it is
        controllerManager.extraEnvs[].valueFrom.configMapKeyRef below
        controllerManager.extraEnvs[].valueFrom.configMapKeyRef.name as it is
        controllerManager.extraEnvs[].valueFrom.configMapKeyRef.key as it is
        controllerManager.extraEnvs[].valueFrom.configMapKeyRef.optional as it is
        controllerManager.extraEnvs[].valueFrom.secretKeyRef below
        controllerManager.extraEnvs[].valueFrom.secretKeyRef.name as it is
        controllerManager.extraEnvs[].valueFrom.secretKeyRef.key as it is
        controllerManager.extraEnvs[].valueFrom.secretKeyRef.optional as it is
        controllerManager.extraEnvs[].valueFrom.fileKeyRef below
        controllerManager.extraEnvs[].valueFrom.fileKeyRef.volumeName as it is
        controllerManager.extraEnvs[].valueFrom.fileKeyRef.path as it is
        controllerManager.extraEnvs[].valueFrom.fileKeyRef.key as it is
        controllerManager.extraEnvs[].valueFrom.fileKeyRef.optional as it is
        scheduler                                below
        scheduler.extraArgs                      manifest
        scheduler.extraArgs[].name               as it is
        scheduler.extraArgs[].value              as it is
        scheduler.extraVolumes                   manifest
        scheduler.extraVolumes[].name            as it is
        scheduler.extraVolumes[].hostPath        as it is
        scheduler.extraVolumes[].mountPath       as it is
        scheduler.extraVolumes[].readOnly        as it is
        scheduler.extraVolumes[].pathType        as it is
        scheduler.extraEnvs                      manifest
        scheduler.extraEnvs[].name               as it is
        scheduler.extraEnvs[].value              as it is
        scheduler.extraEnvs[].valueFrom          as it is
        scheduler.extraEnvs[].valueFrom.fieldRef below
        scheduler.extraEnvs[].valueFrom.fieldRef.apiVersion as it is
        scheduler.extraEnvs[].valueFrom.fieldRef.fieldPath as it is
        scheduler.extraEnvs[].valueFrom.resourceFieldRef below
        scheduler.extraEnvs[].valueFrom.resourceFieldRef.containerName as it is
        scheduler.extraEnvs[].valueFrom.resourceFieldRef.resource as it is
        scheduler.extraEnvs[].valueFrom.resourceFieldRef.divisor as it is
        scheduler.extraEnvs[].valueFrom.configMapKeyRef below
        scheduler.extraEnvs[].valueFrom.configMapKeyRef.name as it is
        scheduler.extraEnvs[].valueFrom.configMapKeyRef.key as it is
        scheduler.extraEnvs[].valueFrom.configMapKeyRef.optional as it is
        scheduler.extraEnvs[].valueFrom.secretKeyRef below
        scheduler.extraEnvs[].valueFrom.secretKeyRef.name as it is
        scheduler.extraEnvs[].valueFrom.secretKeyRef.key as it is
        scheduler.extraEnvs[].valueFrom.secretKeyRef.optional as it is
        scheduler.extraEnvs[].valueFrom.fileKeyRef below
        scheduler.extraEnvs[].valueFrom.fileKeyRef.volumeName as it is
        scheduler.extraEnvs[].valueFrom.fileKeyRef.path as it is
        scheduler.extraEnvs[].valueFrom.fileKeyRef.key as it is
        scheduler.extraEnvs[].valueFrom.fileKeyRef.optional as it is
        dns                                      below
        dns.imageRepository                      CoreDNS's image
        dns.imageTag                             CoreDNS's image
        dns.disabled                             no CoreDNS
        proxy                                    below
        proxy.disabled                           no kube-proxy
        certificatesDir                          certificates, manifests, kubelet
        imageRepository                          images
        featureGates                             by name; unknown ones and RootlessControlPlane are refused
        clusterName                              kubeconfigs, controller manager
        encryptionAlgorithm                      keys
        certificateValidityPeriod                certificates
        caCertificateValidityPeriod              certificates of authorities
        ",
    ),
    (
        "JoinConfiguration",
        "
        apiVersion                               read: chooses the conversion
        kind                                     read: chooses the type
        dryRun                                   as --dry-run; refused by `up`
        nodeRegistration                         below
        nodeRegistration.name                    the Node's name, --hostname-override
        nodeRegistration.criSocket               instance-config.yaml or flag and annotation
        nodeRegistration.taints                  --register-with-taints, or mark-control-plane
        nodeRegistration.taints[].key            as it is
        nodeRegistration.taints[].value          as it is
        nodeRegistration.taints[].effect         as it is
        nodeRegistration.taints[].timeAdded      on control planes; a kubelet registers no times, as upstream
        nodeRegistration.kubeletExtraArgs        in kubeadm-flags.env
        nodeRegistration.kubeletExtraArgs[].name as it is
        nodeRegistration.kubeletExtraArgs[].value as it is
        nodeRegistration.ignorePreflightErrors   errors of these checks are warnings
        nodeRegistration.imagePullPolicy         of control planes; workers fetch nothing before, as upstream
        nodeRegistration.imagePullSerial         of control planes; workers fetch nothing before, as upstream
        caCertPath                               where the CA goes
        discovery                                below
        discovery.bootstrapToken                 finds the cluster
        discovery.bootstrapToken.token           checks its signature
        discovery.bootstrapToken.apiServerEndpoint asked for cluster-info
        discovery.bootstrapToken.caCertHashes    checks its CA
        discovery.bootstrapToken.unsafeSkipCAVerification leaves that out
        discovery.file                           finds the cluster
        discovery.file.kubeConfigPath            a file or an https URL
        discovery.tlsBootstrapToken              the kubelet's first proof
        controlPlane                             makes a control plane
        controlPlane.localAPIEndpoint            below
        controlPlane.localAPIEndpoint.advertiseAddress certificates, manifests, kubeconfigs
        controlPlane.localAPIEndpoint.bindPort   manifests, kubeconfigs
        controlPlane.certificateKey              decrypts the uploaded certificates
        skipPhases                               left out
        patches                                  below
        patches.directory                        laid over manifests and the kubelet's configuration
        timeouts                                 below
        timeouts.controlPlaneComponentHealthCheck of control planes: wait-control-plane, startup probes
        timeouts.kubeletHealthCheck              kubelet-wait-bootstrap
        timeouts.kubernetesAPICall               reading the cluster, writing the Node
        timeouts.etcdAPICall                     etcd-join
        timeouts.tlsBootstrap                    kubelet-wait-bootstrap
        timeouts.discovery                       finding the cluster
        timeouts.upgradeManifests                of upgrading; join does not wait for it, as upstream
        ",
    ),
    (
        "ResetConfiguration",
        "
        apiVersion                               read: chooses the conversion
        kind                                     read: chooses the type
        cleanupTmpDir                            whether /etc/kubernetes/tmp goes
        certificatesDir                          goes, besides the one the manifests name
        criSocket                                where containerd is asked to forget pods; they are found by their control groups
        dryRun                                   as --dry-run
        force                                    no question, and etcd may lose its quorum
        ignorePreflightErrors                    accepted: the only check is that of root, which nobody can ignore here
        skipPhases                               left out
        unmountFlags                             MNT_DETACH and UMOUNT_NOFOLLOW are what is done; others are refused
        timeouts                                 below
        timeouts.controlPlaneComponentHealthCheck reset waits for no component, as upstream
        timeouts.kubeletHealthCheck              reset waits for no kubelet, as upstream
        timeouts.kubernetesAPICall               reset reads the cluster once, as upstream
        timeouts.etcdAPICall                     remove-etcd-member, at most 10 s by force
        timeouts.tlsBootstrap                    of joining
        timeouts.discovery                       of joining
        timeouts.upgradeManifests                of upgrading
        ",
    ),
    ("KubeletConfiguration", components::KUBELET),
    ("KubeProxyConfiguration", components::KUBE_PROXY),
];

/// The shape of any kind that is read.
fn shape_of(kind: &str) -> &'static Shape {
    shape::of(kind).or_else(|| shape::of_component(kind).map(|(_, _, shape)| shape)).unwrap()
}

#[test]
fn every_field_has_its_verdict() {
    for (kind, table) in VERDICTS {
        let lines = table.lines().map(str::trim).filter(|line| !line.is_empty());
        let rows: Vec<(&str, &str)> = lines.map(|line| line.split_once(' ').unwrap_or((line, ""))).collect();
        let judged: BTreeSet<String> = rows.iter().map(|(field, _)| (*field).to_owned()).collect();
        let known: BTreeSet<String> = shape::paths(shape_of(kind)).into_iter().collect();
        let differing: Vec<_> = known.symmetric_difference(&judged).collect();
        assert!(differing.is_empty(), "{kind}: {differing:?}");
        assert!(rows.iter().all(|(_, verdict)| !verdict.trim().is_empty()), "{kind}");
        assert_eq!(rows.len(), judged.len(), "{kind} has a row twice");
    }
}

/// A value that a shape takes, with every field.
fn sample(shape: &Shape) -> Value {
    match shape {
        Shape::Text => json!("a"),
        Shape::Truth => json!(true),
        Shape::Whole(least, _) => json!(least.max(&1)),
        Shape::Number => json!(1.5),
        Shape::Duration | Shape::DurationOrNumber => json!("1h0m0s"),
        Shape::Moment => json!("2030-01-31T12:00:00Z"),
        Shape::Quantity => json!("100Mi"),
        Shape::Fields(fields) => fields.iter().map(|(name, below)| ((*name).to_owned(), sample(below))).collect(),
        Shape::List(below) => json!([sample(below)]),
        Shape::Map(below) => json!({ "a": sample(below) }),
    }
}

/// What the shapes take the types take, too: else a document would be refused without the place of what is wrong.
#[test]
fn shapes_and_types_agree() {
    for kind in VERDICTS.iter().map(|(kind, _)| *kind).chain(["UpgradeConfiguration"]) {
        let mut document = sample(shape_of(kind));
        let group = shape::of_component(kind)
            .map_or_else(|| "kubeadm.k8s.io/v1beta4".to_owned(), |(group, version, _)| format!("{group}/{version}"));
        document["apiVersion"] = json!(group);
        document["kind"] = json!(kind);
        let loaded = load(&document.to_string()).unwrap_or_else(|failure| panic!("{kind}: {failure}"));
        assert_eq!(loaded.warnings, Vec::<String>::new(), "{kind}");
        // Every field is somewhere in what was read.
        let text = loaded.to_text();
        let (nodes, _) = crate::yaml::trees(text.expose()).unwrap();
        let written = nodes[0].to_value();
        for path in shape::paths(shape_of(kind)) {
            let pointer = format!("/{}", path.replace("[]", "/0").replace('.', "/"));
            assert!(written.pointer(&pointer).is_some(), "{kind} does not keep {path}");
        }
    }
}
