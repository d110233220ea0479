//! From an inventory host to a [`Target`]: what the inventory says, then ssh_config, then defaults.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::failure::{Failure, Kind, Result};
use crate::inventory::{Become, Hop, Host, HostKeys, Ssh};
use crate::secret::Secret;

use super::bastion::Bastions;
use super::config::{AgentChoice, Machine, Resolved, Source, Typed, Way, resolve};
use super::known_hosts;
use super::target::{Family, PORT, Route, Target};

/// Bastions behind bastions; more can only be a circle.
const MOST_BASTIONS: usize = 8;
/// Lines that are named of a known_hosts file.
const SHOWN_LINES: usize = 5;
/// What logging in may take besides what ConnectTimeout allows for agreeing on keys.
const LOGIN: Duration = Duration::from_secs(15);

/// ssh_config of this machine, read once, and the connections to bastions that hosts share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Configuration(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sources: Vec<Source>,
    machine: Arc<Machine>,
    home: PathBuf,
    user: String,
    bastions: Bastions,
    /// known_hosts files whose bad lines were told.
    looked_at: Mutex<HashSet<PathBuf>>,
}

impl Configuration {
    /// ~/.ssh/config and /etc/ssh/ssh_config.
    ///
    /// # Errors
    /// [`Kind::Configuration`] when there is no home folder.
    pub fn of_this_machine() -> Result<Self> {
        let home = std::env::home_dir()
            .filter(|home| !home.as_os_str().is_empty())
            .ok_or_else(|| Failure::new(Kind::Configuration, "cannot find your home folder").advise("set HOME"))?;
        let sources = vec![
            Source { file: home.join(".ssh/config"), own: true, guarded: true },
            Source { file: PathBuf::from("/etc/ssh/ssh_config"), own: false, guarded: false },
        ];
        // What logins are settled with and what hosts are reached with are one state of the files.
        static THIS: OnceLock<Arc<Machine>> = OnceLock::new();
        let machine = THIS.get_or_init(|| Arc::new(Machine::new(home.clone())));
        Ok(Self::on(Arc::clone(machine), sources, home))
    }

    #[cfg(test)]
    pub(super) fn new(sources: Vec<Source>, home: PathBuf) -> Self {
        Self::on(Arc::new(Machine::new(home.clone())), sources, home)
    }

    fn on(machine: Arc<Machine>, sources: Vec<Source>, home: PathBuf) -> Self {
        let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default();
        Self(Arc::new(Inner {
            sources,
            machine,
            home,
            user,
            bastions: Bastions::default(),
            looked_at: Mutex::default(),
        }))
    }

    /// Puts what ssh_config says about a host's user and port in place of the inventory's defaults, and returns what is
    /// worth knowing about it, in sentences. Blocks: files are read and commands of `Match exec` run.
    ///
    /// # Errors
    /// As [`Configuration::target`].
    pub fn settle(&self, host: &mut Host) -> Result<Vec<String>> {
        let (target, said) = self.find_with_remarks(host)?;
        let ssh = &mut host.ssh;
        (ssh.user, ssh.port) = (target.user, target.port);
        if !ssh.is_written("become") {
            ssh.become_root = if ssh.user == "root" { Become::None } else { Become::Sudo };
        }
        Ok(said)
    }

    /// The target of an inventory host, and what is worth knowing about it and the bastions on the way, in sentences.
    /// Blocks: files are read and commands of `Match exec` run.
    ///
    /// # Errors
    /// As [`Configuration::target`].
    pub fn find_with_remarks(&self, host: &Host) -> Result<(Target, Vec<String>)> {
        let (target, mut said) = self.look_up(host, None)?;
        said.extend(self.unreadable(&target.known_hosts));
        target.bastions().iter().for_each(|bastion| said.extend(self.unreadable(&bastion.known_hosts)));
        Ok((target, said))
    }

    /// The lines of known_hosts files that cannot be read, said once for each file.
    fn unreadable(&self, files: &[PathBuf]) -> Vec<String> {
        let mut looked_at = self.0.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<PathBuf> = files.iter().filter(|file| looked_at.insert((*file).clone())).cloned().collect();
        // A file that cannot be read at all stops each host that needs it.
        let files = known_hosts::read(&new).unwrap_or_default();
        let found = files.iter().map(|file| (file, known_hosts::unreadable(&file.text)));
        found
            .filter(|(_, lines)| !lines.is_empty())
            .map(|(file, lines)| {
                let shown: Vec<String> = lines.iter().take(SHOWN_LINES).map(ToString::to_string).collect();
                let more = if lines.len() > SHOWN_LINES { " and more" } else { "" };
                format!("{}: cannot read line {}{more}, which is skipped", file.path.display(), shown.join(", "))
            })
            .collect()
    }

    /// The target of an inventory host, with its login password when one was configured and found out.
    ///
    /// # Errors
    /// As [`Configuration::target`]; [`Kind::Internal`] for a defect of ours.
    pub async fn find(&self, host: &Host, password: Option<Secret>) -> Result<Target> {
        let (configuration, host) = (self.clone(), host.clone());
        let finding = tokio::task::spawn_blocking(move || configuration.target(&host, password));
        finding.await.unwrap_or_else(|defect| {
            Err(Failure::new(Kind::Internal, "reading ssh_config did not finish").because(&defect))
        })
    }

    /// As [`Configuration::find`]. Blocks: files are read and commands of `Match exec` run.
    ///
    /// # Errors
    /// [`Kind::Configuration`] for what is wrong in ssh_config, with all places.
    pub fn target(&self, host: &Host, password: Option<Secret>) -> Result<Target> {
        self.look_up(host, password).map(|(target, _)| target)
    }

    /// The target, and what is worth knowing about it and its bastions.
    fn look_up(&self, host: &Host, password: Option<Secret>) -> Result<(Target, Vec<String>)> {
        let ssh = &host.ssh;
        let typed = Typed {
            host: host.address.clone(),
            user: ssh.is_written("user").then(|| ssh.user.clone()),
            port: ssh.is_written("port").then_some(ssh.port),
        };
        let resolved = self.resolve(&typed).map_err(|failure| failure.on(&host.name))?;
        let mut target = self.base(&host.name, &resolved, ssh);
        if ssh.is_written("identities") {
            target.identities = ssh.identities.clone();
        }
        if ssh.is_written("agent") {
            target.agent = ssh.agent;
        }
        target.password = password;
        target.host_key_pins = ssh.host_key.clone();
        target.user = resolved.user.clone().unwrap_or_else(|| ssh.user.clone());
        let way = match (ssh.is_written("jump"), &resolved.way) {
            (true, _) => Way::Jump(ssh.jump.clone()),
            (false, way) => way.clone().unwrap_or(Way::Direct),
        };
        let mut said = Vec::new();
        remark(&resolved, ssh, &mut said);
        target.route = self.route(way, ssh, 0, &mut said).map_err(|failure| failure.on(&host.name))?;
        Ok((target, said))
    }

    fn resolve(&self, typed: &Typed) -> Result<Resolved> {
        let resolved = resolve(&self.0.sources, typed, self.0.machine.as_ref()).map_err(|faults| {
            Failure::new(Kind::Configuration, format!("ssh_config cannot be used for {}", typed.host))
                .detailed(faults.join("\n"))
                .advise(format!("correct it; `ssh -G {}` must work, too", typed.host))
        })?;
        match &resolved.refusal {
            None => Ok(resolved),
            Some(refusal) => {
                let sentence = format!("ssh_config refuses connections to {}: {refusal}", typed.host);
                Err(Failure::new(Kind::Configuration, sentence)
                    .advise("take the host out of the inventory, or RefuseConnection out of ssh_config"))
            }
        }
    }

    /// What hosts and bastions have in common: ssh_config, and over it what the inventory says about this machine.
    fn base(&self, name: &str, resolved: &Resolved, ssh: &Ssh) -> Target {
        let plain = Target::plain(name, &resolved.host);
        let own = resolved.user_known_hosts.clone();
        let remembers = ssh.is_written("known_hosts") || own.as_ref().is_none_or(|files| !files.is_empty());
        let known_hosts = match ssh.is_written("known_hosts") {
            true => ssh.known_hosts.clone(),
            false => {
                let own = own.unwrap_or_else(|| vec![self.0.home.join(".ssh/known_hosts")]);
                let global = resolved.global_known_hosts.clone();
                [own, global.unwrap_or_else(|| vec![PathBuf::from("/etc/ssh/ssh_known_hosts")])].concat()
            }
        };
        let host_keys = match resolved.strict_host_key_checking.as_deref() {
            Some("accept-new" | "false") if !ssh.is_written("host_keys") => HostKeys::AcceptNew,
            Some(_) if !ssh.is_written("host_keys") => HostKeys::Strict,
            _ => ssh.host_keys,
        };
        let dial_limit = resolved.connect_timeout.filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let limit = Duration::from_secs(ssh.connect_limit_seconds);
        let (dial_limit, connect_limit) = match (ssh.is_written("connect_limit_seconds"), dial_limit) {
            (true, _) | (_, None) => (None, limit),
            (false, Some(dial)) => (Some(dial), limit.max(dial + LOGIN)),
        };
        let (interval, count) = plain.keepalive;
        // A host that hangs must be noticed: an interval of 0 does not switch the question off.
        let interval = resolved.alive_interval.filter(|seconds| *seconds > 0).map_or(interval, Duration::from_secs);
        let ways = resolved.preferred.clone().unwrap_or_else(|| plain.ways.clone());
        Target {
            port: resolved.port.unwrap_or(PORT),
            identities: resolved.identities.clone().unwrap_or_default(),
            certificates: resolved.certificates.clone(),
            identities_only: resolved.identities_only,
            agent: resolved.agent != Some(AgentChoice::None),
            agent_socket: match &resolved.agent {
                Some(AgentChoice::Socket(socket)) => Some(socket.clone()),
                _ => None,
            },
            ways: ways.into_iter().filter(|way| !resolved.switched_off.contains(&way.as_str())).collect(),
            ask: !resolved.batch,
            known_hosts,
            // Whoever names files in the inventory wants no other source. A key that is revoked stays so.
            known_hosts_command: resolved.known_hosts_command.clone().filter(|_| !ssh.is_written("known_hosts")),
            revoked_host_keys: resolved.revoked_host_keys.clone(),
            remembers,
            hash_known_hosts: resolved.hash_known_hosts,
            host_key_alias: resolved.host_key_alias.clone(),
            host_keys,
            connect_limit,
            dial_limit,
            keepalive: (interval, resolved.alive_count.filter(|count| *count > 0).unwrap_or(count)),
            algorithms: resolved.algorithms.clone(),
            family: match resolved.family.as_deref() {
                Some("inet") => Some(Family::Four),
                Some("inet6") => Some(Family::Six),
                _ => None,
            },
            bind_address: resolved.bind_address.clone(),
            environment: resolved.environment.clone(),
            ..plain
        }
    }

    fn route(&self, way: Way, ssh: &Ssh, depth: usize, said: &mut Vec<String>) -> Result<Route> {
        match way {
            Way::Direct => Ok(Route::Direct),
            Way::Command(command) => Ok(Route::Command(command)),
            Way::Jump(mut hops) => match hops.pop() {
                None => Ok(Route::Direct),
                Some(last) => {
                    let bastion = Arc::new(self.bastion(&last, hops, ssh, depth + 1, said)?);
                    Ok(Route::Through { bastion, shared: self.0.bastions.weak() })
                }
            },
        }
    }

    /// A bastion with its own settings in ssh_config, reached through `before`, or as ssh_config says if there is none.
    fn bastion(&self, hop: &Hop, before: Vec<Hop>, ssh: &Ssh, depth: usize, said: &mut Vec<String>) -> Result<Target> {
        if depth > MOST_BASTIONS {
            let sentence = format!("more than {MOST_BASTIONS} bastions are on the way; the last one is {hop}");
            return Err(Failure::new(Kind::Configuration, sentence)
                .advise("see whether a bastion's ProxyJump leads back to itself (write `ProxyJump none` for it)"));
        }
        let typed = Typed { host: hop.host.clone(), user: hop.user.clone(), port: hop.port };
        let resolved = self.resolve(&typed)?;
        remark(&resolved, ssh, said);
        let mut target = self.base(&hop.host, &resolved, ssh);
        // The inventory's keys are offered to a bastion that has none of its own.
        if resolved.identities.is_none() && ssh.is_written("identities") {
            target.identities = ssh.identities.clone();
        }
        target.user = resolved.user.clone().unwrap_or_else(|| self.0.user.clone());
        let way = match before.is_empty() {
            true => resolved.way.clone().unwrap_or(Way::Direct),
            false => Way::Jump(before),
        };
        target.route = self.route(way, ssh, depth, said)?;
        Ok(target)
    }
}

/// Adds what is worth knowing about a host or a bastion, each sentence once.
fn remark(resolved: &Resolved, ssh: &Ssh, said: &mut Vec<String>) {
    let unsupported =
        resolved.unsupported.iter().map(|what| format!("{what}: clusterctl cannot do this and goes on without"));
    let is_loose = resolved.strict_host_key_checking.as_deref() == Some("false") && !ssh.is_written("host_keys");
    let taken = is_loose
        .then(|| "StrictHostKeyChecking no in ssh_config is taken as accept-new: a changed key is refused".to_owned());
    for sentence in unsupported.chain(taken) {
        if !said.contains(&sentence) {
            said.push(sentence);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Configuration;

    /// What is settled before hosts are reached and what they are reached with: a command of `Match exec` runs once.
    #[test]
    fn a_run_sees_one_state_of_the_files() {
        let [one, other] = [(), ()].map(|()| Configuration::of_this_machine().expect("a home folder"));
        assert!(Arc::ptr_eq(&one.0.machine, &other.0.machine));
    }
}
