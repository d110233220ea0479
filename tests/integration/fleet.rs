//! Commands, files and sessions on many hosts, without an agent.

use std::path::Path;
use std::time::Duration;

use crate::bed::Bed;
use crate::program::{Finished, Running, call, clusterctl, run, run_with};

#[track_caller]
fn succeeds(finished: &Finished) -> &str {
    assert_eq!(finished.code, 0, "{}\n{}", finished.stdout, finished.stderr);
    &finished.stdout
}

/// Runs something with a file on its standard input.
fn with_input(file: &Path, inventory: &Path, arguments: &str) -> Finished {
    let line =
        format!("exec {} exec -i {} {arguments} < {}", clusterctl().display(), inventory.display(), file.display());
    call(Path::new("sh"), &["-c", &line], &[])
}

/// Ends a command by Ctrl-C as soon as its `sleep 61` runs; nothing of it may stay.
#[track_caller]
fn ends_whole(bed: &Bed, inventory: &Path, host: &str, words: &[&str]) {
    let arguments = [&["exec", "-i", inventory.to_str().unwrap()][..], words].concat();
    let mut running = Running::start(&clusterctl(), &arguments, &[]);
    bed.sh(host, "until pgrep -f '^sleep 61' >/dev/null; do :; done");
    running.signal("INT");
    let finished = running.finish();
    assert_eq!(finished.code, 130, "{words:?}: {}", finished.stderr);
    assert!(finished.elapsed < Duration::from_secs(30), "{words:?}: {:?}", finished.elapsed);
    assert_eq!(bed.sh(host, "pgrep -af '^(sleep 61|timeout 60)' || true").trim(), "", "{words:?}");
}

/// One bed for what needs no cluster: a host is a second, a test of its own for each sentence would be a minute.
#[test]
fn commands_and_files_reach_many_hosts() {
    let bed = Bed::bare(3);
    let inventory = bed.inventory();
    let names: Vec<&str> = bed.hosts.iter().map(|host| host.name.as_str()).collect();
    let exec = |arguments: &[&str]| run("exec", &inventory, arguments);

    // Live, with the name before each line; the host's own line for the shell.
    let said = exec(&["--", "echo $((6*7)) | cat; echo oops >&2"]);
    for name in &names {
        assert!(succeeds(&said).contains(&format!("{name} | 42")), "{}", said.stdout);
        assert!(said.stderr.contains(&format!("{name} | oops")), "{}", said.stderr);
    }
    // What comes is shown at once, not when the command has ended.
    let live = ["exec", "-i", inventory.to_str().unwrap(), "--on", names[1], "--", "echo a; sleep 61"];
    let (mut running, lines) = Running::start_watched(&clusterctl(), &live, &[]);
    let first = lines.recv_timeout(Duration::from_secs(30)).expect("a line before the end");
    assert!(first == "a" && !running.ends_within(Duration::ZERO), "{first}");
    running.signal("INT");
    let ended = running.finish();
    assert!(ended.code == 130 && ended.elapsed < Duration::from_secs(50), "{ended:?}");
    // Several words stay as they are.
    let one = exec(&["--on", names[0], "--", "printf", "%s.", "a b", "$HOME", "it's", "\\"]);
    assert_eq!(succeeds(&one), "a b.$HOME.it's.\\.");
    // Who agrees is shown once.
    let line = format!("[ $(hostname) = {} ] && echo other || echo same", names[1]);
    let grouped = exec(&["--group", "--", &line]);
    assert_eq!(*succeeds(&grouped), format!("{}, {}:\n  same\n{}:\n  other\n", names[0], names[2], names[1]));
    // The code is the number of hosts that failed, and who they are is said.
    let failing = exec(&["--on", "role=worker", "--", "exit 3"]);
    assert_eq!(failing.code, 2, "{}", failing.stderr);
    assert!(
        failing.stderr.contains(&format!("{} (status 3), {} (status 3)", names[1], names[2])),
        "{}",
        failing.stderr
    );
    let json = exec(&["--output", "json", "--on", &format!("!{}", names[0]), "--", "echo hi; kill -TERM $$"]);
    assert_eq!((json.code, json.stdout.lines().count()), (2, 2), "{}", json.stdout);
    for line in json.stdout.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&line["stdout"], &line["signal"], &line["status"]),
            (&"hi\n".into(), &"TERM".into(), &serde_json::Value::Null)
        );
    }
    // What a host prints cannot draw on the terminal, nor pass for another host's line.
    let hostile = exec(&["--", "printf '\\033[2J\\033]0;gone\\007\\rother | root\\n'"]);
    assert!(!succeeds(&hostile).contains(['\u{1b}', '\u{7}', '\r']), "{}", hostile.stdout);
    assert!(hostile.stdout.lines().all(|line| names.iter().any(|name| line.starts_with(&format!("{name} | ")))));
    // A choice of nothing is a mistake.
    let nothing = exec(&["--on", "w9", "--", "true"]);
    assert!(nothing.code == 2 && nothing.stderr.contains("there is no host w9"), "{}", nothing.stderr);

    // Input goes to all; a host that does not want it disturbs nobody.
    let input = bed.folder.path().join("input");
    std::fs::write(&input, vec![b'x'; 3 << 20]).unwrap();
    let line = format!("[ $(hostname) = {} ] || wc -c", names[2]);
    let counted = with_input(&input, &inventory, &format!("--group -- '{line}'"));
    assert_eq!(*succeeds(&counted), format!("{}, {}:\n  3145728\n{}:\n", names[0], names[1], names[2]));

    // A command that takes too long is ended, with what it has started.
    let late = exec(&["--timeout", "1", "--", "sh -c 'tail -f /dev/null'; true"]);
    assert!(late.code == 3 && late.stderr.contains("did not end within 1 seconds"), "{}", late.stderr);
    let mut interrupted = Running::start(
        &clusterctl(),
        &["exec", "-i", inventory.to_str().unwrap(), "--", "echo began; tail -f /dev/null | cat"],
        &[],
    );
    for name in &names {
        bed.sh(name, "until pgrep -x tail >/dev/null; do :; done");
    }
    interrupted.signal("INT");
    let finished = interrupted.finish();
    assert_eq!(finished.code, 130, "{}", finished.stderr);
    assert!(finished.elapsed < Duration::from_secs(30), "{:?}", finished.elapsed);
    for name in &names {
        assert_eq!(bed.sh(name, "pgrep -x tail || true").trim(), "", "{name} goes on");
    }

    // Whatever of it ignores SIGINT, has a process group of its own, or outlives its shell.
    for line in ["sleep 61 & wait", "timeout 60 sleep 61; true", "sleep 61 >/dev/null 2>&1 & wait", "sleep 61 &"] {
        ends_whole(&bed, &inventory, names[1], &["--on", names[1], "--", line]);
    }
    let late = exec(&["--on", names[1], "--timeout", "1", "--", "sleep 61 & wait"]);
    assert!(late.code == 1 && late.stderr.contains("did not end within 1 seconds"), "{}", late.stderr);
    assert_eq!(bed.sh(names[1], "pgrep -f '^sleep 61' || true").trim(), "");
    // What made a session of its own was meant to stay.
    let daemon = "setsid sleep 62 >/dev/null 2>&1 & sleep 61";
    ends_whole(&bed, &inventory, names[1], &["--on", names[1], "--", daemon]);
    assert_ne!(bed.sh(names[1], "pkill -f '^sleep 62' && echo ended").trim(), "");

    // Into a pipe byte by byte; what a host says besides still meets a terminal.
    let line = format!(
        "{} exec -i {} --on {} -- \"printf '\\033[2Jx'; printf '\\033[2Jy\\n' >&2\" | od -An -c",
        clusterctl().display(),
        inventory.display(),
        names[0]
    );
    let shown = call(Path::new("script"), &["-qec", &line, "/dev/null"], &[]);
    assert!(shown.stdout.contains("\\x1b[2Jy") && !shown.stdout.contains('\u{1b}'), "{:?}", shown.stdout);
    assert!(shown.stdout.contains("033   [   2   J   x"), "{:?}", shown.stdout);

    // Files: a folder there, a file back from all; modes stay.
    let tree = bed.folder.path().join("tree");
    std::fs::create_dir_all(tree.join("sub")).unwrap();
    std::fs::write(tree.join("sub/file"), "content").unwrap();
    std::os::unix::fs::symlink("sub/file", tree.join("link")).unwrap();
    succeeds(&run("copy", &inventory, &[tree.to_str().unwrap(), "all:/srv/tree"]));
    succeeds(&run("copy", &inventory, &[tree.to_str().unwrap(), "all:/srv/tree"]));
    for name in &names {
        assert_eq!(bed.sh(name, "cat /srv/tree/link /srv/tree/tree/link; ls -A /srv"), "contentcontenttree\n");
    }
    let back = bed.folder.path().join("back");
    succeeds(&run("copy", &inventory, &["all:/srv/tree", back.to_str().unwrap()]));
    for name in &names {
        assert_eq!(std::fs::read_to_string(back.join(name).join("tree/link")).unwrap(), "content");
    }
    let large = bed.folder.path().join("large");
    std::fs::write(&large, (0..30_000_000_u32).map(|i| (i / 7 % 251) as u8).collect::<Vec<u8>>()).unwrap();
    succeeds(&run("copy", &inventory, &[large.to_str().unwrap(), &format!("{}:large", names[0])]));
    let again = bed.folder.path().join("again");
    succeeds(&run("copy", &inventory, &[&format!("{}:~/large", names[0]), again.to_str().unwrap()]));
    assert!(std::fs::read(&large).unwrap() == std::fs::read(&again).unwrap(), "it came back different");
    let missing = run("copy", &inventory, &["role=worker:/no/such", back.to_str().unwrap()]);
    assert!(missing.code == 2 && missing.stderr.contains("cannot read /no/such"), "{}", missing.stderr);
    crate::bed::bed(&["host", "fill", names[1], "/srv", "1M"]);
    let full = run("copy", &inventory, &[large.to_str().unwrap(), "role=worker:/srv/"]);
    assert!(full.code == 1 && full.stderr.contains("No space left on device"), "{}", full.stderr);
    assert_eq!(bed.sh(names[1], "find /srv -name 'large*'").trim(), "", "half a file stays");
}

/// As a user who must become root, and who may not.
#[test]
fn commands_run_as_root_when_asked() {
    let bed = Bed::bare(1);
    let free = bed.write_inventory(&bed.inventory_text("free"));
    assert_eq!(succeeds(&run("exec", &free, &["--", "id", "-un"])), "free\n");
    assert_eq!(succeeds(&run("exec", &free, &["--sudo", "--", "id", "-un"])), "root\n");
    let file = bed.folder.path().join("input");
    std::fs::write(&file, "from here\n").unwrap();
    assert_eq!(succeeds(&with_input(&file, &free, "--sudo -- 'cat; id -u'")), "from here\n0\n");
    succeeds(&run("copy", &free, &["--sudo", file.to_str().unwrap(), &format!("{}:/root/here", bed.hosts[0].name)]));
    assert_eq!(bed.sh(&bed.hosts[0].name, "cat /root/here"), "from here\n");
    for line in ["sleep 61 & wait", "timeout 60 sleep 61; true", "sleep 61 &"] {
        ends_whole(&bed, &free, &bed.hosts[0].name, &["--sudo", "--", line]);
    }
    // Also while sudo itself hangs, in front of the command.
    let marked = "touch /tmp/it-ran";
    bed.sh(
        &bed.hosts[0].name,
        "printf '#!/bin/sh\\nexec sleep 61\\n' >/usr/local/bin/sudo; chmod +x /usr/local/bin/sudo",
    );
    ends_whole(&bed, &free, &bed.hosts[0].name, &["--sudo", "--", marked]);
    let late = run("exec", &free, &["--sudo", "--timeout", "1", "--", marked]);
    assert!(late.code == 1 && late.stderr.contains("did not end within 1 seconds"), "{}", late.stderr);
    assert!(late.elapsed < Duration::from_secs(20), "{:?}", late.elapsed);
    bed.sh(&bed.hosts[0].name, "rm /usr/local/bin/sudo; [ ! -e /tmp/it-ran ]");
    let plain = run("copy", &free, &[file.to_str().unwrap(), &format!("{}:/root/there", bed.hosts[0].name)]);
    assert!(plain.code == 1 && plain.stderr.contains("Permission denied"), "{}", plain.stderr);
    let text = bed.inventory_text("plain").replace("user: plain", "user: plain, become: sudo");
    let refused = run("exec", &bed.write_inventory(&text), &["--sudo", "--", "true"]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("asks for a password"), "{}", refused.stderr);

    // A session of a person: a terminal there, its size and its code.
    let line = format!(
        "{} shell -i {} {} -- 'tty >/dev/null && stty size; exit 7'",
        clusterctl().display(),
        free.display(),
        bed.hosts[0].name
    );
    let session = call(Path::new("script"), &["-qec", &format!("stty rows 33 cols 99; {line}"), "/dev/null"], &[]);
    assert!(
        session.code == 7 && session.stdout.contains("33 99"),
        "{}\n{}\n{}",
        session.code,
        session.stdout,
        session.stderr
    );
    let none = run("shell", &free, &[&bed.hosts[0].name]);
    assert_eq!(none.code, 2, "{}", none.stderr);
}

/// Whoever can type `ssh web1` puts `web1` into the inventory and is done; what we cannot do of it is said.
#[test]
fn a_name_that_ssh_config_knows_is_a_whole_inventory() {
    let bed = Bed::bare(1);
    let (host, home) = (&bed.hosts[0], bed.folder.path().join("home"));
    std::fs::create_dir_all(home.join(".ssh")).unwrap();
    // Another port than the usual one, which known_hosts writes in its own way.
    bed.sh(&host.name, "echo 'Port 2222' >/etc/ssh/sshd_config.d/port.conf && systemctl restart ssh");
    let key = bed.sh(&host.name, "cut -d ' ' -f 1,2 /etc/ssh/ssh_host_ed25519_key.pub");
    let known = bed.folder.path().join("known");
    std::fs::write(&known, format!("[{}]:2222 {key}", host.address)).unwrap();
    let (address, identity, known) = (&host.address, bed.key.display(), known.display());
    let config = home.join(".ssh/config");
    let text = format!(
        "Host web1\n  HostName {address}\n  User root\n  Port 2222\n  IdentityFile {identity}\n  \
         UserKnownHostsFile {known}\n"
    );
    std::fs::write(&config, &text).unwrap();
    let ssh = ["-F", config.to_str().unwrap(), "-o", "BatchMode=yes", "web1", "hostname"];
    let name = format!("{}\n", host.name);
    let typed = call(Path::new("ssh"), &ssh, &[]);
    assert_eq!(*succeeds(&typed), name);

    let inventory = bed.write_inventory("hosts: [web1]\n");
    let exec = || run_with("exec", &inventory, &["--", "hostname"], &[("HOME", home.to_str().unwrap())]);
    let ran = exec();
    assert_eq!(*succeeds(&ran), name);
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);

    std::fs::write(&config, format!("{text}  ForwardAgent yes\n")).unwrap();
    let warned = exec();
    assert_eq!(*succeeds(&warned), name);
    let sentence = format!("{}:7: ForwardAgent yes: clusterctl cannot do this and goes on without", config.display());
    assert!(warned.stderr.contains(&sentence), "no «{sentence}» in:\n{}", warned.stderr);
}

/// From a host of theirs, with nothing but the agent that `ssh -A` has brought along.
#[test]
fn a_forwarded_agent_logs_in() {
    let bed = Bed::bare(2);
    let [here, there] = [&bed.hosts[0], &bed.hosts[1]];
    let socket = bed.folder.path().join("agent");
    let socket = socket.to_str().unwrap();
    let agent = Running::start(Path::new("ssh-agent"), &["-D", "-a", socket], &[]);
    let key = bed.key.to_str().unwrap();
    let with_agent = |program: &str, words: &[&str]| call(Path::new(program), words, &[("SSH_AUTH_SOCK", socket)]);
    let began = std::time::Instant::now();
    while with_agent("ssh-add", &["-q", key]).code != 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "the agent does not answer");
    }
    let inventory = bed.folder.path().join("forwarded.yaml");
    let text = format!(
        "cluster: {{name: forwarded}}\nssh: {{user: root, host_keys: accept-new}}\nhosts:\n  there: {{address: {}, role: \
         control-plane}}\n",
        there.address
    );
    std::fs::write(&inventory, text).unwrap();
    bed.send(&here.name, &[&clusterctl(), &inventory], "/root/from");
    let from_there = |forward: &str| {
        let program = clusterctl();
        let line = format!(
            "cd /root/from && ./{} exec -i forwarded.yaml -- hostname",
            program.file_name().unwrap().to_str().unwrap()
        );
        let place = format!("root@{}", here.address);
        let mut words = vec![forward, "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"];
        words.extend(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", &place, &line]);
        with_agent("ssh", &words)
    };
    assert_eq!(*succeeds(&from_there("-A")), format!("{}\n", there.name));
    let alone = from_there("-a");
    assert!(alone.code == 1 && alone.stderr.contains("there is no key or password to try"), "{alone:?}");
    drop(agent);
}

/// Each of them brings the program: none takes away what another one is bringing.
#[test]
fn runs_that_begin_together_on_a_fresh_host_all_come_through() {
    let bed = Bed::bare(1);
    let inventory = bed.inventory();
    for _ in 0..3 {
        let arguments = ["status", "-i", inventory.to_str().unwrap()];
        let mut together: Vec<Running> = (0..4).map(|_| Running::start(&clusterctl(), &arguments, &[])).collect();
        for run in &mut together {
            let status = run.finish();
            assert_eq!(status.code, 0, "{}\n{}", status.stdout, status.stderr);
        }
    }
}
