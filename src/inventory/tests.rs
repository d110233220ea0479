//! Whole inventories: what is understood, what is found wrong and where, how it is shown.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::prelude::{any, prop_oneof, proptest};
use rstest::rstest;

use super::{
    Become, EXAMPLE, Endpoint, HostKeys, Inventory, Judged, NetworkPlugin, Role, SecretSource, judge, load,
    load_with_warnings, parse,
};
use crate::failure::Kind;
use crate::yaml::Severity;

mod findings;

const HOME: &str = "/home/ops";

fn good(text: &str) -> Inventory {
    match parse(text, Path::new("/work/inventory.yaml"), Path::new(HOME)) {
        Ok(inventory) => inventory,
        Err(findings) => panic!("{findings:#?}"),
    }
}

fn roles(inventory: &Inventory) -> Vec<(&str, Role)> {
    inventory.hosts.iter().map(|host| (host.name.as_str(), host.role)).collect()
}

#[rstest]
#[case("hosts: [a, b]")]
#[case("hosts:\n  - a\n  - b\n")]
#[case("hosts: {a: , b: {}}")]
#[case("hosts:\n  a:\n  b:\n")]
#[case("hosts:\n  b: {role: worker}\n  a: {role: control-plane}\n")]
#[case("hosts:\n  b:\n  a: {role: control-plane}\n")]
fn the_smallest_inventories(#[case] text: &str) {
    let inventory = good(text);
    assert_eq!(inventory.control_planes().next().map(|host| host.name.as_str()), Some("a"));
    assert_eq!(inventory.workers().map(|host| host.name.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn defaults_are_filled_in() {
    let inventory = good("ssh: {user: ops}\nhosts: [cp1]");
    let cluster = &inventory.cluster;
    assert_eq!((cluster.name.as_str(), cluster.kubernetes.to_string().as_str()), ("kubernetes", "1.36.3"));
    assert_eq!(cluster.network.pods.to_string(), "10.244.0.0/16");
    assert_eq!(cluster.network.services.to_string(), "10.96.0.0/12");
    assert_eq!((cluster.network.plugin, cluster.network.domain.as_str()), (NetworkPlugin::Bridge, "cluster.local"));
    assert_eq!((&cluster.endpoint, &cluster.kubeadm, &cluster.bundle), (&None, &None, &None));
    let host = &inventory.hosts[0];
    assert_eq!((host.address.as_str(), host.node_address, host.line), ("cp1", None, 2));
    assert_eq!((host.ssh.user.as_str(), host.ssh.port, host.ssh.agent), ("ops", 22, true));
    assert_eq!((host.ssh.become_root, host.ssh.host_keys), (Become::Sudo, HostKeys::Strict));
    assert_eq!(host.ssh.known_hosts, ["/home/ops/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts"].map(PathBuf::from));
    assert_eq!((host.ssh.connect_limit_seconds, &host.ssh.password, &host.taints), (20, &None, &None));
    assert!(host.ssh.identities.is_empty());
}

#[test]
fn a_host_is_laid_over_the_defaults() {
    let inventory = good(concat!(
        "ssh: {user: ops, port: 2222, password: {command: pass show x}, host_keys: accept-new}\n",
        "hosts:\n",
        "  a: {address: 10.0.0.1, role: control-plane, labels: {gpu: true, v: 1.0, empty: }, taints: []}\n",
        "  b: {address: '10.0.0.2:22', taints: ['x=y:NoSchedule', z:NoExecute], ssh: {user: root}}\n",
        "  c: {address: '[fd00::3]:2201', ssh: {become_password: {ask: true}, become: sudo}}\n",
        "  d: {address: 127.0.0.1, node_address: 10.0.0.4, ssh: {port: 2200, known_hosts: known}}\n",
    ));
    let [a, b, c, d] = inventory.hosts.as_slice() else { panic!("{inventory:?}") };
    let command = Some(SecretSource::Command("pass show x".to_owned()));
    assert_eq!((a.ssh.port, a.ssh.become_root, a.ssh.host_keys), (2222, Become::Sudo, HostKeys::AcceptNew));
    assert_eq!((&a.ssh.password, &a.ssh.become_password), (&command, &command));
    assert_eq!(
        a.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>(),
        ["empty=", "gpu=true", "v=1.0"]
    );
    assert_eq!(a.taints, Some(vec![]));
    assert_eq!((b.ssh.user.as_str(), b.ssh.port, b.ssh.become_root), ("root", 22, Become::None));
    assert_eq!(b.taints.as_ref().map(Vec::len), Some(2));
    assert_eq!((c.address.as_str(), c.ssh.port, &c.ssh.become_password), ("fd00::3", 2201, &Some(SecretSource::Ask)));
    assert_eq!(c.node_address, Some("fd00::3".parse().unwrap()));
    assert_eq!((d.node_address, d.ssh.port), (Some("10.0.0.4".parse().unwrap()), 2200));
    assert_eq!(d.ssh.known_hosts, [PathBuf::from("/work/known")]);
    assert_eq!([a.line, b.line, c.line, d.line], [3, 4, 5, 6]);
}

#[test]
fn a_forwarded_port_is_no_address_of_a_node() {
    let inventory = good("hosts: {a: {address: '127.0.0.1:2222'}, b: {address: '127.0.0.1:2200'}}");
    assert!(inventory.hosts.iter().all(|host| host.node_address.is_none()));
}

#[rstest]
#[case("cluster: {kubernetes: 1.35.0}", "1.35.0")]
#[case("cluster: {kubernetes: v1.33.12}", "1.33.12")]
#[case("cluster: {kubernetes: \"1.37.0\"}", "1.37.0")]
fn versions(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(good(&format!("{text}\nhosts: [a]")).cluster.kubernetes.to_string(), expected);
}

#[rstest]
#[case("cluster:\n  kubeadm: |\n    kind: A\n    ---\n    kind: B\nhosts: [a]", "kind: A\n---\nkind: B\n", 3)]
#[case("cluster:\n  kubeadm: {kind: A, x: \"1\"}\nhosts: [a]", "kind: A\nx: \"1\"\n", 2)]
#[case("cluster:\n  kubeadm:\n    kind: A\nhosts: [a]", "kind: A\n", 3)]
#[case("cluster:\n  kubeadm:\n    - kind: A\n    - kind: B\nhosts: [a]", "kind: A\n---\nkind: B\n", 3)]
fn kubeadm_documents_written_inline(#[case] text: &str, #[case] expected: &str, #[case] line: usize) {
    let documents = good(text).cluster.kubeadm.unwrap();
    assert_eq!((documents.text.as_str(), documents.line), (expected, line));
    assert_eq!(documents.path, Path::new("/work/inventory.yaml"));
}

/// A folder with the files that the example names.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["home/.ssh", "keys"] {
        std::fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    for name in ["home/.ssh/id_ed25519", "keys/w2", "w2.password", "kubernetes-1.36.3.bundle"] {
        write(&folder.path().join(name), "x", 0o600);
    }
    folder
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn the_example_is_good_with_nothing_to_warn_of() {
    let folder = folder();
    let judged = judge(EXAMPLE, &folder.path().join("inventory.yaml"), &folder.path().join("home"));
    assert_eq!(judged.findings, []);
    let inventory = judged.inventory.unwrap();
    assert_eq!(roles(&inventory), [("cp1", Role::ControlPlane), ("w1", Role::Worker), ("w2", Role::Worker)]);
}

#[test]
fn the_example_is_good_with_everything_switched_on() {
    let folder = folder();
    let all: String = EXAMPLE
        .lines()
        .map(|line| {
            let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
            match rest.strip_prefix('#') {
                // Below a switched off `kubeadm:` the lines go on with two blanks.
                Some(setting) if setting.starts_with(|first: char| first.is_ascii_lowercase()) => {
                    format!("{indent}{setting}\n")
                }
                Some(setting) if indent.len() == 2 && setting.starts_with("  ") && !setting.starts_with("   {") => {
                    format!("{indent}{setting}\n")
                }
                _ => format!("{line}\n"),
            }
        })
        .collect();
    let judged = judge(&all, &folder.path().join("inventory.yaml"), &folder.path().join("home"));
    assert_eq!(judged.findings, [], "{all}");
    let inventory = judged.inventory.unwrap();
    assert!(inventory.cluster.kubeadm.unwrap().text.contains("audit-log-maxage"));
    assert_eq!(inventory.hosts[2].ssh.identities.len(), 2);
    assert_eq!(inventory.cluster.endpoint, Some(Endpoint::Address("api.demo.example:6443".into())));
}

#[test]
fn files_that_others_may_read_are_refused() {
    let folder = folder();
    let path = folder.path().join("inventory.yaml");
    write(&folder.path().join("key"), "x", 0o640);
    write(&folder.path().join("secret"), "x", 0o604);
    let text = "ssh: {identity: [key, keys/w2, keys], password: {file: secret}}\nhosts: [a]";
    let findings = parse(text, &path, folder.path()).unwrap_err();
    let messages: Vec<String> =
        findings.iter().map(|finding| finding.message.replace(&*folder.path().to_string_lossy(), "DIR")).collect();
    assert_eq!(
        messages,
        [
            "`ssh.identity`: others may read DIR/key (mode 0640)",
            "`ssh.identity`: DIR/keys is a folder, not a file",
            "`ssh.password.file`: others may read DIR/secret (mode 0604)",
        ]
    );
}

#[test]
fn a_kubeadm_file_is_read_and_judged() {
    let folder = folder();
    let path = folder.path().join("inventory.yaml");
    let text = "cluster: {kubeadm: kubeadm.yaml}\nhosts: [a]";
    write(&folder.path().join("kubeadm.yaml"), "kind: ClusterConfiguration\n", 0o644);
    let documents = parse(text, &path, folder.path()).unwrap().cluster.kubeadm.unwrap();
    assert_eq!((documents.text.as_str(), documents.line), ("kind: ClusterConfiguration\n", 1));
    assert_eq!(documents.path, folder.path().join("kubeadm.yaml"));
    write(&folder.path().join("kubeadm.yaml"), "kind: A\nkind: B\n", 0o644);
    let findings = parse(text, &path, folder.path()).unwrap_err();
    assert!(findings[0].message.ends_with("kubeadm.yaml:2:1: the key `kind` stands here twice"), "{findings:?}");
    std::fs::write(folder.path().join("kubeadm.yaml"), [0xff, 0xfe]).unwrap();
    assert!(parse(text, &path, folder.path()).unwrap_err()[0].message.contains("is not UTF-8 text"));
}

/// What `load` says about a text, with the folder's name taken out.
fn shown(text: &str) -> (String, String) {
    let folder = folder();
    let path = folder.path().join("inventory.yaml");
    write(&path, text, 0o644);
    let failure = load(&path).unwrap_err();
    assert_eq!((failure.kind, failure.kind.exit_code()), (Kind::Configuration, 3));
    let clean = |text: &str| text.replace(&format!("{}/", folder.path().display()), "");
    (clean(&failure.sentence), clean(failure.detail.as_deref().unwrap_or_default()))
}

#[test]
fn a_misspelt_key_is_shown() {
    let (sentence, detail) = shown("hosts:\n  cp1:\n    adress: 10.0.0.11   # the first\n    role: control_plane\n");
    assert_eq!(sentence, "inventory.yaml has 2 errors");
    insta::assert_snapshot!(detail, @r"
    error: `adress` is no key of `hosts.cp1`
     --> inventory.yaml:3:5
      |
    3 |     adress: 10.0.0.11   # the first
      |     ^^^^^^ unknown key
      |
      = help: did you mean `address`?

    error: `hosts.cp1.role` has to be `control-plane` or `worker`, but this is `control_plane`
     --> inventory.yaml:4:11
      |
    4 |     role: control_plane
      |           ^^^^^^^^^^^^^
      |
      = help: did you mean `control-plane`?
    ");
}

#[test]
fn two_hosts_at_one_address_are_shown_together() {
    let (sentence, detail) = shown(concat!(
        "cluster: {endpoint: api.example}\n",
        "hosts:\n",
        "  cp1: {address: 10.0.0.11, role: control-plane}\n",
        "  cp2: {address: 10.0.0.12, role: control-plane}\n",
        "  w1: {address: 10.0.0.21}\n",
        "  w2: {address: 10.0.0.11}\n",
    ));
    assert_eq!(sentence, "inventory.yaml has 1 error and 1 warning");
    insta::assert_snapshot!(detail, @r"
    warning: 2 control planes survive no more losses than 1
     --> inventory.yaml:4:35
      |
    4 |   cp2: {address: 10.0.0.12, role: control-plane}
      |                                   ^^^^^^^^^^^^^
      |
      = help: take an odd number of control planes

    error: the hosts `cp1` and `w2` have the same address, 10.0.0.11
     --> inventory.yaml:6:17
      |
    3 |   cp1: {address: 10.0.0.11, role: control-plane}
      |                  --------- first here
    ...
    6 |   w2: {address: 10.0.0.11}
      |                 ^^^^^^^^^ again
      |
      = help: one machine is one host
    ");
}

#[test]
fn a_password_is_refused_without_being_shown() {
    let (sentence, detail) = shown("ssh: {usr: ops, password: hunter2}\nhosts: [cp1]\n");
    assert_eq!(sentence, "inventory.yaml has 2 errors");
    assert!(!detail.contains("hunter2"));
    insta::assert_snapshot!(detail, @r#"
    error: `usr` is no key of `ssh`
     --> inventory.yaml:1:7
      |
    1 | ssh: {usr: ops, password: *******}
      |       ^^^ unknown key
      |
      = help: did you mean `user`?

    error: `ssh.password` has to say where the password comes from: an inventory is shared and kept, passwords are not
     --> inventory.yaml:1:17
      |
    1 | ssh: {usr: ops, password: *******}
      |                 ^^^^^^^^
      |
      = help: write `{ask: true}`, `{file: PATH}` or `{command: "..."}`
    "#);
}

#[test]
fn files_that_are_no_inventory_are_refused() {
    let folder = folder();
    let missing = load(&folder.path().join("none.yaml")).unwrap_err();
    assert!(missing.sentence.starts_with("cannot read the inventory") && missing.advice.is_some());
    assert_eq!(load(folder.path()).unwrap_err().kind, Kind::Configuration);
    let path = folder.path().join("binary");
    std::fs::write(&path, [0, 0xff]).unwrap();
    assert!(load(&path).unwrap_err().sentence.ends_with("is not UTF-8 text and is no inventory"));
    std::fs::write(&path, vec![b'a'; 5 << 20]).unwrap();
    assert!(load(&path).unwrap_err().sentence.ends_with("bytes and is no inventory"));
}

#[test]
fn warnings_come_with_a_good_inventory() {
    let folder = folder();
    let path = folder.path().join("inventory.yaml");
    write(&path, "cluster: {bundle: later}\nhosts: [a]", 0o644);
    let loaded = load_with_warnings(&path).unwrap();
    assert_eq!((loaded.warnings.len(), loaded.inventory.hosts.len()), (1, 1));
    assert!(loaded.rendered_warnings.unwrap().starts_with("warning: `cluster.bundle`"));
    write(&path, "hosts: [a]", 0o644);
    assert_eq!(load_with_warnings(&path).unwrap().rendered_warnings, None);
}

#[test]
fn many_hosts_are_judged_quickly() {
    let hosts: String = (0..10_000)
        .map(|index| format!("  w{index}: {{address: 172.16.{}.{}, labels: {{rack: r1}}}}\n", index / 250, index % 250))
        .collect();
    let text = format!(
        "cluster: {{network: {{pods: 10.192.0.0/10, services: 10.96.0.0/12}}}}\nhosts:\n  cp: {{role: control-plane}}\n{hosts}"
    );
    let started = std::time::Instant::now();
    assert_eq!(good(&text).hosts.len(), 10_001);
    assert!(started.elapsed() < std::time::Duration::from_secs(10), "{:?}", started.elapsed());
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_text_makes_it_panic(text in prop_oneof![
        any::<String>(),
        "((cluster|ssh|hosts|name|network|pods|password|labels|a|b): ?[-{\\[\\]},:'\"|>&*~a0./]{0,4}\n? {0,4}){0,12}",
    ]) {
        let Judged { inventory, findings } = judge(&text, Path::new("/nowhere/inventory.yaml"), Path::new(HOME));
        proptest::prop_assert!(inventory.is_some() || findings.iter().any(|finding| finding.severity == Severity::Error));
        if let Some(inventory) = inventory {
            proptest::prop_assert!(inventory.control_planes().next().is_some());
        }
        let masked = super::mask::mask(&text);
        proptest::prop_assert_eq!(masked.chars().count(), text.chars().count());
        let _ = crate::yaml::render(&findings, &masked, Path::new("x"));
    }

    /// A good inventory with one random character replaced: still no panic, and places stay inside of the text.
    #[test]
    fn a_damaged_example_is_judged(index in 0..EXAMPLE.len(), letter in "[-{}\\[\\]:,'\"#&*!|>%@ \ta0\n]") {
        let mut text = EXAMPLE.to_owned();
        text.replace_range(index..=index, &letter);
        let lines = text.lines().count().max(1);
        for finding in judge(&text, Path::new("/nowhere/inventory.yaml"), Path::new(HOME)).findings {
            proptest::prop_assert!((1..=lines).contains(&finding.line) && finding.column > 0, "{finding:?}");
        }
    }
}
