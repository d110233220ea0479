//! `-v 5`, as kubeadm's users type it: a level where the other verbs have a switch.

use std::ffi::OsString;

/// What was typed, with kubeadm's levels behind `node` as our switch: level 0 is nothing, any other says every change.
/// `--output text` and `--output yaml` are kubeadm's long form of `-o`.
pub(in crate::cli) fn understood(typed: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut typed = typed.into_iter().peekable();
    let mut understood = Vec::new();
    let mut of_node = false;
    while let Some(word) = typed.next() {
        let text = word.to_str().unwrap_or_default().to_owned();
        if text == "--" {
            understood.push(word);
            understood.extend(typed);
            return understood;
        }
        if !of_node {
            of_node = text == "node" && !understood.is_empty();
            understood.push(word);
            continue;
        }
        let next = typed.peek().and_then(|next| next.to_str()).unwrap_or_default().to_owned();
        match flag(&text) {
            Some(("-v" | "--v", Some(level))) if is_level(level) => understood.extend(switch(level)),
            Some(("-v" | "--v", None)) if is_level(&next) => {
                typed.next();
                understood.extend(switch(&next));
            }
            Some(("-v" | "--v", None)) => understood.push("-v".into()),
            Some(("--output", Some(form @ ("text" | "yaml")))) => understood.extend(["-o".into(), form.into()]),
            Some(("--output", None)) if next == "text" || next == "yaml" => understood.push("-o".into()),
            _ => understood.push(word),
        }
    }
    understood
}

/// A flag and what is joined to it: `-v5`, `-v=5`, `--v=5`.
fn flag(text: &str) -> Option<(&str, Option<&str>)> {
    match text.split_once('=') {
        Some((name, value)) => Some((name, Some(value))),
        None if text.starts_with("-v") && text.len() > 2 => Some(("-v", text.get(2..))),
        None if text.starts_with('-') => Some((text, None)),
        None => None,
    }
}

fn is_level(text: &str) -> bool {
    !text.is_empty() && text.len() < 4 && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn switch(level: &str) -> Option<OsString> {
    level.bytes().any(|digit| digit != b'0').then(|| "-v".into())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::understood;

    #[rstest]
    #[case("clusterctl node init -v 5 --dry-run", "clusterctl node init -v --dry-run")]
    #[case("clusterctl node init -v=5", "clusterctl node init -v")]
    #[case("clusterctl node init -v5", "clusterctl node init -v")]
    #[case("clusterctl node init --v=0", "clusterctl node init")]
    #[case("clusterctl node init --v 10", "clusterctl node init -v")]
    #[case("clusterctl node init -v", "clusterctl node init -v")]
    #[case("clusterctl node join -v 10.0.0.11:6443", "clusterctl node join -v 10.0.0.11:6443")]
    #[case("clusterctl node init --verbose", "clusterctl node init --verbose")]
    #[case("clusterctl node token list --output=yaml", "clusterctl node token list -o yaml")]
    #[case("clusterctl node token list --output text", "clusterctl node token list -o text")]
    #[case("clusterctl node token list --output json", "clusterctl node token list --output json")]
    #[case("clusterctl -v node init", "clusterctl -v node init")]
    #[case("clusterctl kubectl -- get node -v 5", "clusterctl kubectl -- get node -v 5")]
    #[case("clusterctl run -v 5", "clusterctl run -v 5")]
    fn levels_of_kubeadm_are_understood(#[case] typed: &str, #[case] expected: &str) {
        let words = understood(typed.split(' ').map(Into::into));
        let words: Vec<String> = words.iter().filter_map(|word| word.to_str()).map(str::to_owned).collect();
        assert_eq!(words.join(" "), expected);
    }
}
