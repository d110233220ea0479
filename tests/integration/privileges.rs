//! Users other than root: sudo with and without a password, and none at all. Hosts that bring their own runtime.

use crate::bed::{Bed, difference};
use crate::program::{down, kubectl, run, up};

/// Sudo password of the bed's user `ops`.
const OPS_PASSWORD: &str = "ops-sudo-password";

fn with_password_file(bed: &Bed, password: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let file = bed.folder.path().join("password");
    std::fs::write(&file, format!("{password}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let source = format!("become: sudo, become_password: {{file: {}}}", file.display());
    bed.write_inventory(&bed.inventory_text("ops").replace("become: sudo", &source))
}

/// A listing without the folders in which the host's own containerd keeps what it knows, which it makes when it is first
/// used, by whomever, and without the port of its streams, which is another each time it starts. That nothing of ours is
/// in it is asked of containerd itself.
fn without_runtime_state(listing: &str) -> String {
    const STATE: &[&str] = &[" /var/lib/containerd/", " /run/containerd/", "listen tcp 127.0.0.1:"];
    let is_state = |line: &&str| STATE.iter().any(|state| line.contains(state));
    listing.lines().filter(|line| !is_state(line)).map(|line| format!("{line}\n")).collect()
}

#[test]
fn sudo_with_a_password_and_a_runtime_that_is_there_already() {
    let bed = Bed::with_containerd(2);
    let inventory = with_password_file(&bed, OPS_PASSWORD);
    let before: Vec<String> = bed.hosts.iter().map(|host| without_runtime_state(&bed.listing(&host.name))).collect();
    let made = up(&inventory);
    assert_eq!(made.code, 0, "{}\n{}", made.stdout, made.stderr);
    assert_eq!(kubectl(&inventory, &["get", "nodes", "--no-headers"]).matches(" Ready ").count(), 2);
    assert!(!bed.sh(&bed.hosts[0].name, "ps axww -o args").contains(OPS_PASSWORD));
    let gone = down(&inventory);
    assert_eq!(gone.code, 0, "{}\n{}", gone.stdout, gone.stderr);
    for (host, before) in bed.hosts.iter().zip(&before) {
        let kept =
            bed.sh(&host.name, "ctr -n k8s.io images ls -q; ctr -n k8s.io containers ls -q; ctr -n k8s.io tasks ls -q");
        assert_eq!(kept.trim(), "", "{} keeps images or containers", host.name);
        let after = without_runtime_state(&bed.listing(&host.name));
        assert_eq!(*before, after, "{} is not as it was:\n{}", host.name, difference(before, &after));
    }
}

#[test]
fn a_wrong_sudo_password_a_missing_one_and_a_missing_right_are_told_apart() {
    let bed = Bed::bare(1);
    let host = &bed.hosts[0].name;
    let said = |finished: &crate::program::Finished, words: &str| {
        assert_eq!(finished.code, 7, "{}\n{}", finished.stdout, finished.stderr);
        assert!(finished.stderr.contains(host) && finished.stderr.contains(words), "{}", finished.stderr);
    };
    said(&up(&with_password_file(&bed, "wrong")), "does not accept the password");
    said(&up(&bed.write_inventory(&bed.inventory_text("ops"))), "asks for a password");
    // sudo asks first and says only then that the user has no right.
    bed.sh(host, &format!("echo plain:{OPS_PASSWORD} | chpasswd"));
    let password = bed.folder.path().join("password");
    std::fs::write(&password, OPS_PASSWORD).unwrap();
    let become_root = format!("user: plain, become: sudo, become_password: {{file: {}}}", password.display());
    let plain = bed.inventory_text("plain").replace("user: plain", &become_root);
    said(&up(&bed.write_inventory(&plain)), "has no right to use sudo");
    assert_eq!(bed.try_sh(host, "test -e /var/lib/clusterctl").code, 1);
}

#[test]
fn sudo_without_a_password_and_a_login_by_password() {
    let bed = Bed::bare(1);
    let free = bed.write_inventory(&bed.inventory_text("free"));
    let status = run("status", &free, &[]);
    assert_eq!(status.code, 0, "{}", status.stderr);
    let inventory = with_password_file(&bed, OPS_PASSWORD);
    let text = std::fs::read_to_string(&inventory).unwrap();
    let by_password =
        text.replace(&format!("identity: {}", bed.key.display()), "agent: false, password: {file: PASSWORD}");
    let by_password = by_password.replace("PASSWORD", bed.folder.path().join("password").to_str().unwrap());
    let status = run("status", &bed.write_inventory(&by_password), &[]);
    assert_eq!(status.code, 0, "{}", status.stderr);
}
