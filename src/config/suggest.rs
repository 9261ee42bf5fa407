//! "Did you mean": the known name that a typing error was most likely meant to be.

/// The closest of `names` if it is close enough to be what was meant.
pub(super) fn closest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let allowed = (word.chars().count() / 4).clamp(1, 3);
    names
        .into_iter()
        .map(|name| (distance(word, name), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Optimal string alignment: insertions, deletions, replacements and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    // No known name is that long; keeps the cost of hostile input linear.
    const LONGEST: usize = 64;
    let a: Vec<char> = a.chars().map(plain).take(LONGEST).collect();
    let b: Vec<char> = b.chars().map(plain).take(LONGEST).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous_char = None;
    for (row, char_a) in a.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, char_b) in b.iter().enumerate() {
            let at = |line: &[usize], column: usize| line.get(column).copied().unwrap_or(usize::MAX / 2);
            let replace = at(&last, column) + usize::from(char_a != char_b);
            let delete = at(&last, column + 1) + 1;
            let insert = at(&current, column) + 1;
            let previous_b = column.checked_sub(1).and_then(|column| b.get(column).map(|c| (column, c)));
            let swap = match previous_b {
                Some((column, char)) if char == char_a && previous_char == Some(char_b) => {
                    at(&before, column) + 1
                }
                _ => usize::MAX,
            };
            current.push(replace.min(delete).min(insert).min(swap));
        }
        before = std::mem::replace(&mut last, current);
        previous_char = Some(char_a);
    }
    last.last().copied().unwrap_or(usize::MAX)
}

/// `-` and `_`, upper and lower case are the same mistake.
fn plain(c: char) -> char {
    if c == '-' { '_' } else { c.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_find_the_name_that_was_meant() {
        let names = ["default_pool_size", "min_pool_size", "pool_mode", "listen_port", "host", "port"];
        for (typed, meant) in [
            ("defualt_pool_size", Some("default_pool_size")),
            ("default-pool-size", Some("default_pool_size")),
            ("poolmode", Some("pool_mode")),
            ("pool_size", None),
            ("hsot", Some("host")),
            ("LISTEN_PORT", Some("listen_port")),
            ("favourite_colour", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(closest(typed, names), meant, "{typed}");
        }
    }

    #[test]
    fn a_swap_of_neighbours_is_one_step() {
        assert_eq!(distance("hsot", "host"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
