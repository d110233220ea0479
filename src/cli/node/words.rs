//! `phase NAME [PART]` on a command line.

use crate::failure::{Failure, Kind, Result};
use crate::node::phases::Workflow;

/// What the words after a verb say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// The one phase to do: `certs/ca`.
    pub(super) phase: Option<String>,
    /// What stands before or after it: the endpoint of `join`.
    pub(super) endpoint: Option<String>,
}

/// Reads the words; `endpoint` says whether the verb takes one.
pub(super) fn read(words: &[String], workflow: &Workflow, endpoint: bool) -> Result<Words> {
    let unknown = |word: &str| {
        Failure::new(Kind::Usage, format!("`clusterctl node {}` does not know what to do with {word:?}", workflow.verb))
            .advise(format!("see `clusterctl node {} --help`", workflow.verb))
    };
    let mut read = Words::default();
    let mut rest = words;
    if let [first, more @ ..] = rest
        && first == "phase"
    {
        let [name, more @ ..] = more else {
            return Err(Failure::new(Kind::Usage, "`phase` needs the name of a phase")
                .advise(format!("see `clusterctl node {} --help` for the phases there are", workflow.verb)));
        };
        rest = more;
        let mut path = name.clone();
        // An endpoint has a port or dots; parts of phases have neither.
        if let [part, more @ ..] = rest
            && !part.contains([':', '.'])
        {
            path = format!("{name}/{part}");
            rest = more;
        }
        read.phase = Some(path);
    }
    match rest {
        [] => {}
        [only] if endpoint => read.endpoint = Some(only.clone()),
        [word, ..] => return Err(unknown(word)),
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::read;
    use crate::node::phases;

    #[rstest]
    #[case(&[], None, None)]
    #[case(&["10.0.0.11:6443"], None, Some("10.0.0.11:6443"))]
    #[case(&["phase", "kubelet-start"], Some("kubelet-start"), None)]
    #[case(&["phase", "kubelet-start", "10.0.0.11:6443"], Some("kubelet-start"), Some("10.0.0.11:6443"))]
    #[case(&["phase", "control-plane-prepare", "certs"], Some("control-plane-prepare/certs"), None)]
    fn words_are_a_phase_and_an_endpoint(
        #[case] words: &[&str],
        #[case] phase: Option<&str>,
        #[case] endpoint: Option<&str>,
    ) {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let read = read(&words, &phases::JOIN, true).unwrap();
        assert_eq!((read.phase.as_deref(), read.endpoint.as_deref()), (phase, endpoint));
    }

    #[rstest]
    #[case(&["phase"])]
    #[case(&["certs"])]
    #[case(&["phase", "certs", "ca", "more"])]
    fn other_words_are_refused(#[case] words: &[&str]) {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        assert!(read(&words, &phases::INIT, false).is_err());
    }
}
