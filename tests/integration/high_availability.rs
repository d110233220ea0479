//! Three control planes behind the built-in endpoint, or behind a load balancer of the user's: made by one `up`, and any one
//! of them lost at a time, under a load of writes that comes through the balancer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bed::{Bed, difference};
use crate::program::{call, down, kubectl, run, succeeds, up, wait_for};

/// Writes ConfigMaps one after the other, each until it is there, and notes the moment each was acknowledged.
const LOAD: &str = r#"
cd /tmp/load
count=0
while :; do
  count=$((count + 1))
  printf '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"w%s"},"data":{"n":"%s"}}' $count $count > object
  until said=$(./kubectl --kubeconfig admin.conf --request-timeout=3s create --raw /api/v1/namespaces/default/configmaps -f object 2>&1); do
    case "$said" in *"already exists"*) break ;; esac
    echo "$(date +%s%3N) $said" >> refused
  done
  echo "w$count $(date +%s%3N)" >> acknowledged
done
"#;

/// The API may be away for this long when a control plane is lost.
const OUTAGE_LIMIT: Duration = Duration::from_secs(20);

pub fn inventory_text(bed: &Bed, control_planes: &str) -> String {
    let text = crate::bed::bed(&["inventory", &bed.name, "--control-planes", control_planes]);
    let (head, rest) = text.split_once("cluster:\n").expect("the bed's inventory has a cluster");
    format!("{head}cluster:\n  endpoint: built-in\n{rest}")
}

/// One command on a host through its shell.
fn ssh(bed: &Bed, host: &str) -> String {
    let address = &bed.hosts.iter().find(|one| one.name == host).expect("a host of the bed").address;
    format!(
        "ssh -F none -i {} -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR root@{address}",
        bed.key.display()
    )
}

/// A load of writes on a host that is no control plane.
struct Load<'a> {
    bed: &'a Bed,
    host: String,
}

impl<'a> Load<'a> {
    fn start(bed: &'a Bed, host: &str, from: &str) -> Self {
        let (there, here) = (ssh(bed, from), ssh(bed, host));
        bed.sh(host, "mkdir -p /tmp/load");
        for (source, target) in [("/usr/local/bin/kubectl", "kubectl"), ("/etc/kubernetes/admin.conf", "admin.conf")] {
            let copy = format!("{there} cat {source} | {here} 'cat > /tmp/load/{target}'");
            succeeds(call(Path::new("/bin/sh"), &["-c", &copy], &[]));
        }
        let script = LOAD.replace('\'', "'\\''");
        bed.sh(host, &format!("chmod +x /tmp/load/kubectl && printf '%s' '{script}' > /tmp/load/run && systemd-run --quiet --collect --unit=load sh /tmp/load/run"));
        let load = Self { bed, host: host.to_owned() };
        wait_for("the first write", Duration::from_secs(20), || !load.acknowledged().is_empty());
        load
    }

    /// Names of what was acknowledged, with the moment in milliseconds.
    fn acknowledged(&self) -> Vec<(String, u64)> {
        let text = self.bed.sh(&self.host, "cat /tmp/load/acknowledged 2>/dev/null || true");
        text.lines()
            .filter_map(|line| {
                let (name, moment) = line.split_once(' ')?;
                Some((name.to_owned(), moment.parse().ok()?))
            })
            .collect()
    }

    /// Waits for more acknowledged writes; panics when the API does not come back.
    fn goes_on(&self, more: usize) {
        let before = self.acknowledged().len();
        wait_for("more writes", Duration::from_secs(90), || self.acknowledged().len() >= before + more);
    }

    /// The longest time without an acknowledged write since the write of number `since`.
    fn outage(&self, since: usize) -> Duration {
        let moments: Vec<u64> = self.acknowledged().iter().skip(since.saturating_sub(1)).map(|(_, at)| *at).collect();
        Duration::from_millis(moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0))
    }

    /// Ends the load and returns what was acknowledged.
    fn stop(self) -> Vec<String> {
        self.bed.sh(&self.host, "systemctl stop load");
        let acknowledged = self.acknowledged().into_iter().map(|(name, _)| name).collect();
        self.bed.sh(&self.host, "rm -r /tmp/load");
        acknowledged
    }
}

pub fn ready(inventory: &Path) -> usize {
    let nodes = kubectl(inventory, &["get", "nodes", "--no-headers"]);
    nodes.lines().filter(|line| line.split_whitespace().nth(1) == Some("Ready")).count()
}

/// The API server of each control plane answers for itself that it and its etcd are ready.
pub fn all_serve(bed: &Bed) -> bool {
    bed.hosts[..3].iter().all(|host| {
        let ask = format!("kubectl --kubeconfig /etc/kubernetes/admin.conf --server https://{}:6443 --request-timeout=2s get --raw /readyz", host.address);
        bed.try_sh(&host.name, &ask).code == 0
    })
}

/// Every node has given a sign of life since.
fn life_signs(inventory: &Path) -> Vec<String> {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.spec.renewTime}{\"\\n\"}{end}";
    kubectl(inventory, &["get", "leases", "-n", "kube-node-lease", "-o", path]).lines().map(str::to_owned).collect()
}

fn etcd_members(inventory: &Path, from: &str) -> String {
    let pki = "/etc/kubernetes/pki/etcd";
    let pod = format!("etcd-{from}");
    let (ca, certificate, key) = (
        format!("--cacert={pki}/ca.crt"),
        format!("--cert={pki}/healthcheck-client.crt"),
        format!("--key={pki}/healthcheck-client.key"),
    );
    let words = ["exec", "-n", "kube-system", &pod, "--", "etcdctl", &ca, &certificate, &key, "member", "list"];
    kubectl(inventory, &words)
}

pub fn changes_nothing(inventory: &Path) {
    let bundle = crate::program::bundle();
    let second =
        succeeds(run("up", inventory, &["--yes", "--bundle", bundle.to_str().unwrap(), "--output", "json", "-v"]));
    let changed: Vec<&str> = second.stdout.lines().filter(|line| line.contains("\"event\":\"changed\"")).collect();
    assert!(changed.is_empty(), "the second up changed: {changed:#?}");
    assert!(second.stdout.contains("\"changes\":0"), "{}", second.stdout);
}

#[test]
fn any_control_plane_can_be_lost() {
    let bed = Bed::bare(4);
    let inventory = bed.write_inventory(&inventory_text(&bed, "3"));
    let before: Vec<String> = bed.hosts.iter().map(|host| bed.listing(&host.name)).collect();
    let worker = &bed.hosts[3].name;

    let made = succeeds(up(&inventory));
    eprintln!("three control planes and a worker: {:.1} s", made.elapsed.as_secs_f64());
    assert_eq!(ready(&inventory), 4);
    assert_eq!(etcd_members(&inventory, &bed.hosts[0].name).matches("started").count(), 3);
    the_laptop_can_use_its_kubeconfig(&bed);
    changes_nothing(&inventory);

    let load = Load::start(&bed, worker, &bed.hosts[0].name);
    for index in [0, 1, 2] {
        a_control_plane_is_lost_and_comes_back(&bed, &inventory, &load, index, 4);
    }
    nothing_is_lost(&inventory, &load.stop());
    changes_nothing(&inventory);

    the_first_leaves_and_a_fresh_one_joins(&bed, &inventory);
    a_machine_is_replaced(&bed, &inventory);

    succeeds(down(&inventory));
    for (host, before) in bed.hosts.iter().zip(&before) {
        let after = bed.listing(&host.name);
        assert_eq!(*before, after, "{} is not as it was:\n{}", host.name, difference(before, &after));
    }
}

#[test]
#[ignore = "takes minutes: make test-all"]
fn five_control_planes_come_up_at_once() {
    let bed = Bed::bare(5);
    let inventory = bed.write_inventory(&inventory_text(&bed, "5"));
    let made = succeeds(up(&inventory));
    eprintln!("five control planes: {:.1} s", made.elapsed.as_secs_f64());
    assert_eq!(ready(&inventory), 5);
    let members = etcd_members(&inventory, &bed.hosts[4].name);
    let votes = members.lines().filter(|line| line.contains(", started, ") && line.ends_with(", false")).count();
    assert_eq!(votes, 5, "{members}");
    changes_nothing(&inventory);
    // Two of five may be lost, the first one, too.
    for host in [&bed.hosts[0], &bed.hosts[3]] {
        crate::bed::bed(&["host", "kill", &host.name]);
    }
    wait_for("an API server after two were lost", OUTAGE_LIMIT, || {
        run("kubectl", &inventory, &["--", "create", "configmap", "after"]).code == 0
    });
    for host in [&bed.hosts[0], &bed.hosts[3]] {
        crate::bed::bed(&["host", "start", &host.name]);
    }
    succeeds(down(&inventory));
}

/// Who joins while others join waits for its turn in etcd and does not fail: not once in three times four.
#[test]
#[ignore = "takes minutes: make test-all"]
fn control_planes_join_at_once_time_and_again() {
    const ROUNDS: usize = 3;
    let bed = Bed::bare(5);
    let inventory = bed.write_inventory(&inventory_text(&bed, "5"));
    let mut failed = Vec::new();
    for round in 1..=ROUNDS {
        let made = up(&inventory);
        if made.code == 0 {
            let members = etcd_members(&inventory, &bed.hosts[0].name);
            let votes =
                members.lines().filter(|line| line.contains(", started, ") && line.ends_with(", false")).count();
            assert_eq!((ready(&inventory), votes), (5, 5), "round {round}: {members}");
            eprintln!("round {round}: five control planes in {:.1} s", made.elapsed.as_secs_f64());
        } else {
            failed.push(format!("round {round} ended with {}:\n{}", made.code, made.stderr));
        }
        succeeds(down(&inventory));
    }
    assert!(failed.is_empty(), "{} of {ROUNDS} rounds failed:\n{}", failed.len(), failed.join("\n"));
}

/// A load balancer as a user may have one: each connection goes to the next of these hosts that takes it.
const BALANCER: &str = r#"
use IO::Socket::INET; use IO::Select;
$SIG{CHLD} = "IGNORE";
my $next = 0;
my $door = IO::Socket::INET->new(LocalPort => 6443, Listen => 128, ReuseAddr => 1) or die $!;
while (1) {
  my $client = $door->accept or next;
  $next++;
  next if fork;
  my $server;
  for my $at (0 .. $#ARGV) {
    my $host = $ARGV[($next + $at) % @ARGV];
    $server = IO::Socket::INET->new(PeerAddr => $host, PeerPort => 6443, Timeout => 1) and last;
  }
  exit unless $server;
  my $both = IO::Select->new($client, $server);
  while (my @ready = $both->can_read) {
    for my $from (@ready) {
      my $to = $from == $client ? $server : $client;
      sysread($from, my $bytes, 65536) or exit;
      for (my $sent = 0; $sent < length $bytes; ) {
        my $more = syswrite($to, $bytes, length($bytes) - $sent, $sent) or exit;
        $sent += $more;
      }
    }
  }
}
"#;

/// The endpoint is the address of a machine that is no node and that clusterctl knows nothing of.
#[test]
#[ignore = "takes minutes: make test-all"]
fn behind_a_load_balancer_of_the_users_a_control_plane_can_be_lost() {
    let bed = Bed::bare(4);
    let balancer = &bed.hosts[3];
    let addresses: Vec<&str> = bed.hosts[..3].iter().map(|host| host.address.as_str()).collect();
    let start = format!(
        "cat > /root/balancer.pl <<'PERL'\n{BALANCER}PERL\nsystemd-run --quiet --unit=balancer perl /root/balancer.pl {}",
        addresses.join(" ")
    );
    bed.sh(&balancer.name, &start);
    let endpoint = format!("{}:6443", balancer.address);
    let text = inventory_text(&bed, "3").replace("endpoint: built-in", &format!("endpoint: \"{endpoint}\""));
    let is_node = |line: &&str| !line.contains(&format!("{}:", balancer.name));
    let text: String = text.lines().filter(is_node).map(|line| format!("{line}\n")).collect();
    let inventory = bed.write_inventory(&text);

    let made = succeeds(up(&inventory));
    eprintln!("three control planes behind a load balancer: {:.1} s", made.elapsed.as_secs_f64());
    assert_eq!(ready(&inventory), 3);
    for host in &bed.hosts[..3] {
        // The kubelet of a control plane asks its own API server, as kubeadm has it.
        for (file, server) in [("admin.conf", endpoint.clone()), ("kubelet.conf", format!("{}:6443", host.address))] {
            let text = bed.sh(&host.name, &format!("cat /etc/kubernetes/{file}"));
            assert!(text.contains(&format!("server: https://{server}")), "{file} of {}: {text}", host.name);
        }
    }
    changes_nothing(&inventory);
    let load = Load::start(&bed, &balancer.name, &bed.hosts[0].name);
    a_control_plane_is_lost_and_comes_back(&bed, &inventory, &load, 0, 3);
    nothing_is_lost(&inventory, &load.stop());
    changes_nothing(&inventory);
    succeeds(down(&inventory));
}

/// It names an API server that can be reached from outside, not the nodes' own endpoint.
fn the_laptop_can_use_its_kubeconfig(bed: &Bed) {
    let text = std::fs::read_to_string(bed.folder.path().join(format!("{}.kubeconfig", bed.name))).unwrap();
    assert!(text.contains(&format!("server: https://{}:6443", bed.hosts[0].address)), "{text}");
    assert!(bed.sh(&bed.hosts[0].name, "cat /etc/kubernetes/admin.conf").contains("server: https://127.0.0.1:6444"));
}

fn a_control_plane_is_lost_and_comes_back(bed: &Bed, inventory: &Path, load: &Load<'_>, index: usize, nodes: usize) {
    let lost = &bed.hosts[index].name;
    let since = load.acknowledged().len();
    crate::bed::bed(&["host", "kill", lost]);
    load.goes_on(20);
    let outage = load.outage(since);
    eprintln!("{lost} lost: no write for {:.1} s", outage.as_secs_f64());
    assert!(outage < OUTAGE_LIMIT, "the API was away for {outage:?}");
    // Also for a person: kubectl goes to another control plane by itself.
    kubectl(inventory, &["get", "--raw", "/readyz"]);
    crate::bed::bed(&["host", "start", lost]);
    let old = life_signs(inventory);
    wait_for("the return of the host", Duration::from_secs(150), || {
        let now = life_signs(inventory);
        all_serve(bed) && old.iter().all(|old| !now.contains(old)) && ready(inventory) == nodes
    });
}

fn nothing_is_lost(inventory: &Path, acknowledged: &[String]) {
    let names = kubectl(inventory, &["get", "configmaps", "-o", "jsonpath={.items[*].metadata.name}"]);
    let there: std::collections::BTreeSet<&str> = names.split_whitespace().collect();
    let lost: Vec<&String> = acknowledged.iter().filter(|name| !there.contains(name.as_str())).collect();
    eprintln!("{} writes acknowledged, {} lost", acknowledged.len(), lost.len());
    assert!(lost.is_empty(), "{lost:?}");
}

/// Who the cluster is: a second one would be somebody else.
fn identity(inventory: &Path) -> String {
    kubectl(inventory, &["get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"])
}

fn is_whole(bed: &Bed, inventory: &Path, identity_before: &str) {
    assert_eq!(identity(inventory), identity_before);
    assert_eq!(ready(inventory), 4);
    assert!(all_serve(bed));
    for host in &bed.hosts[..3] {
        let members = etcd_members(inventory, &host.name);
        assert_eq!(members.matches("started").count(), 3, "{members}");
    }
    changes_nothing(inventory);
}

/// The first control plane of the inventory is taken out in good order; its machine is bare, and `up` joins it to the
/// others.
fn the_first_leaves_and_a_fresh_one_joins(bed: &Bed, inventory: &Path) {
    let first = &bed.hosts[0].name;
    let before = identity(inventory);
    succeeds(run("down", inventory, &["--yes", "--host", first]));
    assert_eq!(bed.try_sh(first, "test -e /etc/kubernetes").code, 1);
    let members = etcd_members(inventory, &bed.hosts[1].name);
    assert_eq!((members.matches("started").count(), members.contains(first.as_str())), (2, false), "{members}");
    let nodes = kubectl(inventory, &["get", "nodes", "-o", "name"]);
    assert_eq!(nodes.lines().count(), 3, "{nodes}");
    let again = succeeds(up(inventory));
    eprintln!("{first} joined afresh: {:.1} s", again.elapsed.as_secs_f64());
    is_whole(bed, inventory, &before);
}

/// A machine is bare again and nobody has told the cluster: an inventory of it alone takes everything from it.
fn a_machine_is_replaced(bed: &Bed, inventory: &Path) {
    let replaced = &bed.hosts[0].name;
    let text = std::fs::read_to_string(inventory).unwrap();
    let others = |line: &&str| !bed.hosts[1..].iter().any(|host| line.contains(&format!("{}:", host.name)));
    let alone: String = text.lines().filter(others).map(|line| format!("{line}\n")).collect();
    let folder: PathBuf = bed.folder.path().join("alone");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("inventory.yaml"), alone).unwrap();
    let before = identity(inventory);
    succeeds(down(&folder.join("inventory.yaml")));
    let again = succeeds(up(inventory));
    eprintln!("{replaced} replaced: {:.1} s", again.elapsed.as_secs_f64());
    is_whole(bed, inventory, &before);
}
