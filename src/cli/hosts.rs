//! `clusterctl hosts`: the host keys that machines show, to compare and to pin.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use futures::StreamExt as _;

use super::{Context, login};
use crate::failure::{Failure, Kind, Result};
use crate::inventory::Selector;
use crate::ssh::{self, Configuration, Known, Target};
use crate::ui;

/// Arguments of `hosts`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// What to do with the hosts.
    #[command(subcommand)]
    pub verb: HostsVerb,
}

/// What can be done with the hosts.
#[derive(Debug, Clone, Subcommand)]
pub enum HostsVerb {
    /// Show the fingerprints of the keys that hosts and bastions show, and pin new ones
    Scan(Scan),
}

/// Arguments of `hosts scan`.
#[derive(Debug, Clone, clap::Args)]
pub struct Scan {
    /// The hosts to look at, by name or any selector of `clusterctl exec --on`; all if none is named
    #[arg(value_name = "HOST")]
    pub hosts: Vec<Selector>,
    /// Write new keys into your known_hosts file, after you have compared them
    #[arg(long)]
    pub pin: bool,
    /// With --pin: do not ask whether the fingerprints are right
    #[arg(short, long, requires = "pin")]
    pub yes: bool,
    /// How many hosts to look at at the same time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub parallel: u16,
}

/// Does what was asked.
pub async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    let HostsVerb::Scan(arguments) = &arguments.verb;
    scan(arguments, context).await
}

/// A machine that was looked at, and what it showed.
struct Seen {
    target: Target,
    result: Result<Vec<ssh::Shown>>,
}

/// Looks at bastions first, the nearest before those behind it, because the way to a host leads through them.
async fn scan(arguments: &Scan, context: &Context) -> Result<ExitCode> {
    let configuration = Configuration::of_this_machine()?;
    let targets = targets(arguments, context, &configuration)?;
    let asker = &login::Asker::new(&context.prompts);
    let is_json = context.screen.settings().output == ui::Output::Json;
    let mut all: Vec<Seen> = Vec::new();
    for level in levels(targets) {
        let looks = level.into_iter().map(|target| async move {
            let result = ssh::scan(&target, asker).await;
            Seen { target, result }
        });
        let mut seen: Vec<Seen> =
            futures::stream::iter(looks).buffered(usize::from(arguments.parallel)).collect().await;
        if !is_json {
            context.screen.print(&ui::table(&["HOST", "ADDRESS", "KEY", "FINGERPRINT", "STATE"], &rows(&seen)))?;
        }
        if arguments.pin {
            pin(&mut seen, arguments, context).await?;
        }
        all.append(&mut seen);
    }
    if is_json {
        context.screen.print(&json(&all))?;
    } else if all.iter().any(|seen| count(seen, Known::New) > 0) {
        context.screen.say(
            "compare with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on each machine's console, then run this \
             again with --pin",
        );
    }
    let failures: Vec<Failure> = all.iter().filter_map(failure).collect();
    context.screen.failures(&failures);
    let worst = failures.iter().map(|failure| failure.kind).max();
    Ok(worst.map(Kind::exit_code).map_or(ExitCode::SUCCESS, ExitCode::from))
}

fn targets(arguments: &Scan, context: &Context, configuration: &Configuration) -> Result<Vec<Target>> {
    let inventory = login::load(context)?;
    let hosts = Selector::any_of(&arguments.hosts).select(&inventory)?.into_iter();
    let found: Vec<(Target, Vec<String>)> =
        tokio::task::block_in_place(|| hosts.map(|host| configuration.find_with_remarks(host)).collect::<Result<_>>())?;
    // What many hosts have in common is said once.
    let mut said = BTreeSet::new();
    let mut targets = Vec::new();
    for (target, remarks) in found {
        remarks.iter().filter(|sentence| said.insert((*sentence).clone())).for_each(|one| context.screen.warn(one));
        targets.push(target);
    }
    Ok(targets)
}

/// The bastions by their distance from here, each once; then the hosts.
fn levels(targets: Vec<Target>) -> Vec<Vec<Target>> {
    let mut bastions: BTreeMap<(usize, String, u16), Target> = BTreeMap::new();
    for bastion in targets.iter().flat_map(Target::bastions) {
        let place = (bastion.bastions().len(), bastion.address.clone(), bastion.port);
        bastions.entry(place).or_insert_with(|| Target::clone(&bastion));
    }
    let mut levels: BTreeMap<usize, Vec<Target>> = BTreeMap::new();
    for ((distance, ..), bastion) in bastions {
        levels.entry(distance).or_default().push(bastion);
    }
    levels.into_values().chain([targets]).collect()
}

fn count(seen: &Seen, known: Known) -> usize {
    seen.result.as_ref().map_or(0, |keys| keys.iter().filter(|shown| shown.known == known).count())
}

/// Writes new keys, once a person has said that they are right.
async fn pin(seen: &mut [Seen], arguments: &Scan, context: &Context) -> Result<()> {
    let new: usize = seen.iter().map(|seen| count(seen, Known::New)).sum();
    if new == 0 {
        return Ok(());
    }
    if !arguments.yes {
        let question =
            format!("Have you compared these {new} new fingerprints with those on the machines? Trust them?");
        match context.prompts.confirm(&question).await {
            Some(true) => {}
            Some(false) => return Ok(()),
            None => {
                return Err(Failure::new(Kind::Usage, "nobody can be asked whether the fingerprints are right")
                    .advise("compare them and run this again with --pin --yes"));
            }
        }
    }
    let mut files: Vec<PathBuf> = Vec::new();
    for Seen { target, result } in seen {
        let Ok(keys) = result else { continue };
        let file = tokio::task::block_in_place(|| ssh::pin(target, keys))?;
        for shown in keys.iter_mut().filter(|shown| shown.known == Known::New) {
            shown.known = Known::Yes;
        }
        if !files.contains(&file) {
            files.push(file);
        }
    }
    let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    context.screen.say(&format!("{new} keys pinned in {}", files.join(", ")));
    Ok(())
}

fn word(known: Known) -> &'static str {
    match known {
        Known::Yes => "known",
        Known::New => "new",
        Known::Changed => "CHANGED",
        Known::Beside => "not pinned",
        Known::Revoked => "REVOKED",
    }
}

/// The state for a person: both fingerprints of a key that has changed stand in its row.
fn state(shown: &ssh::Shown) -> String {
    match shown.instead.as_slice() {
        [] => word(shown.known).to_owned(),
        instead => format!("{} (known: {})", word(shown.known), instead.join(", ")),
    }
}

fn place(target: &Target) -> String {
    if target.port == 22 { target.address.clone() } else { format!("{}:{}", target.address, target.port) }
}

fn rows(seen: &[Seen]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for Seen { target, result } in seen {
        let row = |key: &str, fingerprint: String, state: &str| {
            vec![target.name.clone(), place(target), key.to_owned(), fingerprint, state.to_owned()]
        };
        match result {
            Ok(keys) if keys.is_empty() => rows.push(row("-", "-".to_owned(), "no key that we know")),
            Ok(keys) => {
                rows.extend(keys.iter().map(|shown| row(shown.algorithm(), shown.fingerprint(), &state(shown))));
            }
            Err(_) => rows.push(row("-", "-".to_owned(), "not reached")),
        }
    }
    rows
}

/// What is wrong with a machine, if anything is.
fn failure(seen: &Seen) -> Option<Failure> {
    let keys = match &seen.result {
        Ok(keys) => keys,
        Err(failure) => return Some(failure.clone()),
    };
    let bad = keys.iter().find(|shown| matches!(shown.known, Known::Changed | Known::Revoked))?;
    let sentence = match bad.known {
        Known::Revoked => format!("its host key is revoked: {} {}", bad.algorithm(), bad.fingerprint()),
        _ => format!("its host key is not the known one: {} {}", bad.algorithm(), bad.fingerprint()),
    };
    let failure = bad
        .instead
        .iter()
        .fold(Failure::new(Kind::HostKey, sentence), |failure, known| failure.caused_by(format!("known is {known}")));
    Some(failure.on(&seen.target.name).advise(match bad.known {
        _ if !seen.target.host_key_pins.is_empty() => {
            "find out why before anything else; correct ssh.host_key of a machine that was set up anew"
        }
        _ => "find out why before anything else; `ssh-keygen -R` forgets an old key of a machine set up anew",
    }))
}

fn json(seen: &[Seen]) -> String {
    let hosts: Vec<serde_json::Value> = seen
        .iter()
        .map(|Seen { target, result }| {
            let keys: Vec<serde_json::Value> = result
                .iter()
                .flatten()
                .map(|shown| {
                    serde_json::json!({
                        "algorithm": shown.algorithm(),
                        "fingerprint": shown.fingerprint(),
                        "state": word(shown.known).to_lowercase(),
                        "known": shown.instead,
                    })
                })
                .collect();
            serde_json::json!({
                "name": target.name,
                "address": target.address,
                "port": target.port,
                "keys": keys,
                "failure": result.as_ref().err().map(|failure| failure.sentence.clone()),
            })
        })
        .collect();
    format!("{}\n", serde_json::json!({ "hosts": hosts }))
}
