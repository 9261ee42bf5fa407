//! LISTEN and UNLISTEN in a text: the channels, and the same text for a server that is not to listen itself.

use super::{
    keywords::{self, Group, Key},
    lexer::{HIGH, Lexer, Token, TokenKind},
    names,
};

/// What one statement asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Listen(Box<[u8]>),
    /// `None`: all channels.
    Unlisten(Option<Box<[u8]>>),
}

/// What a text asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channels {
    /// One for each of its LISTENs and UNLISTENs.
    pub actions: Box<[Action]>,
    /// The text with UNLISTEN in the place of each LISTEN: refused by a server where that would be, and with no effect on
    /// one that does not listen.
    pub instead: Box<[u8]>,
    /// There is nothing else in it.
    pub alone: bool,
}

impl Channels {
    /// It stops listening to something.
    pub fn unlistens(&self) -> bool {
        self.actions.iter().any(|action| matches!(action, Action::Unlisten(_)))
    }

    /// The channels that it listens to.
    pub fn listens(&self) -> impl Iterator<Item = &[u8]> {
        self.actions.iter().filter_map(|action| match action {
            Action::Listen(channel) => Some(&**channel),
            Action::Unlisten(_) => None,
        })
    }
}

/// What a text asks for; `None` if that is nothing, or cannot be told for sure. For texts in UTF-8.
pub fn channels(text: &[u8]) -> Option<Channels> {
    if !mentions_listen(text) {
        return None;
    }
    let mut lexer = Lexer::new(text, true);
    let text = lexer.text();
    let mut found = Vec::new();
    let mut instead = Vec::with_capacity(text.len() + 8);
    let (mut copied, mut alone) = (0, true);
    loop {
        let statement = Statement::read(&mut lexer)?;
        match statement.kind {
            Kind::Listen(at, channel) => {
                instead.extend_from_slice(text.get(copied..at)?);
                instead.extend_from_slice(b"UN");
                copied = at;
                found.push(Action::Listen(channel));
            }
            Kind::Unlisten(channel) => found.push(Action::Unlisten(channel)),
            Kind::Empty => {}
            Kind::Other => alone = false,
        }
        if statement.last {
            break;
        }
    }
    instead.extend_from_slice(text.get(copied..)?);
    // In other statements a backslash may hide where they end.
    let certain = alone || !text.contains(&b'\\');
    let channels = Channels { actions: found.into(), instead: instead.into(), alone };
    (certain && !channels.actions.is_empty()).then_some(channels)
}

/// `listen` is in it, in upper or lower case.
fn mentions_listen(text: &[u8]) -> bool {
    const REST: &[u8] = b"isten";
    memchr::memchr2_iter(b'l', b'L', text)
        .any(|at| text.get(at + 1..at + 1 + REST.len()).is_some_and(|rest| rest.eq_ignore_ascii_case(REST)))
}

/// One statement of a text.
struct Statement {
    kind: Kind,
    /// The text ends with it.
    last: bool,
}

enum Kind {
    /// Where it begins, and the channel.
    Listen(usize, Box<[u8]>),
    Unlisten(Option<Box<[u8]>>),
    Empty,
    Other,
}

impl Statement {
    /// Reads up to a semicolon, or the end. `None`: what it does is not known.
    fn read(lexer: &mut Lexer<'_>) -> Option<Self> {
        let mut tokens = [None; 3];
        let (mut count, mut last) = (0_usize, true);
        for token in lexer.by_ref() {
            let token = token.ok()?;
            if token.kind == TokenKind::Punctuation(b';') {
                last = false;
                break;
            }
            if let Some(place) = tokens.get_mut(count) {
                *place = Some(token);
            }
            count += 1;
        }
        let text = lexer.text();
        let kind = match tokens {
            [None, ..] => Kind::Empty,
            [Some(verb), argument, more] => {
                let argument = argument.filter(|_| more.is_none());
                Kind::of(text, verb, argument)?
            }
        };
        Some(Self { kind, last })
    }
}

impl Kind {
    fn of(text: &[u8], verb: Token, argument: Option<Token>) -> Option<Self> {
        let key = if verb.kind == TokenKind::Word { keywords::of(text, verb).key } else { Key::Other };
        match key {
            Key::Listen => Some(Self::Listen(verb.start(), channel(text, argument?)?)),
            Key::Unlisten if is_star(text, argument?) => Some(Self::Unlisten(None)),
            Key::Unlisten => Some(Self::Unlisten(Some(channel(text, argument?)?))),
            // Savepoints may undo what comes behind them; semicolons may be within what is created.
            Key::Savepoint | Key::Release | Key::Create => None,
            _ => Some(Self::Other),
        }
    }
}

fn is_star(text: &[u8], token: Token) -> bool {
    text.get(token.range()) == Some(b"*")
}

/// A name of a channel, as the server reads it.
fn channel(text: &[u8], token: Token) -> Option<Box<[u8]>> {
    let word = token.kind == TokenKind::Word;
    let is_name = word && matches!(keywords::of(text, token).group, Group::Name | Group::Column);
    if !is_name && token.kind != TokenKind::Quoted {
        return None;
    }
    // What is cut, or is no ASCII without quotes, depends on the server's encoding.
    if token.range().len() > names::LONGEST || (word && token.classes & HIGH != 0) {
        return None;
    }
    let mut buffer = [0; names::LONGEST];
    names::fold(text, token, &mut buffer).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(channel: &str) -> Action {
        Action::Listen(channel.as_bytes().into())
    }

    fn unlisten(channel: &str) -> Action {
        Action::Unlisten(Some(channel.as_bytes().into()))
    }

    #[test]
    fn channels_are_read_as_the_server_does() {
        for (text, actions, instead, alone) in [
            ("LISTEN a", vec![listen("a")], "UNLISTEN a", true),
            ("\n listen \"A \"\"b\" ; ;", vec![listen("A \"b")], "\n UNlisten \"A \"\"b\" ; ;", true),
            ("/* c */ Listen News_1 -- d", vec![listen("news_1")], "/* c */ UNListen News_1 -- d", true),
            ("LISTEN \"\u{fc}\\\"", vec![listen("\u{fc}\\")], "UNLISTEN \"\u{fc}\\\"", true),
            ("UNLISTEN a", vec![unlisten("a")], "UNLISTEN a", true),
            ("unlisten *", vec![Action::Unlisten(None)], "unlisten *", true),
            (
                "LISTEN a; LISTEN b;UNLISTEN c",
                vec![listen("a"), listen("b"), unlisten("c")],
                "UNLISTEN a; UNLISTEN b;UNLISTEN c",
                true,
            ),
            (
                "BEGIN; LISTEN a; SELECT ';LISTEN x' FROM listen; COMMIT",
                vec![listen("a")],
                "BEGIN; UNLISTEN a; SELECT ';LISTEN x' FROM listen; COMMIT",
                false,
            ),
        ] {
            let expected = Channels { actions: actions.into(), instead: instead.as_bytes().into(), alone };
            assert_eq!(channels(text.as_bytes()), Some(expected.clone()), "{text}");
            assert_eq!(channels(format!("{text}\0\0\0").as_bytes()), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_certain_is_left_to_the_server() {
        let long = format!("LISTEN {}", "x".repeat(64));
        for text in [
            "",
            "SELECT 1",
            "SELECT listen FROM t",
            "LISTEN",
            "LISTEN *",
            "LISTEN 'a'",
            "LISTEN a b",
            "LISTEN a, b",
            "LISTEN a.b",
            "LISTEN select",
            "LISTEN \"\"",
            "LISTEN \u{fc}",
            "LISTEN U&\"a\"",
            "LISTEN $1",
            "SAVEPOINT s; LISTEN a",
            "LISTEN a; CREATE RULE r AS ON INSERT TO t DO (SELECT 1; LISTEN a)",
            "SELECT '\\'; LISTEN a; --'",
            "LISTEN a; SELECT 'open",
            "DO $$ BEGIN LISTEN a; END $$",
            &long,
        ] {
            assert_eq!(channels(text.as_bytes()), None, "{text}");
        }
    }
}
