//! The balancer on a host: a copy of this program, its list of API servers, and the unit that runs it.
//!
//! The copy is apart from the agent's file, which a newer agent replaces at any time. Everything is recorded in the
//! journal before it is made, so that `down` takes it away.

use std::path::Path;

use super::list;
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::host::journal::{Entry, Journal};
use crate::host::{Command, Host, systemd};
use crate::message::BalancerOrder;

/// The unit.
pub const UNIT: &str = "clusterctl-balancer.service";

const UNIT_FILE: &str = "/etc/systemd/system/clusterctl-balancer.service";

/// The program, where other programs of administrators lie: services may start from there on hosts with SELinux too.
const PROGRAM: &str = "/usr/local/bin/clusterctl-balancer";

/// The copy while it is made.
const UNDER_WAY: &str = "/usr/local/bin/.clusterctl-balancer.part";

/// The list of API servers.
const LIST: &str = "/etc/clusterctl/balancer";

/// Puts the balancer on this host, or brings it to what the order says; `program` is the file it is a copy of. Returns how
/// many things were altered. A new list is taken over by the running balancer without a restart.
///
/// # Errors
/// Kind `Host`, naming the file or the unit; the end of the unit's log is attached where it does not start.
pub async fn install(
    host: &dyn Host,
    journal: &Journal,
    order: &BalancerOrder,
    program: &Path,
    events: &Events,
) -> Result<u32> {
    let mut step = events.step("balancer", "Balance API servers");
    let changes = set_up(host, journal, order, program).await;
    for change in changes.iter().flatten() {
        step.changed(change);
    }
    let count = step.changes();
    step.end(changes)?;
    Ok(count)
}

async fn set_up(host: &dyn Host, journal: &Journal, order: &BalancerOrder, program: &Path) -> Result<Vec<String>> {
    let mut changes = Vec::new();
    let text = list::to_text(&order.servers);
    if write(host, journal, LIST, &text)? {
        changes.push(format!("{LIST} written"));
    }
    let mut restart = false;
    if copy(host, journal, program).await? {
        changes.push(format!("{PROGRAM} placed"));
        restart = true;
    }
    if write(host, journal, UNIT_FILE, &unit(order))? {
        changes.push(format!("{UNIT_FILE} written"));
        restart = true;
    }
    let state = systemd::state(host, UNIT).await?;
    // Not there before us, whatever a run that was broken off has made of it.
    journal.record(host, Entry::Unit { name: UNIT.to_owned(), enabled: false, active: false })?;
    if !state.enabled {
        systemd::enable(host, UNIT).await?;
        changes.push(format!("unit {UNIT} enabled"));
    }
    // Afterwards: while something was enabled that systemd has not read, it says so of every unit.
    if !state.loaded || state.needs_reload || restart || !state.enabled {
        systemd::daemon_reload(host).await?;
    }
    if !state.active || restart {
        systemd::restart(host, UNIT).await?;
        changes.push(format!("unit {UNIT} {}", if state.active { "restarted" } else { "started" }));
    }
    Ok(changes)
}

/// Writes a file unless it is so already.
fn write(host: &dyn Host, journal: &Journal, path: &str, text: &str) -> Result<bool> {
    let path = Path::new(path);
    if host.read(path)?.as_deref() == Some(text.as_bytes()) {
        return Ok(false);
    }
    journal.write_file(host, path, text.as_bytes(), 0o644)?;
    Ok(true)
}

/// Copies the program unless its copy is the same already.
async fn copy(host: &dyn Host, journal: &Journal, program: &Path) -> Result<bool> {
    let wanted = host.sha256(program)?;
    if wanted.is_some() && host.sha256(Path::new(PROGRAM))? == wanted {
        return Ok(false);
    }
    let source = program.to_string_lossy();
    // A copy that breaks off must go as well.
    journal.record(host, Entry::Created { path: UNDER_WAY.into() })?;
    if let Some(parent) = Path::new(UNDER_WAY).parent()
        && host.entry(parent)?.is_none()
    {
        host.create_directory(parent, 0o755)?;
    }
    for arguments in [["cp", "--force", &source, UNDER_WAY].as_slice(), &["sync", UNDER_WAY]] {
        let output = host.run(Command::new(arguments[0], &arguments[1..])).await?;
        if !output.success() {
            return Err(Failure::new(Kind::Host, format!("cannot copy {source} to {UNDER_WAY}"))
                .caused_by(output.complaint(arguments[0]))
                .advise("see that there is space on that filesystem, then run the same command again"));
        }
    }
    journal.place_file(host, Path::new(UNDER_WAY), Path::new(PROGRAM), 0o755)?;
    Ok(true)
}

/// The unit's text. It runs without any right: a user of its own that exists while it runs, nothing writable, no
/// capabilities. It is there before the kubelet and may be restarted as often as it takes.
fn unit(order: &BalancerOrder) -> String {
    let listen = order.listen;
    format!(
        "# Written by clusterctl.\n\
         [Unit]\n\
         Description=clusterctl: the way to the API servers of all control planes\n\
         After=network.target\n\
         Before=kubelet.service\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={PROGRAM} balancer --listen {listen} --servers {LIST}\n\
         Restart=always\n\
         RestartSec=1\n\
         TimeoutStopSec=5\n\
         DynamicUser=yes\n\
         NoNewPrivileges=yes\n\
         CapabilityBoundingSet=\n\
         ProtectSystem=strict\n\
         ProtectHome=yes\n\
         LimitNOFILE=8192\n\
         TasksMax=64\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{LIST, PROGRAM, UNDER_WAY, UNIT_FILE, install};
    use crate::event::Events;
    use crate::host::Output;
    use crate::host::fake::FakeHost;
    use crate::host::journal::{self, Journal};
    use crate::inventory::BUILT_IN_ENDPOINT;
    use crate::message::{ApiServer, BalancerOrder};

    const AGENT: &str = "/var/lib/clusterctl/bin/clusterctl-0";

    fn order(addresses: &[&str]) -> BalancerOrder {
        let servers = addresses.iter().map(|address| ApiServer { address: address.parse().unwrap(), local: false });
        BalancerOrder { listen: BUILT_IN_ENDPOINT, servers: servers.collect() }
    }

    fn host() -> FakeHost {
        FakeHost::new()
            .file(AGENT, "program")
            .directory("/etc/systemd/system")
            .directory("/usr/local/bin")
            .answer(&["systemctl"], 0, "")
            .answer(&["systemctl", "show"], 0, "LoadState=not-found\nActiveState=inactive\n")
            .answer(&["sync"], 0, "")
            .answer_with(&["cp"], |host, command| {
                let content = host.text(&command.arguments[1]).unwrap_or_default();
                host.put(Path::new(&command.arguments[2]), content.as_bytes(), 0o700);
                Ok(Output::default())
            })
    }

    async fn run(host: &FakeHost, order: &BalancerOrder) -> u32 {
        let journal = Journal::open(host, "demo").unwrap();
        install(host, &journal, order, Path::new(AGENT), &Events::nowhere()).await.unwrap()
    }

    #[tokio::test]
    async fn a_second_time_changes_nothing_and_a_new_list_restarts_nothing() {
        let host = host();
        assert_eq!(run(&host, &order(&["10.0.0.11:6443"])).await, 5);
        assert_eq!(host.text(PROGRAM).as_deref(), Some("program"));
        assert!(host.text(UNIT_FILE).unwrap().contains("--listen 127.0.0.1:6444 --servers /etc/clusterctl/balancer\n"));
        let host = host.answer(
            &["systemctl", "show"],
            0,
            "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=no\n",
        );
        host.forget();
        assert_eq!(run(&host, &order(&["10.0.0.11:6443"])).await, 0);
        assert!(host.done().iter().all(|done| done.starts_with("run systemctl show")), "{:?}", host.done());
        host.forget();
        assert_eq!(run(&host, &order(&["10.0.0.11:6443", "10.0.0.12:6443"])).await, 1);
        assert!(!host.done().iter().any(|done| done.contains("restart")), "{:?}", host.done());
        assert!(host.text(LIST).unwrap().contains("10.0.0.12:6443\n"));
    }

    #[tokio::test]
    async fn a_newer_program_takes_the_place_of_the_old() {
        let host = host();
        run(&host, &order(&["10.0.0.11:6443"])).await;
        host.put(Path::new(AGENT), b"newer", 0o755);
        host.forget();
        run(&host, &order(&["10.0.0.11:6443"])).await;
        assert_eq!(host.text(PROGRAM).as_deref(), Some("newer"));
        assert!(host.done().iter().any(|done| done.contains("systemctl restart")), "{:?}", host.done());
    }

    #[tokio::test]
    async fn down_takes_all_of_it_away() {
        let host = host();
        let before = host.listing();
        let program = host.text(AGENT);
        run(&host, &order(&["10.0.0.11:6443"])).await;
        host.put(Path::new(UNDER_WAY), b"broken off", 0o600);
        journal::restore(&host, &Events::nowhere()).await.unwrap();
        assert!(program.is_some());
        let mut after = host.listing();
        // The folder of the program that runs goes with the program.
        let mut before = before;
        for listing in [&mut before, &mut after] {
            listing.retain(|path, _| !path.starts_with("/var"));
        }
        assert_eq!(after, before);
    }
}
