//! The file that says which API servers there are: one `address:port` a line, the host's own with `local` behind it.

use std::collections::BTreeSet;

use crate::message::ApiServer;

/// More API servers than this are a mistake.
const MAXIMUM_SERVERS: usize = 64;

/// The word behind this host's own API server.
const LOCAL: &str = "local";

/// The file's text.
pub(super) fn to_text(servers: &[ApiServer]) -> String {
    let mut text = String::from(
        "# Written by clusterctl: the API servers behind the balancer of this host, one address:port a line. Read again\n\
         # when it changes; connections to servers that stay are not disturbed.\n",
    );
    for server in servers {
        text.push_str(&server.address.to_string());
        if server.local {
            text.push(' ');
            text.push_str(LOCAL);
        }
        text.push('\n');
    }
    text
}

/// Reads the file's text.
///
/// # Errors
/// In words, with the line: what is no address, what is there twice; no server at all, or too many.
pub(super) fn parse(text: &str) -> Result<Vec<ApiServer>, String> {
    let mut servers = Vec::new();
    let mut known = BTreeSet::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(address) = words.next() else { continue };
        let wrong = |why: &str| format!("line {}: {why}", index + 1);
        let address = address.parse().map_err(|_| wrong("it does not begin with address:port"))?;
        let local = match (words.next(), words.next()) {
            (None, _) => false,
            (Some(LOCAL), None) => true,
            _ => return Err(wrong("behind the address only the word `local` may stand")),
        };
        if !known.insert(address) {
            return Err(wrong("this address stands there twice"));
        }
        servers.push(ApiServer { address, local });
        if servers.len() > MAXIMUM_SERVERS {
            return Err(wrong("these are too many API servers"));
        }
    }
    if servers.is_empty() { Err("it names no API server".to_owned()) } else { Ok(servers) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{parse, to_text};
    use crate::message::ApiServer;

    #[test]
    fn what_is_written_is_read() {
        let servers = [("10.0.0.11:6443", false), ("10.0.0.12:6443", true), ("[fd00::3]:7443", false)]
            .map(|(address, local)| ApiServer { address: address.parse().unwrap(), local });
        assert_eq!(parse(&to_text(&servers)).unwrap(), servers);
    }

    #[rstest]
    #[case("", "it names no API server")]
    #[case("# nothing\n\n", "it names no API server")]
    #[case("10.0.0.11:6443\ncp2:6443\n", "line 2: it does not begin with address:port")]
    #[case("10.0.0.11\n", "line 1: it does not begin with address:port")]
    #[case("10.0.0.11:6443 lokal\n", "line 1: behind the address only the word `local` may stand")]
    #[case("10.0.0.11:6443 local 3\n", "line 1: behind the address only the word `local` may stand")]
    #[case("10.0.0.11:6443\n10.0.0.11:6443 # again\n", "line 2: this address stands there twice")]
    fn what_is_wrong_is_said_with_its_line(#[case] text: &str, #[case] sentence: &str) {
        assert_eq!(parse(text).unwrap_err(), sentence);
    }

    #[test]
    fn a_file_without_end_is_no_list() {
        let text: String = (1..=65).map(|port| format!("10.0.0.1:{port}\n")).collect();
        assert_eq!(parse(&text).unwrap_err(), "line 65: these are too many API servers");
    }
}
