//! Users other than root: sudo with and without a password, and none at all. Hosts that bring their own runtime.

use std::time::Duration;

use crate::bed::{Bed, difference};
use crate::program::{down, kubectl, run, up, wait_for};
use crate::watched::Watched;

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
    let watched: Vec<Watched<'_>> =
        bed.hosts.iter().map(|host| Watched::start(&bed, &host.name, OPS_PASSWORD)).collect();
    let made = up(&inventory);
    assert_eq!(made.code, 0, "{}\n{}", made.stdout, made.stderr);
    assert_eq!(kubectl(&inventory, &["get", "nodes", "--no-headers"]).matches(" Ready ").count(), 2);
    let gone = down(&inventory);
    assert_eq!(gone.code, 0, "{}\n{}", gone.stdout, gone.stderr);
    for watched in watched {
        assert_eq!(watched.end(), "", "a process had the password for all to see");
    }
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

/// Asks as most distributions do that lock users out who fail too often.
const LOCKING: &str = "auth required pam_faillock.so preauth\nauth sufficient pam_unix.so\n\
                       auth [default=die] pam_faillock.so authfail\naccount include common-account\n\
                       session include common-session-noninteractive\n";

#[test]
fn a_host_records_few_failures_of_a_wrong_password_and_none_without() {
    let bed = Bed::bare(1);
    let host = &bed.hosts[0].name;
    bed.sh(host, &format!("printf '{}' >/etc/pam.d/sudo", LOCKING.replace('\n', "\\n")));
    let recorded = || bed.sh(host, "faillock --user ops").matches(" sudo ").count();
    let says = |inventory: &std::path::Path, words: &str| {
        let status = run("status", inventory, &[]);
        assert!(format!("{}{}", status.stdout, status.stderr).contains(words), "{status:?}");
    };
    let without = bed.write_inventory(&bed.inventory_text("ops"));
    says(&without, "asks for a password");
    assert_eq!(recorded(), 0, "without a password");

    says(&with_password_file(&bed, "wrong"), "does not accept the password");
    bed.sh(host, "timeout 20 sh -c 'while pgrep -x sudo; do :; done' >/dev/null");
    // A second one where sudo sees the end of its input before it is ended at its question.
    let failures = recorded();
    assert!((1..=2).contains(&failures), "{failures} with a wrong one");

    let right = run("status", &with_password_file(&bed, OPS_PASSWORD), &[]);
    assert_eq!(right.code, 0, "{}", right.stderr);
    assert_eq!(recorded(), failures, "the right one adds none");
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

/// Login shells that are no POSIX shells, or that talk; places that a program might want to write to and cannot.
#[test]
fn login_shells_of_every_kind_and_homes_of_every_state() {
    let bed = Bed::with_shells(2);
    let [host, other] = [0, 1].map(|index| bed.hosts[index].name.clone());
    let inventory = with_password_file(&bed, OPS_PASSWORD);
    let on_both = |command: &str| bed.hosts.iter().for_each(|host| _ = bed.sh(&host.name, command));
    let works = |what: &str| {
        let status = run("status", &inventory, &[]);
        assert_eq!(status.code, 0, "{what}: {}", status.stderr);
        let ran = run("exec", &inventory, &["--on", &host, "--sudo", "--", "echo", "it's", "a\\b", "$HOME!"]);
        assert!(ran.code == 0 && ran.stdout.ends_with("it's a\\b $HOME!\n"), "{what}: {ran:?}");
    };
    for shell in ["/usr/bin/fish", "/bin/tcsh", "/bin/bash"] {
        on_both(&format!("usermod --shell {shell} ops"));
        works(shell);
    }
    // A greeting on both streams before every command; bash reads .bashrc when sshd starts it.
    on_both("printf 'echo Welcome; echo again >&2\\n' >/home/ops/.bashrc");
    works("a greeting");
    // A home that nobody can write to, a /tmp that runs nothing.
    on_both("mount -o bind /home/ops /home/ops && mount -o remount,bind,ro /home/ops; mount -o remount,noexec /tmp");
    works("a read-only home");
    on_both("umount /home/ops");
    bed_fill(&host, "/home/ops", "0");
    works("a full home");
    // One that never stops talking is a sentence, and the other host is not disturbed.
    bed.sh(&other, "echo 'yes' >/home/ops/.bashrc");
    let endless = run("status", &inventory, &[]);
    assert!(endless.stdout.contains(&host), "{}", endless.stdout);
    let said = format!("{}{}", endless.stdout, endless.stderr);
    assert!(said.contains("its login shell prints without end"), "{said}");
}

fn bed_fill(host: &str, path: &str, free: &str) {
    crate::bed::bed(&["host", "fill", host, path, free]);
}

/// What insists on a terminal gets one, and nothing of it disturbs the bytes.
#[test]
fn sudo_that_wants_a_terminal_and_doas() {
    let bed = Bed::with_shells(1);
    let host = bed.hosts[0].name.clone();
    let watched = Watched::start(&bed, &host, OPS_PASSWORD);
    let works = |what: &str, inventory: &std::path::Path| {
        let status = run("status", inventory, &[]);
        assert_eq!(status.code, 0, "{what}: {}", status.stderr);
        let ran = run("exec", inventory, &["--sudo", "--", "id -un; echo oops >&2; exit 3"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, "root\n"), "{what}: {ran:?}");
        assert!(ran.stderr.contains("oops") && ran.stderr.contains("status 3"), "{what}: {}", ran.stderr);
        // What stood in between ends a moment after the program that was its other end.
        let places = "/tmp/clusterctl-* /dev/shm/clusterctl-* /home/ops/clusterctl-*";
        bed.sh(
            &host,
            &format!("timeout 5 sh -c 'while ls -d {places} | grep -q .; do :; done' >/dev/null 2>&1 || true"),
        );
        let left = bed.sh(&host, &format!("ls -d {places} 2>/dev/null || true"));
        assert_eq!(left.trim(), "", "{what} leaves something: {}", bed.sh(&host, "ps axww -o pid,ppid,args"));
    };
    for options in ["requiretty", "use_pty", "requiretty,use_pty"] {
        bed.sh(&host, &format!("printf 'Defaults {options}\\n' >/etc/sudoers.d/test && chmod 440 /etc/sudoers.d/test"));
        works(options, &with_password_file(&bed, OPS_PASSWORD));
        // Without a password to give and to ask for.
        works(options, &bed.write_inventory(&bed.inventory_text("free")));
    }
    let wrong = run("status", &with_password_file(&bed, "wrong"), &[]);
    assert!(format!("{}{}", wrong.stdout, wrong.stderr).contains("does not accept the password"), "{wrong:?}");

    let doas = |inventory: std::path::PathBuf| {
        let text = std::fs::read_to_string(&inventory).unwrap().replace("become: sudo", "become: doas");
        bed.write_inventory(&text)
    };
    bed.sh(&host, "printf 'permit nopass free\\npermit ops\\n' >/etc/doas.conf && rm /etc/sudoers.d/*");
    works("doas without a password", &doas(bed.write_inventory(&bed.inventory_text("free"))));
    works("doas with a password", &doas(with_password_file(&bed, OPS_PASSWORD)));
    let wrong = run("status", &doas(with_password_file(&bed, "wrong")), &[]);
    assert!(format!("{}{}", wrong.stdout, wrong.stderr).contains("does not accept the password"), "{wrong:?}");
    assert_eq!(watched.end(), "", "a process had the password for all to see");
}

/// A password for sudo that is not the one for the login.
#[test]
fn two_passwords_of_one_user() {
    let bed = Bed::bare(1);
    let host = bed.hosts[0].name.clone();
    bed.sh(&host, "printf 'Defaults rootpw\\n' >/etc/sudoers.d/test && chmod 440 /etc/sudoers.d/test");
    let inventory = with_password_file(&bed, "root-password");
    let login = bed.folder.path().join("login");
    std::fs::copy(bed.folder.path().join("password"), &login).unwrap();
    std::fs::write(&login, OPS_PASSWORD).unwrap();
    let text = std::fs::read_to_string(&inventory).unwrap();
    let by_password = format!("agent: false, password: {{file: {}}}", login.display());
    let text = text.replace(&format!("identity: {}", bed.key.display()), &by_password);
    let ran = run("exec", &bed.write_inventory(&text), &["--sudo", "--", "id", "-un"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "root\n"), "{ran:?}");
}

/// What watches for passwords sees one in the arguments and one in the environment of a process, and only those.
#[test]
fn a_password_for_all_to_see_is_seen() {
    let bed = Bed::bare(1);
    let host = bed.hosts[0].name.clone();
    assert_eq!(Watched::start(&bed, &host, OPS_PASSWORD).end(), "");
    for (planted, place) in [
        (format!("sh -c 'tail -f /dev/null; :' {OPS_PASSWORD}"), "cmdline: sh -c tail -f /dev/null; : "),
        (format!("env WORD={OPS_PASSWORD} tail -f /dev/null"), "environ: "),
    ] {
        let watched = Watched::start(&bed, &host, OPS_PASSWORD);
        bed.sh(&host, &format!("{planted} </dev/null >/dev/null 2>&1 &"));
        wait_for("a hit", Duration::from_secs(10), || watched.hits().contains(place));
        bed.sh(&host, "pkill -x tail");
        let found = watched.end();
        assert!(found.contains(place) && found.contains(OPS_PASSWORD), "{planted}: {found}");
    }
}
