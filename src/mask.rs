//! Taking secrets out of texts that a person sees or passes on: logs, listings, configurations, differences of files. Pure.
//!
//! Works on any text, line by line, and lines stay lines: rather a harmless word too many is masked than a key too few.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// What stands in place of a secret.
pub const MASKED: &str = "***";

/// Names behind which a secret stands, as they end, in small letters and without `-`, `_` and `.`.
const NAMES: &[&str] = &[
    "authorization",
    "certificatekey",
    "clientkeydata",
    "credentials",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "secret",
    "token",
];

/// The same as whole words: `client-cert-auth` is no secret.
const WHOLE_NAMES: &[&str] = &["auth"];

/// Words before a secret that is a word of its own: `Bearer eyJ...`.
const INTRODUCTIONS: &[&str] = &["bearer", "basic"];

/// What stands behind `name:` and is no secret.
const HARMLESS: &[&str] = &["", "null", "~", "true", "false", "\"\"", "''"];

/// Base64 of at least this length is looked into for a key.
const SHORTEST_KEY: usize = 40;

/// The text without private keys, tokens, passwords and what follows their names. Lines stay lines.
pub fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut in_key = false;
    // The indentation of a name whose secret stands in the lines below it.
    let mut above: Option<usize> = None;
    for line in text.split_inclusive('\n') {
        let (content, end) = line.strip_suffix('\n').map_or((line, ""), |content| (content, "\n"));
        let indentation = content.len() - content.trim_start().len();
        let begins = content.contains("-----BEGIN") && content.contains("PRIVATE KEY");
        let ends = content.contains("-----END") && content.contains("PRIVATE KEY");
        above = above.filter(|above| content.trim().is_empty() || indentation > *above);
        if in_key || begins || (above.is_some() && !content.trim().is_empty()) {
            in_key = (in_key || begins) && !ends;
            masked.push_str(&content[..indentation]);
            masked.push_str(MASKED);
        } else if mask_line(content, &mut masked) {
            above = Some(indentation);
        }
        masked.push_str(end);
    }
    masked
}

/// What a word is made of; everything else separates words. A colon or an equals sign between two words ties them.
fn is_of_word(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '-' | '_' | '.' | '+' | '/' | '=' | '~')
}

/// What a secret is made of where it is no word in quotes.
fn is_of_secret(letter: char) -> bool {
    !letter.is_whitespace() && !matches!(letter, '"' | '\'' | ',' | '[' | ']' | '{' | '}' | '(' | ')')
}

/// Masks a line without its end, and tells whether the lines below that are indented further are a secret.
fn mask_line(line: &str, masked: &mut String) -> bool {
    let mut rest = line;
    // The value of a name for secrets is next.
    let mut secret_next = false;
    while !rest.is_empty() {
        let begins = |letter: char| if secret_next { is_of_secret(letter) } else { is_of_word(letter) };
        let (between, after) = rest.split_at(rest.find(begins).unwrap_or(rest.len()));
        masked.push_str(between);
        let (word, behind) = after.split_at(after.find(|letter: char| !is_of_word(letter)).unwrap_or(after.len()));
        let introduces = INTRODUCTIONS.contains(&word.to_lowercase().as_str());
        if secret_next && !introduces && !after.is_empty() {
            rest = without_value(after, masked);
            secret_next = false;
            continue;
        }
        // `--token=abc` is one word for people and two for us.
        let name = word.split_once('=').map_or(word, |(name, _)| name);
        let tie = behind.trim_start_matches(['"', '\'', ' ']).strip_prefix(':').filter(|_| name.len() == word.len());
        rest = behind;
        if is_secret_itself(word) {
            masked.push_str(MASKED);
        } else if !is_name(name) {
            masked.push_str(word);
            secret_next = introduces;
        } else if name.len() < word.len() {
            let (name, value) = after.split_at(name.len() + 1);
            masked.push_str(name);
            rest = without_value(value, masked);
        } else if let Some(value) = tie {
            let spaces = value.len() - value.trim_start().len();
            let (tied, value) = after.split_at(after.len() - value.len() + spaces);
            masked.push_str(tied);
            let plain = value.trim_end().trim_end_matches([',', '}', ']']).trim_end();
            rest = match value.chars().next() {
                // Names inside of it speak for themselves.
                _ if HARMLESS.contains(&plain) => value,
                Some('{' | '[') => value,
                Some('|' | '>') => {
                    masked.push_str(value);
                    return true;
                }
                Some('"' | '\'') => without_value(value, masked),
                // A plain text of YAML goes to the end of its line.
                _ => {
                    masked.push_str(MASKED);
                    ""
                }
            };
        } else {
            masked.push_str(word);
            secret_next = name.starts_with("--");
        }
    }
    false
}

/// Masks the value that a text begins with, in quotes or up to what ends a word, and returns the rest.
fn without_value<'a>(text: &'a str, masked: &mut String) -> &'a str {
    let Some(quote) = text.chars().next().filter(|letter| matches!(letter, '"' | '\'')) else {
        let (value, rest) = text.split_at(text.find(|letter: char| !is_of_secret(letter)).unwrap_or(text.len()));
        masked.push_str(if value.is_empty() { "" } else { MASKED });
        return rest;
    };
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, letter)| {
        let ends = *letter == quote && !escaped;
        escaped = *letter == '\\' && !escaped;
        ends
    });
    masked.push(quote);
    masked.push_str(MASKED);
    match end {
        Some((at, _)) => &text[at..],
        // It goes on in the next line; nothing of this one is shown.
        None => "",
    }
}

fn is_name(word: &str) -> bool {
    let plain: String = word.chars().filter(|letter| !matches!(letter, '-' | '_' | '.')).collect();
    let plain = plain.to_lowercase();
    NAMES.iter().any(|name| plain.ends_with(name)) || WHOLE_NAMES.contains(&plain.as_str())
}

/// Bootstrap tokens, signed tokens, and base64 with a private key in it.
fn is_secret_itself(word: &str) -> bool {
    is_bootstrap_token(word) || is_signed_token(word) || holds_a_key(word)
}

/// `abcdef.0123456789abcdef`
fn is_bootstrap_token(word: &str) -> bool {
    let small = |part: &str| part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    word.split_once('.').is_some_and(|(id, secret)| id.len() == 6 && secret.len() == 16 && small(id) && small(secret))
}

/// Three parts of base64, of which the first is the beginning of a JSON object.
fn is_signed_token(word: &str) -> bool {
    word.starts_with("eyJ") && word.len() >= SHORTEST_KEY && word.matches('.').count() == 2
}

fn holds_a_key(word: &str) -> bool {
    if word.len() < SHORTEST_KEY {
        return false;
    }
    let plain = word.trim_end_matches('=');
    let decoded = STANDARD_NO_PAD.decode(plain).or_else(|_| URL_SAFE_NO_PAD.decode(plain));
    decoded.is_ok_and(|content| content.windows(11).any(|part| part == b"PRIVATE KEY"))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use rstest::rstest;

    use super::mask;

    #[rstest]
    #[case("token: abcdef.0123456789abcdef\n", "token: ***\n")]
    #[case(
        "kubeadm join 10.0.0.1:6443 --token abcdef.0123456789abcdef -v 5",
        "kubeadm join 10.0.0.1:6443 --token *** -v 5"
    )]
    #[case("using abcdef.0123456789abcdef now", "using *** now")]
    #[case("--certificate-key 0123abcd --control-plane", "--certificate-key *** --control-plane")]
    #[case("--token=abc --v=2", "--token=*** --v=2")]
    #[case("--token a$b!c --v=2", "--token *** --v=2")]
    #[case(r#"["--token", "abc", "-v"]"#, r#"["--token", "***", "-v"]"#)]
    #[case(r#""password": "hunter2", "user": "ann""#, r#""password": "***", "user": "ann""#)]
    #[case(r#""password": "hun\"ter, 2""#, r#""password": "***""#)]
    #[case("password: hun ter$2, {x}", "password: ***")]
    #[case("{user: ann, password: hunter2}", "{user: ann, password: ***")]
    #[case("become_password: {file: x}", "become_password: {file: x}")]
    #[case("Authorization: Bearer abc.def", "Authorization: ***")]
    #[case("with Bearer abc.def now", "with Bearer *** now")]
    #[case("got eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl end", "got *** end")]
    #[case("DB_PASSWORD=x y", "DB_PASSWORD=*** y")]
    #[case("DB_PASSWORD='x y' z", "DB_PASSWORD='***' z")]
    #[case("    client-key-data: LS0tLS1C\n", "    client-key-data: ***\n")]
    #[case("certificateKey: 00ff", "certificateKey: ***")]
    #[case("auth: aGVsbG8=", "auth: ***")]
    #[case("é: ü, token: ü\n", "é: ü, token: ***\n")]
    // Of several lines.
    #[case("a:\n  token: |\n    abc\n\n    def\n  b: c\n", "a:\n  token: |\n    ***\n\n    ***\n  b: c\n")]
    // What is no secret stays: it is what the text is for.
    #[case("image sha256:2f3a0b registry.k8s.io/pause:3.10.2", "image sha256:2f3a0b registry.k8s.io/pause:3.10.2")]
    #[case("Secret bootstrap-token-abcdef created", "Secret bootstrap-token-abcdef created")]
    #[case(
        "--tls-private-key-file=/etc/kubernetes/pki/apiserver.key",
        "--tls-private-key-file=/etc/kubernetes/pki/apiserver.key"
    )]
    #[case("E1123 10:00:00.1 token expired", "E1123 10:00:00.1 token expired")]
    #[case("tokens:\n- token:\n  id: 7\n", "tokens:\n- token:\n  id: 7\n")]
    #[case("automountServiceAccountToken: false", "automountServiceAccountToken: false")]
    #[case("--client-cert-auth=true", "--client-cert-auth=true")]
    #[case("abcdef.0123456789abcdef0", "abcdef.0123456789abcdef0")]
    #[case("secretName: kubeadm-certs", "secretName: kubeadm-certs")]
    #[case("server: https://10.0.0.11:6443", "server: https://10.0.0.11:6443")]
    fn secrets_are_masked_and_nothing_else(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(mask(text), expected);
    }

    #[test]
    fn private_keys_are_masked_as_they_are_and_in_base64() {
        let key = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----\n";
        assert_eq!(mask(&format!("before\n{key}after\n")), "before\n***\n***\n***\nafter\n");
        let encoded = base64::engine::general_purpose::STANDARD.encode(key);
        assert_eq!(mask(&format!("data {encoded} end")), "data *** end");
        assert_eq!(mask(&format!("    client-key-data: {encoded}\n")), "    client-key-data: ***\n");
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        assert_eq!(mask(certificate), certificate);
    }
}
