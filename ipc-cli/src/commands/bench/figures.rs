//! PURE. From the reports of one measurement to figures, and from the rounds to medians.

use serde::{Deserialize, Serialize};

/// What one end reports about its measured phase, one JSON object on one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Start of the measured phase, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) start_ns: u64,
    /// Its end.
    pub(crate) end_ns: u64,
    /// Operations between the two.
    pub(crate) measured: u64,
    /// Operations with those of the warm-up.
    pub(crate) total: u64,
    /// Percentiles of the time of one operation; 0 where operations overlap and are not timed.
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    /// User and system time of the process from the end of its preparation on, in microseconds.
    pub(crate) cpu_us: u64,
}

/// The figures of one side, the bus or the floor, in one round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct Figures {
    /// Median time of an operation, in microseconds.
    pub(crate) p50: Option<f64>,
    /// 99th percentile of it.
    pub(crate) p99: Option<f64>,
    /// Operations, deliveries or gigabytes a second.
    pub(crate) rate: Option<f64>,
    /// User and system time of all processes for one operation, in microseconds.
    pub(crate) cpu_us_per_op: f64,
}

impl Figures {
    /// The figures of one measurement. `reports` come from the ends whose operations count, `cpu_us` is the time of all
    /// processes, `scale` turns operations a second into the unit of the rate; without it the operations are timed.
    pub(crate) fn of(reports: &[Report], cpu_us: u64, scale: Option<f64>) -> Self {
        let measured: u64 = reports.iter().map(|report| report.measured).sum();
        let total: u64 = reports.iter().map(|report| report.total).sum();
        let start_ns = reports.iter().map(|report| report.start_ns).min().unwrap_or(0);
        let end_ns = reports.iter().map(|report| report.end_ns).max().unwrap_or(0);
        let seconds = end_ns.saturating_sub(start_ns).max(1) as f64 / 1e9;
        let timed = reports.first().filter(|_| scale.is_none());
        Self {
            p50: timed.map(|report| report.p50_ns as f64 / 1e3),
            p99: timed.map(|report| report.p99_ns as f64 / 1e3),
            rate: scale.map(|scale| measured as f64 / seconds * scale),
            cpu_us_per_op: cpu_us as f64 / total.max(1) as f64,
        }
    }

    /// What the ratio compares: the rate, else the median time.
    fn main(&self) -> f64 {
        self.rate.or(self.p50).unwrap_or(0.0)
    }
}

/// One line of the result: medians over the rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) floor_p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) floor_rate: Option<f64>,
    /// Of the bus to the floor of the same round: below 1 is better where time is measured, above 1 where a rate is.
    pub(crate) ratio: f64,
    /// The same of the worst round: the highest where time is measured, the lowest where a rate is.
    pub(crate) ratio_worst: f64,
    pub(crate) cpu_us_per_op: f64,
    pub(crate) floor_cpu_us_per_op: f64,
    pub(crate) rounds: usize,
}

impl Summary {
    /// The medians of `rounds`, each the bus and its floor.
    pub(crate) fn of(name: &'static str, unit: &'static str, rounds: &[(Figures, Figures)]) -> Self {
        let ours = |pick: fn(&Figures) -> Option<f64>| median(rounds.iter().filter_map(|(bus, _)| pick(bus)));
        let floors =
            |pick: fn(&Figures) -> Option<f64>| median(rounds.iter().filter_map(|(_, floor)| pick(floor)));
        let ratios = rounds.iter().map(|(bus, floor)| bus.main() / floor.main().max(1e-9));
        let worse = if rounds.iter().any(|(bus, _)| bus.rate.is_some()) { f64::min } else { f64::max };
        Self {
            name,
            unit,
            p50: ours(|figures| figures.p50),
            p99: ours(|figures| figures.p99),
            rate: ours(|figures| figures.rate),
            floor_p50: floors(|figures| figures.p50),
            floor_rate: floors(|figures| figures.rate),
            ratio: median(ratios.clone()).unwrap_or(0.0),
            ratio_worst: rounded(ratios.reduce(worse).unwrap_or(0.0)),
            cpu_us_per_op: ours(|figures| Some(figures.cpu_us_per_op)).unwrap_or(0.0),
            floor_cpu_us_per_op: floors(|figures| Some(figures.cpu_us_per_op)).unwrap_or(0.0),
            rounds: rounds.len(),
        }
    }
}

/// The median, rounded to three decimals: no digits are shown that mean nothing.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    let median = if values.len() % 2 == 1 { upper } else { (values.get(middle - 1)? + upper) / 2.0 };
    Some(rounded(median))
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The time of single operations in nanoseconds, 4 bytes each; longer than 4 s counts as 4 s.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<u32>);

impl Samples {
    /// Further samples are not kept, so that memory has a bound (8 MB).
    const MAX: usize = 2_000_000;

    /// Room for as many as a measurement usually has.
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(100_000))
    }

    pub(crate) fn push(&mut self, nanoseconds: u64) {
        if self.0.len() < Self::MAX {
            self.0.push(u32::try_from(nanoseconds).unwrap_or(u32::MAX));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_its_line() {
        let report =
            Report { start_ns: 1, end_ns: 2, measured: 3, total: 4, p50_ns: 5, p99_ns: 6, cpu_us: 7 };
        let line = serde_json::to_string(&report).expect("serializes");
        assert_eq!(serde_json::from_str::<Report>(&line).expect("parses"), report);
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let mut samples = Samples::new();
        (1..=100).rev().for_each(|value| samples.push(value));
        assert_eq!(samples.percentiles(), (50, 99));
        assert_eq!(Samples::new().percentiles(), (0, 0));
    }

    #[test]
    fn rates_come_from_all_ends_and_times_from_the_first() {
        let report = Report {
            start_ns: 0,
            end_ns: 500_000_000,
            measured: 100,
            total: 110,
            p50_ns: 2000,
            ..Report::default()
        };
        let later = Report { start_ns: 500_000_000, end_ns: 1_000_000_000, ..report };
        let figures = Figures::of(&[report, later], 440, Some(2.0));
        assert_eq!((figures.rate, figures.p50, figures.cpu_us_per_op), (Some(400.0), None, 2.0));
        let figures = Figures::of(&[report], 110, None);
        assert_eq!((figures.rate, figures.p50), (None, Some(2.0)));
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        let timed = |p50| Figures { p50: Some(p50), ..Figures::default() };
        let rounds = [(timed(10.0), timed(10.0)), (timed(30.0), timed(10.0)), (timed(40.0), timed(20.0))];
        let summary = Summary::of("routed_call_blocking", "us", &rounds);
        assert_eq!((summary.p50, summary.floor_p50, summary.ratio), (Some(30.0), Some(10.0), 2.0));
        assert_eq!((summary.rate, summary.floor_rate, summary.rounds), (None, None, 3));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
        assert_eq!(median([].into_iter()), None);
    }
}
