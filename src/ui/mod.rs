//! The only consumer of events and the only printer: stdout is data, stderr is talk.
//!
//! [`Screen`] is where things are shown. [`Screen::start`] follows a run's events: as lines that move on a terminal
//! ([`lines`]), as plain lines without one ([`plain`]), or as JSON lines ([`json`]). What a screen shows is a pure
//! function of [`Run`], the state gathered from the events. Texts of hosts are untrusted and pass [`text::clean`].

pub mod display;
pub mod experience;
pub mod failure;
pub mod json;
pub mod keyboard;
pub mod lines;
pub mod look;
pub mod outputs;
pub mod plain;
pub mod plan;
pub mod prompt;
#[cfg(test)]
pub(crate) mod rehearsal;
pub mod run;
pub mod schema;
pub mod screen;
pub mod summary;
pub mod table;
pub mod text;

pub use display::Display;
pub use failure::{failure, failures};
pub use look::Look;
pub use outputs::{Arrangement, Outputs};
pub use plan::plan;
pub use prompt::Prompts;
pub use run::Run;
pub use screen::Screen;
pub use summary::{Summary, SummaryHost, summary};
pub use table::table;

/// What a person asked of the screen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// For whom.
    pub output: Output,
    /// Colours.
    pub color: Color,
    /// Nothing but warnings and failures.
    pub quiet: bool,
    /// Every change, every beginning of a step.
    pub verbose: bool,
}

/// For whom output is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Text for a person.
    #[default]
    Human,
    /// One JSON object a line, on standard output
    Json,
}

/// Whether colours are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}
