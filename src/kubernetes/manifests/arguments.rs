//! Command lines: default arguments and those a person gave (kubeadm.md section 4.1).

use crate::kubernetes::configuration::Arg;
use crate::kubernetes::version::ArgumentOrder;

/// `--name=value` of all arguments. A name in `extra` removes every default of that name; names that occur twice in
/// `extra` stay twice.
pub fn command_line(defaults: &[(&str, String)], extra: &[Arg], order: ArgumentOrder) -> Vec<String> {
    let mut arguments: Vec<(&str, &str)> = defaults
        .iter()
        .filter(|(name, _)| !extra.iter().any(|given| given.name == *name))
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    arguments.sort_unstable();
    arguments.extend(extra.iter().map(|given| (given.name.as_str(), given.value.as_str())));
    if order == ArgumentOrder::AllSorted {
        arguments.sort_unstable();
    }
    arguments.into_iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

/// The value of an argument that a person gave; the last one counts.
pub(super) fn given<'a>(extra: &'a [Arg], name: &str) -> Option<&'a str> {
    extra.iter().rev().find(|argument| argument.name == name).map(|argument| argument.value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_gave_replaces_and_joins_the_defaults() {
        let arg = |name: &str, value: &str| Arg { name: name.into(), value: value.into() };
        let defaults = [("v", "1".to_owned()), ("bind", "a".into()), ("port", "2".into())];
        let extra = [arg("v", "9"), arg("audit", "y"), arg("v", "3")];
        assert_eq!(
            command_line(&defaults, &extra, ArgumentOrder::DefaultsThenExtras),
            ["--bind=a", "--port=2", "--v=9", "--audit=y", "--v=3"]
        );
        assert_eq!(
            command_line(&defaults, &extra, ArgumentOrder::AllSorted),
            ["--audit=y", "--bind=a", "--port=2", "--v=3", "--v=9"]
        );
        assert_eq!(given(&extra, "v"), Some("3"));
    }
}
