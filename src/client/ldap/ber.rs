//! The messages of LDAP (RFC 4511, BER) that a bind and a search take. Pure.

use zeroize::Zeroizing;

use crate::config::ldap::{Comparison, Filter, Part, Scope};

/// Tags of messages.
const BIND: u8 = 0x60;
const BIND_ANSWER: u8 = 0x61;
const UNBIND: u8 = 0x42;
const SEARCH: u8 = 0x63;
const ENTRY: u8 = 0x64;
const SEARCH_DONE: u8 = 0x65;
const REFERENCE: u8 = 0x73;
const EXTENDED: u8 = 0x77;
const EXTENDED_ANSWER: u8 = 0x78;
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
const BOOLEAN: u8 = 0x01;

/// StartTLS (RFC 4511, 4.14).
const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";
/// No attribute of an entry is wanted (RFC 4511, 4.5.1.8).
const NO_ATTRIBUTE: &[u8] = b"1.1";

/// Value of one tag.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len();
    if let (Ok(short), true) = (u8::try_from(length), length < 0x80) {
        out.push(short);
    } else {
        let bytes = length.to_be_bytes();
        let significant: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
        // Eight bytes at most.
        out.push(0x80 | u8::try_from(significant.len()).unwrap_or(0));
        out.extend(significant);
    }
    out.extend(content);
    out
}

fn message(id: u8, operation: Vec<u8>) -> Vec<u8> {
    tagged(SEQUENCE, &[tagged(INTEGER, &[id]), operation].concat())
}

/// A bind by name and password.
pub(super) fn bind(id: u8, name: &str, password: &str) -> Zeroizing<Vec<u8>> {
    let parts = [tagged(INTEGER, &[3]), tagged(OCTETS, name.as_bytes()), tagged(0x80, password.as_bytes())];
    Zeroizing::new(message(id, tagged(BIND, &Zeroizing::new(parts.concat()))))
}

pub(super) fn unbind(id: u8) -> Vec<u8> {
    message(id, vec![UNBIND, 0])
}

pub(super) fn start_tls(id: u8) -> Vec<u8> {
    message(id, tagged(EXTENDED, &tagged(0x80, START_TLS)))
}

/// A search for two entries at most: one is what is hoped for.
pub(super) fn search(id: u8, base: &str, scope: Scope, filter: &Filter, user: &str, seconds: u8) -> Vec<u8> {
    let parts = [
        tagged(OCTETS, base.as_bytes()),
        tagged(ENUMERATED, &[scope as u8]),
        // Aliases are not followed, as libldap does by default.
        tagged(ENUMERATED, &[0]),
        tagged(INTEGER, &[2]),
        tagged(INTEGER, &[seconds]),
        tagged(BOOLEAN, &[0xff]),
        self::filter(filter, user.as_bytes()),
        tagged(SEQUENCE, &tagged(OCTETS, NO_ATTRIBUTE)),
    ];
    message(id, tagged(SEARCH, &parts.concat()))
}

fn filter(filter: &Filter, user: &[u8]) -> Vec<u8> {
    let all =
        |filters: &[Filter]| filters.iter().flat_map(|part| self::filter(part, user)).collect::<Vec<_>>();
    let name = |name: &String| tagged(OCTETS, name.as_bytes());
    let value = |parts: &[Part]| value(parts, user);
    match filter {
        Filter::And(filters) => tagged(0xa0, &all(filters)),
        Filter::Or(filters) => tagged(0xa1, &all(filters)),
        Filter::Not(negated) => tagged(0xa2, &self::filter(negated, user)),
        Filter::Present(attribute) => tagged(0x87, attribute.as_bytes()),
        Filter::Compare(attribute, comparison, parts) => {
            let tag = match comparison {
                Comparison::Equal => 0xa3,
                Comparison::GreaterOrEqual => 0xa5,
                Comparison::LessOrEqual => 0xa6,
                Comparison::Approximate => 0xa8,
            };
            tagged(tag, &[name(attribute), tagged(OCTETS, &value(parts))].concat())
        }
        Filter::Substrings(attribute, start, amid, end) => {
            let start = start.iter().map(|parts| tagged(0x80, &value(parts)));
            let amid = amid.iter().map(|parts| tagged(0x81, &value(parts)));
            let end = end.iter().map(|parts| tagged(0x82, &value(parts)));
            let parts: Vec<u8> = start.chain(amid).chain(end).flatten().collect();
            tagged(0xa4, &[name(attribute), tagged(SEQUENCE, &parts)].concat())
        }
        Filter::Extensible(rule, attribute, parts, of_dn) => {
            let rule = rule.iter().flat_map(|rule| tagged(0x81, rule.as_bytes()));
            let attribute = attribute.iter().flat_map(|name| tagged(0x82, name.as_bytes()));
            let value = tagged(0x83, &value(parts));
            let of_dn = of_dn.then(|| tagged(0x84, &[0xff])).into_iter().flatten();
            tagged(0xa9, &rule.chain(attribute).chain(value).chain(of_dn).collect::<Vec<u8>>())
        }
    }
}

fn value(parts: &[Part], user: &[u8]) -> Vec<u8> {
    let bytes = parts.iter().map(|part| match part {
        Part::Bytes(bytes) => bytes.as_slice(),
        Part::User => user,
    });
    bytes.flatten().copied().collect()
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The code of the result, 0: success; and what the server says to it.
    Result(u64, String),
    /// The name of an entry that was found.
    Entry(String),
    /// It knows somebody else who may know. Nobody is asked.
    Reference,
}

/// Where a value ends: the bytes of its head, and of its content. `None`: there are not enough bytes yet, or none will do.
pub(super) fn head(bytes: &[u8]) -> Option<(usize, usize)> {
    let first = *bytes.get(1)?;
    if first < 0x80 {
        return Some((2, usize::from(first)));
    }
    let count = usize::from(first & 0x7f);
    let digits = bytes.get(2..2 + count).filter(|digits| (1..=4).contains(&digits.len()))?;
    Some((2 + count, digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit))))
}

/// The next value: its tag, its content, and what is behind it.
fn take(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (start, length) = head(bytes)?;
    let (whole, rest) = bytes.split_at_checked(start.checked_add(length)?)?;
    Some((*whole.first()?, whole.get(start..)?, rest))
}

/// Reads the answer to request `id`; `None` if it is none.
pub(super) fn answer(bytes: &[u8], id: u8) -> Option<Answer> {
    let (SEQUENCE, content, []) = take(bytes)? else { return None };
    let (INTEGER, number, rest) = take(content)? else { return None };
    let (tag, content, _) = take(rest)?;
    match tag {
        // A notice that it hangs up has number 0 (RFC 4511, 4.4.1).
        EXTENDED_ANSWER if number == [0] => result(content),
        _ if number != [id] => None,
        BIND_ANSWER | SEARCH_DONE | EXTENDED_ANSWER => result(content),
        ENTRY => {
            let (OCTETS, name, _) = take(content)? else { return None };
            Some(Answer::Entry(std::str::from_utf8(name).ok()?.to_owned()))
        }
        REFERENCE => Some(Answer::Reference),
        _ => None,
    }
}

fn result(content: &[u8]) -> Option<Answer> {
    let (ENUMERATED, code, rest) = take(content)? else { return None };
    let (_, _name, rest) = take(rest)?;
    let (_, said, _) = take(rest)?;
    (code.len() <= 4).then_some(())?;
    let code = code.iter().fold(0, |code, byte| code << 8 | u64::from(*byte));
    Some(Answer::Result(code, String::from_utf8_lossy(said).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_those_of_the_standard() {
        assert_eq!(
            *bind(1, "cn=x", "pw"),
            [&[0x30, 0x12, 2, 1, 1, 0x60, 13, 2, 1, 3, 4, 4][..], b"cn=x", &[0x80, 2], b"pw"].concat()
        );
        assert_eq!(unbind(2), [0x30, 5, 2, 1, 2, 0x42, 0]);
        assert_eq!(tagged(4, &[7; 200])[..3], [4, 0x81, 200]);
        assert_eq!(tagged(4, &[7; 300])[..4], [4, 0x82, 1, 44]);
        // A name cannot be more than a value.
        let equal = Filter::Compare("uid".to_owned(), Comparison::Equal, vec![Part::User]);
        let hostile = "x)(uid=*";
        let expected = [&[0xa3, 15, 4, 3][..], b"uid", &[4, 8], hostile.as_bytes()].concat();
        assert_eq!(filter(&equal, hostile.as_bytes()), expected);
    }

    #[test]
    fn answers_are_read_and_nothing_else() {
        let done = message(2, tagged(SEARCH_DONE, &[0x0a, 1, 0, 4, 0, 4, 0]));
        assert_eq!(answer(&done, 2), Some(Answer::Result(0, String::new())));
        let refused = message(1, tagged(BIND_ANSWER, &[0x0a, 1, 49, 4, 0, 4, 2, b'n', b'o']));
        assert_eq!(answer(&refused, 1), Some(Answer::Result(49, "no".to_owned())));
        let entry = message(2, tagged(ENTRY, &[4, 3, b'c', b'=', b'x', 0x30, 0]));
        assert_eq!(answer(&entry, 2), Some(Answer::Entry("c=x".to_owned())));
        let notice = message(0, tagged(EXTENDED_ANSWER, &[0x0a, 1, 52, 4, 0, 4, 0]));
        assert_eq!(answer(&notice, 7), Some(Answer::Result(52, String::new())));
        // Of another request; cut; with something behind.
        assert_eq!(answer(&done, 3), None);
        for end in 0..done.len() {
            assert_eq!(answer(&done[..end], 2), None, "{end}");
        }
        assert_eq!(answer(&[&done[..], &[0]].concat(), 2), None);
        assert_eq!(head(&[0x30, 0x85, 1, 2, 3, 4, 5]), None);
        assert_eq!(head(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), Some((6, 0xffff_ffff)));
        assert_eq!(head(&[0x30, 0x80]), None);
    }
}
