use rstest::rstest;

use super::*;
use crate::kubernetes::certificates::{CertificateOrder, KeyAlgorithm, PrivateKey, issue};
use crate::kubernetes::configuration::{ApiEndpoint, ExternalEtcd};
use crate::kubernetes::kubeconfig::KubeconfigOrder;

const NOW: u64 = 1_795_435_200;
const LATER: u64 = NOW + 100 * 86_400;

fn cluster() -> ClusterConfiguration {
    let mut cluster = ClusterConfiguration { encryption_algorithm: "ECDSA-P256".into(), ..Default::default() };
    cluster.api_server.cert_sans = vec!["api.demo.example".into(), "192.0.2.7".into()];
    cluster.complete(6443).unwrap();
    cluster
}

fn pool() -> KeyPool {
    KeyPool::new(KeyAlgorithm::EcdsaP256)
}

fn present(cluster: &ClusterConfiguration) -> Present {
    let local = ApiEndpoint { advertise_address: "10.0.0.11".into(), bind_port: 6443 };
    let order = CertificateOrder { cluster, node_name: "cp1", local: &local, now_seconds: NOW, joining: false };
    let issued = issue(&order, &BTreeMap::new(), &mut pool()).unwrap();
    let order =
        KubeconfigOrder { cluster, node_name: "cp1", local: &local, authority: &issued.authority, now_seconds: NOW };
    let kubeconfig =
        |entry: &kubeconfig::Entry| (entry.file.to_owned(), entry.issue(&order, &mut pool()).unwrap().to_text());
    Present {
        pki: issued.files.iter().map(|file| (file.path.clone(), file.content.clone())).collect(),
        kubeconfigs: kubeconfig::CATALOGUE.iter().map(kubeconfig).collect(),
    }
}

#[test]
fn the_names_are_those_of_kubeadm() {
    let names = |cluster: &ClusterConfiguration| {
        renewables(cluster).iter().map(|one| format!("{}<{}", one.name(), one.authority_name())).collect::<Vec<_>>()
    };
    assert_eq!(
        names(&cluster()),
        [
            "admin.conf<ca",
            "apiserver<ca",
            "apiserver-etcd-client<etcd-ca",
            "apiserver-kubelet-client<ca",
            "controller-manager.conf<ca",
            "etcd-healthcheck-client<etcd-ca",
            "etcd-peer<etcd-ca",
            "etcd-server<etcd-ca",
            "front-proxy-client<front-proxy-ca",
            "scheduler.conf<ca",
            "super-admin.conf<ca",
        ]
    );
    let mut external = cluster();
    external.etcd.external = Some(ExternalEtcd::default());
    assert!(names(&external).iter().all(|name| !name.contains("etcd")));
}

#[test]
fn what_is_there_is_listed_with_its_end() {
    let cluster = cluster();
    let mut present = present(&cluster);
    present.kubeconfigs.remove("super-admin.conf");
    present.pki.remove("front-proxy-ca.key");
    let found = expirations(&cluster, &present).unwrap();
    let of = |name: &str| found.certificates.iter().find(|one| one.name == name).unwrap();
    assert_eq!(of("admin.conf").until_seconds, Some(NOW as i64 + 8760 * 3600));
    assert_eq!(of("super-admin.conf").until_seconds, None);
    assert!(of("front-proxy-client").externally_managed && !of("apiserver").externally_managed);
    let authorities: Vec<_> = found.authorities.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(authorities, ["ca", "etcd-ca", "front-proxy-ca"]);
    assert!(found.authorities[2].externally_managed);
}

#[test]
fn a_new_certificate_says_the_same_of_its_holder_with_another_key() {
    let cluster = cluster();
    let before = present(&cluster);
    let mut after = before.clone();
    for renewable in renewables(&cluster) {
        let Renewal::Renewed(files) = renew(&renewable, &cluster, &before, LATER, &mut pool()).unwrap() else {
            panic!("{} is not renewed", renewable.name());
        };
        for file in files {
            match renewable.place {
                Place::Pki(_) => after.pki.insert(file.path, file.content),
                Place::Kubeconfig(_) => after.kubeconfigs.insert(file.path, file.content),
            };
        }
        let (old, new) = (
            before.certificate(renewable.place).unwrap().unwrap(),
            after.certificate(renewable.place).unwrap().unwrap(),
        );
        assert_eq!((&new.common_name, &new.organizations), (&old.common_name, &old.organizations));
        assert_eq!((&new.dns_names, &new.addresses, &new.usages), (&old.dns_names, &old.addresses, &old.usages));
        assert!(new.public_key != old.public_key && !new.usages.is_empty());
        assert_eq!((new.not_before, new.not_after), (LATER as i64 - 300, LATER as i64 + 8760 * 3600));
        let authority = after.certificate(Place::Pki(renewable.authority)).unwrap().unwrap();
        assert!(new.is_signed_by(&authority));
        if let Place::Pki(base_name) = renewable.place {
            let key = PrivateKey::from_pem(after.pki(base_name, "key").unwrap()).unwrap();
            assert_eq!(key.public_der(), new.public_key);
        }
    }
}

#[test]
fn a_kubeconfig_keeps_what_we_do_not_know() {
    let (cluster, mut present) = (cluster(), present(&cluster()));
    let text = present.kubeconfigs["admin.conf"].expose().to_owned();
    let text = text.replace("preferences: {}\n", "").replace(
        "users:\n",
        "extensions:\n- name: mine\n  extension: {a: 1}\nusers:\n- name: other\n  user:\n    exec: {command: get}\n",
    );
    present.kubeconfigs.insert("admin.conf".into(), Secret::new(text));
    let admin = renewables(&cluster)[0];
    let Renewal::Renewed(files) = renew(&admin, &cluster, &present, LATER, &mut pool()).unwrap() else {
        panic!("it is not renewed");
    };
    let text = files[0].content.expose();
    assert!(text.contains("command: get") && text.contains("name: mine"), "{text}");
    assert_eq!(
        Kubeconfig::parse(text).unwrap().client_certificates().unwrap()[0].not_after,
        LATER as i64 + 8760 * 3600
    );
}

#[test]
fn an_authority_without_its_key_renews_nothing() {
    let (cluster, mut present) = (cluster(), present(&cluster()));
    present.pki.remove("ca.key");
    let renewed = |name: &str, present: &Present| {
        let renewable = renewables(&cluster).into_iter().find(|one| one.name() == name).unwrap();
        renew(&renewable, &cluster, present, LATER, &mut pool())
    };
    assert!(matches!(renewed("apiserver", &present), Ok(Renewal::External)));
    assert!(matches!(renewed("admin.conf", &present), Ok(Renewal::External)));
    assert!(matches!(renewed("etcd-peer", &present), Ok(Renewal::Renewed(_))));
    present.pki.remove("etcd/peer.crt");
    assert!(matches!(renewed("etcd-peer", &present), Ok(Renewal::Missing)));
}

#[rstest]
#[case("ca.crt", None, "apiserver cannot be renewed: ca.crt is missing")]
#[case("ca.crt", Some("nothing"), "ca.crt cannot be used")]
#[case("ca.key", Some("nothing"), "ca.crt cannot be used")]
#[case("apiserver.crt", Some("nothing"), "apiserver.crt cannot be used")]
fn what_cannot_be_read_is_named(#[case] path: &str, #[case] text: Option<&str>, #[case] sentence: &str) {
    let (cluster, mut present) = (cluster(), present(&cluster()));
    match text {
        Some(text) => present.pki.insert(path.to_owned(), Secret::new(text)),
        None => present.pki.remove(path),
    };
    let renewable = renewables(&cluster)[1];
    assert_eq!(renew(&renewable, &cluster, &present, LATER, &mut pool()).unwrap_err().sentence, sentence);
}

#[test]
fn an_expired_authority_renews_nothing() {
    let (cluster, present) = (cluster(), present(&cluster()));
    let failure = renew(&renewables(&cluster)[1], &cluster, &present, NOW + 88_000 * 3600, &mut pool()).unwrap_err();
    assert!(failure.sentence.starts_with("the certificate authority ca.crt has expired: it was valid"), "{failure}");
}
