//! Which proxy the environment sends a connection through, by Go's rules: Kubernetes' programs follow those.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// The environment of a process, of /proc/PID/environ.
pub(super) fn environment(content: &[u8]) -> BTreeMap<String, String> {
    let pairs = content.split(|byte| *byte == 0).filter_map(|pair| {
        let text = String::from_utf8_lossy(pair);
        let (name, value) = text.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    });
    pairs.collect()
}

/// The proxy for an https connection to a host, without the password in it; `None` for a direct one.
pub(super) fn proxy_of(environment: &BTreeMap<String, String>, host: &str) -> Option<String> {
    let either = |upper: &str, lower: &str| {
        [upper, lower].into_iter().filter_map(|name| environment.get(name)).find(|value| !value.is_empty())
    };
    let proxy = either("HTTPS_PROXY", "https_proxy")?;
    let address = host.parse::<IpAddr>().ok();
    if host.eq_ignore_ascii_case("localhost") || address.is_some_and(|address| address.is_loopback()) {
        return None;
    }
    let excepted = either("NO_PROXY", "no_proxy").map(String::as_str).unwrap_or_default();
    let host = host.to_lowercase();
    let direct = excepted.split(',').map(str::trim).any(|exception| excepts(&exception.to_lowercase(), &host, address));
    (!direct).then(|| without_password(proxy))
}

/// Whether an entry of NO_PROXY is about a host: `*`, a network, an address, a domain with all below it, or `.domain` with
/// only what is below it; a port may follow, and 443 is ours.
fn excepts(exception: &str, host: &str, address: Option<IpAddr>) -> bool {
    if exception.is_empty() {
        return false;
    }
    if exception == "*" {
        return true;
    }
    if let Ok(network) = exception.parse::<IpNet>() {
        return address.is_some_and(|address| network.contains(&address));
    }
    let bare = exception.trim_matches(['[', ']']);
    if let Ok(excepted) = bare.parse::<IpAddr>() {
        return address == Some(excepted);
    }
    let name = match exception.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => {
            if port != "443" {
                return false;
            }
            name.trim_matches(['[', ']'])
        }
        _ => exception,
    };
    if let Ok(excepted) = name.parse::<IpAddr>() {
        return address == Some(excepted);
    }
    match name.strip_prefix("*.").or(name.strip_prefix('.')) {
        Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
        None => host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')),
    }
}

/// A URL of a proxy, for showing.
fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if scheme.is_empty() { rest.to_owned() } else { format!("{scheme}://{rest}") }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{environment, proxy_of};

    #[rstest]
    #[case("", "10.0.0.11", None)]
    #[case("HTTP_PROXY=http://p:3128", "10.0.0.11", None)]
    #[case("HTTPS_PROXY=http://me:secret@p:3128", "10.0.0.11", Some("http://p:3128"))]
    #[case("https_proxy=p:3128", "api.demo.example", Some("p:3128"))]
    #[case("https_proxy=p:3128", "127.0.0.1", None)]
    #[case("https_proxy=p:3128", "localhost", None)]
    #[case("https_proxy=p NO_PROXY=10.0.0.0/8", "10.0.0.11", None)]
    #[case("https_proxy=p NO_PROXY=10.0.0.12,10.0.0.11", "10.0.0.11", None)]
    #[case("https_proxy=p NO_PROXY=10.0.0.11:8443", "10.0.0.11", Some("p"))]
    #[case("https_proxy=p NO_PROXY=10.0.0.11:443", "10.0.0.11", None)]
    #[case("https_proxy=p no_proxy=[fd00::1]", "fd00::1", None)]
    #[case("https_proxy=p no_proxy=example", "api.demo.example", None)]
    #[case("https_proxy=p no_proxy=.example", "api.Demo.example", None)]
    #[case("https_proxy=p no_proxy=.api.demo.example", "api.demo.example", Some("p"))]
    #[case("https_proxy=p no_proxy=mo.example", "api.demo.example", Some("p"))]
    #[case("https_proxy=p no_proxy=*.demo.example", "api.demo.example", None)]
    #[case("https_proxy=p no_proxy=*", "api.demo.example", None)]
    fn the_rules_are_those_of_go(#[case] variables: &str, #[case] host: &str, #[case] proxy: Option<&str>) {
        let environment = environment(variables.replace(' ', "\0").as_bytes());
        assert_eq!(proxy_of(&environment, host).as_deref(), proxy);
    }
}
