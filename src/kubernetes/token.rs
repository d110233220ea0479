//! Bootstrap tokens: `<id>.<secret>` (kubeadm.md section 8.1).

use aws_lc_rs::rand;

use crate::failure::{Failure, Kind, Result};
use crate::secret::Secret;

/// A bootstrap token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The public part, 6 characters.
    pub id: String,
    /// The secret part, 16 characters.
    pub secret: Secret,
}

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

impl Token {
    /// A new token from the system's random bytes.
    ///
    /// # Errors
    /// [`Kind::Internal`] if the system gives none.
    pub fn generate() -> Result<Self> {
        let characters = random_characters(22)?;
        let (id, secret) = characters.split_at(6);
        Ok(Self { id: id.to_owned(), secret: Secret::new(secret) })
    }

    /// Reads `<id>.<secret>`.
    ///
    /// # Errors
    /// [`Kind::Configuration`]; the text itself is not repeated, because it may be a mistyped secret.
    pub fn parse(text: &str) -> Result<Self> {
        let fits = |part: &str, length: usize| part.len() == length && part.bytes().all(|one| ALPHABET.contains(&one));
        match text.split_once('.') {
            Some((id, secret)) if fits(id, 6) && fits(secret, 16) => {
                Ok(Self { id: id.to_owned(), secret: Secret::new(secret) })
            }
            _ => Err(Failure::new(
                Kind::Configuration,
                "the bootstrap token is not 6 and 16 characters of a-z and 0-9 with a dot between",
            )),
        }
    }

    /// `<id>.<secret>`.
    pub fn text(&self) -> Secret {
        Secret::new(format!("{}.{}", self.id, self.secret.expose()))
    }

    /// Name of its Secret in kube-system.
    pub fn secret_name(&self) -> String {
        format!("bootstrap-token-{}", self.id)
    }
}

/// `count` characters of [`ALPHABET`], each equally likely: bytes that would favour the first characters are dropped.
fn random_characters(count: usize) -> Result<String> {
    let mut text = String::with_capacity(count);
    while text.len() < count {
        let mut bytes = [0_u8; 64];
        rand::fill(&mut bytes).map_err(|_| Failure::new(Kind::Internal, "the system gives no random bytes"))?;
        for byte in bytes.into_iter().filter(|byte| *byte < 252) {
            if text.len() < count {
                text.push(char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
            }
        }
    }
    Ok(text)
}

/// A key for the uploaded certificates: 32 random bytes as hex (kubeadm.md section 7.3).
///
/// # Errors
/// [`Kind::Internal`] if the system gives no random bytes.
pub fn generate_certificate_key() -> Result<Secret> {
    let mut bytes = [0_u8; 32];
    rand::fill(&mut bytes).map_err(|_| Failure::new(Kind::Internal, "the system gives no random bytes"))?;
    Ok(Secret::new(hex(&bytes)))
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::Token;

    #[test]
    fn a_new_token_is_one_that_can_be_read() {
        let token = Token::generate().unwrap();
        assert_eq!(Token::parse(token.text().expose()).unwrap(), token);
        assert_ne!(token, Token::generate().unwrap());
    }

    #[rstest]
    #[case("abcdef.0123456789abcde")]
    #[case("ABCDEF.0123456789abcdef")]
    #[case("abcdef0123456789abcdef")]
    #[case("")]
    fn other_texts_are_refused_and_not_repeated(#[case] text: &str) {
        let failure = Token::parse(text).unwrap_err();
        assert!(text.is_empty() || !failure.to_string().contains(text));
    }
}
