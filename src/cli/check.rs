//! `clusterctl check`: whether the machines fit, all conditions on all of them in one report.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::up::{Login, bundle};
use super::{Context, login};
use crate::bundle::Bundle;
use crate::cluster::{self, Finding, Verdict};
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::Fetch;
use crate::node::Severity;
use crate::ui::text::count;
use crate::ui::{self, Output};

/// Arguments of `check`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// The bundle to check the machines for; instead of the one the inventory names
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub bundle: Option<PathBuf>,
    /// Only warn of what this check finds; may be given several times, `all` is every check
    #[arg(long = "ignore", value_name = "CHECK")]
    pub ignore: Vec<String>,
    /// How to log in to the hosts.
    #[command(flatten)]
    pub login: Login,
}

/// Checks; exits with the code of the worst that was found.
pub async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    context.screen.one_document();
    let mut inventory = login::inventory(context, &arguments.login).await?;
    inventory.cluster.ignore_checks.extend(arguments.ignore.iter().cloned());
    // Machines are checked without a bundle, too.
    let lacks_bundle = arguments.bundle.is_none() && inventory.cluster.bundle.is_none();
    let bundle = match inventory.transfer.fetch {
        Fetch::Bundle if lacks_bundle => None,
        Fetch::Bundle | Fetch::OnHost => bundle(arguments.bundle.as_deref(), &inventory)?,
    };
    let human = context.screen.settings().output == Output::Human;
    let (events, happened) = Events::channel();
    // For programs there is one document on standard output and nothing else.
    let display = human.then(|| context.screen.start(happened));
    let settings = login::settings(context, &arguments.login, &events);
    let result = cluster::check(&inventory, bundle.as_ref().map(Bundle::manifest), &settings).await;
    drop((events, settings));
    if let Some(display) = display {
        display.finish().await;
    }
    let report = result?;
    let text = if human { table(&report) } else { json(&report) };
    context.screen.print(&text)?;
    let errors: Vec<Failure> = report.errors().map(named).collect();
    if human {
        context.screen.failures(&errors);
    }
    let worst = errors.iter().map(|failure| failure.kind).max();
    Ok(worst.map(Kind::exit_code).map_or(ExitCode::SUCCESS, ExitCode::from))
}

/// The failure with the name of its check, by which it can be turned down.
fn named(finding: &Finding) -> Failure {
    let sentence = format!("[{}] {}", finding.check, finding.failure.sentence);
    Failure { sentence, ..finding.failure.clone() }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

fn table(report: &Verdict) -> String {
    let rows: Vec<Vec<String>> = report
        .findings
        .iter()
        .map(|finding| {
            let host = finding.failure.host.clone().unwrap_or_else(|| "-".to_owned());
            vec![host, finding.check.clone(), word(finding.severity).to_owned(), finding.failure.sentence.clone()]
        })
        .collect();
    let mut text = String::new();
    if !rows.is_empty() {
        text.push_str(&ui::table(&["HOST", "CHECK", "RESULT", "FOUND"], &rows));
        text.push('\n');
    }
    let errors = report.errors().count();
    let warnings = report.findings.len() - errors;
    let found = match (errors, warnings) {
        (0, 0) => "nothing is wrong".to_owned(),
        _ => format!("{}, {}", count(errors as u64, "error"), count(warnings as u64, "warning")),
    };
    let hosts = count(report.hosts.len() as u64, "host");
    text.push_str(&format!("{hosts} and {} between them: {found}\n", count(report.ways as u64, "way")));
    text
}

/// One document on one line.
fn json(report: &Verdict) -> String {
    let findings: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| {
            json!({
                "host": finding.failure.host,
                "check": finding.check,
                "result": word(finding.severity),
                "sentence": finding.failure.sentence,
                "advice": finding.failure.advice,
                "kind": finding.failure.kind,
            })
        })
        .collect();
    let document = json!({
        "hosts": report.hosts,
        "ways": report.ways,
        "milliseconds": report.milliseconds,
        "findings": findings,
    });
    format!("{document}\n")
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{json, table};
    use crate::cluster::{Finding, Verdict};
    use crate::failure::{Failure, Kind};

    fn report() -> Verdict {
        let failure = |sentence: &str| Failure::new(Kind::Preflight, sentence).advise("mend it");
        Verdict {
            hosts: vec!["cp1".into(), "w1".into()],
            findings: vec![
                Finding::error("Reachable-6443", failure("it is refused TCP port 6443 of cp1 (10.0.0.11)")).on("w1"),
                Finding::warning("Swap", failure("swap is on")).on("cp1"),
            ],
            ways: 3,
            milliseconds: 1200,
        }
    }

    #[test]
    fn a_person_sees_a_table() {
        assert_snapshot!(table(&report()), @r"
        HOST  CHECK           RESULT   FOUND
        w1    Reachable-6443  error    it is refused TCP port 6443 of cp1 (10.0.0.11)
        cp1   Swap            warning  swap is on

        2 hosts and 3 ways between them: 1 error, 1 warning
        ");
        let fine = Verdict { findings: Vec::new(), ..report() };
        assert_eq!(table(&fine), "2 hosts and 3 ways between them: nothing is wrong\n");
    }

    #[test]
    fn programs_get_one_document() {
        let document: serde_json::Value = serde_json::from_str(&json(&report())).unwrap();
        assert_eq!(document["findings"][0]["check"], "Reachable-6443");
        assert_eq!(document["findings"][1]["result"], "warning");
    }
}
