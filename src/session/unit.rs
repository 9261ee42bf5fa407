//! A client's next request as a whole: its messages up to Query or Sync, which one server has to answer.
//!
//! Only looks; nothing is noted. What a message will do is up to whoever asks: a [`Part`] says where to look.

use std::sync::Arc;

use super::{state::ClientSession, statements::Statement, upstream::STREAM_OVER};
use crate::protocol::{
    frame::{HEADER, Header, split_cstr},
    frontend as fe,
};

/// What a message is about.
#[derive(Debug)]
pub enum Part<'a> {
    /// The text of a Query or Parse, without its NUL.
    Text(&'a [u8]),
    /// A statement that was prepared before.
    Prepared(&'a Arc<Statement>),
    /// The start of a long text that has not come as a whole.
    Start(&'a [u8]),
    /// COPY data, or its end.
    Data,
    /// FunctionCall, or a message that nobody knows.
    Unknown,
}

/// How far a request was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// It ends here: so many bytes.
    Whole(usize),
    /// So many bytes up to a Flush: it is answered before the end is known.
    Flushed(usize),
    /// Its end has not come.
    Cut,
}

/// Goes through one request at the start of `input`, message by message.
pub fn parts<'a>(input: &'a [u8], client: &'a ClientSession, mut visit: impl FnMut(Part<'a>)) -> Extent {
    let mut pos = 0;
    let (mut unnamed, mut named) = (false, false);
    loop {
        let rest = input.get(pos..).unwrap_or_default();
        let Some(header) = Header::peek(rest).filter(|header| header.len >= 4) else { return Extent::Cut };
        let total = header.total();
        let message = rest.get(..total).unwrap_or(rest);
        let cut = message.len() < total;
        if cut && (total <= STREAM_OVER || message.len() < STREAM_OVER) {
            return Extent::Cut;
        }
        let body = message.get(HEADER..).unwrap_or_default();
        match header.tag {
            fe::QUERY if cut => visit(Part::Start(body)),
            fe::PARSE if cut => visit(Part::Start(split_cstr(body).map_or(body, |(_, text)| text))),
            fe::QUERY => visit(Part::Text(text_of(body))),
            fe::PARSE => {
                let (name, text) = split_cstr(body).unwrap_or((b"", body));
                unnamed |= name.is_empty();
                named |= !name.is_empty();
                visit(Part::Text(text_of(text)));
            }
            fe::BIND => {
                let name = split_cstr(body).and_then(|(_, behind)| split_cstr(behind)).map(|(name, _)| name);
                about(name, client, (unnamed, named), &mut visit);
            }
            fe::DESCRIBE => {
                let name = body.strip_prefix(b"S").and_then(split_cstr).map(|(name, _)| name);
                if name.is_some() {
                    about(name, client, (unnamed, named), &mut visit);
                }
            }
            fe::EXECUTE | fe::CLOSE | fe::SYNC => {}
            fe::COPY_DATA | fe::COPY_DONE | fe::COPY_FAIL => visit(Part::Data),
            fe::FLUSH => return Extent::Flushed(pos + total),
            _ => visit(Part::Unknown),
        }
        if cut {
            return Extent::Cut;
        }
        pos += total;
        if matches!(header.tag, fe::QUERY | fe::SYNC | fe::FUNCTION_CALL) {
            return Extent::Whole(pos);
        }
    }
}

/// The one text that a whole request is about, and the request's length; `None` if there are several, or one gets a name.
pub fn only_text<'a>(input: &'a [u8], client: &'a ClientSession) -> Option<(&'a [u8], usize)> {
    let mut found = None;
    let mut several = false;
    let extent = parts(input, client, |part| {
        let text = match part {
            Part::Text(text) => text,
            Part::Prepared(statement) => text_of(&statement.text_and_types),
            Part::Start(_) | Part::Data | Part::Unknown => {
                several = true;
                return;
            }
        };
        several |= found.replace(text).is_some_and(|other| other != text);
    });
    let Extent::Whole(len) = extent else { return None };
    let named = names_statements(input.get(..len)?);
    found.filter(|_| !several && !named).map(|text| (text, len))
}

/// A request gives a name to a statement or takes one away: to send it twice would not be the same.
pub fn names_statements(request: &[u8]) -> bool {
    let mut rest = request;
    while let Some(header) = Header::peek(rest) {
        let body = rest.get(HEADER..).unwrap_or_default();
        let named = match header.tag {
            fe::PARSE => body.first() != Some(&0),
            fe::CLOSE => body.first() == Some(&b'S') && body.get(1) != Some(&0),
            _ => false,
        };
        if named {
            return true;
        }
        rest = rest.get(header.total()..).unwrap_or_default();
    }
    false
}

/// The statement that Bind or Describe names. One that is parsed in the same request (unnamed, or with a name) has been
/// visited then. Others that are not known may be the client's where names pass as they are.
fn about<'a>(
    name: Option<&[u8]>,
    client: &'a ClientSession,
    parsed: (bool, bool),
    visit: &mut impl FnMut(Part<'a>),
) {
    match name {
        Some([]) if parsed.0 || client.unnamed.is_empty() => {}
        Some([]) => visit(Part::Text(text_of(&client.unnamed))),
        Some(name) => match client.statements.as_ref().and_then(|known| known.get(name)) {
            Some(statement) => visit(Part::Prepared(statement)),
            None if parsed.1 => {}
            None => visit(Part::Unknown),
        },
        None => visit(Part::Unknown),
    }
}

fn text_of(body: &[u8]) -> &[u8] {
    split_cstr(body).map_or(body, |(text, _)| text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        protocol::encode,
        session::{params::Params, statements::Registry},
    };

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode::message(&mut out, tag, |b| b.extend_from_slice(body));
        out
    }

    fn seen(input: &[u8]) -> (Vec<String>, Extent) {
        let mut client = ClientSession::new(7, Arc::new(Params::default()));
        let known = Registry::new(0).intern(b"SELECT known\0\0\0", "");
        client.statements.get_or_insert_default().insert(b"k", known);
        client.unnamed = b"SELECT unnamed\0\0\0".to_vec();
        let mut found = Vec::new();
        let extent = parts(input, &client, |part| {
            found.push(match part {
                Part::Text(text) => String::from_utf8_lossy(text).into_owned(),
                Part::Prepared(statement) => {
                    format!("prepared {}", String::from_utf8_lossy(text_of(&statement.text_and_types)))
                }
                Part::Start(text) => format!("{} …", String::from_utf8_lossy(text).trim()),
                Part::Data => "data".to_owned(),
                Part::Unknown => "?".to_owned(),
            });
        });
        (found, extent)
    }

    #[test]
    fn requests_are_seen_as_a_whole() {
        let [query, parse, bind, sync] = [
            message(b'Q', b"SELECT 1\0"),
            message(b'P', b"\0SELECT 2\0\0\0"),
            message(b'B', b"\0\0\0\0\0\0\0\0"),
            message(b'S', b""),
        ];
        let named = message(b'B', b"\0k\0\0\0\0\0\0\0");
        let strange = message(b'B', b"\0x\0\0\0\0\0\0\0");
        let execute = message(b'E', b"\0\0\0\0\0");
        let flush = message(b'H', b"");
        for (messages, expected, whole) in [
            (vec![&query, &sync], vec!["SELECT 1"], Some(1)),
            (vec![&parse, &bind, &execute, &sync, &query], vec!["SELECT 2"], Some(4)),
            (vec![&bind, &execute, &sync], vec!["SELECT unnamed"], Some(3)),
            (vec![&named, &execute, &sync], vec!["prepared SELECT known"], Some(3)),
            (vec![&strange, &execute, &sync], vec!["?"], Some(3)),
            (vec![&message(b'P', b"x\0SELECT 3\0\0\0"), &strange, &sync], vec!["SELECT 3"], Some(3)),
            (vec![&parse, &query], vec!["SELECT 2", "SELECT 1"], Some(2)),
            (vec![&parse, &bind, &execute], vec!["SELECT 2"], None),
            (vec![&message(b'F', b"\0\0\0\0")], vec!["?"], Some(1)),
            (vec![&message(b'D', b"Sk\0"), &sync], vec!["prepared SELECT known"], Some(2)),
            (vec![&message(b'D', b"P\0"), &sync], vec![], Some(2)),
            (vec![&message(b'B', b"\0"), &sync], vec!["?"], Some(2)),
            (vec![&message(b'd', b"1"), &message(b'c', b""), &sync], vec!["data", "data"], Some(3)),
            (vec![], vec![], None),
        ] {
            let len = |n: usize| messages.iter().take(n).map(|m| m.len()).sum();
            let input: Vec<u8> = messages.iter().flat_map(|m| m.iter().copied()).collect();
            let extent = whole.map_or(Extent::Cut, |n| Extent::Whole(len(n)));
            let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(seen(&input), (expected, extent), "{}", String::from_utf8_lossy(&input));
        }
        let flushed = [parse.clone(), flush.clone(), bind, sync].concat();
        assert_eq!(seen(&flushed), (vec!["SELECT 2".to_owned()], Extent::Flushed(parse.len() + flush.len())));
        // A message that has not come as a whole: of a long one the start is sent.
        assert_eq!(seen(&query[..query.len() - 3]), (vec![], Extent::Cut));
        assert_eq!(seen(b"Q\0\0\0\x03"), (vec![], Extent::Cut));
        let long = message(b'Q', &[b' '; 40_000]);
        assert_eq!(seen(&long[..20_000]), (vec![" …".to_owned()], Extent::Cut));
        assert_eq!(seen(&long[..10_000]), (vec![], Extent::Cut));
    }
}
