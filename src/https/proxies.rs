//! Proxies, as the variables of an environment name them.

use reqwest::{NoProxy, Proxy};

use crate::failure::{Failure, Kind, Result};

/// Proxies of a machine; none where the process's own environment decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    http: Option<String>,
    https: Option<String>,
    except: Option<String>,
}

/// The variables that name a proxy; lower case counts before upper case, as curl has it.
const VARIABLES: [&str; 6] = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

impl Proxies {
    /// Those of a text of assignments, as in /etc/environment: `NAME=VALUE` a line, the value may be quoted, `export` may
    /// stand before it.
    pub fn of(text: &str) -> Self {
        let value = |names: &[&str]| {
            names.iter().find_map(|wanted| {
                let mut values = text.lines().filter_map(|line| {
                    let line = line.trim();
                    let (name, value) = line.strip_prefix("export ").unwrap_or(line).trim().split_once('=')?;
                    let value = value.trim().trim_matches(['"', '\'']).trim();
                    (name.trim() == *wanted && !value.is_empty()).then(|| value.to_owned())
                });
                // The last assignment counts.
                values.next_back()
            })
        };
        let all = value(&["all_proxy", "ALL_PROXY"]);
        Self {
            http: value(&["http_proxy", "HTTP_PROXY"]).or_else(|| all.clone()),
            https: value(&["https_proxy", "HTTPS_PROXY"]).or(all),
            except: value(&["no_proxy", "NO_PROXY"]),
        }
    }

    /// Whether the environment of this process names a proxy.
    pub fn are_in_the_environment() -> bool {
        VARIABLES.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
    }

    /// For a client.
    pub(super) fn all(&self) -> Result<Vec<Proxy>> {
        let except = self.except.as_deref().and_then(NoProxy::from_string);
        let proxy = |made: fn(String) -> reqwest::Result<Proxy>, url: &String| {
            let whole = if url.contains("://") { url.clone() } else { format!("http://{url}") };
            let proxy = made(whole).map_err(|error| {
                Failure::new(Kind::Host, "the proxy that the machine's settings name is no URL")
                    .because(&error)
                    .advise("correct HTTPS_PROXY and HTTP_PROXY in its /etc/environment")
            })?;
            Ok::<_, Failure>(proxy.no_proxy(except.clone()))
        };
        let http = self.http.iter().map(|url| proxy(Proxy::http, url));
        let https = self.https.iter().map(|url| proxy(Proxy::https, url));
        http.chain(https).collect()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::Proxies;

    #[rstest]
    #[case("", (None, None, None))]
    #[case("PATH=/bin\nHTTPS_PROXY=http://p:3128\n", (None, Some("http://p:3128"), None))]
    #[case("export http_proxy=\"p:1\"\nHTTP_PROXY=p:2\nno_proxy='a.b,10.0.0.0/8'", (Some("p:1"), None, Some("a.b,10.0.0.0/8")))]
    #[case("all_proxy=p:1\nhttps_proxy=p:2\n", (Some("p:1"), Some("p:2"), None))]
    #[case("#https_proxy=p:1\nhttps_proxy=\n", (None, None, None))]
    #[case("https_proxy=p:1\nhttps_proxy=p:2", (None, Some("p:2"), None))]
    fn assignments_name_proxies(#[case] text: &str, #[case] expected: (Option<&str>, Option<&str>, Option<&str>)) {
        let Proxies { http, https, except } = Proxies::of(text);
        assert_eq!((http.as_deref(), https.as_deref(), except.as_deref()), expected);
    }

    #[test]
    fn what_is_no_url_is_said() {
        let failure = Proxies::of("https_proxy=http://[").all().unwrap_err();
        assert!(failure.sentence.contains("is no URL"), "{failure}");
        assert_eq!(Proxies::of("https_proxy=p:3128\nhttp_proxy=p:3128").all().unwrap().len(), 2);
    }
}
