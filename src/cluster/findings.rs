//! What checks find, under the name each check has, and which of it stops a run. Pure.

use crate::failure::{Failure, Kind};
use crate::node::Severity;

/// What one check found.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Name of the check: kubeadm's where kubeadm has it.
    pub check: String,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, on which host, and what to do.
    pub failure: Failure,
}

impl Finding {
    /// Something that stops a run.
    pub fn error(check: impl Into<String>, failure: Failure) -> Self {
        Self { check: check.into(), severity: Severity::Error, failure }
    }

    /// Something worth knowing.
    pub fn warning(check: impl Into<String>, failure: Failure) -> Self {
        Self { check: check.into(), severity: Severity::Warning, failure }
    }

    /// On a host.
    pub fn on(mut self, host: &str) -> Self {
        self.failure = self.failure.on(host);
        self
    }

    /// Whether it concerns the host it names and nobody else. What was found between hosts, what the whole cluster must agree
    /// on and what may be the loss of a cluster concerns all of them.
    pub fn is_of_one_host(&self) -> bool {
        let between = self.check.starts_with(WAY);
        self.failure.host.is_some() && !between && !OF_ALL.contains(&self.check.as_str())
    }

    /// A sentence for somebody who is only warned.
    pub fn sentence(&self) -> String {
        let host = self.failure.host.as_ref().map(|host| format!("{host}: ")).unwrap_or_default();
        format!("{host}[{}] {}", self.check, self.failure.sentence)
    }
}

/// A failed condition.
pub fn unmet(sentence: impl Into<String>) -> Failure {
    Failure::new(Kind::Preflight, sentence)
}

/// Checks that nobody can turn down: what they find would break this cluster or another.
const FIRM: &[&str] = &["Architecture", "Bundle", "Connection", "Endpoint", "Membership", "NodeAddress", "Systemd"];

/// Checks whose findings concern all hosts, also where they name one.
const OF_ALL: &[&str] =
    &["Bundle", "Endpoint", "HostnameUnique", "KubernetesVersion", "MachineID", "Membership", "NetworkOverlap"];

/// How the names of checks begin that are about a way between two hosts; the port follows.
pub const WAY: &str = "Reachable-";

/// Turns errors of these checks into warnings; `all` is every check that can be turned down.
pub fn turn_down(findings: &mut [Finding], ignore: &[String]) {
    for finding in findings {
        let named = |name: &String| name.eq_ignore_ascii_case("all") || name.eq_ignore_ascii_case(&finding.check);
        if ignore.iter().any(named) && !FIRM.contains(&finding.check.as_str()) {
            finding.severity = Severity::Warning;
        }
    }
}

/// The failures that stop a run and the sentences of warnings.
pub fn divide(findings: Vec<Finding>) -> (Vec<Failure>, Vec<String>) {
    let (errors, warnings): (Vec<_>, Vec<_>) =
        findings.into_iter().partition(|finding| finding.severity == Severity::Error);
    let named = |finding: Finding| {
        let sentence = format!("[{}] {}", finding.check, finding.failure.sentence);
        Failure { sentence, ..finding.failure }
    };
    (errors.into_iter().map(named).collect(), warnings.iter().map(Finding::sentence).collect())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Finding, divide, turn_down, unmet};

    #[rstest]
    #[case("DiskSpace", true)]
    #[case("ClockSkew", true)]
    #[case("MachineID", false)]
    #[case("KubernetesVersion", false)]
    #[case("KubeletVersion", true)]
    #[case("Reachable-10250", false)]
    fn what_was_found_between_hosts_concerns_all(#[case] check: &str, #[case] alone: bool) {
        assert_eq!(Finding::error(check, unmet("no")).on("w1").is_of_one_host(), alone);
    }

    #[test]
    fn a_check_that_is_turned_down_only_warns() {
        let mut findings = vec![
            Finding::error("ClockSkew", unmet("its clock is wrong")).on("w1"),
            Finding::error("MachineID", unmet("twice")).on("w1"),
        ];
        turn_down(&mut findings, &["clockskew".to_owned()]);
        let (errors, warnings) = divide(findings.clone());
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), ["w1: [MachineID] twice"]);
        assert_eq!(warnings, ["w1: [ClockSkew] its clock is wrong"]);
        findings.push(Finding::error("Membership", unmet("it is another cluster's")));
        turn_down(&mut findings, &["all".to_owned(), "Membership".to_owned()]);
        assert_eq!(divide(findings).0.len(), 1);
    }
}
