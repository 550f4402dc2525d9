//! "Did you mean": the nearest of the known words.

/// The known word that is nearest to `typed`, when it is near enough to be meant.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer words are not names of anything here, and the distance costs their product.
    if typed.len() > 64 {
        return None;
    }
    let typed = typed.to_lowercase().replace('_', "-");
    let limit = 1 + typed.chars().count() / 4;
    known
        .into_iter()
        .map(|word| (distance(&typed, word), word))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, word)| word)
}

/// Edits (insert, delete, replace, swap neighbours) that turn one word into the other.
pub fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let mut before = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let mut best = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_counts_edits_and_swaps() {
        for (from, to, edits) in
            [("", "", 0), ("a", "", 1), ("prot", "port", 1), ("portt", "port", 1), ("abc", "xyz", 3)]
        {
            assert_eq!(distance(from, to), edits, "{from} {to}");
            assert_eq!(distance(to, from), edits, "{to} {from}");
        }
    }

    #[test]
    fn only_a_near_word_is_suggested() {
        let known = ["public-key", "address", "address6", "grants"];
        assert_eq!(nearest("publickey", known), Some("public-key"));
        assert_eq!(nearest("public_key", known), Some("public-key"));
        assert_eq!(nearest("adress", known), Some("address"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), known), None);
    }
}
