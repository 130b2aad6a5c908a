//! Medians and spreads of one figure over the rounds.

use serde::Serialize;

/// A figure's distribution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) p10: f64,
    pub(super) p90: f64,
    pub(super) runs: usize,
}

impl Spread {
    /// `None` without any sample.
    pub(super) fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| percentile(&sorted, share);
        Some(Self { median: at(0.5)?, p10: at(0.1)?, p90: at(0.9)?, runs: sorted.len() })
    }
}

/// Between the two nearest samples, in proportion.
fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = share * last as f64;
    let (low, part) = (place.floor() as usize, place.fract());
    Some(sorted[low] * (1.0 - part) + sorted[(low + 1).min(last)] * part)
}

/// Three significant digits, as far as they help.
pub(super) fn pretty(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_between_samples() {
        let spread = Spread::of(&[5.0, 1.0, 3.0]).unwrap();
        assert_eq!((spread.median, spread.runs), (3.0, 3));
        assert!((spread.p10 - 1.4).abs() < 1e-9 && (spread.p90 - 4.6).abs() < 1e-9);
        assert_eq!(Spread::of(&[]), None);
    }
}
