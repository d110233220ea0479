//! Tags of images: what stands before them, and which of two etcds is newer.

/// Splits a reference of an image into what stands before its tag and the tag; `None` for one without a tag.
pub fn repository_and_tag(reference: &str) -> Option<(&str, &str)> {
    let (reference, _) = reference.split_once('@').unwrap_or((reference, ""));
    reference.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'))
}

/// The numbers in the tag of an etcd image, `3.6.8-0`; they compare as its versions do. `None` for a tag that is no version.
pub fn etcd_numbers(tag: &str) -> Option<Vec<u64>> {
    let numbers: Vec<u64> = tag.split(['.', '-']).map(|number| number.parse().ok()).collect::<Option<_>>()?;
    (numbers.len() >= 3).then_some(numbers)
}

/// Whether the tag of an etcd image is that of a newer etcd than another; not where one of them is no version.
pub fn is_newer_etcd(tag: &str, than: &str) -> bool {
    matches!((etcd_numbers(tag), etcd_numbers(than)), (Some(one), Some(other)) if one > other)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{is_newer_etcd, repository_and_tag};

    #[rstest]
    #[case("3.7.0-0", "3.6.8-0", true)]
    #[case("3.6.10-0", "3.6.8-0", true)]
    #[case("3.6.8-1", "3.6.8-0", true)]
    #[case("3.6.8-0", "3.6.8-0", false)]
    #[case("3.5.24-0", "3.6.8-0", false)]
    #[case("latest", "3.6.8-0", false)]
    fn newer_etcds_have_greater_numbers(#[case] tag: &str, #[case] than: &str, #[case] newer: bool) {
        assert_eq!(is_newer_etcd(tag, than), newer);
    }

    #[rstest]
    #[case("registry.k8s.io/etcd:3.6.8-0", Some(("registry.k8s.io/etcd", "3.6.8-0")))]
    #[case("localhost:5000/etcd:3.6.8-0@sha256:00", Some(("localhost:5000/etcd", "3.6.8-0")))]
    #[case("localhost:5000/etcd", None)]
    fn a_reference_has_a_tag(#[case] reference: &str, #[case] split: Option<(&str, &str)>) {
        assert_eq!(repository_and_tag(reference), split);
    }
}
