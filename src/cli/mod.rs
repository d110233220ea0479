//! What was typed becomes settings; one short file per verb.

use std::process::ExitCode;

/// The program: parses what was typed, runs the verb, returns its exit code.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
