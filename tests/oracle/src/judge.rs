//! One text: its tokens and its class, against the server's scanner and parser.

use std::fmt;

use pg_query::protobuf::Token as ServerToken;
use pooler::sql::{self, Class, Dialect, Kind, Names, lexer::Lexer};

use crate::{ast::Ast, database::Database};

/// Mistakes that are shown in full.
const SHOWN: usize = 20;

#[derive(Default)]
pub struct Tally {
    pub texts: u64,
    /// The lexer does not read them.
    pub refused: u64,
    /// The server's scanner does not.
    pub invalid: u64,
    /// They have a shape that tells what they do.
    pub shaped: u64,
    /// The server's parser reads them.
    pub parsed: u64,
    /// By the parser they only read.
    pub reads: u64,
    /// And by the classifier too.
    pub recognised: u64,
    mistakes: u64,
    boundaries: u64,
}

impl Tally {
    pub fn is_right(&self) -> bool {
        self.mistakes == 0 && self.boundaries == 0
    }

    pub fn add(&mut self, other: Self) {
        self.texts += other.texts;
        self.refused += other.refused;
        self.invalid += other.invalid;
        self.shaped += other.shaped;
        self.parsed += other.parsed;
        self.reads += other.reads;
        self.recognised += other.recognised;
        self.mistakes += other.mistakes;
        self.boundaries += other.boundaries;
    }

    pub fn judge(&mut self, text: &str, standard_strings: bool, database: &Database) {
        self.texts += 1;
        if standard_strings {
            self.tokens(text);
        }
        let dialect = Dialect { standard_strings, ascii_safe: true };
        let class = sql::classify_with(text.as_bytes(), dialect, database);
        if standard_strings {
            self.shape(text, &class, dialect, database);
        }
        let Some(ast) = Ast::of(text, standard_strings, database) else { return };
        self.parsed += 1;
        if ast.kinds.is_empty() {
            return self.expect(class.kind == Kind::Empty, "not empty", text, &class);
        }
        if ast.unsafe_because.is_none() {
            self.reads += 1;
            self.recognised += u64::from(class.kind == Kind::Read);
        }
        if class.kind == Kind::Read {
            let why = ast.unsafe_because.as_deref().unwrap_or_default();
            self.expect(ast.unsafe_because.is_none(), &format!("no read: {why}"), text, &class);
            let read = ast.relations.iter().all(|name| has(&class.reads, name));
            self.expect(read, "a relation is missing in reads", text, &class);
        } else {
            let written = ast.targets.iter().all(|name| has(&class.writes, name));
            self.expect(written, "a relation is missing in writes", text, &class);
            self.expect(class.writes == Names::Any || !ast.writes_any, "it writes anything", text, &class);
        }
        // Either the class says so, or the server is asked behind it.
        let noticed = class.session || sql::traces::traces(text.as_bytes()).is_some();
        self.expect(noticed || !ast.session, "it leaves something in the session", text, &class);
        self.transaction(text, &class, &ast);
    }

    /// What is remembered of one text holds for all of its shape; the shape is one of them.
    fn shape(&mut self, text: &str, class: &Class, dialect: Dialect, database: &Database) {
        let mut shape = Vec::new();
        if class.literal || !sql::shape(text.as_bytes(), &mut shape) {
            return;
        }
        self.shaped += 1;
        let same = sql::classify_with(&shape, dialect, database) == *class;
        self.expect(same, "another class than its shape", text, class);
    }

    /// Tokens begin and end where the server's do.
    fn tokens(&mut self, text: &str) {
        let Ok(server) = pg_query::scan_tokens(text) else {
            self.invalid += 1;
            return;
        };
        let comment =
            |token: i32| token == ServerToken::SqlComment as i32 || token == ServerToken::CComment as i32;
        let server = server.iter().filter(|token| !comment(token.token));
        let server: Vec<_> = server.map(|token| (token.start as usize, token.end as usize)).collect();
        let ours: Result<Vec<_>, _> = Lexer::new(text.as_bytes(), true)
            .map(|token| token.map(|token| (token.start(), token.range().end)))
            .collect();
        match ours {
            Err(_) => self.refused += 1,
            Ok(ours) if ours == server => {}
            Ok(ours) => {
                self.boundaries += 1;
                if self.boundaries <= SHOWN as u64 {
                    let at = ours.iter().zip(&server).take_while(|(a, b)| a == b).count();
                    println!("tokens differ at {:?}, server {:?}: {text:?}", ours.get(at), server.get(at));
                }
            }
        }
    }

    /// BEGIN, COMMIT and the like are what they are, and nothing else is.
    fn transaction(&mut self, text: &str, class: &Class, ast: &Ast) {
        let alone = ast.kinds.len() == 1;
        let right = match (&ast.transaction, &class.kind) {
            (Some((1 | 2, _, options)), Kind::Begin(mode)) if alone => {
                let last = |name: &str| {
                    options.iter().rev().find(|(found, _)| found == name).map(|(_, value)| value)
                };
                let serializable =
                    last("transaction_isolation").map(|value| value.contains("\"serializable\""));
                let read_only =
                    last("transaction_read_only").map(|value| value.contains("\"Ival\":{\"ival\":1}"));
                mode.serializable == serializable && mode.read_only == read_only
            }
            (Some((3 | 4, false, _)), Kind::End) | (Some((5..=7, ..)), Kind::Savepoint) => alone,
            (Some((1..=2 | 5..=7, ..)), _) | (Some((3 | 4, false, _)), _) if alone => false,
            (_, Kind::Begin(_) | Kind::End | Kind::Savepoint) => false,
            (_, Kind::SetTransaction(_) | Kind::SetCharacteristics(_)) => {
                alone && ast.kinds[0] == "VariableSetStmt"
            }
            (_, Kind::Pooler(_)) => alone && ast.kinds[0].starts_with("Variable"),
            _ => true,
        };
        let right = right || class.why == sql::Why::Unreadable;
        self.expect(right, "not that kind of statement", text, class);
    }

    fn expect(&mut self, right: bool, mistake: &str, text: &str, class: &Class) {
        if right {
            return;
        }
        self.mistakes += 1;
        if self.mistakes <= SHOWN as u64 {
            println!("{mistake}: {text:?}\n    {class:?}");
        }
    }
}

fn has(names: &Names, name: &str) -> bool {
    match names {
        Names::Any => true,
        Names::Known(slots) => slots.contains(&sql::slot(name.as_bytes())),
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} texts ({} refused by the lexer, {} by the server's), {} with a shape, {} token boundaries wrong; {} parsed, {} of {} reads \
             recognised, {} mistakes",
            self.texts,
            self.refused,
            self.invalid,
            self.shaped,
            self.boundaries,
            self.parsed,
            self.recognised,
            self.reads,
            self.mistakes
        )
    }
}
