//! From tokens to a class: takes a text apart into statements, and puts what they do together.

use super::{
    Catalog, Class, Dialect, Facts, Hint, Kind, Names, PoolerStatement, Why, control,
    keywords::{self, Key},
    lexer::{Junk, Lexer, Token, TokenKind},
    scan::{Last, Scan},
};

/// What a text (a Query string, or the text of a Parse) does.
pub fn classify(text: &[u8], dialect: Dialect, catalog: &Catalog) -> Class {
    classify_with(text, dialect, catalog)
}

/// The same with whatever knows the database.
pub fn classify_with<F: Facts + ?Sized>(text: &[u8], dialect: Dialect, catalog: &F) -> Class {
    if !dialect.ascii_safe && !text.is_ascii() {
        return Class { async_commit: mentions_commit(text, true), ..Class::primary(Why::Encoding) };
    }
    let lexer = Lexer::new(text, dialect.standard_strings);
    let mut statements =
        Statements { scan: Scan::new(lexer.text(), catalog), lexer, count: 0, control: None, own: false };
    let read = statements.read();
    statements.into_class(read)
}

/// The statements of a text, one after the other.
struct Statements<'a, F: ?Sized> {
    lexer: Lexer<'a>,
    scan: Scan<'a, F>,
    count: usize,
    /// The last statement about transactions or settings, by its kind and first word.
    control: Option<(Kind, Token)>,
    /// One of them was about pooler.
    own: bool,
}

impl<F: Facts + ?Sized> Statements<'_, F> {
    fn read(&mut self) -> Result<(), Junk> {
        while let Some(token) = self.lexer.next().transpose()? {
            if token.kind != TokenKind::Punctuation(b';') {
                self.count += 1;
                self.statement(token)?;
            }
        }
        Ok(())
    }

    fn statement(&mut self, first: Token) -> Result<(), Junk> {
        self.scan.start();
        let mut token = first;
        while token.kind == TokenKind::Punctuation(b'(') {
            self.scan.token(token, &self.lexer);
            self.scan.last = Last::Start;
            let Some(next) = self.lexer.next().transpose()? else { break };
            token = next;
        }
        let key = match token.kind {
            TokenKind::Word => keywords::of(self.scan.text, token).key,
            _ => Key::Other,
        };
        match key {
            Key::Select | Key::With | Key::Values | Key::Table | Key::Explain => self.rows(token),
            Key::Insert | Key::Update | Key::Delete | Key::Merge | Key::Copy if token == first => {
                self.rows(token)
            }
            _ if control::is_control(key) && token == first => self.control(key, first),
            _ => self.other(key, token),
        }
    }

    /// A statement that the rules about rows are for.
    fn rows(&mut self, first: Token) -> Result<(), Junk> {
        self.scan.token(first, &self.lexer);
        while let Some(token) = self.lexer.next().transpose()? {
            if token.kind == TokenKind::Punctuation(b';') {
                break;
            }
            self.scan.token(token, &self.lexer);
        }
        self.scan.finish();
        Ok(())
    }

    fn control(&mut self, key: Key, first: Token) -> Result<(), Junk> {
        let control = control::parse(key, &self.lexer);
        self.scan.writes.any |= control.writes;
        self.own |= matches!(control.kind, Kind::Pooler(_));
        self.control = Some((control.kind, first));
        while let Some(token) = self.lexer.next().transpose()? {
            if token.kind == TokenKind::Punctuation(b';') {
                break;
            }
        }
        Ok(())
    }

    /// Everything else is for the primary; what it leaves in the session is told by a few words.
    fn other(&mut self, key: Key, first: Token) -> Result<(), Junk> {
        self.scan.violate(Why::Statement, Some(first));
        self.scan.writes.any |= !matches!(
            key,
            Key::Lock
                | Key::Listen
                | Key::Unlisten
                | Key::Notify
                | Key::Deallocate
                | Key::Discard
                | Key::Close
        );
        self.scan.session |= matches!(
            key,
            Key::Listen | Key::Unlisten | Key::Discard | Key::Load | Key::Do | Key::Call | Key::Execute
        );
        let mut last = key;
        let mut place = 0;
        let mut two_phase = false;
        while let Some(token) = self.lexer.next().transpose()? {
            let word = match token.kind {
                TokenKind::Punctuation(b';') => break,
                TokenKind::Word => keywords::of(self.scan.text, token).key,
                _ => Key::Other,
            };
            self.scan.session |= match word {
                Key::Temp => {
                    matches!(last, Key::Create | Key::Replace | Key::Local | Key::Global | Key::Into)
                }
                Key::Hold => key == Key::Declare && last == Key::With,
                _ => false,
            };
            // PREPARE TRANSACTION 'x' leaves nothing; a statement may have that name.
            two_phase |= place == 1 && matches!(token.kind, TokenKind::Text | TokenKind::Escaped);
            if matches!(token.kind, TokenKind::Word | TokenKind::Quoted) {
                self.scan.note_temporary(token);
                // `PREPARE p AS SELECT set_config('pooler.…', …)`
                self.own |= control::calls_pooler(token, &self.lexer);
            }
            last = word;
            place += 1;
        }
        self.scan.session |= key == Key::Prepare && !two_phase;
        Ok(())
    }

    fn into_class(self, read: Result<(), Junk>) -> Class {
        let text = self.lexer.text();
        let hint = self.lexer.comment().and_then(hint);
        if read.is_err() {
            let async_commit = mentions_commit(text, true);
            return Class { hint, async_commit, ..Class::primary(Why::Unreadable) };
        }
        let scan = self.scan;
        let violation = match (&self.control, scan.violation) {
            (Some((_, word)), _) if self.count > 1 => Some((Why::Several, Some(*word))),
            (Some((_, word)), _) => Some((Why::Statement, Some(*word))),
            (None, None) if self.count > 0 && scan.catalog.is_unknown() => Some((Why::NoCatalog, None)),
            (None, violation) => violation,
        };
        let nothing = Names::Known(Box::default());
        let Some((why, culprit)) = violation else {
            let kind = if self.count == 0 { Kind::Empty } else { Kind::Read };
            let reads = scan.reads.into_names();
            return Class {
                kind,
                why: Why::Read,
                culprit: None,
                hint,
                reads,
                writes: nothing,
                async_commit: false,
                session: scan.session,
                literal: scan.literal,
            };
        };
        let kind = match self.control {
            Some((kind, _)) if self.count == 1 => kind,
            // A server would take it for a setting that somebody has made up.
            _ if self.own || scan.own => Kind::Pooler(PoolerStatement::Unclear),
            _ => Kind::Primary,
        };
        let reads = if kind == Kind::Primary { Names::Any } else { nothing };
        let async_commit = scan.hidden_setting || mentions_commit(text, false);
        let culprit = culprit.and_then(|token| text.get(token.range())).map(shown);
        let writes = scan.writes.into_names();
        let (session, literal) = (scan.session, scan.literal);
        Class { kind, why, culprit, hint, reads, writes, async_commit, session, literal }
    }
}

/// An identifier or word for people.
fn shown(token: &[u8]) -> Box<str> {
    const LONGEST: usize = 64;
    let inside = token.strip_prefix(b"\"").and_then(|token| token.strip_suffix(b"\"")).unwrap_or(token);
    let mut text = String::from_utf8_lossy(inside.get(..LONGEST).unwrap_or(inside)).into_owned();
    // A character that was cut is replaced by one that may be longer.
    while text.len() > LONGEST {
        text.pop();
    }
    text.into()
}

/// `pooler: primary`, `pooler: replica` in a comment.
fn hint(comment: &[u8]) -> Option<Hint> {
    const NAME: &[u8] = b"pooler";
    let is_word = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let starts = |rest: &[u8], word: &[u8]| {
        rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
            && !is_word(rest.get(word.len()))
    };
    (0..comment.len()).find_map(|at| {
        let rest = comment.get(at..)?;
        let before = at.checked_sub(1).and_then(|before| comment.get(before));
        if is_word(before) || !starts(rest, NAME) {
            return None;
        }
        let value = rest.get(NAME.len()..)?.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        match value {
            _ if starts(value, b"primary") => Some(Hint::Primary),
            _ if starts(value, b"replica") => Some(Hint::Replica),
            _ => None,
        }
    })
}

/// The text names synchronous_commit, in whatever place. `blind`: its tokens are not known, so that it may be in
/// Unicode escapes.
fn mentions_commit(text: &[u8], blind: bool) -> bool {
    const NAME: &[u8] = b"synchronous_commit";
    const BEFORE: usize = b"synchronous".len();
    let mut from = 0;
    while let Some(found) = super::lexer::find(text, from, b'_') {
        let start = found.checked_sub(BEFORE).and_then(|start| text.get(start..));
        if start.and_then(|start| start.get(..NAME.len())).is_some_and(|name| name.eq_ignore_ascii_case(NAME))
        {
            return true;
        }
        from = found + 1;
    }
    blind && text.windows(3).any(|part| part.eq_ignore_ascii_case(b"u&\""))
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
