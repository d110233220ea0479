//! `%h`, `${HOME}` and `~` in the values of ssh_config (ssh_config(5), TOKENS and ENVIRONMENT VARIABLES): pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;

use crate::host::hex;

/// Home folders by user.
pub(super) type Homes = Arc<BTreeMap<String, PathBuf>>;

/// What the tokens stand for.
#[derive(Debug, Clone, Default)]
pub(super) struct Tokens {
    /// `%h`: the host that is dialled.
    pub(super) host: String,
    /// `%n`: the host as it was typed.
    pub(super) typed: String,
    /// `%p`: the port.
    pub(super) port: u16,
    /// `%r`: the user on the host.
    pub(super) user: String,
    /// `%u`: the user here.
    pub(super) local_user: String,
    /// `%i`: that user's number.
    pub(super) local_id: u32,
    /// `%d`: the home folder here.
    pub(super) home: PathBuf,
    /// The home folders of all users here.
    pub(super) homes: Homes,
    /// `%l`: the name of this machine; `%L` is its first label.
    pub(super) local_host: String,
    /// `%k`: the alias of the host key, else the host as it was typed.
    pub(super) alias: String,
    /// `%j`: the hops of ProxyJump.
    pub(super) jump: String,
}

impl Tokens {
    fn value(&self, token: char) -> Option<String> {
        Some(match token {
            '%' => "%".to_owned(),
            'h' => self.host.clone(),
            'n' => self.typed.clone(),
            'p' => self.port.to_string(),
            'r' => self.user.clone(),
            'u' => self.local_user.clone(),
            'i' => self.local_id.to_string(),
            'd' => self.home.display().to_string(),
            'l' => self.local_host.clone(),
            'L' => self.local_host.split('.').next().unwrap_or_default().to_owned(),
            'k' => self.alias.clone(),
            'j' => self.jump.clone(),
            'C' => {
                let all = format!("{}{}{}{}{}", self.local_host, self.host, self.port, self.user, self.jump);
                hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, all.as_bytes()).as_ref())
            }
            _ => return None,
        })
    }

    /// Puts values for the tokens.
    ///
    /// # Errors
    /// In words that end a sentence, for a `%` with something unknown behind it.
    pub(super) fn expand(&self, text: &str) -> Result<String, String> {
        percent(text, |token| self.value(token))
    }

    /// As [`Tokens::expand`], and leaves the tokens in `later`, and `%%`, to be replaced later.
    ///
    /// # Errors
    /// As [`Tokens::expand`].
    pub(super) fn expand_all_but(&self, later: &str, text: &str) -> Result<String, String> {
        percent(text, |token| match token {
            '%' => Some("%%".to_owned()),
            token if later.contains(token) => Some(format!("%{token}")),
            token => self.value(token).map(|value| value.replace('%', "%%")),
        })
    }

    /// A file: `~`, tokens and `${VARIABLES}`; a relative one stays relative to where ssh would be started.
    ///
    /// # Errors
    /// In words that end a sentence.
    pub(super) fn file(&self, text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf, String> {
        let text = tilde(text, &self.home, &self.homes)?;
        Ok(PathBuf::from(dollar(&self.expand(&text)?, variable)?))
    }
}

/// The HostName of a host: only `%h`, what was typed, and `%%` mean something there.
///
/// # Errors
/// In words that end a sentence.
pub(super) fn host_name(text: &str, typed: &str) -> Result<String, String> {
    percent(text, |token| match token {
        'h' => Some(typed.to_owned()),
        '%' => Some("%".to_owned()),
        _ => None,
    })
}

/// Puts values for the tokens of a text; `%%` is one, too.
///
/// # Errors
/// In words that end a sentence, for a `%` with something unknown behind it.
pub(in crate::ssh) fn percent(text: &str, value: impl Fn(char) -> Option<String>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            expanded.push(letter);
            continue;
        }
        let token = letters.next().ok_or("ends with a lone %")?;
        expanded.push_str(&value(token).ok_or_else(|| format!("has the unknown token %{token}"))?);
    }
    Ok(expanded)
}

/// Puts values for `${NAME}`.
fn dollar(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let (mut expanded, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or("has a ${ without a }")?;
        let value = variable(name).ok_or_else(|| format!("names the variable {name}, which is not set"))?;
        expanded.push_str(before);
        expanded.push_str(&value);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// `~`, `~/...`, `~user` and `~user/...`.
pub(super) fn tilde(text: &str, home: &Path, homes: &Homes) -> Result<String, String> {
    let Some(rest) = text.strip_prefix('~') else { return Ok(text.to_owned()) };
    let (user, inside) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let home = match user {
        "" => home,
        user => {
            homes.get(user).ok_or_else(|| format!("names the home folder of {user}, whom /etc/passwd lacks: {text}"))?
        }
    };
    Ok(format!("{}{inside}", home.display()))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use rstest::rstest;

    use super::{Tokens, host_name};

    fn tokens() -> Tokens {
        Tokens {
            host: "10.0.0.1".to_owned(),
            typed: "web1".to_owned(),
            port: 2222,
            user: "ops".to_owned(),
            local_user: "me".to_owned(),
            local_id: 1000,
            home: PathBuf::from("/home/me"),
            homes: Arc::new([("root".to_owned(), PathBuf::from("/root"))].into()),
            local_host: "laptop.example".to_owned(),
            alias: "web1".to_owned(),
            jump: String::new(),
        }
    }

    #[rstest]
    #[case("~/.ssh/%h", Some("/home/me/.ssh/10.0.0.1"))]
    #[case("%d/%n-%p-%r-%u-%i-%L-%l-%k-%%", Some("/home/me/web1-2222-ops-me-1000-laptop-laptop.example-web1-%"))]
    #[case("/run/${SET}/x", Some("/run/value/x"))]
    #[case("/run/$SET", Some("/run/$SET"))]
    #[case("/run/${UNSET}", None)]
    #[case("/run/${SET", None)]
    #[case("%z", None)]
    #[case("100%", None)]
    #[case("~root/x", Some("/root/x"))]
    #[case("~root", Some("/root"))]
    #[case("~nobody-here/x", None)]
    fn files_are_expanded(#[case] text: &str, #[case] expected: Option<&str>) {
        let variable = |name: &str| (name == "SET").then(|| "value".to_owned());
        assert_eq!(tokens().file(text, &variable).ok().as_deref(), expected.map(Path::new));
    }

    #[test]
    fn what_is_known_later_stays() {
        let tokens = Tokens { host: "50%".to_owned(), ..tokens() };
        assert_eq!(tokens.expand_all_but("HI", "%h %H %I %%").as_deref(), Ok("50%% %H %I %%"));
        assert!(tokens.expand_all_but("HI", "%z").is_err());
    }

    #[test]
    fn a_host_name_knows_one_token() {
        assert_eq!(host_name("%h.example%%", "web1").as_deref(), Ok("web1.example%"));
        assert!(host_name("%n", "web1").is_err());
    }
}
