//! Flags that several verbs share, and reading what they name.

use std::path::Path;

use clap::ValueEnum;
use serde_json::Value;

use crate::cli::Context;
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::host::machine::Machine;
use crate::kubernetes::configuration::{self, Arg, Documents, Duration};
use crate::kubernetes::text;
use crate::secret::Secret;
use crate::ui::Output;

/// For whom the result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// For a person
    Text,
    /// As JSON
    Json,
    /// As YAML
    Yaml,
}

impl Form {
    /// What was asked for by `-o`, else by the `--output` of all verbs.
    pub(super) fn of(given: Option<Self>, context: &Context) -> Self {
        given.unwrap_or(match context.screen.settings().output {
            Output::Human => Form::Text,
            Output::Json => Form::Json,
        })
    }

    /// A document in this form, with its line break; `text` is how a person sees it.
    pub(super) fn write(self, document: &Value, text: impl FnOnce() -> String) -> String {
        match self {
            Form::Text => text(),
            Form::Json => format!("{document}\n"),
            Form::Yaml => text::yaml(document),
        }
    }
}

/// For clap: a text that must not be shown.
pub(super) fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

/// For clap: `24h0m0s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    text.parse()
}

/// For clap: `Name=true`.
pub(super) fn gate(text: &str) -> Result<(String, bool), String> {
    let wrong = || format!("{text:?} is no gate such as NodeLocalCRISocket=true");
    let (name, value) = text.split_once('=').ok_or_else(wrong)?;
    Ok((name.trim().to_owned(), value.trim().parse().map_err(|_| wrong())?))
}

/// For clap: `name=value` of a component's flag.
pub(super) fn argument(text: &str) -> Result<Arg, String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not name=value"))?;
    Ok(Arg { name: name.trim_start_matches('-').to_owned(), value: value.to_owned() })
}

/// The administrator's kubeconfig, where kubeadm has it.
pub(super) const ADMIN_KUBECONFIG: &str = "/etc/kubernetes/admin.conf";

/// The text of a file that a person named.
///
/// # Errors
/// Kind `Configuration`, naming the file.
pub(super) fn text(path: &Path) -> Result<String> {
    const ADVICE: &str =
        "name a file of kubeadm documents, as `clusterctl node config print init-defaults` prints them";
    let unusable = |sentence: String| Failure::new(Kind::Configuration, sentence).advise(ADVICE);
    let content =
        Machine.read(path).map_err(|failure| Failure { causes: failure.causes, ..unusable(failure.sentence) })?;
    let content = content.ok_or_else(|| unusable(format!("there is no file {}", path.display())))?;
    String::from_utf8(content).map_err(|_| unusable(format!("{} is not text", path.display())))
}

/// The documents of a file; its warnings are said.
///
/// # Errors
/// Kind `Configuration`, naming the file.
pub(super) fn documents(path: &Path, context: &Context) -> Result<Documents> {
    let unusable = || Failure::new(Kind::Configuration, format!("{} cannot be used", path.display()));
    let text = text(path)?;
    let mut documents = configuration::load(&text).map_err(|failure| Failure {
        advice: failure.advice.clone(),
        detail: failure.detail.clone(),
        ..unusable().because(&failure)
    })?;
    for warning in documents.warnings.drain(..) {
        context.screen.warn(&format!("{}: {warning}", path.display()));
    }
    Ok(documents)
}

/// Adds names to a list that has them once.
pub(super) fn add_to(list: &mut Vec<String>, more: &[String]) {
    for name in more {
        if !list.contains(name) {
            list.push(name.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{argument, gate};

    #[test]
    fn values_of_flags() {
        assert_eq!(gate("A=true"), Ok(("A".to_owned(), true)));
        assert!(gate("A").is_err() && gate("A=yes").is_err());
        assert_eq!(argument("--v=2=3").map(|argument| (argument.name, argument.value)), Ok(("v".into(), "2=3".into())));
        assert!(argument("v").is_err());
    }
}
