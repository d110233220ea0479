//! The moving part of a screen: a header, one line per host, a line for the whole. A pure function of the run.

use std::time::Duration;

use super::look::{Look, Paint};
use super::run::{Counts, Lane, Open, Progress, Run, State};
use super::text::{bytes, clean, count, fit, pad, pad_left, stopwatch, width};
use crate::event::Unit;

/// Room for the time at the right end of a line: `1:02:07`.
const TIME_COLUMNS: usize = 7;

/// The lines, each of at most `columns` columns, and no more than `rows` of them.
pub fn lines(run: &Run, at: Duration, look: Look, columns: usize, rows: usize) -> Vec<String> {
    let counts = run.counts();
    let room = rows.saturating_sub(3).max(1);
    let (shown, hidden) = choose(&run.hosts, room);
    let names = shown.iter().map(|lane| width(&clean(&lane.name))).max().unwrap_or(0).clamp(3, (columns / 3).max(3));
    let titles = shown.iter().filter_map(|lane| lane.shown()).map(|step| width(&clean(&step.title))).max().unwrap_or(0);
    let frame = Frame { at, look, columns, names, titles };
    if run.hosts.is_empty() {
        // Work on this machine alone: a bundle.
        return run.whole.shown().map(|step| frame.working(step, columns)).into_iter().collect();
    }
    let mut lines = vec![frame.header(run)];
    lines.extend(shown.iter().map(|lane| frame.host(lane)));
    if !hidden.is_empty() {
        lines.push(frame.rest(&hidden));
    }
    lines.push(frame.whole(run, counts));
    lines
}

/// All hosts where they have room; else those at work, then those that failed, then the others, and what has no room.
fn choose(hosts: &[Lane], room: usize) -> (Vec<&Lane>, Vec<&Lane>) {
    if hosts.len() <= room {
        return (hosts.iter().collect(), Vec::new());
    }
    let room = room.saturating_sub(1); // the line about the rest
    let mut order: Vec<usize> = (0..hosts.len()).collect();
    order.sort_by_key(|index| match hosts[*index].state {
        State::Working => 0,
        State::Failed(_) => 1,
        State::Waiting | State::Finished(_) => 2,
    });
    let work = |index: &&usize| matches!(hosts[**index].state, State::Working | State::Failed(_));
    let mut shown: Vec<usize> = order.iter().filter(work).take(room).copied().collect();
    shown.sort_unstable();
    let hidden = (0..hosts.len()).filter(|index| !shown.contains(index)).map(|index| &hosts[index]).collect();
    (shown.into_iter().map(|index| &hosts[index]).collect(), hidden)
}

struct Frame {
    at: Duration,
    look: Look,
    columns: usize,
    names: usize,
    titles: usize,
}

impl Frame {
    fn header(&self, run: &Run) -> String {
        let title =
            if run.verb.is_empty() { "clusterctl".to_owned() } else { format!("clusterctl {}", clean(&run.verb)) };
        let mut rest =
            if run.cluster.is_empty() { String::new() } else { format!("  cluster {}", clean(&run.cluster)) };
        if let Some(left) = run.experience.left(run, self.at).filter(|left| *left >= Duration::from_secs(1)) {
            rest.push_str(&format!("  about {} left", stopwatch(left)));
        }
        let rest = fit(&rest, self.columns.saturating_sub(width(&title)));
        format!("{}{rest}", self.look.paint(Paint::Strong, &fit(&title, self.columns)))
    }

    fn host(&self, lane: &Lane) -> String {
        let name = pad(&fit(&clean(&lane.name), self.names), self.names);
        let room = self.columns.saturating_sub(self.names + 2);
        let body = match &lane.state {
            State::Waiting => self.ended("-", "waiting", Paint::Faint, None, room),
            State::Finished(state) => self.ended("+", &clean(state), Paint::Good, Some(lane.took(self.at)), room),
            State::Failed(sentence) => {
                let sentence = format!("failed: {}", clean(sentence));
                self.ended("x", &sentence, Paint::Bad, Some(lane.took(self.at)), room)
            }
            State::Working => match lane.shown() {
                Some(step) => self.working(step, room),
                None => self.ended("-", "waiting", Paint::Faint, Some(lane.took(self.at)), room),
            },
        };
        format!("{}  {body}", self.look.paint(Paint::Strong, &name))
    }

    /// A line without movement: mark, words, time.
    fn ended(&self, mark: &str, words: &str, paint: Paint, took: Option<Duration>, room: usize) -> String {
        let mark = match (mark, self.look.unicode) {
            ("+", true) => "✔",
            ("x", true) => "✘",
            ("-", true) => "·",
            ("-", false) => ".",
            (plain, _) => plain,
        };
        let time_columns = if took.is_some() { TIME_COLUMNS + 1 } else { 0 };
        let words = fit(&format!("{mark} {words}"), room.saturating_sub(time_columns).max(10).min(room));
        self.with_time(self.look.paint(paint, &words), width(&words), took, room)
    }

    fn working(&self, step: &Open, room: usize) -> String {
        let took = self.at.saturating_sub(step.began);
        let inner = room.saturating_sub(TIME_COLUMNS + 1);
        let title = fit(&clean(&step.title), inner.saturating_sub(2));
        let mark = self.look.paint(Paint::Active, self.spinner());
        let Some(progress) = &step.progress else {
            return self.with_time(format!("{mark} {title}"), width(&title) + 2, Some(took), room);
        };
        let title = pad(&title, self.titles.min(inner.saturating_sub(7)));
        let mut taken = width(&title) + 2;
        let mut parts = Vec::new();
        for part in self.parts(progress) {
            let size = width(&part) + 2;
            if taken + size <= inner {
                taken += size;
                parts.push(part);
            }
        }
        // The bar takes what is left, but stands before the numbers.
        let bar = match inner.saturating_sub(taken + 2) {
            room if room >= 6 => format!("  {}", self.bar(progress.part(), room.min(24))),
            _ => String::new(),
        };
        let bar_columns = if bar.is_empty() { 0 } else { 2 + (inner - taken - 2).min(24) };
        let item = progress.item.as_deref().map(clean).unwrap_or_default();
        let item_room = inner.saturating_sub(taken + bar_columns + 2);
        let item =
            if item_room >= 10 && !item.is_empty() { format!("  {}", fit(&item, item_room)) } else { String::new() };
        let numbers: String = parts.iter().map(|part| format!("  {part}")).collect();
        let text = format!("{mark} {title}{bar}{numbers}{}", self.look.paint(Paint::Faint, &item));
        self.with_time(text, taken + bar_columns + width(&item), Some(took), room)
    }

    /// What is worth saying of progress, the most useful first; padded where it would jump.
    fn parts(&self, progress: &Progress) -> Vec<String> {
        let percent = format!("{:3.0} %", (progress.part() * 100.0).floor());
        let amount = match progress.unit {
            Unit::Bytes => pad_left(&format!("{} of {}", bytes(progress.done), bytes(progress.total)), 19),
            Unit::Items => format!("{} of {}", progress.done, progress.total),
        };
        let rate = progress.rate(self.at).filter(|_| progress.unit == Unit::Bytes);
        let rate = rate.map(|rate| pad_left(&format!("{}/s", bytes(rate as u64)), 9));
        let left = progress.left(self.at).filter(|_| progress.done < progress.total);
        let left = left.map(|left| format!("{} left", pad_left(&stopwatch(left + Duration::from_secs(1)), 4)));
        [Some(percent), left, rate, Some(amount)].into_iter().flatten().collect()
    }

    fn bar(&self, part: f64, columns: usize) -> String {
        let (full, empty) = if self.look.unicode { ("━", "─") } else { ("#", "-") };
        let filled = ((part * columns as f64).floor() as usize).min(columns);
        let done = self.look.paint(Paint::Active, &full.repeat(filled));
        let rest = self.look.paint(Paint::Faint, &empty.repeat(columns - filled));
        format!("{done}{rest}")
    }

    fn spinner(&self) -> &'static str {
        let frames: &[&str] = if self.look.unicode {
            &["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"]
        } else {
            &["|", "/", "-", "\\"]
        };
        let turn = usize::try_from(self.at.as_millis() / 120).unwrap_or(0);
        frames[turn % frames.len()]
    }

    fn with_time(&self, text: String, size: usize, took: Option<Duration>, room: usize) -> String {
        let Some(took) = took else { return text };
        let took = stopwatch(took);
        let blanks = room.saturating_sub(size + width(&took));
        if blanks == 0 {
            return text;
        }
        format!("{text}{}{}", " ".repeat(blanks), self.look.paint(Paint::Faint, &took))
    }

    /// `... 280 more hosts: 200 done, 80 waiting`
    fn rest(&self, hidden: &[&Lane]) -> String {
        let counted = |word: &str, of: fn(&State) -> bool| {
            let number = hidden.iter().filter(|lane| of(&lane.state)).count();
            (number > 0).then(|| format!("{number} {word}"))
        };
        let parts: Vec<String> = [
            counted("working", |state| *state == State::Working),
            counted("done", |state| matches!(state, State::Finished(_))),
            counted("failed", |state| matches!(state, State::Failed(_))),
            counted("waiting", |state| *state == State::Waiting),
        ]
        .into_iter()
        .flatten()
        .collect();
        let dots = if self.look.unicode { "…" } else { "..." };
        let hosts = if hidden.len() == 1 { "host" } else { "hosts" };
        let text = format!("{dots} {} more {hosts}: {}", hidden.len(), parts.join(", "));
        self.look.paint(Paint::Faint, &fit(&text, self.columns))
    }

    /// The overall line: how many hosts are where they should be, and for how long it goes.
    fn whole(&self, run: &Run, counts: Counts) -> String {
        let total = run.hosts.len();
        let mut words = format!("{} of {} done", counts.finished, count(total as u64, "host"));
        for (number, word) in [(counts.working, "working"), (counts.failed, "failed"), (counts.waiting, "waiting")] {
            if number > 0 {
                words.push_str(&format!(", {number} {word}"));
            }
        }
        if let Some(step) = run.whole.shown() {
            words = format!("{}  {words}", clean(&step.title));
        }
        let inner = self.columns.saturating_sub(TIME_COLUMNS + 1);
        let words = fit(&words, inner);
        let bar_room = inner.saturating_sub(width(&words) + 2).min(24);
        let part = if total == 0 { 0.0 } else { counts.finished as f64 / total as f64 };
        let (bar, taken) = if bar_room >= 6 {
            (format!("{}  ", self.bar(part, bar_room)), bar_room + 2 + width(&words))
        } else {
            (String::new(), width(&words))
        };
        self.with_time(format!("{bar}{words}"), taken, Some(self.at), self.columns)
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use rstest::rstest;

    use super::*;
    use crate::ui::rehearsal::{self, Script};

    const PLAIN: Look = Look { live: true, color: false, unicode: false };
    const RICH: Look = Look { live: true, color: false, unicode: true };

    fn screen(script: &Script, seconds: f64, look: Look, columns: usize, rows: usize) -> String {
        let at = Duration::from_secs_f64(seconds);
        let mut run = Run::default();
        for (when, event) in script.iter().filter(|(when, _)| *when <= at) {
            run.record(event, *when);
        }
        lines(&run, at, look, columns, rows).join("\n")
    }

    #[test]
    fn on_a_wide_terminal_everything_is_shown() {
        assert_snapshot!(screen(&rehearsal::small(), 6.1, RICH, 120, 24), @r"
        clusterctl up  cluster demo
        cp1       ⠋ Import images  ━━━━━━━━━━━━────────────   50 %   6 s left  41.2 MB/s     206 MB of 412 MB                5 s
        w1        ⠋ Import images  ━━━━━━━━━━━━────────────   50 %   6 s left  26.8 MB/s     134 MB of 268 MB                5 s
        worker-2  ✘ failed: port 22 refuses the connection                                                                   1 s
        ────────────────────────  0 of 3 hosts done, 2 working, 1 failed                                                     6 s
        ");
    }

    #[test]
    fn on_80_columns_the_item_gives_way() {
        assert_snapshot!(screen(&rehearsal::small(), 6.1, PLAIN, 80, 24), @r"
        clusterctl up  cluster demo
        cp1       - Import images  ########--------   50 %   6 s left  41.2 MB/s     5 s
        w1        - Import images  ########--------   50 %   6 s left  26.8 MB/s     5 s
        worker-2  x failed: port 22 refuses the connection                           1 s
        ------------------------  0 of 3 hosts done, 2 working, 1 failed             6 s
        ");
    }

    #[test]
    fn on_50_columns_the_essence_is_left() {
        assert_snapshot!(screen(&rehearsal::small(), 6.1, PLAIN, 50, 24), @r"
        clusterctl up  cluster demo
        cp1       - Import images  ####----   50 %     5 s
        w1        - Import images  ####----   50 %     5 s
        worker-2  x failed: port 22 refuses the ..     1 s
        0 of 3 hosts done, 2 working, 1 failed         6 s
        ");
    }

    #[test]
    fn finished_hosts_say_so_in_a_word() {
        assert_snapshot!(screen(&rehearsal::small(), 21.0, RICH, 80, 24), @r"
        clusterctl up  cluster demo
        cp1       ✔ ready                                                           19 s
        w1        ⠴ Join                                                             9 s
        worker-2  ✘ failed: port 22 refuses the connection                           1 s
        ━━━━━━━━────────────────  1 of 3 hosts done, 1 working, 1 failed            21 s
        ");
    }

    #[test]
    fn of_300_hosts_those_at_work_are_shown() {
        assert_snapshot!(screen(&rehearsal::many(300), 12.0, RICH, 80, 12), @r"
        clusterctl up  cluster large
        node-081  · waiting                                                          4 s
        node-082  ⠋ Receive blobs  ━━━━━━━━━━━━━━━─   97 %   1 s left  30.0 MB/s     3 s
        node-083  ⠋ Receive blobs  ━━━━━━━━━━━━━━━─   95 %   1 s left  30.0 MB/s     3 s
        node-084  ⠋ Receive blobs  ━━━━━━━━━━━━━━──   92 %   1 s left  30.0 MB/s     3 s
        node-085  ⠋ Receive blobs  ━━━━━━━━━━━━━━──   90 %   1 s left  30.0 MB/s     3 s
        node-086  ⠋ Receive blobs  ━━━━━━━━━━━━━━──   87 %   1 s left  30.0 MB/s     3 s
        node-087  ⠋ Receive blobs  ━━━━━━━━━━━━━───   85 %   1 s left  30.0 MB/s     3 s
        node-088  ⠋ Receive blobs  ━━━━━━━━━━━━━───   82 %   1 s left  30.0 MB/s     3 s
        … 292 more hosts: 33 working, 80 done, 179 waiting
        ━━━━━━──────────────────  80 of 300 hosts done, 41 working, 179 waiting     12 s
        ");
    }

    #[rstest]
    fn no_line_is_wider_than_the_screen(
        #[values(1, 5, 12, 20, 33, 50, 80, 200)] columns: usize,
        #[values(4, 10, 50)] rows: usize,
    ) {
        for script in [rehearsal::small(), rehearsal::many(40)] {
            for look in [PLAIN, RICH] {
                for half in 0..60 {
                    let text = screen(&script, f64::from(half) / 2.0, look, columns, rows);
                    assert!(text.lines().count() <= rows, "{columns}x{rows}:\n{text}");
                    for line in text.lines().filter(|_| columns >= 12) {
                        assert!(width(line) <= columns, "{columns}x{rows}: {line:?}");
                    }
                }
            }
        }
    }
}
