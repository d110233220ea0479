use super::*;
use crate::kubernetes::certificates::{KeyAlgorithm, PrivateKey};

fn authority() -> Authority {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    Authority::fresh("kubernetes", key, 1_700_000_000, 87600 * 3600).unwrap()
}

fn order<'a>(
    cluster: &'a ClusterConfiguration,
    local: &'a ApiEndpoint,
    authority: &'a Authority,
) -> KubeconfigOrder<'a> {
    KubeconfigOrder { cluster, node_name: "cp1", local, authority, now_seconds: 1_800_000_000 }
}

fn setting() -> (ClusterConfiguration, ApiEndpoint) {
    let mut cluster = ClusterConfiguration { control_plane_endpoint: "api.demo.example".into(), ..Default::default() };
    cluster.complete(6443).unwrap();
    (cluster, ApiEndpoint { advertise_address: "fd00::11".into(), bind_port: 6443 })
}

#[test]
fn the_catalogue_is_that_of_kubeadm() {
    let (cluster, local) = setting();
    let authority = authority();
    let mut keys = KeyPool::new(KeyAlgorithm::EcdsaP256);
    let mut rows = Vec::new();
    for entry in CATALOGUE {
        let made = entry.issue(&order(&cluster, &local, &authority), &mut keys).unwrap();
        let named = made.current_user().unwrap();
        let data = STANDARD.decode(named.user.client_certificate_data.as_ref().unwrap()).unwrap();
        let certificate = Certificate::parse_pem(std::str::from_utf8(&data).unwrap()).unwrap().remove(0);
        assert!(certificate.is_signed_by(&authority.certificates()[0]));
        assert_eq!(certificate.common_name, named.name);
        assert_eq!(certificate.not_before, authority.certificates()[0].not_before);
        assert_eq!(certificate.not_after, 1_800_000_000 + 8760 * 3600);
        assert_eq!(made.current_context, format!("{}@kubernetes", named.name));
        let server = &made.current_cluster().unwrap().server;
        rows.push(format!("{} {} {:?} {server}", entry.file, named.name, certificate.organizations));
    }
    insta::assert_snapshot!(rows.join("\n"), @r#"
    admin.conf kubernetes-admin ["kubeadm:cluster-admins"] https://api.demo.example:6443
    super-admin.conf kubernetes-super-admin ["system:masters"] https://api.demo.example:6443
    kubelet.conf system:node:cp1 ["system:nodes"] https://[fd00::11]:6443
    controller-manager.conf system:kube-controller-manager [] https://[fd00::11]:6443
    scheduler.conf system:kube-scheduler [] https://[fd00::11]:6443
    "#);
}

#[test]
fn a_kubeconfig_is_read_back() {
    let (cluster, local) = setting();
    let authority = authority();
    let mut keys = KeyPool::new(KeyAlgorithm::EcdsaP256);
    let mut made = KUBELET.issue(&order(&cluster, &local, &authority), &mut keys).unwrap();
    assert_eq!(Kubeconfig::parse(made.to_text().expose()).unwrap(), made);
    assert!(!format!("{made:?}").contains(made.users[0].user.client_key_data.as_ref().unwrap().expose()));
    assert!(made.follow_rotation("/var/lib/kubelet/pki/kubelet-client-current.pem"));
    assert!(!made.follow_rotation("/var/lib/kubelet/pki/kubelet-client-current.pem"));
    assert_eq!(made.users[0].user.client_key_data, None);
}

#[test]
fn cluster_info_has_a_nameless_cluster_and_nobody() {
    let made = Kubeconfig::cluster_info("https://10.0.0.11:6443", "PEM");
    insta::assert_snapshot!(made.to_text().expose(), @r#"
    apiVersion: v1
    clusters:
    - cluster:
        certificate-authority-data: UEVN
        server: https://10.0.0.11:6443
      name: ""
    contexts: null
    current-context: ""
    kind: Config
    users: null
    "#);
    let read = Kubeconfig::parse(made.to_text().expose()).unwrap();
    assert_eq!(read.current_cluster().unwrap().ca_pem().unwrap(), "PEM");
}

#[test]
fn what_is_there_is_judged() {
    let (ours, other) = (authority(), authority());
    let made = Kubeconfig::bootstrap("https://a:6443", "kubernetes", &ours.first_pem(), &Secret::new("t"));
    let text = made.to_text();
    assert_eq!(judge(text.expose(), ours.certificates(), "https://a:6443").unwrap(), None);
    let warning = judge(text.expose(), ours.certificates(), "https://b:6443").unwrap();
    assert_eq!(warning.unwrap(), "it points to https://a:6443, not to https://b:6443");
    assert!(judge(text.expose(), other.certificates(), "https://a:6443").is_err());
    assert!(judge("clusters: 5", ours.certificates(), "").is_err());
}

#[test]
fn the_holder_of_a_kubeconfig_is_judged() {
    let (cluster, local) = setting();
    let (ours, other) = (authority(), authority());
    let mut keys = KeyPool::new(KeyAlgorithm::EcdsaP256);
    let made = ADMIN.issue(&order(&cluster, &local, &ours), &mut keys).unwrap();
    let text = made.to_text().expose().to_owned();
    let judged = |text: &str, authority: &Authority, now| judge_holder(text, authority.certificates(), now);
    assert_eq!(judged(&text, &ours, 1_800_000_000), Ok(None));
    let late = judged(&text, &ours, 1_900_000_000).unwrap().unwrap();
    assert!(late.starts_with("its client certificate has expired: it was valid until 2028-"), "{late}");
    let failure = judged(&text, &other, 1_800_000_000).unwrap_err();
    assert_eq!(failure.sentence, "its client certificate is not signed by the certificate authority");

    let mut stranger = made.clone();
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    stranger.users[0].user.client_key_data = Some(Secret::new(STANDARD.encode(key.pem().expose())));
    let failure = judged(stranger.to_text().expose(), &ours, 1_800_000_000).unwrap_err();
    assert_eq!(failure.sentence, "its private key does not belong to its client certificate");

    let unsigned = Kubeconfig::with_key_alone("https://10.0.0.11:6443", "kubernetes", "kubernetes-admin", key.pem());
    let failure = judged(unsigned.to_text().expose(), &ours, 1_800_000_000).unwrap_err();
    assert_eq!(failure.sentence, "it holds a key without a certificate");
    let mut by_token = made;
    by_token.users[0].user = User { token: Some(Secret::new("t")), ..Default::default() };
    assert_eq!(judged(by_token.to_text().expose(), &ours, 1_800_000_000), Ok(None));
}
