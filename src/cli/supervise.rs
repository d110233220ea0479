//! Signals: the first asks the verb to finish the step in hand, the second ends the program.

use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cancel::Cancel;
use crate::failure::{Failure, Kind, Result};
use crate::ui::Screen;

/// Runs `work` to its end, or to the second signal, and returns the exit code.
pub async fn supervise(screen: &Screen, cancel: &Cancel, work: impl Future<Output = Result<ExitCode>>) -> ExitCode {
    let mut signals = match Signals::catch() {
        Ok(signals) => signals,
        Err(error) => {
            screen.failure(&Failure::new(Kind::Internal, "cannot watch for signals").because(&error));
            return ExitCode::from(Kind::Internal.exit_code());
        }
    };
    tokio::pin!(work);
    loop {
        tokio::select! {
            ended = &mut work => return conclude(screen, ended),
            () = signals.next() => {
                if cancel.requested() {
                    screen.stop("stopped at once; run the same command again to go on from here");
                    return ExitCode::from(Kind::Interrupted.exit_code());
                }
                cancel.request();
                screen.warn("interrupted: finishing the step in hand; once more stops at once");
            }
        }
    }
}

fn conclude(screen: &Screen, ended: Result<ExitCode>) -> ExitCode {
    ended.unwrap_or_else(|failure| {
        screen.failure(&failure);
        ExitCode::from(failure.kind.exit_code())
    })
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next of them.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
            _ = self.hangup.recv() => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;
    use crate::ui::Settings;

    fn code(code: u8) -> String {
        format!("{:?}", ExitCode::from(code))
    }

    /// Both in one test: signals reach the whole process.
    #[tokio::test]
    async fn the_first_signal_asks_and_the_second_ends() {
        let screen = Screen::new(Settings { quiet: true, ..Settings::default() });
        let cancel = Cancel::new();
        let asked = async {
            kill_process(getpid(), Signal::TERM).expect("a process can signal itself");
            cancel.cancelled().await;
            Err(Failure::new(Kind::Interrupted, "ended after the step in hand"))
        };
        assert_eq!(format!("{:?}", supervise(&screen, &cancel, asked).await), code(130));

        let cancel = Cancel::new();
        let stubborn = async {
            kill_process(getpid(), Signal::INT).expect("a process can signal itself");
            cancel.cancelled().await;
            kill_process(getpid(), Signal::INT).expect("a process can signal itself");
            std::future::pending().await
        };
        assert_eq!(format!("{:?}", supervise(&screen, &cancel, stubborn).await), code(130));

        let cancel = Cancel::new();
        let failing = async { Err(Failure::new(Kind::Bundle, "the bundle is damaged")) };
        assert_eq!(format!("{:?}", supervise(&screen, &cancel, failing).await), code(9));
    }
}
