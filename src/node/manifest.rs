//! Reading a static pod's text: what a component of this host was started with.

/// The value of a component's flag, `initial-cluster`, in the text of its static pod; quotes of YAML are taken off.
pub(super) fn flag(manifest: &str, name: &str) -> Option<String> {
    let beginning = format!("--{name}=");
    let arguments = manifest.lines().filter_map(|line| line.trim().strip_prefix("- "));
    let mut values =
        arguments.filter_map(|argument| argument.trim().trim_matches(['"', '\'']).strip_prefix(&beginning));
    // Of a flag that is given twice, programs take the last.
    values.next_back().map(|value| value.trim_matches(['"', '\'']).to_owned())
}

/// The image of a static pod.
pub(super) fn image(manifest: &str) -> Option<&str> {
    let mut images = manifest.lines().filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("image:"));
    images.next().map(|image| image.trim().trim_matches(['"', '\'']))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{flag, image};

    #[rstest]
    #[case("    - --data-dir=/var/lib/etcd\n", Some("/var/lib/etcd"))]
    #[case("    - \"--data-dir=/var/lib/etcd\"\n", Some("/var/lib/etcd"))]
    #[case("    - '--data-dir=/var/lib/etcd'\n", Some("/var/lib/etcd"))]
    #[case("    - --data-dir=\"/var/lib/etcd\"\n", Some("/var/lib/etcd"))]
    #[case("    - --other-data-dir=/x\n", None)]
    #[case("    # --data-dir=/x\n", None)]
    #[case("    - --data-dir=/a\n    - --data-dir=/b\n", Some("/b"))]
    fn a_flag_is_read_in_every_notation(#[case] manifest: &str, #[case] value: Option<&str>) {
        assert_eq!(flag(manifest, "data-dir").as_deref(), value);
    }

    #[rstest]
    #[case("    image: a/etcd:1\n    imagePullPolicy: IfNotPresent\n", Some("a/etcd:1"))]
    #[case("  - image: 'a/etcd:1'\n", Some("a/etcd:1"))]
    #[case("    imagePullPolicy: IfNotPresent\n", None)]
    fn the_image_is_read(#[case] manifest: &str, #[case] expected: Option<&str>) {
        assert_eq!(image(manifest), expected);
    }
}
