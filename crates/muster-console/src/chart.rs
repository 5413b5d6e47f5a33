//! Lines of charts, which are drawn in a square of 1,000 by 1,000 that the style sheet stretches.

/// Returns the path of a line through points, `(x, y)` in any unit, the origin at the bottom left. `width` and `height` are the largest
/// values of the chart.
pub fn line(points: impl Iterator<Item = (u64, u64)>, width: u64, height: u64) -> String {
    let share = |part: u64, of: u64| part.saturating_mul(1_000) / of.max(1);
    let place = |(x, y)| format!("{} {}", share(x, width), 1_000 - share(y, height).min(1_000));
    format!("M{}", points.map(place).collect::<Vec<_>>().join("L"))
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_line_goes_through_its_points_from_the_bottom_left() {
        assert_eq!(line([(0, 0), (5, 2), (10, 4)].into_iter(), 10, 4), "M0 1000L500 500L1000 0");
        assert_eq!(line([(0, 7)].into_iter(), 0, 0), "M0 0", "nothing is out of the square");
    }
}
