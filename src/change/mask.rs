//! Texts without what is secret in them. Pure.

/// What stands in place of a secret.
const HIDDEN: &str = "***";

/// Keys of YAML and JSON whose value nobody may see; compared in lower case, without `-`, `_` and blanks.
const SECRET_KEYS: &[&str] = &[
    "auth",
    "certificatekey",
    "clientkeydata",
    "clientsecret",
    "idtoken",
    "password",
    "refreshtoken",
    "secret",
    "tlsbootstraptoken",
    "token",
    "tokensecret",
];

/// The text with private keys, tokens, passwords and what looks like them replaced. Lines stay lines.
pub fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        let (content, end) = line.strip_suffix('\n').map_or((line, ""), |content| (content, "\n"));
        let begins = content.contains("-----BEGIN ") && content.contains("PRIVATE KEY-----");
        if in_key || begins {
            in_key = !(content.contains("-----END ") && content.contains("PRIVATE KEY-----"));
            let indentation = content.len() - content.trim_start().len();
            masked.push_str(&content[..indentation]);
            masked.push_str(HIDDEN);
        } else {
            masked.push_str(&without_tokens(&without_value(content)));
        }
        masked.push_str(end);
    }
    masked
}

/// A line `key: value` without the value, if the key names a secret.
fn without_value(line: &str) -> String {
    for (colon, _) in line.match_indices(':') {
        let before = line[..colon].trim_end_matches(['"', '\'', ' ']);
        let word = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-');
        let key: String = before[before.trim_end_matches(word).len()..]
            .chars()
            .filter(|letter| letter.is_alphanumeric())
            .collect::<String>()
            .to_lowercase();
        let value = line[colon + 1..].trim();
        // A mapping or a list follows in other lines, and has keys of its own.
        if !SECRET_KEYS.contains(&key.as_str()) || matches!(value, "" | "{" | "[" | "null" | "{}" | "\"\"") {
            continue;
        }
        let space = if line[colon + 1..].starts_with(' ') { " " } else { "" };
        return format!("{}:{space}{HIDDEN}", &line[..colon]);
    }
    line.to_owned()
}

/// A line in which the secret half of every bootstrap token is hidden: `abcdef.***`.
fn without_tokens(line: &str) -> String {
    const ID: usize = 6;
    const SECRET: usize = 16;
    let is_part = |part: &[u8]| part.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = line.as_bytes();
    let mut shown = String::with_capacity(line.len());
    let mut from = 0;
    for (dot, _) in line.match_indices('.') {
        let (Some(begin), end) = (dot.checked_sub(ID), dot + 1 + SECRET) else { continue };
        if begin < from || end > bytes.len() || !is_part(&bytes[begin..dot]) || !is_part(&bytes[dot + 1..end]) {
            continue;
        }
        // A longer word is no token.
        let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'.');
        if is_word(bytes.get(end)) || is_word(begin.checked_sub(1).and_then(|before| bytes.get(before))) {
            continue;
        }
        shown.push_str(&line[from..=dot]);
        shown.push_str(HIDDEN);
        from = end;
    }
    shown.push_str(&line[from..]);
    shown
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::mask;

    #[rstest]
    #[case("    client-key-data: LS0tLS1C\n", "    client-key-data: ***\n")]
    #[case("\"password\": \"hunter2\",", "\"password\": ***")]
    #[case("{user: ann, password: hunter2}", "{user: ann, password: ***")]
    #[case("token: abcdef.0123456789abcdef", "token: ***")]
    #[case("certificateKey: 00ff", "certificateKey: ***")]
    #[case("tokens:\n- token:\n", "tokens:\n- token:\n")]
    #[case("--token abcdef.0123456789abcdef --x", "--token abcdef.*** --x")]
    #[case("image: registry.k8s.io/pause:3.10", "image: registry.k8s.io/pause:3.10")]
    #[case("abcdef.0123456789abcdef0", "abcdef.0123456789abcdef0")]
    #[case("secretName: kubeadm-certs", "secretName: kubeadm-certs")]
    #[case("server: https://10.0.0.11:6443", "server: https://10.0.0.11:6443")]
    #[case("é: ü\n", "é: ü\n")]
    fn what_is_secret_is_hidden(#[case] text: &str, #[case] masked: &str) {
        assert_eq!(mask(text), masked);
    }

    #[test]
    fn private_keys_are_hidden_line_by_line() {
        let text = "a\n  -----BEGIN RSA PRIVATE KEY-----\n  MIIE\n  -----END RSA PRIVATE KEY-----\n\
                    -----BEGIN CERTIFICATE-----\nMIID\n";
        assert_eq!(mask(text), "a\n  ***\n  ***\n  ***\n-----BEGIN CERTIFICATE-----\nMIID\n");
    }
}
