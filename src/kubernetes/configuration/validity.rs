//! How long certificates are to be valid (kubeadm.md section 2.3): what is refused, and what is only unwise.

use super::{ClusterConfiguration, Duration};

/// kubeadm's own lifetime of certificates.
pub(super) const CERTIFICATES: Duration = Duration::from_hours(8760);
/// kubeadm's own lifetime of certificate authorities.
pub(super) const AUTHORITIES: Duration = Duration::from_hours(87_600);

/// The periods with the names of their fields and kubeadm's own; those that nobody gave are kubeadm's.
fn periods(cluster: &ClusterConfiguration) -> [(&'static str, Duration, Duration); 2] {
    [
        ("certificateValidityPeriod", cluster.certificate_validity_period.unwrap_or(CERTIFICATES), CERTIFICATES),
        ("caCertificateValidityPeriod", cluster.ca_certificate_validity_period.unwrap_or(AUTHORITIES), AUTHORITIES),
    ]
}

/// Fields whose period no certificate can have: it would be over when it begins.
pub(super) fn impossible(cluster: &ClusterConfiguration) -> Vec<&'static str> {
    periods(cluster).into_iter().filter(|(_, period, _)| period.0.as_secs() == 0).map(|(field, ..)| field).collect()
}

/// What a person should think about again, one sentence each: upstream warns of it, too.
pub(super) fn unwise(cluster: &ClusterConfiguration) -> Vec<String> {
    let periods = periods(cluster);
    let mut warnings: Vec<String> = periods
        .iter()
        .filter(|(_, period, usual)| period > usual)
        .map(|(field, period, usual)| format!("{field} is {period}, longer than the {usual} that are recommended"))
        .collect();
    let [(leaf, leaves, _), (authority, authorities, _)] = periods;
    if leaves > authorities {
        warnings.push(format!(
            "{leaf} is {leaves}, and {authority} {authorities}: certificates are worth nothing once their authority has \
             expired"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{impossible, unwise};
    use crate::kubernetes::configuration::load;

    #[rstest]
    #[case("", &[])]
    #[case("certificateValidityPeriod: 8760h\ncaCertificateValidityPeriod: 87600h", &[])]
    #[case("certificateValidityPeriod: 8761h", &["certificateValidityPeriod is 8761h0m0s, longer than the 8760h0m0s"])]
    #[case("caCertificateValidityPeriod: 90000h", &["caCertificateValidityPeriod is 90000h0m0s, longer than the 87600h0m0s"])]
    #[case(
        "caCertificateValidityPeriod: 24h",
        &["certificateValidityPeriod is 8760h0m0s, and caCertificateValidityPeriod 24h0m0s: certificates"],
    )]
    fn long_lives_are_warned_about(#[case] text: &str, #[case] expected: &[&str]) {
        let text = format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n{text}");
        let loaded = load(&text).unwrap();
        let cluster = loaded.cluster.unwrap();
        assert_eq!(loaded.warnings, unwise(&cluster));
        assert_eq!(loaded.warnings.len(), expected.len(), "{:?}", loaded.warnings);
        for (warning, expected) in loaded.warnings.iter().zip(expected) {
            assert!(warning.starts_with(expected), "{warning}");
        }
        assert!(impossible(&cluster).is_empty());
    }
}
