//! What names, labels, taints, versions and networks may look like: Kubernetes' and DNS's rules as pure functions.
//!
//! Every function returns the reason of a refusal as the end of a sentence that starts with the value:
//! `` `Node_1` has to … ``.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::{Endpoint, SUPPORTED_MINORS, Taint};

/// A DNS label (RFC 1123): what a cluster is named.
pub(super) fn dns_label(text: &str) -> Result<(), &'static str> {
    const RULE: &str = "has to be 1 to 63 lower case letters, digits and `-`, with a letter or digit at both ends";
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    let allowed = (1..=63).contains(&bytes.len())
        && bytes.iter().all(inner)
        && bytes.first() != Some(&b'-')
        && bytes.last() != Some(&b'-');
    allowed.then_some(()).ok_or(RULE)
}

/// A DNS subdomain (RFC 1123): what a node is named.
pub(super) fn dns_subdomain(text: &str) -> Result<(), &'static str> {
    const RULE: &str = "has to be DNS labels with dots between: lower case letters, digits and `-`, \
                        a letter or digit at both ends of each, 253 characters at most";
    match text.len() <= 253 && text.split('.').all(|label| dns_label(label).is_ok()) {
        true => Ok(()),
        false => Err(RULE),
    }
}

/// Another server for releases: `kubernetes=https://mirror.lan`, `registry.k8s.io=https://mirror.lan/k8s`.
pub(super) fn mirror(text: &str) -> Result<(), &'static str> {
    const NAMES: [&str; 4] = ["kubernetes", "containerd", "runc", "cni"];
    let (name, url) = text.split_once('=').ok_or("has to be NAME=URL, as in registry.k8s.io=https://mirror.lan")?;
    if !NAMES.contains(&name) && !name.contains(['.', ':']) {
        return Err("has to name kubernetes, containerd, runc, cni or a registry");
    }
    match url.starts_with("https://") || url.starts_with("http://") {
        true => Ok(()),
        false => Err("has to name a URL that begins with https:// or http://"),
    }
}

/// Bytes a second: `800000`, `500K`, `10M`, `1G`, each K being 1024 times more.
pub(super) fn bandwidth(text: &str) -> Result<u64, String> {
    const RULE: &str = "has to be bytes a second, 1K at least: `500K`, `10M` or `1G`";
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err(RULE.to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| RULE.to_owned())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes >= 1024).ok_or_else(|| RULE.to_owned())
}

/// What SSH connects to: an IP address, a DNS name or a name of ~/.ssh/config, with a port where one is written.
///
/// `host`, `host:port`, `::1`, `[::1]`, `[::1]:22`.
pub(super) fn address(text: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = split_port(text)?;
    let zoneless = host.split_once('%').map_or(host, |(address, _)| address);
    if zoneless.parse::<Ipv6Addr>().is_ok() {
        let zone = &host[zoneless.len()..];
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'%' | b'.' | b'-' | b'_');
        return match zone.bytes().all(plain) {
            true => Ok((host.to_owned(), port)),
            false => Err("has an interface after `%` that is no interface's name".to_owned()),
        };
    }
    if host.contains(':') {
        return Err("is no IPv6 address; write `host`, `host:port` or `[IPv6 address]:port`".to_owned());
    }
    if looks_like_ipv4(host) && host.parse::<IpAddr>().is_err() {
        return Err("is no IPv4 address: it takes four numbers from 0 to 255, without leading zeros".to_owned());
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    match !host.is_empty() && host.len() <= 253 && host.bytes().all(plain) && !host.starts_with(['-', '.']) {
        true => Ok((host.to_owned(), port)),
        false => Err("is neither an IP address nor a host name".to_owned()),
    }
}

/// `cluster.adopt`: the public key of a CA, as kubeadm's `--discovery-token-ca-cert-hash` writes it.
pub(super) fn ca_hash(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    match digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        true => Ok(text.to_owned()),
        false => Err("has to be `sha256:` and 64 hexadecimal digits in lower case".to_owned()),
    }
}

/// `cluster.endpoint`: `built-in`, or `host:port`; without a port it is 6443, kubeadm's default.
pub(super) fn endpoint(text: &str) -> Result<Endpoint, String> {
    if text == "built-in" {
        return Ok(Endpoint::BuiltIn);
    }
    // Else it would be taken for a host of that name.
    if text.to_ascii_lowercase().replace(['-', '_', ' '], "") == "builtin" {
        return Err("is neither `built-in` nor `host:port`; did you mean `built-in`?".to_owned());
    }
    if text.contains("://") {
        return Err("has to be `host:port` without a scheme".to_owned());
    }
    let (host, port) = address(text)?;
    if host.contains('%') {
        return Err("names an interface, which means something on one machine only".to_owned());
    }
    let port = port.unwrap_or(6443);
    if host.parse::<IpAddr>().is_err() {
        dns_subdomain(&host).map_err(|reason| format!("is no IP address, so the host {reason}"))?;
    }
    Ok(Endpoint::Address(match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }))
}

fn split_port(text: &str) -> Result<(&str, Option<u16>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("has a `[` without a `]`")?;
        let bare = host.split_once('%').map_or(host, |(address, _)| address);
        if bare.parse::<Ipv6Addr>().is_err() {
            return Err("has something other than an IPv6 address in brackets".to_owned());
        }
        return match after.strip_prefix(':') {
            Some(digits) => Ok((host, Some(port(digits)?))),
            None if after.is_empty() => Ok((host, None)),
            None => Err("has something other than `:port` after the `]`".to_owned()),
        };
    }
    match text.split_once(':') {
        // More than one colon: an IPv6 address that takes no port without brackets.
        Some((_, after)) if after.contains(':') => Ok((text, None)),
        Some((host, digits)) => Ok((host, Some(port(digits)?))),
        None => Ok((text, None)),
    }
}

fn port(digits: &str) -> Result<u16, String> {
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u16>().ok()).flatten();
    number
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("has the port `{digits}`, which is no number from 1 to 65535"))
}

fn looks_like_ipv4(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && host.contains('.')
}

/// A Kubernetes version, with or without `v`, of a supported minor. The error is (reason, help).
pub(super) fn kubernetes_version(text: &str) -> Result<semver::Version, (String, String)> {
    let bare = text.strip_prefix('v').unwrap_or(text);
    let (first, last) = (SUPPORTED_MINORS.start(), SUPPORTED_MINORS.end());
    let supported = format!("supported are Kubernetes 1.{first} to 1.{last}");
    let numbers: Vec<&str> = bare.split('.').collect();
    let numeric = numbers.iter().all(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
    if numeric && numbers.len() < 3 {
        let help = match numbers.get(1).and_then(|minor| minor.parse().ok()) {
            Some(minor) if SUPPORTED_MINORS.contains(&minor) => format!("write the patch release too: `1.{minor}.0`"),
            _ => format!("write major, minor and patch: `1.{last}.0`"),
        };
        return Err(("needs three numbers".to_owned(), help));
    }
    let version = semver::Version::parse(bare)
        .map_err(|error| (format!("is no version: {error}"), format!("write major, minor and patch: `1.{last}.0`")))?;
    match version.major == 1 && SUPPORTED_MINORS.contains(&version.minor) {
        true => Ok(version),
        false => Err(("is not supported".to_owned(), supported)),
    }
}

/// A network as `address/bits` without host bits.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    if text.contains(',') {
        return Err("names several networks, but clusters of two address families are not supported".to_owned());
    }
    let network: IpNet = text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(address) => format!("lacks the number of bits, as in `{address}/16`"),
        Err(_) => "is no network, as in `10.244.0.0/16`".to_owned(),
    })?;
    match network.trunc() == network {
        true => Ok(network.trunc()),
        false => Err(format!("has bits set after the first {}; write `{}`", network.prefix_len(), network.trunc())),
    }
}

/// A label's or taint's key: `name` or `prefix/name`.
pub(super) fn label_key(text: &str) -> Result<(), String> {
    let name = match text.split_once('/') {
        Some((prefix, name)) => {
            dns_subdomain(prefix)
                .map_err(|_| "has a prefix before the `/` that is no lower case DNS name".to_owned())?;
            name
        }
        None => text,
    };
    match name.is_empty() {
        true => Err("has no name".to_owned()),
        false => qualified(name).map_err(|rule| format!("{rule}, after an optional prefix with `/`")),
    }
}

/// A label's or taint's value; may be empty.
pub(super) fn label_value(text: &str) -> Result<(), String> {
    match text.is_empty() {
        true => Ok(()),
        false => qualified(text).map_err(str::to_owned),
    }
}

fn qualified(text: &str) -> Result<(), &'static str> {
    const RULE: &str = "has to be at most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends";
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends = [bytes.first(), bytes.last()].iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric));
    (bytes.len() <= 63 && bytes.iter().all(inner) && ends).then_some(()).ok_or(RULE)
}

/// The effects a taint may have.
pub(super) const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// `key=value:Effect` or `key:Effect`.
pub(super) fn taint(text: &str) -> Result<Taint, String> {
    const SHAPE: &str = "is no taint; write `key=value:Effect` or `key:Effect`";
    let (rest, effect) = text.rsplit_once(':').ok_or(SHAPE)?;
    if !EFFECTS.contains(&effect) {
        let hint = crate::yaml::did_you_mean(effect, EFFECTS);
        return Err(format!("has the effect `{effect}`, which is none: {hint}"));
    }
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    label_key(key).map_err(|reason| format!("has a bad key: it {reason}"))?;
    label_value(value).map_err(|reason| format!("has a bad value: it {reason}"))?;
    Ok(Taint { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned() })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{
        address, bandwidth, dns_label, dns_subdomain, endpoint, kubernetes_version, label_key, label_value, network,
        taint,
    };

    #[rstest]
    #[case("cp1", true, true)]
    #[case("a", true, true)]
    #[case("node-1.example.com", false, true)]
    #[case("", false, false)]
    #[case("-a", false, false)]
    #[case("a-", false, false)]
    #[case("Node", false, false)]
    #[case("a_b", false, false)]
    #[case("a..b", false, false)]
    #[case("übung", false, false)]
    fn names(#[case] text: &str, #[case] label: bool, #[case] subdomain: bool) {
        assert_eq!((dns_label(text).is_ok(), dns_subdomain(text).is_ok()), (label, subdomain));
    }

    #[rstest]
    #[case("800000", Some(800_000))]
    #[case("500K", Some(500 << 10))]
    #[case("10M", Some(10 << 20))]
    #[case("1G", Some(1 << 30))]
    #[case("1000", None)]
    #[case("10 M", None)]
    #[case("10Mbit", None)]
    #[case("99999999999G", None)]
    #[case("M", None)]
    fn bandwidths_are_bytes_a_second(#[case] text: &str, #[case] expected: Option<u64>) {
        assert_eq!(bandwidth(text).ok(), expected);
    }

    #[test]
    fn names_have_a_longest() {
        assert!(dns_label(&"a".repeat(63)).is_ok() && dns_label(&"a".repeat(64)).is_err());
        assert!(dns_subdomain(&format!("{}a", "a.".repeat(126))).is_ok());
        assert!(dns_subdomain(&"a.".repeat(127)).is_err());
    }

    #[rstest]
    #[case("10.0.0.1", "10.0.0.1", None)]
    #[case("10.0.0.1:2222", "10.0.0.1", Some(2222))]
    #[case("web_1", "web_1", None)]
    #[case("Web.Example.org:22", "Web.Example.org", Some(22))]
    #[case("::1", "::1", None)]
    #[case("[fd00::1]", "fd00::1", None)]
    #[case("[fd00::1]:2222", "fd00::1", Some(2222))]
    #[case("fe80::1%eth0", "fe80::1%eth0", None)]
    #[case("[fe80::1%eth0]:22", "fe80::1%eth0", Some(22))]
    fn addresses(#[case] text: &str, #[case] host: &str, #[case] port: Option<u16>) {
        assert_eq!(address(text), Ok((host.to_owned(), port)));
    }

    #[rstest]
    #[case("")]
    #[case(":22")]
    #[case("a b")]
    #[case("user@host")]
    #[case("-oProxyCommand=x")]
    #[case("host:0")]
    #[case("host:65536")]
    #[case("host:+22")]
    #[case("host:")]
    #[case("10.0.0.256")]
    #[case("10.0.0")]
    #[case("1:2:3")]
    #[case("[10.0.0.1]:22")]
    #[case("[::1")]
    #[case("[::1]22")]
    #[case("fe80::1%a b")]
    fn bad_addresses(#[case] text: &str) {
        assert!(address(text).is_err());
    }

    #[rstest]
    #[case("api.example:6443", Some("api.example:6443"))]
    #[case("api.example", Some("api.example:6443"))]
    #[case("10.0.0.10:443", Some("10.0.0.10:443"))]
    #[case("fd00::10", Some("[fd00::10]:6443"))]
    #[case("[fd00::10]:8443", Some("[fd00::10]:8443"))]
    #[case("https://api.example", None)]
    #[case("Api_Server:6443", None)]
    #[case("fe80::1%eth0", None)]
    #[case("built-in", Some("built-in"))]
    #[case("builtin", None)]
    #[case("Built_In", None)]
    fn endpoints(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(endpoint(text).ok().map(|endpoint| endpoint.to_string()).as_deref(), expected);
    }

    #[test]
    fn the_built_in_endpoint_is_every_nodes_own_loopback() {
        assert_eq!(endpoint("built-in").unwrap().address(), "127.0.0.1:6444");
    }

    #[rstest]
    #[case("1.36.3", "1.36.3")]
    #[case("v1.33.0", "1.33.0")]
    #[case("1.37.0-rc.1", "1.37.0-rc.1")]
    fn versions(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(kubernetes_version(text).map(|version| version.to_string()), Ok(expected.to_owned()));
    }

    #[rstest]
    #[case("1.36", "needs three numbers", "write the patch release too: `1.36.0`")]
    #[case("1.30", "needs three numbers", "write major, minor and patch: `1.37.0`")]
    #[case("1", "needs three numbers", "write major, minor and patch: `1.37.0`")]
    #[case("1.32.9", "is not supported", "supported are Kubernetes 1.33 to 1.37")]
    #[case("1.38.0", "is not supported", "supported are Kubernetes 1.33 to 1.37")]
    #[case("2.36.0", "is not supported", "supported are Kubernetes 1.33 to 1.37")]
    fn bad_versions(#[case] text: &str, #[case] reason: &str, #[case] help: &str) {
        assert_eq!(kubernetes_version(text), Err((reason.to_owned(), help.to_owned())));
    }

    #[rstest]
    #[case("latest")]
    #[case("1.36.3.4")]
    #[case("1.036.3")]
    #[case("vv1.36.3")]
    #[case("")]
    fn no_versions(#[case] text: &str) {
        assert!(kubernetes_version(text).unwrap_err().0.starts_with("is no version"));
    }

    #[rstest]
    #[case("10.244.0.0/16", true)]
    #[case("fd00::/48", true)]
    #[case("10.244.0.1/16", false)]
    #[case("10.244.0.0", false)]
    #[case("10.244.0.0/33", false)]
    #[case("10.244.0.0/16,fd00::/48", false)]
    #[case("pods", false)]
    fn networks(#[case] text: &str, #[case] good: bool) {
        assert_eq!(network(text).is_ok(), good);
    }

    #[rstest]
    #[case("disk", true)]
    #[case("example.com/disk_type.1", true)]
    #[case("node-role.kubernetes.io/worker", true)]
    #[case("", false)]
    #[case("example.com/", false)]
    #[case("/disk", false)]
    #[case("Example.com/disk", false)]
    #[case("a/b/c", false)]
    #[case("-disk", false)]
    #[case("di sk", false)]
    fn label_keys(#[case] text: &str, #[case] good: bool) {
        assert_eq!(label_key(text).is_ok(), good);
    }

    #[test]
    fn label_values() {
        assert!(label_value("").is_ok() && label_value("ssd-1.2_x").is_ok() && label_value(&"a".repeat(63)).is_ok());
        assert!(label_value("a b").is_err() && label_value("-a").is_err() && label_value(&"a".repeat(64)).is_err());
    }

    #[rstest]
    #[case("dedicated=gpu:NoSchedule", Some(("dedicated", "gpu", "NoSchedule")))]
    #[case("example.com/x:NoExecute", Some(("example.com/x", "", "NoExecute")))]
    #[case("x=:PreferNoSchedule", Some(("x", "", "PreferNoSchedule")))]
    #[case("x=y", None)]
    #[case("x=y:NoScheduling", None)]
    #[case("=y:NoSchedule", None)]
    #[case("x=a b:NoSchedule", None)]
    fn taints(#[case] text: &str, #[case] expected: Option<(&str, &str, &str)>) {
        let taint = taint(text).ok();
        let parts = taint.as_ref().map(|taint| (taint.key.as_str(), taint.value.as_str(), taint.effect.as_str()));
        assert_eq!(parts, expected);
    }
}
