//! The values of ssh_config's keywords, checked and in one spelling: pure.

use crate::inventory::Hop;

use super::keywords::Shape;

/// The values a keyword has on one line, in the order written.
///
/// `rest` is the line after the keyword, `words` the same taken apart.
///
/// # Errors
/// In words that end a sentence: `is no port`.
pub(super) fn values(shape: Shape, rest: &str, words: Vec<String>) -> Result<Vec<String>, String> {
    match shape {
        Shape::Any => Ok(Vec::new()),
        Shape::Line => Ok(vec![rest.trim_start_matches([' ', '\t', '=']).to_owned()]),
        Shape::Jump => jump(rest).map(|hops| vec![hops]),
        Shape::List => list(words),
        Shape::Words if words.is_empty() => Err("has no value".to_owned()),
        Shape::Words => Ok(words),
        Shape::Environment => match words.iter().find(|word| !word.contains('=')) {
            Some(word) => Err(format!("has {word}, which is no NAME=VALUE")),
            None => Ok(words),
        },
        Shape::Flag => one(words).and_then(|word| flag(&word)).map(|flag| vec![flag.to_owned()]),
        Shape::Choice(choices) => one(words).and_then(|word| choice(&word, choices)).map(|word| vec![word.to_owned()]),
        Shape::Time => one(words).and_then(|word| match word.eq_ignore_ascii_case("none") {
            true => Ok(vec!["none".to_owned()]),
            false => seconds(&word).map(|seconds| vec![seconds.to_string()]).ok_or(format!("has {word}, no time")),
        }),
        Shape::Number => one(words).and_then(|word| match word.parse::<i32>() {
            Ok(number) => Ok(vec![number.to_string()]),
            Err(_) => Err(format!("has {word}, which is no number")),
        }),
        // Of the names in /etc/services this one is written.
        Shape::Port if matches!(words.as_slice(), [name] if name == "ssh") => Ok(vec!["22".to_owned()]),
        Shape::Port => one(words).and_then(|word| match word.parse::<u16>() {
            Ok(port) if port > 0 && word.bytes().all(|byte| byte.is_ascii_digit()) => Ok(vec![port.to_string()]),
            _ => Err(format!("has {word}, which is no port")),
        }),
        Shape::Algorithms => one(words).and_then(algorithms).map(|list| vec![list]),
        Shape::Text | Shape::Several => one(words).map(|word| vec![word]),
    }
}

fn one(words: Vec<String>) -> Result<String, String> {
    let mut words = words.into_iter();
    match (words.next(), words.next()) {
        (Some(word), None) if !word.is_empty() => Ok(word),
        (Some(_), Some(more)) => Err(format!("has {more} after its value")),
        _ => Err("has no value".to_owned()),
    }
}

fn list(words: Vec<String>) -> Result<Vec<String>, String> {
    let alone = |word: &String| word.eq_ignore_ascii_case("none");
    match () {
        () if words.iter().any(String::is_empty) => Err("has an empty value".to_owned()),
        () if words.is_empty() => Err("has no value".to_owned()),
        () if words.len() > 1 && words.iter().any(alone) => Err("has none beside other values".to_owned()),
        () => Ok(words),
    }
}

fn flag(word: &str) -> Result<&'static str, String> {
    choice(word, &[("yes", "yes"), ("true", "yes"), ("no", "no"), ("false", "no")])
}

fn choice(word: &str, choices: &[(&'static str, &'static str)]) -> Result<&'static str, String> {
    let found = choices.iter().find(|(written, _)| written.eq_ignore_ascii_case(word));
    found.map(|(_, meant)| *meant).ok_or_else(|| {
        let written: Vec<&str> = choices.iter().map(|(written, _)| *written).collect();
        format!("has {word}, but takes {}", written.join(", "))
    })
}

fn algorithms(word: String) -> Result<String, String> {
    let names = word.strip_prefix(['+', '-', '^']).unwrap_or(&word);
    match names.is_empty() || names.split(',').any(str::is_empty) {
        true => Err("has an empty name in its list".to_owned()),
        false => Ok(word),
    }
}

/// A time in OpenSSH's format (sshd_config(5), TIME FORMATS), in seconds.
fn seconds(text: &str) -> Option<u32> {
    let (mut total, mut rest) = (0_u32, text);
    if text.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        let number: u32 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].chars().next();
        let factor = match unit.map(|unit| unit.to_ascii_lowercase()) {
            None | Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86400,
            Some('w') => 7 * 86400,
            Some(_) => return None,
        };
        total = total.checked_add(number.checked_mul(factor)?)?;
        rest = &rest[digits + unit.map_or(0, char::len_utf8)..];
    }
    i32::try_from(total).is_ok().then_some(total)
}

/// One hop of a ProxyJump: reads `[user@]host[:port]` or `ssh://[user@]host[:port]`; an IPv6 address stands in brackets when a port follows.
///
/// # Errors
/// In words that end a sentence: `is no ...`.
pub(super) fn hop(text: &str) -> Result<Hop, String> {
    let bad = || format!("has {text}, which is no [user@]host[:port]");
    let bare = match text.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("ssh://")) {
        true => text[6..].trim_end_matches('/'),
        false => text,
    };
    let (user, place) = match bare.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, bare),
    };
    let (host, port) = if let Some(rest) = place.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or_else(bad)?;
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err(bad()),
        }
    } else {
        match place.split_once(':') {
            // More than one colon is an IPv6 address without a port.
            Some((_, after)) if after.contains(':') => (place, None),
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        }
    };
    let plain = |text: &str| !text.chars().any(|letter| letter.is_whitespace() || letter.is_control());
    let port = match port {
        Some(port) => Some(port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(bad)?),
        None => None,
    };
    let good = !host.is_empty() && !host.starts_with('-') && plain(host);
    match good && user.is_none_or(|user| !user.is_empty() && !user.starts_with('-') && plain(user)) {
        true => Ok(Hop { user: user.map(str::to_owned), host: host.to_owned(), port }),
        false => Err(bad()),
    }
}

/// Checks the hops of a ProxyJump line and returns them without a comment.
fn jump(rest: &str) -> Result<String, String> {
    let text = rest.split('#').next().unwrap_or_default().trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if text.is_empty() {
        return Err("has no value".to_owned());
    }
    if text.eq_ignore_ascii_case("none") {
        return Ok("none".to_owned());
    }
    for one in text.split(',') {
        hop(one)?;
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{hop, seconds};
    use crate::inventory::Hop;

    #[rstest]
    #[case("30", Some(30))]
    #[case("1m30s", Some(90))]
    #[case("1H", Some(3600))]
    #[case("2w1d", Some(1_296_000))]
    #[case("0", Some(0))]
    #[case("", None)]
    #[case("s", None)]
    #[case("1x", None)]
    #[case("-1", None)]
    #[case("99999999999", None)]
    fn times_are_read(#[case] text: &str, #[case] expected: Option<u32>) {
        assert_eq!(seconds(text), expected);
    }

    #[rstest]
    #[case("b", None, "b", None)]
    #[case("ops@b:2222", Some("ops"), "b", Some(2222))]
    #[case("a@b@c", Some("a@b"), "c", None)]
    #[case("[fd00::1]:22", None, "fd00::1", Some(22))]
    #[case("fd00::1", None, "fd00::1", None)]
    #[case("ssh://ops@b:22", Some("ops"), "b", Some(22))]
    fn hops_are_read(#[case] text: &str, #[case] user: Option<&str>, #[case] host: &str, #[case] port: Option<u16>) {
        assert_eq!(hop(text), Ok(Hop { user: user.map(str::to_owned), host: host.to_owned(), port }));
    }

    #[rstest]
    #[case("")]
    #[case("@b")]
    #[case("b:0")]
    #[case("b:x")]
    #[case("-oProxyCommand=x")]
    #[case("-x@b")]
    #[case("[fd00::1")]
    #[case("a b")]
    fn bad_hops_are_refused(#[case] text: &str) {
        assert!(hop(text).is_err());
    }
}
