//! The user's own ssh instead of ours.

use crate::bed::Bed;
use crate::program::{clusterctl, run};

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
