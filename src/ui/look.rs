//! What the terminal can show, decided once from settings and environment.

use std::io::IsTerminal;

use super::{Color, Output, Settings};

/// What is known of the surroundings: which streams are terminals, and the variables that matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Standard output is a terminal.
    pub stdout_terminal: bool,
    /// Standard error is a terminal.
    pub stderr_terminal: bool,
    /// `TERM`.
    pub term: Option<String>,
    /// `NO_COLOR` is set and not empty (no-color.org).
    pub no_color: bool,
    /// The locale of characters: the first of `LC_ALL`, `LC_CTYPE`, `LANG` that is not empty (POSIX, section 8.2).
    pub locale: Option<String>,
}

impl Surroundings {
    /// Observes this process.
    pub fn observe() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            stdout_terminal: std::io::stdout().is_terminal(),
            stderr_terminal: std::io::stderr().is_terminal(),
            term: variable("TERM"),
            no_color: variable("NO_COLOR").is_some(),
            locale: variable("LC_ALL").or_else(|| variable("LC_CTYPE")).or_else(|| variable("LANG")),
        }
    }
}

/// How things are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Lines that move: one per host, redrawn in place.
    pub live: bool,
    /// Colours on standard error.
    pub color: bool,
    /// Characters beyond ASCII in what we draw.
    pub unicode: bool,
}

impl Look {
    /// Decides. A terminal without `TERM` or with `TERM=dumb` cannot move its cursor, so it gets plain lines.
    pub fn decide(settings: &Settings, surroundings: &Surroundings) -> Self {
        let dumb = surroundings.term.as_deref().is_none_or(|term| term == "dumb");
        let unicode = surroundings.locale.as_deref().is_some_and(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        let human = settings.output == Output::Human;
        let color = match settings.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => surroundings.stderr_terminal && !surroundings.no_color && !dumb,
        };
        Self {
            live: human && surroundings.stderr_terminal && !dumb && !settings.quiet,
            color: human && color,
            unicode: unicode && !dumb,
        }
    }

    /// Paints a text that is clean and measured already.
    pub fn paint(self, paint: Paint, text: &str) -> String {
        self::paint(self.color, paint, text)
    }
}

/// What a colour means. Never alone: a word always says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// As it is.
    Plain,
    /// Went well.
    Good,
    /// Went wrong.
    Bad,
    /// Worth a look.
    Attention,
    /// Under way.
    Active,
    /// A heading or a name.
    Strong,
    /// Of less weight.
    Faint,
}

/// The text in a colour, or as it is.
pub fn paint(color: bool, paint: Paint, text: &str) -> String {
    let code = match paint {
        _ if !color || text.is_empty() => return text.to_owned(),
        Paint::Plain => return text.to_owned(),
        Paint::Good => "32",
        Paint::Bad => "1;31",
        Paint::Attention => "33",
        Paint::Active => "36",
        Paint::Strong => "1",
        Paint::Faint => "2",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn terminal() -> Surroundings {
        Surroundings {
            stdout_terminal: true,
            stderr_terminal: true,
            term: Some("xterm-256color".to_owned()),
            no_color: false,
            locale: Some("en_GB.UTF-8".to_owned()),
        }
    }

    #[rstest]
    #[case::terminal(Settings::default(), terminal(), (true, true, true))]
    #[case::no_color(Settings::default(), Surroundings { no_color: true, ..terminal() }, (true, false, true))]
    #[case::asked_for(Settings { color: Color::Always, ..Settings::default() },
        Surroundings { no_color: true, ..terminal() }, (true, true, true))]
    #[case::refused(Settings { color: Color::Never, ..Settings::default() }, terminal(), (true, false, true))]
    #[case::dumb(Settings::default(), Surroundings { term: Some("dumb".to_owned()), ..terminal() }, (false, false, false))]
    #[case::without_term(Settings::default(), Surroundings { term: None, ..terminal() }, (false, false, false))]
    #[case::pipe(Settings::default(), Surroundings { stderr_terminal: false, ..terminal() }, (false, false, true))]
    #[case::ascii(Settings::default(), Surroundings { locale: Some("C".to_owned()), ..terminal() }, (true, true, false))]
    #[case::without_locale(Settings::default(), Surroundings { locale: None, ..terminal() }, (true, true, false))]
    #[case::quiet(Settings { quiet: true, ..Settings::default() }, terminal(), (false, true, true))]
    #[case::json(Settings { output: Output::Json, ..Settings::default() }, terminal(), (false, false, true))]
    fn what_is_shown_depends_on_terminal_and_settings(
        #[case] settings: Settings,
        #[case] surroundings: Surroundings,
        #[case] (live, color, unicode): (bool, bool, bool),
    ) {
        assert_eq!(Look::decide(&settings, &surroundings), Look { live, color, unicode });
    }
}
