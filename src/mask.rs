//! Taking secrets out of texts that a person will pass on: logs, listings, configurations. Pure.
//!
//! Works on any text, line by line: rather a harmless word too many is masked than a key too few.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// What stands in place of a secret.
pub const MASKED: &str = "***";

/// Names behind which a secret stands, as they end, in small letters and without `-` and `_`.
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

/// Words before a secret that is a word of its own: `Bearer eyJ...`.
const INTRODUCTIONS: &[&str] = &["bearer", "basic"];

/// Base64 of at least this length is looked into for a key.
const SHORTEST_KEY: usize = 40;

/// The text without private keys, tokens, passwords and what follows their names.
pub fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut inside_key = false;
    for line in text.split_inclusive('\n') {
        let begins = line.contains("-----BEGIN") && line.contains("PRIVATE KEY");
        let ends = line.contains("-----END") && line.contains("PRIVATE KEY");
        if inside_key || begins {
            if begins {
                masked.push_str(MASKED);
                masked.push('\n');
            }
            inside_key = !ends;
            continue;
        }
        mask_line(line, &mut masked);
    }
    masked
}

/// What a word is made of; everything else separates words. A colon or an equals sign between two words ties them.
fn is_of_word(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '-' | '_' | '.' | '+' | '/' | '=' | '~')
}

fn mask_line(line: &str, masked: &mut String) {
    let mut rest = line;
    // The value of a name for secrets is next.
    let mut secret_next = false;
    while !rest.is_empty() {
        let gap = rest.find(is_of_word).unwrap_or(rest.len());
        let (between, after) = rest.split_at(gap);
        masked.push_str(between);
        let length = after.find(|letter: char| !is_of_word(letter)).unwrap_or(after.len());
        let (word, after) = after.split_at(length);
        // `--token=abc` is one word for people and two for us.
        let (name, value) = word.split_once('=').filter(|(name, _)| !name.is_empty()).unwrap_or((word, ""));
        let tied = after.trim_start_matches(['"', '\'']).starts_with(':') || name.starts_with("--");
        if secret_next && !word.is_empty() && !INTRODUCTIONS.contains(&word.to_lowercase().as_str()) {
            masked.push_str(MASKED);
            secret_next = false;
        } else if is_secret_itself(word) {
            masked.push_str(MASKED);
        } else if is_name(name) && !value.is_empty() {
            masked.push_str(&format!("{name}={MASKED}"));
        } else {
            masked.push_str(word);
            let introduces = INTRODUCTIONS.contains(&word.to_lowercase().as_str());
            secret_next = introduces || secret_next || (tied && is_name(name) && !after.trim().is_empty());
        }
        rest = after;
    }
}

fn is_name(word: &str) -> bool {
    let plain: String = word.chars().filter(|letter| !matches!(letter, '-' | '_' | '.')).collect();
    let plain = plain.to_lowercase();
    NAMES.iter().any(|name| plain.ends_with(name))
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
    #[case(r#""password": "hunter2", "user": "ann""#, r#""password": "***", "user": "ann""#)]
    #[case("become_password: {file: x}", "become_password: {***: x}")]
    #[case("Authorization: Bearer abc.def", "Authorization: Bearer ***")]
    #[case("got eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl end", "got *** end")]
    #[case("DB_PASSWORD=x y", "DB_PASSWORD=*** y")]
    // What is no secret stays: it is what the report is for.
    #[case("image sha256:2f3a0b registry.k8s.io/pause:3.10.2", "image sha256:2f3a0b registry.k8s.io/pause:3.10.2")]
    #[case("Secret bootstrap-token-abcdef created", "Secret bootstrap-token-abcdef created")]
    #[case(
        "--tls-private-key-file=/etc/kubernetes/pki/apiserver.key",
        "--tls-private-key-file=/etc/kubernetes/pki/apiserver.key"
    )]
    #[case("E1123 10:00:00.1 token expired", "E1123 10:00:00.1 token expired")]
    fn secrets_are_masked_and_nothing_else(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(mask(text), expected);
    }

    #[test]
    fn private_keys_are_masked_as_they_are_and_in_base64() {
        let key = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----\n";
        assert_eq!(mask(&format!("before\n{key}after\n")), "before\n***\nafter\n");
        let encoded = base64::engine::general_purpose::STANDARD.encode(key);
        assert_eq!(mask(&format!("data {encoded} end")), "data *** end");
        assert_eq!(mask(&format!("    client-key-data: {encoded}\n")), "    client-key-data: ***\n");
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        assert_eq!(mask(certificate), certificate);
    }
}
