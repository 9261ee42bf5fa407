//! Reading a console command: one or two words, as in PgBouncer. Pure.

/// A command and its argument.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// First word, upper case.
    pub(crate) verb: String,
    /// Second word as it was written, without its quotes.
    pub(crate) argument: Option<String>,
}

/// Longest argument, as in PgBouncer.
const MAX_ARGUMENT: usize = 63;

/// `None`: not a command.
pub(crate) fn parse(sql: &str) -> Option<Command> {
    let sql = sql.trim();
    let mut words = sql.strip_suffix(';').unwrap_or(sql).split_ascii_whitespace();
    let verb = words.next()?;
    let argument = words.next();
    let plain = verb.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !plain || words.next().is_some() {
        return None;
    }
    let argument = match argument {
        Some(word) => Some(unquote(word)?),
        None => None,
    };
    Some(Command { verb: verb.to_ascii_uppercase(), argument })
}

fn unquote(word: &str) -> Option<String> {
    let inner = word.strip_prefix('"').and_then(|w| w.strip_suffix('"')).unwrap_or(word);
    let fine = !inner.is_empty() && inner.len() <= MAX_ARGUMENT && !inner.contains(['"', ';', '\'']);
    fine.then(|| inner.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        let cases = [
            ("SHOW POOLS", Some(("SHOW", Some("POOLS")))),
            ("  show \"pools\" ; ", Some(("SHOW", Some("pools")))),
            ("reload;", Some(("RELOAD", None))),
            ("", None),
            (";", None),
            ("SHOW POOLS CLIENTS", None),
            ("PAUSE a;b", None),
        ];
        for (sql, expected) in cases {
            let expected =
                expected.map(|(v, a)| Command { verb: v.to_owned(), argument: a.map(str::to_owned) });
            assert_eq!(parse(sql), expected, "{sql:?}");
        }
    }
}
