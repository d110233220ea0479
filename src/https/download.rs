//! Downloads from public servers and their mirrors: proxies of the environment, redirects, any size, and a limit on silence
//! instead of on time.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, RANGE, WWW_AUTHENTICATE};
use reqwest::redirect::{Attempt, Policy};

use super::Proxies;
use crate::failure::{Failure, Kind, Result};
use crate::secret::Secret;

/// Longest time for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// A server that says nothing for this long is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// Redirects that are followed.
const MAXIMUM_REDIRECTS: usize = 10;

/// A client for downloads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Downloads {
    client: reqwest::Client,
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Ask<'a> {
    /// `http` or `https`.
    pub url: &'a str,
    /// Media types.
    pub accept: Option<&'a str>,
    /// The whole header: `Bearer ...`. It is not sent to a server that is redirected to.
    pub authorization: Option<&'a Secret>,
    /// The first byte that is wanted.
    pub from: u64,
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub struct Answered {
    /// HTTP status.
    pub status: u16,
    /// Media type of the body.
    pub content_type: Option<String>,
    /// What to log in with, where the status is 401.
    pub challenge: Option<String>,
    /// The byte that the body begins with, where the status is 206.
    pub from: Option<u64>,
    /// Bytes of the body, where the server says so.
    pub length: Option<u64>,
    response: reqwest::Response,
}

impl Downloads {
    /// A client that verifies servers by the authorities this machine trusts.
    ///
    /// # Errors
    /// Kind `Host` when this machine trusts no authority.
    pub fn new() -> Result<Self> {
        Self::through(&Proxies::default())
    }

    /// As [`Downloads::new`], through these proxies instead of those of the environment, where there are some.
    ///
    /// # Errors
    /// Kind `Host` when this machine trusts no authority, or a proxy is no URL.
    pub fn through(proxies: &Proxies) -> Result<Self> {
        Self::trusting(proxies, Vec::new())
    }

    /// As [`Downloads::through`], with authorities beside those of this machine.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn trusting(proxies: &Proxies, authorities: Vec<reqwest::Certificate>) -> Result<Self> {
        // An error only means that a provider is there already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut builder = reqwest::Client::builder();
        for proxy in proxies.all()? {
            builder = builder.proxy(proxy);
        }
        let client = builder
            .tls_certs_merge(authorities)
            .redirect(Policy::custom(redirect))
            .connect_timeout(CONNECT_LIMIT)
            .read_timeout(SILENCE)
            .user_agent(concat!("clusterctl/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| {
                Failure::new(Kind::Host, "this machine cannot verify servers of the internet")
                    .because(&error)
                    .advise("install the package ca-certificates")
            })?;
        Ok(Self { client })
    }

    /// Asks, and returns with the head of the answer, whatever its status.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub async fn open(&self, ask: &Ask<'_>) -> std::result::Result<Answered, String> {
        let mut request = self.client.get(ask.url);
        if let Some(accept) = ask.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(authorization) = ask.authorization {
            let mut value = reqwest::header::HeaderValue::from_str(authorization.expose())
                .map_err(|_| "the credentials have characters that no header may have".to_owned())?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if ask.from > 0 {
            request = request.header(RANGE, format!("bytes={}-", ask.from));
        }
        answered(request.send().await)
    }

    /// Sends a form, as a browser does.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub async fn form(&self, url: &str, fields: &[(&str, &str)]) -> std::result::Result<Answered, String> {
        let body: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let request = self.client.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        answered(request.body(body.join("&")).send().await)
    }
}

impl Answered {
    /// The next bytes of the body.
    ///
    /// # Errors
    /// Why they do not come, in words.
    pub async fn chunk(&mut self) -> std::result::Result<Option<Bytes>, String> {
        self.response.chunk().await.map_err(|error| reason(&error))
    }

    /// The whole body, of at most so many bytes.
    ///
    /// # Errors
    /// Why it does not come, in words.
    pub async fn body(mut self, limit: usize) -> std::result::Result<Vec<u8>, String> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > limit {
                return Err(format!("the answer is longer than {limit} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn answered(sent: reqwest::Result<reqwest::Response>) -> std::result::Result<Answered, String> {
    let response = sent.map_err(|error| reason(&error))?;
    let text = |headers: &HeaderMap, name| {
        headers.get(name).and_then(|value| value.to_str().ok()).map(|text: &str| text.to_owned())
    };
    let headers = response.headers();
    Ok(Answered {
        status: response.status().as_u16(),
        content_type: text(headers, CONTENT_TYPE),
        challenge: text(headers, WWW_AUTHENTICATE),
        from: text(headers, CONTENT_RANGE).as_deref().and_then(first_byte),
        length: response.content_length(),
        response,
    })
}

/// The first byte in `bytes 100-199/200`.
fn first_byte(range: &str) -> Option<u64> {
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// Percent-encoded, for forms and queries.
pub fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

/// A URL for people: without the name and password that may stand in it.
pub fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (place, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match place.rsplit_once('@') {
        Some((_, server)) => format!("{scheme}://***@{server}{path}"),
        None => url.to_owned(),
    }
}

fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let secure = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if attempt.previous().len() > MAXIMUM_REDIRECTS {
        attempt.error("it redirects without end")
    } else if secure && attempt.url().scheme() != "https" {
        attempt.error("it redirects from https to http")
    } else {
        attempt.follow()
    }
}

/// The innermost source says it best.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        let limit = if error.is_connect() { CONNECT_LIMIT } else { SILENCE };
        return format!("no answer within {} seconds", limit.as_secs());
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod through_a_proxy;

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{encoded, first_byte, shown};

    #[rstest]
    #[case("https://mirror.lan/k8s@1", "https://mirror.lan/k8s@1")]
    #[case("https://ann:hunter2@mirror.lan:8443/k8s", "https://***@mirror.lan:8443/k8s")]
    #[case("http://ann:p@ss@mirror.lan", "http://***@mirror.lan")]
    fn passwords_in_urls_are_not_shown(#[case] url: &str, #[case] expected: &str) {
        assert_eq!(shown(url), expected);
    }

    #[rstest]
    #[case("bytes 100-199/200", Some(100))]
    #[case("bytes 0-0/*", Some(0))]
    #[case("bytes */200", None)]
    #[case("100-199", None)]
    fn ranges_begin_somewhere(#[case] range: &str, #[case] expected: Option<u64>) {
        assert_eq!(first_byte(range), expected);
    }

    #[test]
    fn texts_are_encoded_for_urls() {
        assert_eq!(encoded("repository:a/b:pull ü"), "repository%3Aa%2Fb%3Apull%20%C3%BC");
    }
}
