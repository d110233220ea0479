//! The terminal handed over to a host: every key as it is, and what the host prints as it is.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rustix::termios::{OptionalActions, SpecialCodeIndex, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

use super::screen::Screen;

/// The person's terminal while a host has it. Dropping it gives the terminal back.
pub struct Keyboard {
    screen: Screen,
    ended: Arc<AtomicBool>,
    /// What is typed.
    pub keys: mpsc::Receiver<Bytes>,
}

/// What a typed piece asks of us, after the fashion of `ssh`: a line that is `~.` ends the connection.
#[derive(Debug, Default)]
pub struct Escape {
    state: At,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    #[default]
    LineStart,
    Tilde,
    Within,
}

impl Escape {
    /// What of the typed bytes the host is to get; `None` for the end.
    pub fn pass(&mut self, typed: &[u8]) -> Option<Bytes> {
        let mut passed = Vec::with_capacity(typed.len() + 1);
        for &byte in typed {
            match (self.state, byte) {
                (At::LineStart, b'~') => {
                    self.state = At::Tilde;
                    continue;
                }
                (At::Tilde, b'.') => return None,
                // Twice for one of them.
                (At::Tilde, b'~') => {}
                (At::Tilde, _) => passed.push(b'~'),
                _ => {}
            }
            passed.push(byte);
            self.state = if matches!(byte, b'\r' | b'\n') { At::LineStart } else { At::Within };
        }
        Some(Bytes::from(passed))
    }
}

impl Screen {
    /// Hands the terminal over; `None` where there is none. Must be called inside of a runtime.
    pub fn hand_over(&self) -> Option<Keyboard> {
        let mut terminal = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
        let before = tcgetattr(&terminal).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        // A read returns after a fifth of a second even without a key, to see whether it is over.
        raw.special_codes[SpecialCodeIndex::VMIN] = 0;
        raw.special_codes[SpecialCodeIndex::VTIME] = 2;
        self.begin_question(terminal.try_clone().ok()?, before);
        if tcsetattr(&terminal, OptionalActions::Flush, &raw).is_err() {
            self.restore();
            return None;
        }
        let ended = Arc::new(AtomicBool::new(false));
        let (sender, keys) = mpsc::channel(16);
        let seen = Arc::clone(&ended);
        tokio::task::spawn_blocking(move || {
            let mut piece = [0; 4096];
            while !seen.load(Ordering::Acquire) {
                match terminal.read(&mut piece) {
                    Ok(0) => {}
                    Ok(length) if sender.blocking_send(Bytes::copy_from_slice(&piece[..length])).is_ok() => {}
                    Ok(_) | Err(_) => return,
                }
            }
        });
        Some(Keyboard { screen: self.clone(), ended, keys })
    }

    /// Columns and rows of the terminal.
    pub fn terminal_size(&self) -> (u32, u32) {
        let size = tcgetwinsize(std::io::stdin()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()))
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.screen.restore();
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::Escape;

    #[rstest]
    #[case(&["ls ~\r"], Some("ls ~\r"))]
    #[case(&["~/bin/x\r"], Some("~/bin/x\r"))]
    #[case(&["~", "/x"], Some("~/x"))]
    #[case(&["~~.\r"], Some("~.\r"))]
    #[case(&["a~.\r"], Some("a~.\r"))]
    #[case(&["a\r~", "."], None)]
    #[case(&["~."], None)]
    fn a_line_of_tilde_and_dot_ends_it(#[case] typed: &[&str], #[case] expected: Option<&str>) {
        let mut escape = Escape::default();
        let passed: Option<Vec<_>> = typed.iter().map(|piece| escape.pass(piece.as_bytes())).collect();
        assert_eq!(passed.map(|pieces| pieces.concat()), expected.map(|text| text.as_bytes().to_vec()));
    }
}
