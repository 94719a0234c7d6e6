//! Medians, spreads, and how they are written.

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The ratio in each round: the median, and from which to which.
pub(crate) fn ratio(of: &[f64], to: &[f64]) -> String {
    if to.is_empty() {
        return String::new();
    }
    let ratios: Vec<f64> = of.iter().zip(to).map(|(of, to)| of / to).collect();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    format!("{:.2} ({least:.2}–{most:.2})", median(&ratios))
}

/// Messages in a second, to three digits.
pub(crate) fn rate(values: &[f64]) -> String {
    if values.is_empty() {
        return String::new();
    }
    match median(values) {
        large if large >= 100_000.0 => format!("{:.0} k", large / 1000.0),
        middle if middle >= 10_000.0 => format!("{:.1} k", middle / 1000.0),
        small if small >= 1_000.0 => format!("{:.2} k", small / 1000.0),
        few => format!("{few:.0}"),
    }
}
