//! SHELL. What one end reports, and the one JSON object made of all reports.

use crate::failure::Failure;

/// One end's account of its measured phase, in one line of text between processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Start and end in nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    /// Operations between the two.
    pub(crate) measured: u64,
    /// Operations with those of the warm-up.
    pub(crate) total: u64,
    /// Percentiles of the time of one operation; 0 where operations overlap and are not timed.
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
}

impl Report {
    pub(crate) fn to_line(self) -> String {
        let Self { start_ns, end_ns, measured, total, p50_ns, p99_ns } = self;
        format!("{start_ns} {end_ns} {measured} {total} {p50_ns} {p99_ns}")
    }

    pub(crate) fn from_line(line: &str) -> Result<Self, Failure> {
        let numbers: Vec<u64> = line.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
        match numbers.as_slice() {
            &[start_ns, end_ns, measured, total, p50_ns, p99_ns] => {
                Ok(Self { start_ns, end_ns, measured, total, p50_ns, p99_ns })
            }
            _ => Err(Failure::new(format!("unexpected report: {line}"))),
        }
    }
}

/// The time of single operations in nanoseconds, kept as 4 bytes each; longer than 4 s counts as 4 s.
pub(crate) struct Samples(Vec<u32>);

impl Samples {
    /// A run with more operations stops here, so that memory has a bound (8 MB).
    pub(crate) const MAX: u64 = 2_000_000;

    pub(crate) fn with_room_for(count: u64) -> Self {
        Self(Vec::with_capacity(count.min(Self::MAX) as usize))
    }

    pub(crate) fn push(&mut self, nanoseconds: u64) {
        self.0.push(u32::try_from(nanoseconds).unwrap_or(u32::MAX));
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// The nearest-rank percentiles 50 and 99, or 0 without samples.
    pub(crate) fn percentiles(mut self) -> (u64, u64) {
        self.0.sort_unstable();
        let at = |percent: usize| {
            let rank = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
            self.0.get(rank).copied().map_or(0, u64::from)
        };
        (at(50), at(99))
    }
}

/// What is printed: one floor's figures.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) name: &'static str,
    /// The unit of `p50` and `p99` where they are, else of `rate`.
    pub(crate) unit: &'static str,
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) rate: Option<f64>,
    pub(crate) cpu_us_per_op: f64,
    pub(crate) count: u64,
}

impl Figures {
    /// One object on one line; a figure that this floor does not have is left out.
    pub(crate) fn to_json(&self) -> String {
        let mut text = format!("{{\"name\":\"{}\",\"unit\":\"{}\"", self.name, self.unit);
        for (key, value) in [("p50", self.p50), ("p99", self.p99), ("rate", self.rate)] {
            if let Some(value) = value {
                text.push_str(&format!(",\"{key}\":{value:.3}"));
            }
        }
        text.push_str(&format!(",\"cpu_us_per_op\":{:.3},\"count\":{}}}", self.cpu_us_per_op, self.count));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_its_line() {
        let report = Report { start_ns: 1, end_ns: u64::MAX, measured: 3, total: 4, p50_ns: 5, p99_ns: 6 };
        assert_eq!(Report::from_line(&report.to_line()).ok(), Some(report));
        assert!(Report::from_line("1 2 3").is_err());
        assert!(Report::from_line("1 2 3 4 5 six").is_err());
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let mut samples = Samples::with_room_for(100);
        (1..=100).rev().for_each(|value| samples.push(value));
        assert_eq!(samples.percentiles(), (50, 99));
        let mut single = Samples::with_room_for(1);
        single.push(u64::MAX);
        assert_eq!(single.percentiles(), (u64::from(u32::MAX), u64::from(u32::MAX)));
        assert_eq!(Samples::with_room_for(0).percentiles(), (0, 0));
    }

    #[test]
    fn json_leaves_out_what_does_not_apply() {
        let figures = Figures {
            name: "fanout",
            unit: "deliveries/s",
            p50: None,
            p99: None,
            rate: Some(12.5),
            cpu_us_per_op: 0.25,
            count: 7,
        };
        assert_eq!(
            figures.to_json(),
            r#"{"name":"fanout","unit":"deliveries/s","rate":12.500,"cpu_us_per_op":0.250,"count":7}"#
        );
    }
}
