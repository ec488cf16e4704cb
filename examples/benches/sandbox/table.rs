//! Samples, and the table in which they are printed.

use std::time::Duration;

/// Durations of the same thing, done again and again.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// The sample below which this share of all lies.
    fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        let at = ((sorted.len().saturating_sub(1)) as f64 * share).round() as usize;
        sorted.get(at).copied().unwrap_or_default()
    }

    pub(crate) fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    pub(crate) fn best(&self) -> Duration {
        self.quantile(0.0)
    }

    pub(crate) fn sum(&self) -> Duration {
        self.0.iter().sum()
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}

/// A floor or a peer, by name.
type Beside<'s, T> = Option<(&'s str, &'s T)>;

/// Rows, printed at the end so that nothing stands between them.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<String>,
    below: Vec<String>,
}

impl Table {
    pub(crate) fn row(&mut self, what: &str, samples: &Samples, beside: Beside<'_, Samples>) {
        let ms = |share| samples.quantile(share).as_secs_f64() * 1e3;
        let beside = beside.map_or_else(String::new, |(name, other)| {
            let ratio = samples.median().as_secs_f64() / other.median().as_secs_f64();
            let more = (samples.median().as_secs_f64() - other.median().as_secs_f64()) * 1e3;
            format!("{ratio:.2} x the {name} ({more:+.2} ms)")
        });
        self.line(
            what,
            [0.0, 0.5, 0.95, 0.99].map(ms),
            2,
            "ms",
            samples.0.len(),
            &beside,
        );
    }

    pub(crate) fn rate(
        &mut self,
        what: &str,
        mib: usize,
        samples: &Samples,
        beside: Beside<'_, Samples>,
    ) {
        let rate = |share| mib as f64 / samples.quantile(share).as_secs_f64();
        let beside = beside.map_or_else(String::new, |(name, other)| {
            let ratio = samples.median().as_secs_f64() / other.median().as_secs_f64();
            format!("{ratio:.2} x the time of the {name}")
        });
        self.line(
            what,
            [0.0, 0.5, 0.95, 0.99].map(rate),
            0,
            "MiB/s",
            samples.0.len(),
            &beside,
        );
    }

    /// How many were done in a second, in several rounds.
    pub(crate) fn per_second(&mut self, what: &str, rounds: &[f64], beside: Beside<'_, Vec<f64>>) {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let at = |share: f64| {
            let at = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
            sorted.get(at).copied().unwrap_or_default()
        };
        let mean = |rounds: &[f64]| rounds.iter().sum::<f64>() / rounds.len().max(1) as f64;
        let beside = beside.map_or_else(String::new, |(name, other)| {
            format!("{:.2} x the {name}", mean(rounds) / mean(other))
        });
        self.line(
            what,
            [0.0, 0.5, 0.95, 0.99].map(at),
            0,
            "/s",
            rounds.len(),
            &beside,
        );
    }

    fn line(
        &mut self,
        what: &str,
        numbers: [f64; 4],
        digits: usize,
        unit: &str,
        count: usize,
        beside: &str,
    ) {
        let [best, median, p95, p99] = numbers;
        self.rows.push(format!(
            "{what:<58} {best:>8.digits$} {median:>8.digits$} {p95:>8.digits$} {p99:>8.digits$} \
             {unit:<5} {count:>4}  {beside}"
        ));
    }

    /// A remark on the row before it.
    pub(crate) fn note(&mut self, note: &str) {
        self.rows.push(format!("    {note}"));
    }

    /// Lines that are printed below the table.
    pub(crate) fn below(&mut self, lines: Vec<String>) {
        self.below.extend(lines);
    }

    pub(crate) fn print(&self) {
        println!(
            "{:<58} {:>8} {:>8} {:>8} {:>8} {:<5} {:>4}",
            "", "best", "median", "p95", "p99", "", "n"
        );
        for row in self.rows.iter().chain(&self.below) {
            println!("{row}");
        }
    }
}
