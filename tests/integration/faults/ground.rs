//! The ground a case stands on: two fresh hosts, an inventory that notices faults soon, and what was there before.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use crate::bed::{Bed, bed, difference};
use crate::faults::boundary::{Boundary, Second};
use crate::faults::{boundary, delay};
use crate::program::{Finished, Running, bundle, call, clusterctl};

/// How long the end of an agent whose controller is gone may take to leave the listing.
const SETTLE: Duration = Duration::from_secs(8);

/// No moment of a run comes later than this.
const LONGEST: Duration = Duration::from_secs(120);

/// A run that waits for a host is interrupted after this time, as a person would do: a lost link is tried again for a minute.
const PATIENCE: Duration = Duration::from_secs(40);

/// And again this much later, and then killed.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

/// A control plane, a second host, and how they were before anything happened.
pub struct Ground {
    /// The hosts.
    pub bed: Bed,
    /// What the second one is.
    pub second: Second,
    inventory: PathBuf,
    home: PathBuf,
    before: Vec<String>,
    /// Where what runs said is kept.
    record: PathBuf,
    /// How much was kept there.
    runs: Cell<u32>,
}

impl Ground {
    /// Fresh hosts, for a series.
    pub fn new(series: usize, second: Second) -> Self {
        let bed = Bed::bare(2);
        let home = bed.folder.path().join("home");
        std::fs::create_dir_all(home.join(".ssh")).unwrap();
        // A dead connection is noticed within seconds: cases are many.
        let config = "Host *\n  ServerAliveInterval 2\n  ServerAliveCountMax 3\n  ConnectTimeout 6\n";
        std::fs::write(home.join(".ssh/config"), config).unwrap();
        let inventory = bed.write_inventory(&text(&bed, second));
        let before = bed.hosts.iter().map(|host| bed.listing(&host.name)).collect();
        let record = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/faults/{series}"));
        let _ = std::fs::remove_dir_all(&record);
        Self { bed, second, inventory, home, before, record, runs: Cell::new(0) }
    }

    /// Name of a host of the case.
    pub fn host(&self, host: usize) -> &str {
        &self.bed.hosts[host].name
    }

    /// Starts a verb with JSON events.
    pub fn start(&self, verb: &str) -> (Running, Receiver<String>) {
        let arguments = self.arguments(verb);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Running::start_watched(&clusterctl(), &arguments, &[("HOME", self.home.to_str().unwrap())])
    }

    /// Runs a verb to its end. What it said is kept for whoever looks for a cause.
    pub fn run(&self, verb: &str) -> Finished {
        let finished = self.start(verb).0.finish();
        self.keep(verb, &finished.stdout);
        finished
    }

    /// Keeps what a run or a host said, in target/faults.
    pub fn keep(&self, what: &str, text: &str) {
        let number = self.runs.get() + 1;
        self.runs.set(number);
        let _ = std::fs::create_dir_all(&self.record);
        let _ = std::fs::write(self.record.join(format!("{number:03}-{what}")), text);
    }

    /// Keeps what the hosts say, for a failure whose hosts will not be there any more.
    pub fn autopsy(&self) {
        const SEE: &str = "ps -eo pid,ppid,stat,etimes,args --forest; cat /proc/self/mountinfo; ip route; df -h; \
            ls -la /var/lib/clusterctl /etc/kubernetes /etc/kubernetes/manifests; crictl ps -a; \
            journalctl --no-pager -n 400";
        for host in &self.bed.hosts {
            self.keep(&host.name, &self.bed.try_sh(&host.name, SEE).stdout);
        }
    }

    fn arguments(&self, verb: &str) -> Vec<String> {
        let inventory = self.inventory.to_str().unwrap().to_owned();
        let mut arguments = vec![verb.to_owned(), "-i".to_owned(), inventory];
        arguments.extend(["--yes", "--output", "json"].map(str::to_owned));
        if verb == "up" {
            arguments.extend(["--bundle".to_owned(), bundle().to_str().unwrap().to_owned()]);
        }
        arguments
    }

    /// kubectl of the cluster, or why it has no answer.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut words = vec!["kubectl", "-i", self.inventory.to_str().unwrap(), "--"];
        words.extend_from_slice(arguments);
        let finished = call(&clusterctl(), &words, &[("HOME", self.home.to_str().unwrap())]);
        if finished.code == 0 {
            Ok(finished.stdout)
        } else {
            Err(format!("kubectl {arguments:?}: {}", tail(&finished)))
        }
    }

    /// From now on the way to a host takes longer by `delay` in each direction; [`Ground::straight`] ends it.
    pub fn detour(&self, host: usize, delay: Duration) {
        let BedAddress { name, address } = self.address(host);
        let to: SocketAddr = format!("{address}:22").parse().unwrap();
        let near = delay::forward(to, delay).unwrap();
        let text = text(&self.bed, self.second);
        let text = text.replace(
            &format!("{name}: {{address: {address},"),
            &format!("{name}: {{address: \"{near}\", node_address: {address},"),
        );
        // The same key is known under the name of the detour.
        let known = text
            .split("known_hosts: ")
            .nth(1)
            .and_then(|rest| rest.split([',', '}']).next())
            .unwrap()
            .trim()
            .to_owned();
        let keys = std::fs::read_to_string(&known).unwrap();
        let key = keys.lines().find_map(|line| line.strip_prefix(&format!("{address} "))).unwrap();
        let own = self.home.join("known_hosts");
        std::fs::write(&own, format!("{keys}\n[{}]:{} {key}\n", near.ip(), near.port())).unwrap();
        self.bed.write_inventory(&text.replace(&known, own.to_str().unwrap()));
    }

    /// The usual way again.
    pub fn straight(&self) {
        self.bed.write_inventory(&text(&self.bed, self.second));
    }

    fn address(&self, host: usize) -> BedAddress<'_> {
        let host = &self.bed.hosts[host];
        BedAddress { name: &host.name, address: &host.address }
    }

    /// Waits until a run passes a boundary; `false` when it ended before. A step that no table knows is an error.
    pub fn reach(&self, lines: &Receiver<String>, wanted: &Boundary) -> Result<bool, String> {
        let began = Instant::now();
        // The sender lives as long as the program's standard output.
        while let Ok(line) = lines.recv_timeout(LONGEST.saturating_sub(began.elapsed())) {
            let Ok(event) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
            let ends = match event["event"].as_str() {
                Some("step-started") => false,
                Some("step-finished" | "step-failed") => true,
                _ => continue,
            };
            let step = event["step"].as_str().unwrap_or_default();
            if !boundary::is_known(step) {
                return Err(format!("the step {step} stands in no table of boundaries"));
            }
            let host = self.bed.hosts.iter().position(|host| event["host"].as_str() == Some(&host.name));
            if (host, step, ends) == (wanted.host, wanted.step, wanted.ends) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Every host is as it was before the first run.
    pub fn nothing_is_left(&self) -> Result<(), String> {
        let began = Instant::now();
        let mut residue = String::new();
        for (host, before) in self.bed.hosts.iter().zip(&self.before) {
            loop {
                let after = self.bed.listing(&host.name);
                if after == *before {
                    break;
                }
                if began.elapsed() > SETTLE {
                    residue.push_str(&format!("{}:\n{}\n", host.name, difference(before, &after)));
                    break;
                }
                std::thread::park_timeout(Duration::from_millis(500));
            }
        }
        if residue.is_empty() { Ok(()) } else { Err(format!("residue on {residue}")) }
    }
}

/// The inventory. A kubelet whose disk was full takes pods again soon, and not five minutes later.
fn text(made: &Bed, second: Second) -> String {
    const LAST: &str = "imageGCHighThresholdPercent: 100\n";
    const NETWORK: &str = "  network: {plugin: bridge}\n";
    let text = match second {
        Second::Worker => made.inventory_text("root"),
        Second::ControlPlane => bed(&["inventory", &made.name, "--control-planes", "2"])
            .replace(NETWORK, &format!("{NETWORK}  endpoint: built-in\n")),
    };
    assert!(text.contains(LAST), "the bed's settings have no {LAST}");
    text.replacen(LAST, &format!("{LAST}    evictionPressureTransitionPeriod: 5s\n"), 1)
}

struct BedAddress<'a> {
    name: &'a str,
    address: &'a str,
}

/// The end of a disturbed run, which a person helps to its end if it takes too long: its exit code in words.
pub fn end(run: &mut Running) -> (Finished, &'static str) {
    let how = if run.ends_within(PATIENCE) {
        "ended"
    } else {
        // The first signal lets the step in hand end, the second one does not.
        run.try_signal("INT");
        if run.ends_within(LAST_PATIENCE) {
            "interrupted"
        } else {
            run.try_signal("INT");
            if run.ends_within(LAST_PATIENCE) {
                "interrupted twice"
            } else {
                run.try_signal("KILL");
                HUNG
            }
        }
    };
    (run.finish(), how)
}

/// How a run ended that two Ctrl-C did not end: they end it at once, whatever happens.
pub const HUNG: &str = "killed for it hung";

/// What a run said last, for a message a person can act on.
pub fn tail(finished: &Finished) -> String {
    let text = format!("{}\n{}", finished.stdout.trim(), finished.stderr.trim());
    let start = text.len().saturating_sub(3000);
    let start = (start..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("code {}: {}", finished.code, &text[start..])
}
