//! A cluster whose etcd is somebody else's, on a host of its own, with TLS and client certificates.

use std::path::Path;

use crate::bed::{Bed, bed};
use crate::program::{down, kubectl, run, up};

/// `bash etcd.sh ADDRESS`, beside the image's archive: an authority, a server's and a client's certificate, and etcd as a
/// unit. What clients need is printed as an archive.
const ETCD: &str = r#"
set -euo pipefail
mkdir -p /srv/etcd/image /srv/etcd/root && cd /srv/etcd
tar -C image -xf /root/etcd/etcd.tar
for layer in image/blobs/sha256/*; do tar -C root -xf "$layer" 2>/dev/null || true; done
key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }
key ca && openssl req -x509 -new -key ca.key -subj /CN=their-etcd -days 2 -out ca.crt -addext basicConstraints=critical,CA:TRUE 2>/dev/null
printf 'subjectAltName=IP:%s,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' "$1" >server.ext
printf 'extendedKeyUsage=clientAuth\n' >client.ext
for name in server client; do
  key $name
  openssl req -new -key $name.key -subj /CN=$name -out $name.csr 2>/dev/null
  openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile $name.ext -out $name.crt 2>/dev/null
done
etcd=$(find root -type f -name etcd -perm -u+x | head -n 1)
systemd-run --quiet --unit=their-etcd --working-directory=/srv/etcd "/srv/etcd/$etcd" --name theirs --data-dir /srv/etcd/data \
  --listen-client-urls "https://$1:2379" --advertise-client-urls "https://$1:2379" \
  --client-cert-auth --trusted-ca-file ca.crt --cert-file server.crt --key-file server.key
tar -cz ca.crt client.crt client.key | base64 -w0
"#;

#[test]
#[ignore = "takes minutes: make test-all"]
fn control_planes_share_an_etcd_that_is_somebody_elses() {
    let bed = Bed::bare(4);
    let etcd = &bed.hosts[3];
    let images = Path::new(bed_folder().trim()).join("images/etcd.tar");
    bed.send(&etcd.name, &[&images], "/root/etcd");
    let quoted = ETCD.replace('\'', "'\\''");
    bed.sh(&etcd.name, &format!("printf '%s' '{quoted}' > /root/etcd.sh"));
    let files = bed.sh(&etcd.name, &format!("bash /root/etcd.sh {}", etcd.address));

    let text = crate::bed::bed(&["inventory", &bed.name, "--control-planes", "2"]);
    let (head, rest) = text.split_once("cluster:\n").expect("the bed's inventory has a cluster");
    let rest: String = rest
        .lines()
        .filter(|line| !line.contains(&format!("{}:", etcd.name)))
        .map(|line| format!("{line}\n"))
        .collect();
    let external = format!(
        "  kubeadm: |\n    apiVersion: kubeadm.k8s.io/v1beta4\n    kind: ClusterConfiguration\n    etcd:\n      external:\n        \
         endpoints: [\"https://{}:2379\"]\n        caFile: /srv/etcd/ca.crt\n        certFile: /srv/etcd/client.crt\n        \
         keyFile: /srv/etcd/client.key\n    ---\n",
        etcd.address
    );
    let rest = rest.replacen("  kubeadm: |\n", &external, 1);
    let inventory = bed.write_inventory(&format!("{head}cluster:\n  endpoint: built-in\n{rest}"));

    // Without what etcd asks of its clients there is no control plane: the check that failed is what the run ends with, not
    // that the others have nothing to join.
    let refused = up(&inventory);
    assert_eq!(refused.code, 8, "{}\n{}", refused.stdout, refused.stderr);
    assert!(
        refused.stderr.contains("ExternalEtcdClientCertificates: there is no /srv/etcd/ca.crt"),
        "{}",
        refused.stderr
    );
    let first = &bed.hosts[0].name;
    bed.sh(first, &format!("mkdir -p /srv/etcd && echo {} | base64 -d | tar -C /srv/etcd -xz", files.trim()));

    let made = up(&inventory);
    assert_eq!(made.code, 0, "{}\n{}", made.stdout, made.stderr);
    eprintln!("two control planes and a worker on an external etcd: {:.1} s", made.elapsed.as_secs_f64());
    let nodes = kubectl(&inventory, &["get", "nodes", "--no-headers"]);
    assert_eq!((nodes.lines().count(), nodes.matches(" Ready ").count()), (3, 3), "{nodes}");
    let pods = kubectl(&inventory, &["get", "pods", "-n", "kube-system", "-o", "name"]);
    assert_eq!((pods.matches("kube-apiserver-").count(), pods.contains("pod/etcd-")), (2, false), "{pods}");
    // The second one has the client's certificate from the Secret that control planes share.
    assert_eq!(bed.try_sh(&bed.hosts[1].name, "test -e /srv/etcd/client.key -a ! -e /var/lib/etcd/member").code, 0);
    let again =
        run("up", &inventory, &["--yes", "--bundle", crate::program::bundle().to_str().unwrap(), "--output", "json"]);
    assert!(again.code == 0 && again.stdout.contains("\"changes\":0"), "{}", again.stdout);

    let gone = down(&inventory);
    assert_eq!(gone.code, 0, "{}\n{}", gone.stdout, gone.stderr);
    for host in &bed.hosts[..3] {
        assert_eq!(bed.try_sh(&host.name, "test -e /etc/kubernetes").code, 1);
    }
    // It is not ours to remove.
    assert_eq!(bed.sh(&etcd.name, "systemctl is-active their-etcd").trim(), "active");
}

/// Where the bed keeps what it built.
fn bed_folder() -> String {
    let printed = bed(&["kubernetes", "1.36.3"]);
    printed.lines().last().unwrap_or_default().to_owned()
}
