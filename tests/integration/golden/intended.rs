//! Differences from upstream that are meant, each with its reason. All others are failures, and so is a row that nothing
//! needs any more.

use super::snapshot::Difference;

/// A difference that is meant.
pub struct Intended {
    /// Which comparison: `files` or `objects`.
    part: &'static str,
    /// The file or object; a `*` at the end stands for the rest.
    name: &'static str,
    /// What the line begins with, `-` or `+` included.
    line: &'static str,
    /// Why we do it otherwise.
    reason: &'static str,
}

/// All of them.
pub const TABLE: &[Intended] = &[Intended {
    part: "files",
    name: "/etc/kubernetes/tmp*",
    line: "+(only we have it)",
    reason: "reset puts back the sysctls that the kubelet and kube-proxy set",
}];

impl Intended {
    fn covers(&self, difference: &Difference) -> bool {
        let named = match self.name.strip_suffix('*') {
            Some(start) => difference.name.starts_with(start),
            None => difference.name == self.name,
        };
        named && difference.line.starts_with(self.line)
    }
}

/// What was found, configuration by configuration.
#[derive(Debug, Default)]
pub struct Verdicts {
    unintended: Vec<String>,
    intended: Vec<Difference>,
    judged: usize,
}

impl Verdicts {
    /// Takes the differences of one configuration.
    pub fn judge(&mut self, configuration: &str, differences: Vec<Difference>) {
        self.judged += 1;
        for difference in differences {
            match TABLE.iter().any(|row| row.covers(&difference)) {
                true => self.intended.push(difference),
                false => self.unintended.push(format!("{configuration}: {difference}")),
            }
        }
    }

    /// A configuration that could not be compared.
    pub fn fail(&mut self, configuration: &str, why: &str) {
        self.judged += 1;
        self.unintended.push(format!("{configuration}: {why}"));
    }

    /// Ends the comparison `part` of a version; `complete` says that all its configurations were there, so that every
    /// row must have been needed.
    pub fn finish(self, version: &str, part: &str, complete: bool) {
        let stale = TABLE
            .iter()
            .filter(|row| complete && row.part == part && !self.intended.iter().any(|seen| row.covers(seen)));
        let stale: Vec<String> =
            stale.map(|row| format!("nothing needs the row {} {} ({})", row.name, row.line, row.reason)).collect();
        let all = [self.unintended.as_slice(), &stale].concat();
        assert!(all.is_empty(), "Kubernetes {version}, {} configurations:\n{}", self.judged, all.join("\n"));
    }
}
