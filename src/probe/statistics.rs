//! Whether two groups of observations can be told apart: exact tests, no approximations.

/// Observations of a group beyond which the rank test looks at evenly spaced ones: exactness costs memory and time.
const RANKED: usize = 40;

/// Fisher's exact test, two-sided: how likely a table at least as lopsided is by chance. Each group is (with the
/// property, all).
pub fn fisher(one: (usize, usize), other: (usize, usize)) -> f64 {
    let (total, with) = (one.1 + other.1, one.0 + other.0);
    let logs = log_factorials(total);
    let choose = |n: usize, k: usize| logs[n] - logs[k] - logs[n - k];
    let chance = |k: usize| (choose(one.1, k) + choose(other.1, with - k) - choose(total, with)).exp();
    let seen = chance(one.0);
    let possible = with.saturating_sub(other.1)..=with.min(one.1);
    // Tables that are as likely count, and differ in their last digits.
    possible.map(chance).filter(|chance| *chance <= seen * (1.0 + 1e-7)).sum::<f64>().min(1.0)
}

fn log_factorials(largest: usize) -> Vec<f64> {
    let mut logs = vec![0.0];
    for number in 1..=largest {
        logs.push(logs[number - 1] + real(number).ln());
    }
    logs
}

/// The rank test of Wilcoxon, Mann and Whitney, two-sided and exact also with ties: how likely ranks at least as
/// lopsided are by chance. `None` when a group is empty.
pub fn ranks(one: &[f64], other: &[f64]) -> Option<f64> {
    let (one, other) = (thinned(one), thinned(other));
    if one.is_empty() || other.is_empty() {
        return None;
    }
    let doubled = doubled_ranks(&one, &other);
    let seen: usize = doubled[..one.len()].iter().sum();
    let sums = sums_of(&doubled, one.len());
    let all: f64 = sums.iter().sum();
    // The mean of the doubled rank sum is a whole number.
    let mean = one.len() * (doubled.len() + 1);
    let far = seen.abs_diff(mean);
    let as_far: f64 =
        sums.iter().enumerate().filter(|(sum, _)| sum.abs_diff(mean) >= far).map(|(_, ways)| ways).sum();
    Some((as_far / all).min(1.0))
}

fn thinned(values: &[f64]) -> Vec<f64> {
    let count = values.len().min(RANKED);
    (0..count).map(|index| values[index * values.len() / count]).collect()
}

/// Twice the rank of each observation, ties sharing the middle of theirs: whole numbers.
fn doubled_ranks(one: &[f64], other: &[f64]) -> Vec<usize> {
    let all: Vec<f64> = one.iter().chain(other).copied().collect();
    let rank = |value: &f64| {
        let below = all.iter().filter(|other| other.total_cmp(value).is_lt()).count();
        let equal = all.iter().filter(|other| other.total_cmp(value).is_eq()).count();
        2 * below + equal + 1
    };
    all.iter().map(rank).collect()
}

/// In how many ways `count` of the numbers add up to each sum.
fn sums_of(numbers: &[usize], count: usize) -> Vec<f64> {
    let largest: usize = numbers.iter().sum();
    let mut ways = vec![vec![0.0; largest + 1]; count + 1];
    ways[0][0] = 1.0;
    for &number in numbers {
        // From the most taken down: each number is taken once at most.
        for taken in (1..=count).rev() {
            let (fewer, more) = ways.split_at_mut(taken);
            let (fewer, more) = (&fewer[taken - 1], &mut more[0]);
            for sum in number..=largest {
                more[sum] += fewer[sum - number];
            }
        }
    }
    ways.swap_remove(count)
}

/// The middle of some numbers; `None` of none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// Counts are far below the 2^53 up to which this is exact.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn real(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 5e-5, "{found} is not {expected}");
    }

    #[test]
    fn fisher_agrees_with_textbooks() {
        // Fisher's lady tasting tea: 3 of 4 cups right, 34/70; all four right, 2/70.
        near(fisher((3, 4), (1, 4)), 34.0 / 70.0);
        near(fisher((4, 4), (0, 4)), 2.0 / 70.0);
        // Agresti; Wikipedia's example of studying students: 1 of 12 men, 9 of 12 women.
        near(fisher((1, 12), (9, 12)), 0.002_759);
        near(fisher((0, 50), (0, 50)), 1.0);
        near(fisher((0, 0), (3, 5)), 1.0);
        assert!(fisher((100, 100), (0, 100)) < 1e-50);
    }

    #[test]
    fn ranks_agree_with_textbooks() {
        // Two groups apart: 2 of C(8,4) = 70 orders; five and five: 2 of 252.
        near(ranks(&[1.0, 2.0, 3.0, 4.0], &[5.0, 6.0, 7.0, 8.0]).unwrap(), 2.0 / 70.0);
        near(ranks(&[9.0, 8.0, 7.0, 10.0, 6.0], &[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap(), 2.0 / 252.0);
        // Hollander and Wolfe, table 4.1 (permeability of membranes), as R's wilcox.test has it: W = 35, p = 0.2544.
        let term = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46];
        let early = [1.15, 0.88, 0.90, 0.74, 1.21];
        near(ranks(&term, &early).unwrap(), 0.2544);
        // All alike: nothing can be told. One tie, all 6 sums by hand: 3.5, 3.5, 5, 5, 6.5, 6.5.
        near(ranks(&[1.0; 5], &[1.0; 7]).unwrap(), 1.0);
        near(ranks(&[1.0, 2.0], &[2.0, 3.0]).unwrap(), 4.0 / 6.0);
        assert_eq!(ranks(&[], &[1.0]), None);
    }

    #[test]
    fn many_observations_are_thinned_and_still_told_apart() {
        let group = |offset: f64| (0..500).map(|index| real(index) + offset).collect::<Vec<_>>();
        assert!(ranks(&group(0.0), &group(0.0)).unwrap() > 0.9);
        assert!(ranks(&group(0.0), &group(400.0)).unwrap() < 1e-6);
    }

    #[test]
    fn the_median_lies_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}
