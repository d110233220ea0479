//! Where images come from: the grammar of references to images, as far as a repository goes.

/// Whether images can be named below this repository: `registry.k8s.io`, `localhost:5000/k8s`. The grammar is that of
/// distribution's references, which upstream asks with a name and a tag put behind.
pub(super) fn is_repository(text: &str) -> bool {
    let (first, rest) = text.split_once('/').map_or((text, None), |(first, rest)| (first, Some(rest)));
    (is_registry(first) || is_component(first)) && rest.is_none_or(|rest| rest.split('/').all(is_component))
}

/// A host with or without a port.
fn is_registry(text: &str) -> bool {
    let (host, rest) = match text.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((address, rest)) => {
            let hexadecimal = |one: u8| one.is_ascii_hexdigit() || one == b':';
            (!address.is_empty() && address.bytes().all(hexadecimal), rest)
        }
        None => {
            let (host, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            let label = |label: &str| {
                !label.is_empty()
                    && label.bytes().all(|one| one.is_ascii_alphanumeric() || one == b'-')
                    && !label.starts_with('-')
                    && !label.ends_with('-')
            };
            (host.split('.').all(label), rest)
        }
    };
    let port =
        rest.strip_prefix(':').is_some_and(|port| !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit()));
    host && (rest.is_empty() || port)
}

/// Lower-case words with one `.`, one or two `_` or any number of `-` between them.
fn is_component(text: &str) -> bool {
    let is_word = |one: char| one.is_ascii_lowercase() || one.is_ascii_digit();
    let separators = text.split(is_word).filter(|between| !between.is_empty());
    text.starts_with(is_word)
        && text.ends_with(is_word)
        && separators
            .into_iter()
            .all(|between| matches!(between, "." | "_" | "__") || between.bytes().all(|one| one == b'-'))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::is_repository;

    #[rstest]
    #[case("registry.k8s.io")]
    #[case("registry.k8s.io/coredns")]
    #[case("localhost:5000")]
    #[case("10.0.0.1:5000/k8s/mirror")]
    #[case("[fd00::1]:5000/k8s")]
    #[case("Registry.Example/a-b/c__d/e.f")]
    #[case("a_b")]
    fn repositories_are_taken(#[case] text: &str) {
        assert!(is_repository(text));
    }

    #[rstest]
    #[case("")]
    #[case("https://mirror.example/k8s")]
    #[case("mirror.example/")]
    #[case("/k8s")]
    #[case("mirror.example//k8s")]
    #[case("mirror.example/K8s")]
    #[case("mirror.example/k8s:v1")]
    #[case("mirror.example:port")]
    #[case("mirror.example:")]
    #[case("mirror.example/a..b")]
    #[case("mirror.example/a___b")]
    #[case("mirror.example/a b")]
    #[case("-mirror.example")]
    #[case("[fd00::1")]
    #[case("mirror.example/k8s@sha256")]
    fn other_texts_are_not(#[case] text: &str) {
        assert!(!is_repository(text));
    }
}
