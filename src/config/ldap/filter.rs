//! Search filters (RFC 4515). A user's name is put into a filter that has been read already: nothing in a name can change what is
//! searched for.

/// What entries have to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Not(Box<Filter>),
    Present(String),
    /// Attribute, the kind of comparison, value.
    Compare(String, Comparison, Vec<Part>),
    /// Attribute; beginning, parts amid, end.
    Substrings(String, Option<Vec<Part>>, Vec<Vec<Part>>, Option<Vec<Part>>),
    /// Rule, attribute, value, and whether parts of the DN count.
    Extensible(Option<String>, Option<String>, Vec<Part>, bool),
}

/// How values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    GreaterOrEqual,
    LessOrEqual,
    Approximate,
}

/// A part of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Bytes(Vec<u8>),
    /// The name of who logs in.
    User,
}

const USER: &str = "$username";
/// Filters within filters.
const DEEPEST: usize = 20;

impl Filter {
    /// `(ATTRIBUTE=$username)`.
    pub(super) fn attribute_is_user(attribute: &str) -> Result<Self, String> {
        let name = self::attribute(attribute).ok_or("ldapsearchattribute is not the name of an attribute")?;
        Ok(Self::Compare(name, Comparison::Equal, vec![Part::User]))
    }

    /// Reads one. Brackets around the whole may be missing, as OpenLDAP takes it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let read = if text.starts_with('(') { filter(text, 0) } else { item(text).map(|found| (found, "")) };
        match read {
            Some((filter, "")) => Ok(filter),
            _ => Err("ldapsearchfilter is not of RFC 4515".to_owned()),
        }
    }
}

/// A filter in brackets, and what is behind it.
fn filter(text: &str, depth: usize) -> Option<(Filter, &str)> {
    let text = text.strip_prefix('(').filter(|_| depth < DEEPEST)?;
    let (found, rest) = match text.chars().next()? {
        '&' => list(text.get(1..)?, depth).map(|(found, rest)| (Filter::And(found), rest))?,
        '|' => list(text.get(1..)?, depth).map(|(found, rest)| (Filter::Or(found), rest))?,
        '!' => filter(text.get(1..)?, depth + 1).map(|(found, rest)| (Filter::Not(Box::new(found)), rest))?,
        _ => {
            let end = text.find(')')?;
            (item(text.get(..end)?)?, text.get(end..)?)
        }
    };
    Some((found, rest.strip_prefix(')')?))
}

fn list(mut text: &str, depth: usize) -> Option<(Vec<Filter>, &str)> {
    let mut found = Vec::new();
    while text.starts_with('(') {
        let (next, rest) = filter(text, depth + 1)?;
        found.push(next);
        text = rest;
    }
    Some((found, text))
}

/// A comparison without its brackets.
fn item(text: &str) -> Option<Filter> {
    let (left, right) = text.split_once('=')?;
    if let Some(left) = left.strip_suffix(':') {
        return extensible(left, right);
    }
    let (name, comparison) = match left.char_indices().next_back()? {
        (at, '>') => (left.get(..at)?, Comparison::GreaterOrEqual),
        (at, '<') => (left.get(..at)?, Comparison::LessOrEqual),
        (at, '~') => (left.get(..at)?, Comparison::Approximate),
        _ => (left, Comparison::Equal),
    };
    let name = attribute(name)?;
    if comparison != Comparison::Equal || !right.contains('*') {
        return Some(Filter::Compare(name, comparison, value(right)?));
    }
    if right == "*" {
        return Some(Filter::Present(name));
    }
    let parts: Vec<&str> = right.split('*').collect();
    let (first, others) = parts.split_first()?;
    let (last, amid) = others.split_last()?;
    let end = |text: &str| if text.is_empty() { Some(None) } else { value(text).map(Some) };
    let amid = amid.iter().filter(|part| !part.is_empty()).map(|part| value(part)).collect::<Option<_>>()?;
    Some(Filter::Substrings(name, end(first)?, amid, end(last)?))
}

/// `[ATTRIBUTE][:dn][:RULE]` in front of `:=`.
fn extensible(left: &str, right: &str) -> Option<Filter> {
    let mut parts = left.split(':');
    let first = parts.next()?;
    let name = if first.is_empty() { None } else { Some(attribute(first)?) };
    let (mut rule, mut of_dn) = (None, false);
    for part in parts {
        if part.eq_ignore_ascii_case("dn") && !of_dn && rule.is_none() {
            of_dn = true;
        } else if rule.is_none() {
            rule = Some(attribute(part)?);
        } else {
            return None;
        }
    }
    (name.is_some() || rule.is_some()).then_some(())?;
    Some(Filter::Extensible(rule, name, value(right)?, of_dn))
}

/// The name of an attribute, or its number, with options.
fn attribute(text: &str) -> Option<String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b';' | b'_');
    (!text.is_empty() && text.bytes().all(legal)).then(|| text.to_owned())
}

/// A value with `\XX` for bytes and [`USER`] for the user's name.
fn value(text: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    for (index, piece) in text.split(USER).enumerate() {
        if index > 0 {
            parts.push(Part::User);
        }
        let bytes = unescaped(piece)?;
        if !bytes.is_empty() {
            parts.push(Part::Bytes(bytes));
        }
    }
    Some(parts)
}

fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                let digits = [bytes.next()?, bytes.next()?];
                out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
            }
            b'(' | b'*' | b'\0' => return None,
            byte => out.push(byte),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<Part> {
        vec![Part::Bytes(text.as_bytes().to_vec())]
    }

    #[test]
    fn filters_are_read_and_names_stay_apart() {
        let equal = |name: &str, value| Filter::Compare(name.to_owned(), Comparison::Equal, value);
        for (text, expected) in [
            ("(uid=$username)", equal("uid", vec![Part::User])),
            ("uid=$username", equal("uid", vec![Part::User])),
            ("(cn=a\\28b\\29)", equal("cn", bytes("a(b)"))),
            (
                "(mail=$username@example.net)",
                equal("mail", vec![Part::User, Part::Bytes(b"@example.net".to_vec())]),
            ),
            (
                "(&(objectClass=*)(!(a>=1))(|(uid=$username)(b~=x)(c<=2)))",
                Filter::And(vec![
                    Filter::Present("objectClass".to_owned()),
                    Filter::Not(Box::new(Filter::Compare(
                        "a".to_owned(),
                        Comparison::GreaterOrEqual,
                        bytes("1"),
                    ))),
                    Filter::Or(vec![
                        equal("uid", vec![Part::User]),
                        Filter::Compare("b".to_owned(), Comparison::Approximate, bytes("x")),
                        Filter::Compare("c".to_owned(), Comparison::LessOrEqual, bytes("2")),
                    ]),
                ]),
            ),
            (
                "(cn=a*b**$username)",
                Filter::Substrings(
                    "cn".to_owned(),
                    Some(bytes("a")),
                    vec![bytes("b")],
                    Some(vec![Part::User]),
                ),
            ),
            ("(cn=*x*)", Filter::Substrings("cn".to_owned(), None, vec![bytes("x")], None)),
            (
                "(memberOf:1.2.840.113556.1.4.1941:=cn=dba,dc=x)",
                Filter::Extensible(
                    Some("1.2.840.113556.1.4.1941".to_owned()),
                    Some("memberOf".to_owned()),
                    bytes("cn=dba,dc=x"),
                    false,
                ),
            ),
            ("(ou:dn:=x)", Filter::Extensible(None, Some("ou".to_owned()), bytes("x"), true)),
        ] {
            assert_eq!(Filter::parse(text), Ok(expected), "{text}");
        }
        let deep = format!("{}(a=b){}", "(!".repeat(100), ")".repeat(100));
        for text in [
            "",
            "(",
            "()",
            "(a)",
            "(=b)",
            "(a=b",
            "(a=b))",
            "(a=b)(c=d)",
            "(a=\\4)",
            "(a=\\zz)",
            "(a b=c)",
            "(:=x)",
            &deep,
        ] {
            assert!(Filter::parse(text).is_err(), "{text}");
        }
    }
}
