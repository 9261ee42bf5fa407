//! Connect strings: `key=value key='va''lue'`, as in `[databases]`, `[users]` and `[peers]`.
//!
//! Follows PgBouncer 1.26, tried out: only spaces part the pairs, values are not empty.

/// The pairs in their order; `None` if the text is not made of such. Nothing of it is repeated: it may be a password.
pub(super) fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches(' ');
    while !rest.is_empty() {
        let end = rest.find(['=', ' '])?;
        let (key, behind) = rest.split_at_checked(end)?;
        let behind = behind.trim_start_matches(' ').strip_prefix('=')?.trim_start_matches(' ');
        let (value, behind) = value(behind)?;
        if value.is_empty() {
            return None;
        }
        // As in PgBouncer, a pair without a key is the end.
        if key.is_empty() {
            break;
        }
        found.push((key.to_owned(), value));
        rest = behind.trim_start_matches(' ');
    }
    Some(found)
}

/// The value at the start, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('\'') else {
        let (value, behind) = text.split_at_checked(text.find(' ').unwrap_or(text.len()))?;
        return Some((value.to_owned(), behind));
    };
    let mut value = String::new();
    loop {
        let (part, behind) = rest.split_once('\'')?;
        value.push_str(part);
        match behind.strip_prefix('\'') {
            Some(behind) => {
                value.push('\'');
                rest = behind;
            }
            None if behind.is_empty() || behind.starts_with(' ') => return Some((value, behind)),
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_as_in_pgbouncer() {
        for (text, expected) in [
            ("", Some("")),
            ("  ", Some("")),
            ("host=a", Some("host=a")),
            ("host = a   port =7 ", Some("host=a|port=7")),
            ("a='b c''d' e=f", Some("a=b c'd|e=f")),
            ("a=b\tport=7", Some("a=b\tport=7")),
            ("a=b'c", Some("a=b'c")),
            ("a=b=c", Some("a=b=c")),
            ("a", None),
            ("a b=c", None),
            ("a=", None),
            ("a=''", None),
            ("a='b", None),
            ("a='b'c", None),
            ("a=b,c d", None),
        ] {
            let found = pairs(text)
                .map(|pairs| pairs.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("|"));
            assert_eq!(found.as_deref(), expected, "{text:?}");
        }
    }
}
