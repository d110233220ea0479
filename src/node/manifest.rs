//! Reading a static pod's text: what a component of this host was started with.

/// The value of a component's flag, `initial-cluster`, in the text of its static pod; quotes of YAML are taken off.
pub(super) fn flag(manifest: &str, name: &str) -> Option<String> {
    let beginning = format!("--{name}=");
    let arguments = manifest.lines().filter_map(|line| line.trim().strip_prefix("- "));
    let mut values =
        arguments.filter_map(|argument| argument.trim().trim_matches(['"', '\'']).strip_prefix(&beginning));
    values.next().map(|value| value.trim_matches(['"', '\'']).to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::flag;

    #[rstest]
    #[case("    - --data-dir=/var/lib/etcd\n", Some("/var/lib/etcd"))]
    #[case("    - \"--data-dir=/var/lib/etcd\"\n", Some("/var/lib/etcd"))]
    #[case("    - '--data-dir=/var/lib/etcd'\n", Some("/var/lib/etcd"))]
    #[case("    - --data-dir=\"/var/lib/etcd\"\n", Some("/var/lib/etcd"))]
    #[case("    - --other-data-dir=/x\n", None)]
    #[case("    # --data-dir=/x\n", None)]
    fn a_flag_is_read_in_every_notation(#[case] manifest: &str, #[case] value: Option<&str>) {
        assert_eq!(flag(manifest, "data-dir").as_deref(), value);
    }
}
