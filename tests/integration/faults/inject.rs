//! Doing a fault to a host, and taking it away again.

use std::time::Duration;

use crate::bed::{Bed, bed};
use crate::faults::case::Fault;
use crate::program::Running;

/// How long a fault lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// It is over as soon as it was.
    Moment,
    /// It is taken away while the run goes on.
    For(Duration),
    /// It is taken away when the run has ended.
    Run,
    /// It stays until the cluster was judged: only the disturbed run suffers from it.
    Verdict,
}

/// A host stands still, is cut off or has no etcd for this long.
const SHORT: Duration = Duration::from_secs(5);

/// How long a fault lasts.
pub fn lasting(fault: Fault) -> Lasting {
    match fault {
        Fault::PauseHost | Fault::CutShortly | Fault::SlowEtcd => Lasting::For(SHORT),
        Fault::KillHost
        | Fault::Cut
        | Fault::CutInwards
        | Fault::CutOutwards
        | Fault::Loss
        | Fault::Latency
        | Fault::DiskFull
        | Fault::ReadOnly
        | Fault::ClockForward
        | Fault::ClockBack => Lasting::Run,
        Fault::LaptopVanishes => Lasting::Verdict,
        _ => Lasting::Moment,
    }
}

/// Less than the five minutes by which certificates begin before they are made: what is made then is valid at once when the
/// clock is right again. And less than the time for which `up` waits for pods: an API server that was ahead does not accept
/// the tokens it gave them before their time has come.
const FORWARD: &str = "180";

/// Farther back than any certificate of a fresh cluster reaches.
const BACK: &str = "-3600";

/// A file system of its own for /var/lib, which can be full without this machine being full.
const OWN_LIBRARY: &str = "set -e; mkdir /run/library; mount -t tmpfs -o size=3g,mode=755 faults-library /run/library; \
    cp -a /var/lib/. /run/library/; mount --bind /run/library /var/lib; umount /run/library; rmdir /run/library";

/// Most of the room at once, and the rest until there is none: others write at the same time.
const FILL: &str = "fallocate -l $(($(df --output=avail -B1 /var/lib | tail -1) - 67108864)) /var/lib/.faults; \
    cat /dev/zero >> /var/lib/.faults; true";

/// Packets that neither the other host nor the laptop gets, by rules ahead of everything a cluster puts there. The bed
/// heals tables of this name.
const LOSE: &str = "table inet clusterctl_bed_faults {
  chain in { type filter hook prerouting priority -450; IN }
  chain out { type filter hook postrouting priority 450; OUT }
}";

fn lose(bed: &Bed, host: &str, inwards: &str, outwards: &str) {
    let table = LOSE.replace("IN", inwards).replace("OUT", outwards);
    bed.sh(host, &format!("nft '{table}'"));
}

/// No packet passes of the connections with sshd that there are; new ones are not hindered.
const VANISH: &str =
    "ports=$(ss -Htn state established '( sport = :22 )' | sed 's/.*:\\([0-9]*\\) *$/\\1/' | paste -sd,); \
    [ -z \"$ports\" ] || nft \"table inet clusterctl_bed_faults {
  chain in { type filter hook prerouting priority -450; iifname eth0 tcp dport 22 tcp sport { $ports } drop; }
  chain out { type filter hook postrouting priority 450; oifname eth0 tcp sport 22 tcp dport { $ports } drop; }
}\"";

/// What must be so before the first run.
pub fn prepare(fault: Fault, bed: &Bed, host: &str) {
    if fault == Fault::DiskFull {
        bed.sh(host, OWN_LIBRARY);
    }
}

/// What [`prepare`] made, taken away when nothing of a cluster is left.
pub fn clear(fault: Fault, bed: &Bed, host: &str) {
    if fault == Fault::DiskFull {
        bed.sh(host, "umount --lazy /var/lib");
    }
}

/// Does it; `false` when there was nothing to do it to, such as a process that does not run (yet). What acts on the laptop
/// (latency, a second run) is the driver's own.
pub fn inject(fault: Fault, bed_of: &Bed, host: &str, run: &Running) -> bool {
    let signal = |name: &str, pattern: &str| bed_of.try_sh(host, &format!("pkill -{name} {pattern}")).code == 0;
    match fault {
        Fault::KillController => return run.try_signal("KILL"),
        Fault::KillAgent => return signal("KILL", "-f 'bin/clusterctl-[0-9a-f]* agent'"),
        Fault::PauseHost => drop(bed(&["host", "pause", host])),
        Fault::KillHost => drop(bed(&["host", "kill", host])),
        Fault::CutShortly | Fault::Cut => lose(bed_of, host, "iifname eth0 drop;", "oifname eth0 drop;"),
        Fault::CutInwards => lose(bed_of, host, "iifname eth0 drop;", ""),
        Fault::CutOutwards => lose(bed_of, host, "", "oifname eth0 drop;"),
        Fault::LaptopVanishes => {
            for host in &bed_of.hosts {
                bed_of.sh(&host.name, VANISH);
            }
            return run.try_signal("KILL");
        }
        Fault::Loss => {
            let tenth = |way: &str| format!("{way} eth0 numgen random mod 10 0 drop;");
            lose(bed_of, host, &tenth("iifname"), &tenth("oifname"));
        }
        Fault::DiskFull => drop(bed_of.sh(host, FILL)),
        Fault::ReadOnly => {
            let read_only = "for place in /etc /usr/local /opt /var/lib; do \
                mount --bind $place $place && mount -o remount,bind,ro $place; done";
            bed_of.sh(host, read_only);
        }
        Fault::RestartSshd => return signal("KILL", "sshd-session; systemctl restart ssh"),
        Fault::CrashContainerd => return signal("KILL", "-x containerd"),
        Fault::CrashKubelet => return signal("KILL", "-x kubelet"),
        Fault::CrashApiServer => return signal("KILL", "-x kube-apiserver"),
        Fault::CrashEtcd => return signal("KILL", "-x etcd"),
        Fault::SlowEtcd => return signal("STOP", "-x etcd"),
        Fault::ClockForward => drop(bed(&["host", "clock", host, FORWARD])),
        Fault::ClockBack => drop(bed(&["host", "clock", host, BACK])),
        Fault::Latency | Fault::SecondUp | Fault::DownMeanwhile => {}
    }
    true
}

/// Takes it away.
pub fn lift(fault: Fault, bed_of: &Bed, host: &str) {
    match fault {
        Fault::PauseHost => drop(bed(&["host", "unpause", host])),
        Fault::KillHost => drop(bed(&["host", "start", host])),
        Fault::CutShortly | Fault::Cut | Fault::CutInwards | Fault::CutOutwards | Fault::Loss => {
            drop(bed(&["host", "heal", host]))
        }
        Fault::LaptopVanishes => {
            // sshd learns of it at last.
            for host in &bed_of.hosts {
                bed(&["host", "heal", &host.name]);
                bed_of.try_sh(&host.name, "pkill -KILL sshd-session");
            }
        }
        Fault::DiskFull => drop(bed_of.sh(host, "rm -f /var/lib/.faults")),
        Fault::ReadOnly => {
            bed_of.sh(host, "for place in /etc /usr/local /opt /var/lib; do umount --lazy $place; done");
        }
        Fault::SlowEtcd => drop(bed_of.try_sh(host, "pkill -CONT -x etcd")),
        Fault::ClockForward | Fault::ClockBack => drop(bed(&["host", "clock", host, "0"])),
        _ => {}
    }
}
