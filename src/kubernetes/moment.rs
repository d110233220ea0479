//! Moments in the notations that certificates and Secrets want, from seconds since the epoch.

/// Year, month, day, hour, minute, second in UTC.
fn calendar(seconds: u64) -> (u64, u64, u64, u64, u64, u64) {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Eras of 400 years that begin on the 1st of March, so that the leap day comes last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day, rest / 3600, rest / 60 % 60, rest % 60)
}

/// `2026-11-23T12:00:00Z`.
pub(crate) fn rfc3339(seconds: u64) -> String {
    let (year, month, day, hour, minute, second) = calendar(seconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// `Nov 23, 2026 12:00 UTC`, as kubeadm shows the end of certificates.
pub(crate) fn short(seconds: u64) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (year, month, day, hour, minute, _) = calendar(seconds);
    let name = usize::try_from(month).ok().and_then(|month| MONTHS.get(month.checked_sub(1)?)).unwrap_or(&"");
    format!("{name} {day:02}, {year:04} {hour:02}:{minute:02} UTC")
}

/// A time to come as kubectl and kubeadm show it: its two largest units, fewer the longer it is; `<invalid>` when it is
/// over.
pub(crate) fn remaining(seconds: i64) -> String {
    let Ok(seconds) = u64::try_from(seconds + 1).map(|seconds| seconds.saturating_sub(1)) else {
        return "<invalid>".to_owned();
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    let with_rest = |count: u64, unit: &str, rest: u64, rest_unit: &str| match rest {
        0 => format!("{count}{unit}"),
        rest => format!("{count}{unit}{rest}{rest_unit}"),
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => with_rest(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => with_rest(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => with_rest(days, "d", hours % 24, "h"),
        () if days < 2 * 365 => format!("{days}d"),
        () if days < 8 * 365 => with_rest(days / 365, "y", days % 365, "d"),
        () => format!("{}y", days / 365),
    }
}

/// Seconds since the epoch of a moment in RFC 3339, with `Z` or an offset; fractions are dropped. `None` for another text,
/// and before 1970.
pub(crate) fn from_rfc3339(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let separators = [(4, "-"), (7, "-"), (13, ":"), (16, ":")];
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if separators.iter().any(|(at, mark)| text.get(*at..at + 1) != Some(*mark))
        || !matches!(text.get(10..11), Some("T" | "t" | " "))
        || !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let zone = text.get(19..)?;
    let zone = zone.strip_prefix('.').map_or(zone, |rest| rest.trim_start_matches(|one: char| one.is_ascii_digit()));
    let offset = match zone.get(..1)? {
        "Z" | "z" if zone.len() == 1 => 0,
        sign @ ("+" | "-") if zone.len() == 6 && zone.get(3..4) == Some(":") => {
            let minutes = zone.get(1..3)?.parse::<i64>().ok()? * 60 + zone.get(4..6)?.parse::<i64>().ok()?;
            if sign == "+" { minutes * 60 } else { -minutes * 60 }
        }
        _ => return None,
    };
    // As in `calendar`: years from March, eras of 400 years.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second - offset).ok()
}

/// The tag and text of an X.509 time: UTCTime up to 2049, GeneralizedTime after.
pub(crate) fn x509_time(seconds: u64) -> (u8, String) {
    let (year, month, day, hour, minute, second) = calendar(seconds);
    let rest = format!("{month:02}{day:02}{hour:02}{minute:02}{second:02}Z");
    if year < 2050 { (0x17, format!("{:02}{rest}", year % 100)) } else { (0x18, format!("{year:04}{rest}")) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{from_rfc3339, remaining, rfc3339, short, x509_time};

    #[rstest]
    #[case(0, "1970-01-01T00:00:00Z")]
    #[case(951_782_400, "2000-02-29T00:00:00Z")]
    #[case(1_795_435_199, "2026-11-23T11:59:59Z")]
    #[case(4_102_444_800, "2100-01-01T00:00:00Z")]
    #[case(4_107_542_400, "2100-03-01T00:00:00Z")]
    fn moments_have_dates(#[case] seconds: u64, #[case] text: &str) {
        assert_eq!(rfc3339(seconds), text);
        assert_eq!(from_rfc3339(text), Some(seconds));
    }

    #[rstest]
    #[case("2026-11-23T14:59:59.123+03:00", Some(1_795_435_199))]
    #[case("2026-11-23T06:59:59-05:00", Some(1_795_435_199))]
    #[case("2026-11-23", None)]
    #[case("2026-11-23T11:59:59", None)]
    #[case("2026-13-23T11:59:59Z", None)]
    #[case("1969-12-31T23:59:59Z", None)]
    #[case("", None)]
    fn dates_are_moments(#[case] text: &str, #[case] seconds: Option<u64>) {
        assert_eq!(from_rfc3339(text), seconds);
    }

    #[rstest]
    #[case(-2, "<invalid>")]
    #[case(-1, "0s")]
    #[case(119, "119s")]
    #[case(120, "2m")]
    #[case(125, "2m5s")]
    #[case(10 * 60 + 5, "10m")]
    #[case(3 * 3600, "3h")]
    #[case(3 * 3600 + 61, "3h1m")]
    #[case(47 * 3600, "47h")]
    #[case(49 * 3600, "2d1h")]
    #[case(364 * 86_400 + 5, "364d")]
    #[case(3 * 365 * 86_400 + 86_400, "3y1d")]
    #[case(10 * 365 * 86_400 - 5, "9y")]
    fn remaining_time_is_short(#[case] seconds: i64, #[case] text: &str) {
        assert_eq!(remaining(seconds), text);
    }

    #[test]
    fn people_read_months() {
        assert_eq!(short(951_782_400), "Feb 29, 2000 00:00 UTC");
    }

    #[test]
    fn certificates_change_notation_in_2050() {
        assert_eq!(x509_time(2_524_607_999), (0x17, "491231235959Z".into()));
        assert_eq!(x509_time(2_524_608_000), (0x18, "20500101000000Z".into()));
    }
}
