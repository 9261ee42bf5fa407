//! What statements have left in their session: asked of the server itself, once their transaction is over.
//!
//! Texts tell that something may have been left (`sql::traces`). When the last ReadyForQuery has come and no transaction is
//! open, it is kept back and the server is asked what there is: so rollbacks, savepoints, SET LOCAL and functions need no
//! rules of their own. Settings become the client's label, and follow it to other servers. What cannot follow binds
//! the server to its client until a later answer shows that it is gone.

use std::sync::Arc;

use super::{
    bonds::{Bond, Bonds},
    downstream::Downstream,
    params::{Label, Params},
    pipeline::Expected,
    setting::quote_literal,
    state::NOBODY,
};
use crate::{
    protocol::{
        TransactionStatus,
        backend::{data_row, error_field},
        encode,
    },
    sql,
};

/// Most bytes of names and values that follow a client.
const MOST_BYTES: usize = 64 << 10;

/// How often a question is asked again that was cancelled.
const MOST_TRIES: u8 = 3;

/// When a server is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asking {
    /// Its client keeps it.
    #[default]
    Never,
    /// When a text may have left something.
    Suspected,
    /// Behind every transaction.
    Always,
}

/// What a server is asked, and has answered.
#[derive(Debug, Default)]
pub struct Traces {
    /// By the texts since it was asked last.
    suspected: sql::traces::Traces,
    asked: Option<Box<Answer>>,
    /// How often the question was cancelled.
    tries: u8,
    /// A text was too long to be looked at as a whole: tags tell instead.
    cut: bool,
    /// What was found although no text had told of it.
    surprise: Option<String>,
}

/// What the server says.
#[derive(Debug, Default)]
struct Answer {
    about: sql::traces::Traces,
    settings: Vec<(String, String)>,
    /// Names and texts of what was prepared by SQL.
    prepared: Vec<(String, String)>,
    /// Why the server cannot be given to others.
    objects: Option<Bond>,
    /// It listens, whatever else there is.
    listens: bool,
    locks: bool,
    /// It was not understood.
    unclear: bool,
    /// A text has told that there may be something.
    suspected: bool,
}

impl Traces {
    /// A text is sent that may leave these.
    pub fn expect(&mut self, traces: &sql::traces::Traces) {
        self.suspected.add(traces);
    }

    /// A text is sent whose rest has not come.
    pub fn expect_anything(&mut self) {
        self.cut = true;
    }

    /// A statement has ended with this tag.
    pub(super) fn on_tag(&mut self, tag: &[u8]) {
        const LEAVES: [&[u8]; 9] =
            [b"SET", b"RESET", b"DISCARD", b"CREATE", b"DECLARE", b"DO", b"CALL", b"LISTEN", b"PREPARE"];
        if self.cut && LEAVES.iter().any(|word| tag.starts_with(word)) {
            self.suspected.add(&sql::traces::Traces::everything());
        }
    }

    /// Something may have been left, and nobody has asked.
    pub fn are_suspected(&self) -> bool {
        !self.suspected.are_none() || self.asked.is_some()
    }

    /// A text that is being carried out may listen.
    pub(super) fn may_listen(&self) -> bool {
        self.suspected.objects || self.cut || self.asked.is_some()
    }

    /// What was found, since this was asked last, although no text had told of it.
    pub fn take_surprise(&mut self) -> Option<String> {
        self.surprise.take()
    }

    /// The session is as new.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// There is no answer. A cancel request that was late may have hit the question: then it is asked again.
    pub(super) fn fail(&mut self, error: &[u8]) {
        let again = error_field(error, b'C') == Some(b"57014") && self.tries < MOST_TRIES;
        if again && let Some(answer) = self.asked.take() {
            self.tries += 1;
            self.suspected.add(&answer.about);
        } else if let Some(answer) = &mut self.asked {
            answer.unclear = true;
        }
    }

    /// A row of the answer: a kind, a name, and a value in hexadecimal digits.
    pub(super) fn row(&mut self, body: &[u8]) {
        let Some(answer) = &mut self.asked else { return };
        if answer.take(body).is_none() {
            answer.unclear = true;
        }
    }
}

impl Answer {
    /// The settings that there are, without their values.
    fn names(&self) -> String {
        let names: Vec<&str> = self.settings.iter().map(|(name, _)| name.as_str()).collect();
        format!("settings ({})", names.join(", "))
    }

    fn take(&mut self, body: &[u8]) -> Option<()> {
        let [kind, name, value] = <[_; 3]>::try_from(data_row(body)?).ok()?.map(Option::unwrap_or_default);
        match kind {
            b"s" | b"p" => {
                let list = if kind == b"s" { &mut self.settings } else { &mut self.prepared };
                let name = std::str::from_utf8(name).ok()?.to_owned();
                let value = String::from_utf8(from_hex(value)?).ok()?;
                let bytes = list.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
                (bytes + name.len() + value.len() <= MOST_BYTES).then(|| list.push((name, value)))
            }
            b"b" if name == Bond::Advisory.as_str().as_bytes() => {
                self.locks = true;
                Some(())
            }
            b"b" => {
                self.objects = Some(Bond::object(name)?);
                self.listens |= self.objects == Some(Bond::Listen);
                Some(())
            }
            _ => None,
        }
    }
}

impl Bonds {
    /// Takes over what the answer is about; returns what there is, if nothing bound the server before.
    fn learn(&mut self, answer: &Answer) -> Option<Bond> {
        let was_free = self.reason().is_none();
        if answer.unclear || answer.about.unclear {
            self.stays = Some(Bond::Setting);
        }
        self.lasts |= answer.about.lasts;
        if answer.about.objects {
            self.objects = answer.objects;
            self.listens = answer.listens;
        }
        if answer.about.locks {
            self.locks = answer.locks;
        }
        self.objects.or(self.locks.then_some(Bond::Advisory)).filter(|_| was_free)
    }
}

impl Downstream<'_> {
    /// ReadyForQuery has come. True if the server is asked first, and the client is told later.
    pub(super) fn ask_for_traces(&mut self) -> bool {
        let answer = self.server.traces.asked.take();
        let answered = answer.is_some();
        if let Some(answer) = answer {
            self.learn_traces(*answer);
        }
        let server = &mut *self.server;
        let suspected = !server.traces.suspected.are_none();
        let last = server.pipeline.is_empty()
            && server.status == TransactionStatus::Idle
            // More may come that would be taken for the answer; such a server is not used again.
            && !server.pipeline.is_uncertain();
        match server.asking {
            Asking::Never => server.traces.clear(),
            Asking::Always if last && !answered => {
                server.traces.suspected.add(&sql::traces::Traces::everything());
            }
            Asking::Suspected | Asking::Always => {}
        }
        if server.traces.suspected.are_none() || !last || self.client.id == NOBODY {
            return false;
        }
        let mut about = std::mem::take(&mut server.traces.suspected);
        server.traces.cut = false;
        if self.client.passing > 0 {
            // Data of a COPY that has failed is on its way: a question would land in the middle of it.
            if suspected {
                server.bonds.stays = Some(Bond::Copy);
            }
            return false;
        }
        if about.settings {
            let known = |name: &&str| name.contains('.') && server.reported.get(name).is_none();
            let label = self.client.label.iter().map(|(name, _)| name).filter(known);
            about.add(&sql::traces::Traces {
                names: label.map(Into::into).collect(),
                ..sql::traces::Traces::default()
            });
        }
        let untracked = server.untracked.as_ref().map(|_| self.shared.registry.prefix());
        encode::query(&mut self.request, &question(&about, untracked));
        self.asked += 1;
        server.traces.asked = Some(Box::new(Answer { about, suspected, ..Answer::default() }));
        server.pipeline.push(Expected::Question);
        server.unnamed_of = NOBODY;
        true
    }

    fn learn_traces(&mut self, mut answer: Answer) {
        let server = &mut *self.server;
        server.traces.tries = 0;
        if answer.about.objects && !answer.unclear {
            let prepared = std::mem::take(&mut answer.prepared);
            if !server.learn_prepared(self.client, prepared) {
                answer.objects = answer.objects.or(Some(Bond::Prepare));
            }
        }
        if answer.about.settings && !answer.unclear {
            let same = Arc::ptr_eq(&self.client.label, &server.label);
            let learnt = |label: &Label| {
                let reported = label.iter().filter(|(name, _)| server.reported.get(name).is_some());
                let mut params = Params::from_pairs(reported);
                for (name, value) in &answer.settings {
                    // What was reset is empty, and means nothing to who has never had it.
                    let unset = value.is_empty() && name.contains('.') && label.get(name).is_none();
                    if !unset && server.reported.get(name).is_none() {
                        params.set(name, value);
                    }
                }
                self.shared.labels.intern(params)
            };
            let of_server = learnt(&server.label);
            self.client.label = if same { Arc::clone(&of_server) } else { learnt(&self.client.label) };
            if !answer.suspected && !Arc::ptr_eq(&server.label, &of_server) {
                server.traces.surprise = Some(answer.names());
            }
            server.label = of_server;
        }
        let found = server.bonds.learn(&answer).filter(|_| !answer.suspected);
        if let Some(found) = found {
            server.traces.surprise = Some(found.as_str().to_owned());
        }
        server.bonds.authorization = server.foreign.role;
        if answer.about.objects && answer.objects.is_none() && !answer.unclear {
            server.untracked = None;
        }
        let about = &answer.about;
        server.settled = server.bonds.reason().is_none() && about.settings && about.objects && about.locks;
    }
}

/// The question. Whatever the client's search_path, its functions and operators are PostgreSQL's own.
/// `untracked`: names of statements that do not begin so are the client's own.
fn question(about: &sql::traces::Traces, untracked: Option<&str>) -> String {
    const SETTINGS: &str = "SELECT 's', name, pg_catalog.encode(pg_catalog.convert_to(setting, 'UTF8'), 'hex') \
        FROM pg_catalog.pg_settings WHERE source OPERATOR(pg_catalog.=) 'session' \
        AND name OPERATOR(pg_catalog.!~~) 'transaction\\_%' \
        UNION ALL SELECT 's', 'role', pg_catalog.encode(pg_catalog.convert_to(\
        pg_catalog.current_setting('role'), 'UTF8'), 'hex') \
        WHERE pg_catalog.current_setting('role') OPERATOR(pg_catalog.<>) 'none'";
    const OBJECTS: &str = "SELECT 'b', 'temporary objects', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_depend \
        WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass::pg_catalog.oid \
        AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) \
        UNION ALL SELECT 'b', 'cursor WITH HOLD', '' \
        WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable) \
        UNION ALL SELECT 'b', 'LISTEN', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_listening_channels()) \
        UNION ALL SELECT 'p', name, pg_catalog.encode(pg_catalog.convert_to(statement, 'UTF8'), 'hex') \
        FROM pg_catalog.pg_prepared_statements WHERE from_sql";
    const LOCKS: &str = "SELECT 'b', 'advisory lock', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_locks \
        WHERE locktype OPERATOR(pg_catalog.=) 'advisory' \
        AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())";
    let mut parts = Vec::new();
    let mut names = String::new();
    for name in &about.names {
        names.push_str(if names.is_empty() { "" } else { "," });
        quote_literal(&mut names, name);
    }
    let custom = format!(
        "SELECT 's', name, pg_catalog.encode(pg_catalog.convert_to(pg_catalog.current_setting(name, true), 'UTF8'), \
         'hex') FROM pg_catalog.unnest(ARRAY[{names}]::pg_catalog.text[]) AS name \
         WHERE pg_catalog.current_setting(name, true) IS NOT NULL"
    );
    parts.extend(about.settings.then_some(SETTINGS));
    parts.extend((about.settings && !names.is_empty()).then_some(custom.as_str()));
    parts.extend(about.objects.then_some(OBJECTS));
    let statements = untracked.filter(|_| about.objects).map(|prefix| {
        format!(
            "SELECT 'b', 'PREPARE', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE NOT from_sql \
             AND NOT pg_catalog.starts_with(name, '{prefix}'))"
        )
    });
    parts.extend(statements.as_deref());
    parts.extend(about.locks.then_some(LOCKS));
    parts.join(" UNION ALL ")
}

fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        &[high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    digits.chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(fields: &[&str]) -> Vec<u8> {
        let mut body = vec![0, 3];
        for field in fields {
            body.extend_from_slice(&u32::try_from(field.len()).unwrap().to_be_bytes());
            body.extend_from_slice(field.as_bytes());
        }
        body
    }

    #[test]
    fn each_bond_ends_by_itself() {
        let about =
            |settings, objects, locks| sql::traces::Traces { settings, objects, locks, ..Default::default() };
        let mut bonds = Bonds::default();
        bonds.on_tag(b"PREPARE");
        let locked = Answer { about: about(false, false, true), locks: true, ..Answer::default() };
        assert_eq!((bonds.learn(&locked), bonds.reason()), (None, Some(Bond::Prepare)));
        bonds.authorization = true;
        assert_eq!((bonds.learn(&locked), bonds.reason()), (None, Some(Bond::Authorization)));
        bonds.authorization = false;
        assert_eq!(bonds.reason(), Some(Bond::Prepare));
        bonds.learn(&Answer { about: about(true, true, false), ..Answer::default() });
        assert_eq!(bonds.reason(), Some(Bond::Advisory));
        bonds.learn(&Answer { about: about(false, false, true), ..Answer::default() });
        assert_eq!(bonds.reason(), None);
        assert_eq!(bonds.learn(&locked), Some(Bond::Advisory));
        assert!(bonds.cut() && !bonds.cut());
    }

    #[test]
    fn answers_are_understood_or_said_not_to_be() {
        let asked = || Traces { asked: Some(Box::default()), ..Traces::default() };
        let mut traces = asked();
        traces.row(&row(&["s", "app.x", "c3bc27"]));
        traces.row(&row(&["b", "LISTEN", ""]));
        let answer = traces.asked.unwrap();
        assert_eq!(answer.settings, [("app.x".to_owned(), "ü'".to_owned())]);
        assert_eq!((answer.objects, answer.locks, answer.unclear), (Some(Bond::Listen), false, false));
        let long = "61".repeat(MOST_BYTES);
        for wrong in
            [row(&["s", "x", "c3"]), row(&["s", "x", "6"]), row(&["s", "x", "zz"]), row(&["?", "x", ""])]
        {
            let mut traces = asked();
            traces.row(&wrong);
            assert!(traces.asked.unwrap().unclear, "{wrong:?}");
        }
        for wrong in [row(&["b", "who knows", ""]), row(&["s", "x"]), row(&["s", "x", &long]), vec![]] {
            let mut traces = asked();
            traces.row(&wrong);
            assert!(traces.asked.unwrap().unclear);
        }
    }
}
