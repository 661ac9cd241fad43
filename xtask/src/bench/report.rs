//! What was measured, beside what it is to be.

use std::fmt;
use std::time::Duration;

use comfy_table::Table;

const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// A measured value or a goal. Only those of one kind are compared.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) enum Amount {
    Time(Duration),
    Bytes(u64),
    Count(u64),
    /// Of one core's time.
    Share(f64),
    /// Of something else that was measured.
    Ratio(f64),
}

impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) if *time < Duration::from_millis(100) => {
                write!(formatter, "{:.1} ms", time.as_secs_f64() * 1000.0)
            }
            Self::Time(time) => write!(formatter, "{:.2} s", time.as_secs_f64()),
            Self::Bytes(0) => formatter.write_str("0"),
            #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
            Self::Bytes(bytes) => write!(formatter, "{:.1} MiB", *bytes as f64 / MEBIBYTE),
            Self::Count(count) => write!(formatter, "{count}"),
            Self::Ratio(ratio) => write!(formatter, "{:.1} %", ratio * 100.0),
            Self::Share(share) => write!(formatter, "{:.3} % of a core", share * 100.0),
        }
    }
}

/// A table of values, goals and verdicts.
pub(super) struct Report(Table);

impl Report {
    pub(super) fn new() -> Self {
        Self(crate::demo::table(&["WHAT", "GOAL", "MEASURED", "VERDICT", "REMARK"]))
    }

    /// Adds a value that is to be `goal` at most.
    pub(super) fn judge(&mut self, what: &str, goal: Amount, measured: Amount, remark: &str) {
        let verdict = if measured <= goal { "ok" } else { "MISSED" };
        self.add([what, &format!("≤ {goal}"), &measured.to_string(), verdict, remark]);
    }

    /// Adds a value that helps to understand the others.
    pub(super) fn tell(&mut self, what: &str, measured: Amount, remark: &str) {
        self.add([what, "", &measured.to_string(), "", remark]);
    }

    fn add(&mut self, cells: [&str; 5]) {
        self.0.add_row(cells);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The value that `percent` of `values` do not exceed (the nearest rank); zero if there are none.
pub(super) fn percentile(values: impl Iterator<Item = Duration>, percent: usize) -> Duration {
    let mut values: Vec<Duration> = values.collect();
    values.sort();
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: std::ops::RangeInclusive<u64>, percent: usize, expected: u64) {
        let values = values.rev().map(Duration::from_millis);
        assert_eq!(percentile(values, percent), Duration::from_millis(expected));
    }

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        check(1..=200, 50, 100);
        check(1..=200, 99, 198);
        check(1..=200, 100, 200);
        check(1..=3, 50, 2);
        check(7..=7, 99, 7);
    }

    #[test]
    fn amounts_are_shown_with_the_digits_that_count() {
        for (amount, expected) in [
            (Amount::Time(Duration::from_micros(8_440)), "8.4 ms"),
            (Amount::Time(Duration::from_millis(1_500)), "1.50 s"),
            (Amount::Bytes(12 * 1024 * 1024), "12.0 MiB"),
            (Amount::Share(0.000_5), "0.050 % of a core"),
            (Amount::Count(4), "4"),
        ] {
            assert_eq!(amount.to_string(), expected);
        }
    }

    #[test]
    fn a_value_that_exceeds_its_goal_is_marked() {
        let mut report = Report::new();
        report.judge("one", Amount::Count(4), Amount::Count(4), "");
        assert!(!report.to_string().contains("MISSED"));
        report.judge("other", Amount::Count(4), Amount::Count(5), "");
        assert!(report.to_string().contains("MISSED"));
    }
}
