//! Signatures of cluster-info: detached JWS, HS256 (kubeadm.md section 8.3).

use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::token::Token;

/// The signature of `content` with `token`, as it stands under `jws-kubeconfig-<token id>`.
pub fn sign(content: &str, token: &Token) -> String {
    // The verifier of upstream compares the whole text, so these bytes are part of the format.
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{}"}}"#, token.id));
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.secret.expose().as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes())))
}

/// Whether `signature` is the signature of `content` with `token`; takes the same time wherever they differ.
pub fn verify(content: &str, token: &Token, signature: &str) -> bool {
    constant_time::verify_slices_are_equal(sign(content, token).as_bytes(), signature.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Token, sign, verify};
    use crate::secret::Secret;

    #[rstest]
    #[case(
        "Hello from the other side. I must have called a thousand times.",
        "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8"
    )]
    #[case("", "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..7Ui1ALizW4jXphVUB7xUqC9vLYLL9RZeOFfVLoB7Tgk")]
    fn upstream_vectors(#[case] content: &str, #[case] signature: &str) {
        let token = Token { id: "joshua".into(), secret: Secret::new("my voice is my passcode") };
        assert_eq!(sign(content, &token), signature);
        assert!(verify(content, &token, signature));
        assert!(!verify(&format!("{content}!"), &token, signature));
    }
}
