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

    fn median(&self) -> Duration {
        self.quantile(0.5)
    }
}

/// A floor or a peer, by name.
type Beside<'s> = Option<(&'s str, &'s Samples)>;

/// Rows, printed at the end so that nothing stands between them.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<String>);

impl Table {
    pub(crate) fn row(&mut self, what: &str, samples: &Samples, beside: Beside<'_>) {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        self.0.push(format!(
            "{what:<60} {:>9.2} {:>9.2} {:>9.2} ms {:>4}  {}",
            ms(samples.quantile(0.0)),
            ms(samples.median()),
            ms(samples.quantile(0.95)),
            samples.0.len(),
            ratio(samples, beside)
        ));
    }

    pub(crate) fn rate(&mut self, what: &str, mib: usize, samples: &Samples, beside: Beside<'_>) {
        let rate = |duration: Duration| mib as f64 / duration.as_secs_f64();
        self.0.push(format!(
            "{what:<60} {:>9.0} {:>9.0} {:>9.0} MiB/s {:>1}  {}",
            rate(samples.quantile(0.0)),
            rate(samples.median()),
            rate(samples.quantile(0.95)),
            samples.0.len(),
            ratio(samples, beside)
        ));
    }

    pub(crate) fn print(&self) {
        println!(
            "{:<60} {:>9} {:>9} {:>9}    {:>4}",
            "", "best", "median", "p95", "n"
        );
        for row in &self.0 {
            println!("{row}");
        }
    }
}

/// The ratio of the medians.
fn ratio(samples: &Samples, beside: Beside<'_>) -> String {
    beside.map_or_else(String::new, |(name, other)| {
        let ratio = samples.median().as_secs_f64() / other.median().as_secs_f64();
        format!("{ratio:.2} x the {name}")
    })
}
