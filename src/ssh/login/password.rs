//! Offering the password, plainly or as an answer to the host's questions.

use russh::MethodKind;
use russh::client::{AuthResult, KeyboardInteractiveAuthResponse};

use crate::secret::Secret;

use super::{Answer, End, Login, printable};

/// Rounds of questions in one keyboard-interactive login.
const ROUNDS: usize = 8;
/// Questions in one round.
const QUESTIONS: usize = 16;

impl Login<'_> {
    /// The login password: known, or asked for.
    fn password(&mut self) -> Option<Secret> {
        let known = self.target.password.clone();
        let (user, host) = (&self.target.user, &self.target.name);
        known.or_else(|| self.ask(|prompts| prompts.password(user, host)))
    }

    pub(super) async fn offer_password(&mut self) -> Result<Answer, End> {
        if !self.allows(MethodKind::Password) {
            return Ok(Answer::No);
        }
        let Some(password) = self.password() else { return Ok(Answer::No) };
        let offering = self.handle.authenticate_password(self.target.user.as_str(), password.expose());
        let answered = self.deadline.within(offering).await;
        self.note(answered, Some("password")).await
    }

    /// Answers the host's questions: the first hidden one with the password, unless its words say that it wants something
    /// else; the others are put to a person.
    pub(super) async fn offer_interactively(&mut self) -> Result<Answer, End> {
        if !self.allows(MethodKind::KeyboardInteractive) {
            return Ok(Answer::No);
        }
        let user = self.target.user.as_str();
        let starting = self.handle.authenticate_keyboard_interactive_start(user, None::<String>);
        let mut response = self.deadline.within(starting).await.ok_or(End::Late)?.map_err(|_| End::Lost)?;
        let (mut given, mut asked) = (false, 0);
        for _ in 0..ROUNDS {
            let questions = match response {
                KeyboardInteractiveAuthResponse::Success => return Ok(Answer::In),
                KeyboardInteractiveAuthResponse::Failure { remaining_methods, partial_success } => {
                    let result = AuthResult::Failure { remaining_methods, partial_success };
                    self.password_refused = given && asked == 1 && !partial_success;
                    let what = if given { "password (keyboard-interactive)" } else { "keyboard-interactive" };
                    return self.note(Some(Ok(result)), Some(what)).await;
                }
                KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => prompts,
            };
            asked += questions.len();
            let mut answers = Vec::with_capacity(questions.len());
            for question in questions.iter().take(QUESTIONS) {
                let text = printable(question.prompt.trim().trim_end_matches(':'));
                let answer = if !question.echo && !given && !wants_code(&text) {
                    given = true;
                    self.password()
                } else {
                    let (user, host) = (&self.target.user, &self.target.name);
                    self.ask(|prompts| prompts.answer(user, host, &text))
                };
                match answer {
                    Some(answer) => answers.push(answer.expose().to_owned()),
                    None => {
                        self.attempts.tried.push(format!("keyboard-interactive: no answer to \"{text}\""));
                        return Ok(Answer::No);
                    }
                }
            }
            let answering = self.handle.authenticate_keyboard_interactive_respond(answers);
            response = self.deadline.within(answering).await.ok_or(End::Late)?.map_err(|_| End::Lost)?;
        }
        self.attempts.tried.push("password (keyboard-interactive): the host does not stop asking".to_owned());
        Ok(Answer::No)
    }
}

/// Whether the words of a question ask for something else than the password.
fn wants_code(question: &str) -> bool {
    let question = question.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| question.contains(word));
    has(&["one-time", "otp", "oath"])
        || !question.contains("password") && has(&["code", "token", "verification", "factor"])
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::wants_code;

    #[rstest]
    #[case("Password", false)]
    #[case("ops@web1's password", false)]
    #[case("Verification code", true)]
    #[case("One-time password (OATH) for `ops'", true)]
    #[case("Enter PASSCODE", true)]
    #[case("Duo two-factor login", true)]
    fn questions_are_told_apart(#[case] question: &str, #[case] is_code: bool) {
        assert_eq!(wants_code(question), is_code);
    }
}
