//! The user's own ssh instead of ours; the keys that hosts show.

use crate::bed::Bed;
use crate::program::{bundle, clusterctl, run, run_with};

#[test]
fn the_users_own_ssh_carries_the_same_engine() {
    let bed = Bed::bare(2);
    let names: Vec<&str> = bed.hosts.iter().map(|host| host.name.as_str()).collect();
    let inventory = bed.write_inventory(&bed.inventory_text("free"));
    let by_ssh = |verb: &str, arguments: &[&str]| {
        let mut all = vec!["--transport", "openssh"];
        all.extend_from_slice(arguments);
        run(verb, &inventory, &all)
    };
    let status = by_ssh("status", &[]);
    assert!(status.code == 0 && names.iter().all(|name| status.stdout.contains(name)), "{status:?}");
    let ran = by_ssh("exec", &["--group", "--sudo", "--", "echo $(id -un) it\\'s; echo oops >&2; exit 3"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert_eq!(ran.stdout, format!("{}, {} (status 3):\n  root it's\n", names[0], names[1]));
    assert!(ran.stderr.contains("  oops"), "{}", ran.stderr);
    let large = bed.folder.path().join("large");
    std::fs::write(&large, (0..20_000_000_u32).map(|i| (i / 5 % 251) as u8).collect::<Vec<u8>>()).unwrap();
    let there = by_ssh("copy", &[large.to_str().unwrap(), "all:large"]);
    assert_eq!(there.code, 0, "{there:?}");
    let back = bed.folder.path().join("back");
    assert_eq!(by_ssh("copy", &["all:large", back.to_str().unwrap()]).code, 0);
    for name in &names {
        assert!(std::fs::read(&large).unwrap() == std::fs::read(back.join(name).join("large")).unwrap(), "{name}");
    }
    let late = by_ssh("exec", &["--timeout", "1", "--", "tail -f /dev/null"]);
    assert!(late.code == 2 && late.stderr.contains("did not end within 1 seconds"), "{late:?}");
    for name in &names {
        assert_eq!(bed.sh(name, "pgrep -x tail || true").trim(), "", "{name} goes on");
    }
    let line = format!(
        "{} shell --transport openssh -i {} {} -- 'tty >/dev/null && stty size; exit 7'",
        clusterctl().display(),
        inventory.display(),
        names[0]
    );
    let session = crate::program::call(
        std::path::Path::new("script"),
        &["-qec", &format!("stty rows 33 cols 99; {line}"), "/dev/null"],
        &[],
    );
    assert!(session.code == 7 && session.stdout.contains("33 99"), "{session:?}");

    // What ssh says becomes a failure of the right kind.
    let text = std::fs::read_to_string(&inventory).unwrap();
    let other = bed.folder.path().join("other");
    let other = other.to_str().unwrap();
    let made =
        crate::program::call(std::path::Path::new("ssh-keygen"), &["-q", "-t", "ed25519", "-N", "", "-f", other], &[]);
    assert_eq!(made.code, 0, "{made:?}");
    let wrong = text.replace(bed.key.to_str().unwrap(), other);
    let refused = run("status", &bed.write_inventory(&wrong), &["--transport", "openssh"]);
    assert!(format!("{}{}", refused.stdout, refused.stderr).contains("ssh could not log in"), "{refused:?}");
}

#[test]
#[ignore = "takes minutes: make test-all"]
fn a_cluster_comes_and_goes_by_the_users_own_ssh() {
    let bed = Bed::bare(2);
    let inventory = bed.write_inventory(&bed.inventory_text("free"));
    let by_ssh = |verb: &str, arguments: &[&str]| {
        let done = run(verb, &inventory, &[&["--transport", "openssh"], arguments].concat());
        assert_eq!(done.code, 0, "{verb}: {}\n{}", done.stdout, done.stderr);
        done
    };
    let before: Vec<String> = bed.hosts.iter().map(|host| bed.listing(&host.name)).collect();
    by_ssh("up", &["--yes", "--bundle", bundle().to_str().unwrap()]);
    let again = by_ssh("plan", &["--bundle", bundle().to_str().unwrap()]);
    assert!(!again.stderr.contains("GSSAPI"), "{}", again.stderr);
    let nodes = by_ssh("kubectl", &["--", "get", "nodes", "--no-headers"]);
    assert_eq!(nodes.stdout.matches(" Ready ").count(), 2, "{}", nodes.stdout);
    by_ssh("down", &["--yes"]);
    for (host, before) in bed.hosts.iter().zip(&before) {
        let after = bed.listing(&host.name);
        assert_eq!(*before, after, "{}:\n{}", host.name, crate::bed::difference(before, &after));
    }
}

/// `python3 CONNECT HOST PORT`: connects and hands the open socket to ssh, which ProxyUseFdpass waits for.
const CONNECT: &str = r#"
import array, os, socket, sys
connected = socket.create_connection((sys.argv[1], int(sys.argv[2])))
ssh = socket.socket(fileno=os.dup(1))
ssh.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [connected.fileno()]))])
"#;

/// What only ssh understands stops nobody and is not warned of, and its limits stay its own.
#[test]
fn a_connection_that_only_ssh_can_make() {
    use std::os::unix::fs::PermissionsExt as _;
    let bed = Bed::bare(1);
    let (host, folder) = (&bed.hosts[0], bed.folder.path());
    let (connect, config, own) = (folder.join("connect.py"), folder.join("config"), folder.join("programs"));
    std::fs::write(&connect, CONNECT).unwrap();
    let settings = format!(
        "Host gate\n  HostName {}\n  ProxyCommand python3 {} %h %p\n  ProxyUseFdpass yes\n  GSSAPIAuthentication yes\n  \
         User free\n",
        host.address,
        connect.display()
    );
    std::fs::write(&config, settings).unwrap();
    // The person's own ssh is the first on the PATH.
    let ssh = crate::program::call(std::path::Path::new("sh"), &["-c", "command -v ssh"], &[]).stdout;
    std::fs::create_dir(&own).unwrap();
    let script = format!("#!/bin/sh\nexec {} -F {} \"$@\"\n", ssh.trim(), config.display());
    std::fs::write(own.join("ssh"), script).unwrap();
    std::fs::set_permissions(own.join("ssh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let text = bed.inventory_text("free").replace(&host.address, "gate").replace("user: free, ", "");
    let inventory = bed.write_inventory(&text);
    let path = format!("{}:{}", own.display(), std::env::var("PATH").unwrap());
    let arguments = ["--transport", "openssh", "--sudo", "--", "id", "-un"];
    let ran = run_with("exec", &inventory, &arguments, &[("PATH", &path)]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "root\n"), "{ran:?}\n{text}");
    assert!(!ran.stderr.contains("GSSAPI") && !ran.stderr.contains("Fdpass"), "{}", ran.stderr);

    // What ssh itself does not understand is said in its words.
    std::fs::write(&config, "Nonsense yes\n").unwrap();
    let refused = run_with("exec", &inventory, &arguments, &[("PATH", &path)]);
    assert!(refused.code != 0 && refused.stderr.to_lowercase().contains("nonsense"), "{refused:?}");
}

/// Scanned, compared, pinned; and a host that shows another key later is a failure with both fingerprints.
#[test]
fn hosts_show_their_keys_and_a_changed_one_is_not_pinned() {
    let bed = Bed::bare(1);
    let host = &bed.hosts[0];
    let known = bed.folder.path().join("mine");
    let text = bed.inventory_text("root");
    let (before, after) = text.split_once("known_hosts: ").unwrap();
    let (_, after) = after.split_at(after.find([',', '}']).unwrap());
    let text = format!("{before}known_hosts: {}{after}", known.display());
    let inventory = bed.write_inventory(&text);
    let scan = |arguments: &[&str]| run("hosts", &inventory, &[&["scan"], arguments].concat());
    let of_host = || {
        let command = "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub";
        bed.sh(&host.name, command).split_whitespace().nth(1).unwrap().to_owned()
    };
    let first = of_host();
    let new = scan(&[]);
    assert!(new.code == 0 && new.stdout.contains(&first) && new.stdout.contains(" new"), "{new:?}");
    assert!(new.stderr.contains("again with --pin") && !known.exists(), "{new:?}");
    let nobody = scan(&["--pin"]);
    assert!(nobody.code != 0 && !known.exists(), "{nobody:?}");
    let pinned = scan(&["--pin", "--yes"]);
    assert_eq!(pinned.code, 0, "{pinned:?}");
    let again = scan(&["--output", "json"]);
    assert!(again.code == 0 && again.stdout.contains("\"known\"") && !again.stdout.contains("\"new\""), "{again:?}");

    let renew = "rm /etc/ssh/ssh_host_ed25519_key*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key";
    bed.sh(&host.name, &format!("{renew} && systemctl restart ssh"));
    let second = of_host();
    assert_ne!(first, second);
    let before = std::fs::read_to_string(&known).unwrap();
    let changed = scan(&["--pin", "--yes"]);
    assert_eq!(changed.code, 6, "{changed:?}");
    let row = changed.stdout.lines().find(|line| line.contains("CHANGED")).unwrap_or_else(|| panic!("{changed:?}"));
    for part in [&second, &first, &format!("known: {}:", known.display())] {
        assert!(row.contains(part.as_str()), "{part} in {row}");
    }
    assert!(changed.stderr.contains(&first) && changed.stderr.contains(&second), "{}", changed.stderr);
    assert_eq!(std::fs::read_to_string(&known).unwrap(), before);
}
