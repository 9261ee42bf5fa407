//! Reading a console command: one or two words, or a SET, as in PgBouncer. Pure.

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Nothing: drivers probe a connection with an empty query.
    Empty,
    /// SHOW (or SELECT) and what, upper case.
    Show(String),
    /// SHOW WHY and a text in quotes.
    Why(String),
    /// SET: the name as it was written, and the value without its quotes.
    Set { name: String, value: String },
    /// BEGIN, COMMIT and the like, which drivers send around everything. The tag.
    Transaction(&'static str),
    /// Anything else: first word in upper case, second without its quotes.
    Other { verb: String, argument: Option<String> },
}

/// Longest argument, as in PgBouncer.
const MAX_ARGUMENT: usize = 63;
/// Longest value of a SET, as in PgBouncer.
const MAX_VALUE: usize = 255;

/// `None`: not a command.
pub(crate) fn parse(sql: &str) -> Option<Command> {
    let sql = sql.trim();
    let sql = sql.strip_suffix(';').unwrap_or(sql).trim_end();
    let Some((verb, rest)) = word(sql) else { return sql.is_empty().then_some(Command::Empty) };
    let verb = verb.to_ascii_uppercase();
    if verb == "SET" {
        return set(rest);
    }
    if verb == "SHOW"
        && let Some((what, sql)) = word(rest)
        && what.eq_ignore_ascii_case("why")
    {
        return quoted(sql).map(Command::Why);
    }
    let argument = match word(rest) {
        Some((argument, "")) => Some(unquote(argument)?),
        Some(_) => return None,
        None if rest.is_empty() => None,
        None => return None,
    };
    if let Some(tag) = transaction(&verb) {
        let plain =
            argument.is_none_or(|a| ["TRANSACTION", "WORK"].contains(&a.to_ascii_uppercase().as_str()));
        return plain.then_some(Command::Transaction(tag));
    }
    let plain = verb.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    match verb.as_str() {
        _ if !plain => None,
        "SHOW" | "SELECT" => Some(Command::Show(argument?.to_ascii_uppercase())),
        _ => Some(Command::Other { verb, argument }),
    }
}

/// The first word, and what follows it and the blanks after it.
fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let end = text.find(|c: char| c.is_ascii_whitespace()).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (!word.is_empty()).then(|| (word, rest.trim_start()))
}

fn unquote(word: &str) -> Option<String> {
    let inner = word.strip_prefix('"').and_then(|w| w.strip_suffix('"')).unwrap_or(word);
    let fine = !inner.is_empty() && inner.len() <= MAX_ARGUMENT && !inner.contains(['"', ';', '\'']);
    fine.then(|| inner.to_owned())
}

fn transaction(verb: &str) -> Option<&'static str> {
    match verb {
        "BEGIN" => Some("BEGIN"),
        "START" => Some("START TRANSACTION"),
        "COMMIT" | "END" => Some("COMMIT"),
        "ROLLBACK" | "ABORT" => Some("ROLLBACK"),
        _ => None,
    }
}

/// `name = value`, `name TO value`, both with SESSION in front.
fn set(rest: &str) -> Option<Command> {
    let rest = match word(rest) {
        Some((first, more)) if first.eq_ignore_ascii_case("session") => more,
        _ => rest,
    };
    let end = rest.find(|c: char| c.is_ascii_whitespace() || c == '=')?;
    let (name, rest) = rest.split_at(end);
    let rest = rest.trim_start();
    let value = match (rest.strip_prefix('='), word(rest)) {
        (Some(value), _) => value,
        (None, Some((to, value))) if to.eq_ignore_ascii_case("to") => value,
        _ => return None,
    };
    let value = value.trim();
    let value = match quoted(value) {
        Some(value) => value,
        None if value.is_empty() || value.contains(['\'', ';']) => return None,
        None => value.to_owned(),
    };
    (value.len() <= MAX_VALUE).then_some(Command::Set { name: unquote(name)?, value })
}

/// What stands in single quotes.
fn quoted(text: &str) -> Option<String> {
    let inner = text.strip_prefix('\'')?.strip_suffix('\'')?;
    (!inner.replace("''", "").contains('\'')).then(|| inner.replace("''", "'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(verb: &str, argument: Option<&str>) -> Option<Command> {
        Some(Command::Other { verb: verb.to_owned(), argument: argument.map(str::to_owned) })
    }

    fn set(name: &str, value: &str) -> Option<Command> {
        Some(Command::Set { name: name.to_owned(), value: value.to_owned() })
    }

    #[test]
    fn commands_are_read() {
        let long = format!("PAUSE {}", "x".repeat(64));
        let cases = [
            ("SHOW POOLS", Some(Command::Show("POOLS".to_owned()))),
            ("  show \"pools\" ; ", Some(Command::Show("POOLS".to_owned()))),
            ("select\n version", Some(Command::Show("VERSION".to_owned()))),
            ("SHOW", None),
            ("SHOW POOLS CLIENTS", None),
            ("reload;", other("RELOAD", None)),
            ("PAUSE MyDb", other("PAUSE", Some("MyDb"))),
            ("PAUSE \"MyDb\";", other("PAUSE", Some("MyDb"))),
            ("PAUSE a;b", None),
            ("PAUSE ''", None),
            (long.as_str(), None),
            ("", Some(Command::Empty)),
            (" ; ", Some(Command::Empty)),
            (";;", None),
            ("--", None),
            ("BEGIN", Some(Command::Transaction("BEGIN"))),
            ("start transaction", Some(Command::Transaction("START TRANSACTION"))),
            ("END;", Some(Command::Transaction("COMMIT"))),
            ("abort work", Some(Command::Transaction("ROLLBACK"))),
            ("BEGIN app", None),
            ("SHOW WHY 'SELECT ''x'' FROM t; '", Some(Command::Why("SELECT 'x' FROM t; ".to_owned()))),
            ("show why 'a';", Some(Command::Why("a".to_owned()))),
            ("SHOW WHY", None),
            ("SHOW WHY SELECT", None),
            ("SHOW WHY 'a'b'", None),
        ];
        for (sql, expected) in cases {
            assert_eq!(parse(sql), expected, "{sql:?}");
        }
    }

    #[test]
    fn set_takes_a_name_and_a_value() {
        let cases = [
            ("SET default_pool_size=5", set("default_pool_size", "5")),
            ("set default_pool_size = 5;", set("default_pool_size", "5")),
            ("SET datestyle TO 'ISO, MDY'", set("datestyle", "ISO, MDY")),
            ("SET SESSION extra_float_digits = 3", set("extra_float_digits", "3")),
            ("SET server_check_query = 'SELECT ''x'''", set("server_check_query", "SELECT 'x'")),
            ("SET server_check_query = ''", set("server_check_query", "")),
            ("SET a", None),
            ("SET a =", None),
            ("SET a 5", None),
            ("SET a = 'x", None),
            ("SET a = 'x'y'", None),
            ("SET", None),
        ];
        for (sql, expected) in cases {
            assert_eq!(parse(sql), expected, "{sql:?}");
        }
    }
}
