//! Events as JSON lines, for programs.
//!
//! One object a line. `time` (RFC 3339, UTC, milliseconds) and `event` are always there, `host` is a name or null; the
//! other fields are those of [`What`](crate::event::What), in snake case, described in the README under "JSON output".
//! Names are never changed, fields may be added.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::{Value, json};

use super::summary::Summary;
use crate::event::Event;
use crate::failure::Failure;

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    event: &'a Event,
}

/// An event as one line, with its line break.
pub fn event(event: &Event, time: SystemTime) -> String {
    line(serde_json::to_value(Line { time: rfc3339(time), event }))
}

/// The failure that ended the program: `{"event": "failed", "failure": {...}}`.
pub fn failure(failure: &Failure, time: SystemTime) -> String {
    line(Ok(json!({"time": rfc3339(time), "host": failure.host, "event": "failed", "failure": failure})))
}

/// The summary of a run: `{"event": "summary", ...}`.
pub fn summary(summary: &Summary, time: SystemTime) -> String {
    let fields = serde_json::to_value(summary).map(|fields| {
        let mut line = json!({"time": rfc3339(time), "host": null, "event": "summary"});
        if let (Value::Object(line), Value::Object(fields)) = (&mut line, fields) {
            line.extend(fields);
        }
        line
    });
    line(fields)
}

/// A value as one line. What cannot be written as JSON is a defect; it is said in the stream instead of ending it.
fn line(value: serde_json::Result<Value>) -> String {
    match value {
        Ok(value) => format!("{value}\n"),
        Err(error) => format!("{}\n", json!({"event": "defect", "sentence": error.to_string()})),
    }
}

/// A point in time as RFC 3339 in UTC with milliseconds: `2026-11-23T12:07:34.012Z`.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

/// Year, month and day of a count of days since 1970-01-01, in the Gregorian calendar. Years are counted from March, so
/// that the leap day is a year's last; 400 years are 146097 days.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153; // March is 0
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use rstest::rstest;

    use super::*;
    use crate::failure::Kind;
    use crate::ui::rehearsal;

    #[rstest]
    #[case(0, "1970-01-01T00:00:00.000Z")]
    #[case(951_782_399_999, "2000-02-28T23:59:59.999Z")]
    #[case(951_782_400_000, "2000-02-29T00:00:00.000Z")]
    #[case(951_868_800_000, "2000-03-01T00:00:00.000Z")]
    #[case(1_795_435_654_012, "2026-11-23T12:07:34.012Z")]
    #[case(4_107_542_400_000, "2100-03-01T00:00:00.000Z")]
    fn times_are_rfc3339(#[case] milliseconds: u64, #[case] text: &str) {
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds)), text);
    }

    #[test]
    fn events_are_lines_with_stable_names() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_435_654);
        let mut names = Vec::new();
        let mut lines = String::new();
        for (at, one) in rehearsal::small() {
            let kind = std::mem::discriminant(&one.what);
            if !names.contains(&kind) {
                names.push(kind);
                lines.push_str(&event(&one, start + at));
            }
        }
        assert_snapshot!(lines, @r#"
        {"time":"2026-11-23T12:07:34.000Z","host":null,"event":"run-started","verb":"up","cluster":"demo","hosts":["cp1","w1","worker-2"]}
        {"time":"2026-11-23T12:07:34.100Z","host":"cp1","event":"step-started","step":"connect","title":"Connect"}
        {"time":"2026-11-23T12:07:34.400Z","host":"cp1","event":"step-finished","step":"connect","changes":0,"milliseconds":300}
        {"time":"2026-11-23T12:07:34.600Z","host":"cp1","event":"changed","step":"prepare","change":"file /etc/modules-load.d/kubernetes.conf created"}
        {"time":"2026-11-23T12:07:34.700Z","host":"w1","event":"warned","sentence":"w1 has cgroup v1, which Kubernetes will stop supporting"}
        {"time":"2026-11-23T12:07:35.100Z","host":"w1","event":"step-progressed","step":"images","done":0,"total":268000000,"unit":"bytes","item":"images/kube-proxy"}
        {"time":"2026-11-23T12:07:36.000Z","host":"worker-2","event":"step-failed","step":"connect","failure":{"kind":"connection","host":"worker-2","sentence":"port 22 refuses the connection","causes":[],"advice":"start sshd on worker-2, or correct `ssh.port` in the inventory","retry":"may-help","detail":null}}
        {"time":"2026-11-23T12:07:54.000Z","host":"cp1","event":"host-finished","state":"ready"}
        {"time":"2026-11-23T12:08:00.100Z","host":null,"event":"run-finished","milliseconds":26100,"changes":71,"failed":[{"kind":"connection","host":"worker-2","sentence":"port 22 refuses the connection","causes":[],"advice":"start sshd on worker-2, or correct `ssh.port` in the inventory","retry":"may-help","detail":null}]}
        "#);
    }

    #[test]
    fn the_last_failure_is_a_line() {
        let wrong = Failure::new(Kind::HostKey, "the key of w1 has changed").on("w1");
        let text = failure(&wrong, SystemTime::UNIX_EPOCH);
        assert_snapshot!(text, @r#"{"time":"1970-01-01T00:00:00.000Z","host":"w1","event":"failed","failure":{"kind":"host-key","host":"w1","sentence":"the key of w1 has changed","causes":[],"advice":null,"retry":"useless","detail":null}}"#);
    }
}
