//! A server that keeps PostgreSQL's rules (postgres.c) for a handful of statements, as a state machine on bytes.

use std::collections::{BTreeMap, btree_map::Entry};

use crate::protocol::{
    backend as be,
    encode::{self, Severity},
    frame::{HEADER, Header, split_cstr},
    frontend as fe,
};

/// An error: SQLSTATE and message.
type Failure = (&'static str, String);

/// What a portal still has to give.
#[derive(Clone, Debug)]
struct Portal {
    text: String,
    /// Rows that were fetched.
    fetched: usize,
}

/// What a COPY is part of.
#[derive(Clone, Copy, Debug)]
enum Copying {
    Query,
    Execute,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) input: Vec<u8>,
    /// Only keeps what it is sent.
    pub(super) deaf: bool,
    /// What it has sent.
    pub(super) output: Vec<u8>,
    pub(super) named: BTreeMap<String, String>,
    unnamed: Option<String>,
    portals: BTreeMap<String, Portal>,
    /// `I`, `T` or `E`.
    status: u8,
    /// A transaction is open that no BEGIN has opened.
    implicit: bool,
    skipping: bool,
    /// Reads COPY data.
    copying: Option<Copying>,
    defaults: BTreeMap<String, String>,
    settings: BTreeMap<String, String>,
    /// The settings to which a rollback returns.
    before: Option<BTreeMap<String, String>>,
    told: String,
}

/// The parameter that is reported, by its lower-case name.
const REPORTED: &str = "timezone";

fn words(text: &str) -> Vec<String> {
    text.split([' ', '=']).filter(|w| !w.is_empty()).map(|w| w.trim_matches(['"', '\'']).to_owned()).collect()
}

/// Has rows.
fn selects(text: &str) -> bool {
    text.starts_with("rows") || text.starts_with("fail") || text.starts_with("SHOW")
}

/// May run in a failed transaction.
fn ends_transaction(text: &str) -> bool {
    matches!(text, "COMMIT" | "ROLLBACK")
}

impl Server {
    /// With these values of settings, as the connection's own defaults.
    pub(super) fn new(defaults: &[(&str, &str)]) -> Self {
        let defaults: BTreeMap<String, String> =
            defaults.iter().map(|(n, v)| (n.to_ascii_lowercase(), (*v).to_owned())).collect();
        Self {
            input: Vec::new(),
            deaf: false,
            output: Vec::new(),
            named: BTreeMap::new(),
            unnamed: None,
            portals: BTreeMap::new(),
            status: b'I',
            implicit: false,
            skipping: false,
            copying: None,
            settings: defaults.clone(),
            told: defaults[REPORTED].clone(),
            defaults,
            before: None,
        }
    }

    /// Takes bytes and carries out what is complete.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while !self.deaf
            && let Some(header) = Header::peek(&self.input)
            && self.input.len() >= header.total()
        {
            let message: Vec<u8> = self.input.drain(..header.total()).collect();
            self.message(header.tag, &message[HEADER..]);
        }
    }

    fn message(&mut self, tag: u8, body: &[u8]) {
        if let Some(copying) = self.copying {
            return self.copy(copying, tag, body);
        }
        if tag == fe::SYNC {
            self.skipping = false;
            self.end_implicit();
            return self.ready();
        }
        // COPY data may be on its way when the COPY has failed.
        if self.skipping || matches!(tag, fe::FLUSH | fe::COPY_DATA | fe::COPY_DONE | fe::COPY_FAIL) {
            return;
        }
        if tag == fe::QUERY {
            return self.query(&text(body).0);
        }
        self.start();
        if let Err(failure) = self.extended(tag, body) {
            self.fail(failure);
            self.skipping = true;
        }
    }

    fn copy(&mut self, copying: Copying, tag: u8, body: &[u8]) {
        let failed = match tag {
            fe::COPY_DATA if body == b"bad" => true,
            // CopyGetData ignores the others.
            fe::COPY_DATA | fe::FLUSH | fe::SYNC => return,
            fe::COPY_DONE => false,
            fe::COPY_FAIL => true,
            other => panic!("message {other} amid COPY data"),
        };
        self.copying = None;
        if failed {
            self.fail(("22P02", "invalid input".to_owned()));
        } else {
            self.complete("COPY 1");
        }
        match copying {
            Copying::Query => {
                self.end_implicit();
                self.ready();
            }
            Copying::Execute => self.skipping = failed,
        }
    }

    fn extended(&mut self, tag: u8, body: &[u8]) -> Result<(), Failure> {
        match tag {
            fe::PARSE => {
                let (name, rest) = text(body);
                self.parse(name, text(rest).0)
            }
            fe::BIND => {
                let (portal, rest) = text(body);
                let statement = self.statement(&text(rest).0)?;
                self.allow(&statement)?;
                if !portal.is_empty() && self.portals.contains_key(&portal) {
                    return Err(("42P03", format!("cursor \"{portal}\" already exists")));
                }
                self.portals.insert(portal, Portal { text: statement, fetched: 0 });
                self.send(be::BIND_COMPLETE, b"");
                Ok(())
            }
            fe::DESCRIBE => self.describe(body[0], &text(&body[1..]).0),
            fe::EXECUTE => {
                let (portal, rest) = text(body);
                self.execute(&portal, u32::from_be_bytes(rest.try_into().unwrap()))
            }
            fe::CLOSE => {
                let name = text(&body[1..]).0;
                match (body[0], name.is_empty()) {
                    (b'S', true) => self.unnamed = None,
                    (b'S', false) => drop(self.named.remove(&name)),
                    _ => drop(self.portals.remove(&name)),
                }
                self.send(be::CLOSE_COMPLETE, b"");
                Ok(())
            }
            other => panic!("message {other} was not expected"),
        }
    }

    fn parse(&mut self, name: String, sql: String) -> Result<(), Failure> {
        if name.is_empty() {
            self.unnamed = None;
        }
        if sql.starts_with("bad") {
            return Err(("42601", format!("syntax error in {sql}")));
        }
        self.allow_to_prepare(&sql)?;
        if name.is_empty() {
            self.unnamed = Some(sql);
        } else {
            match self.named.entry(name) {
                Entry::Occupied(taken) => {
                    return Err(("42P05", format!("prepared statement \"{}\" already exists", taken.key())));
                }
                Entry::Vacant(free) => drop(free.insert(sql)),
            }
        }
        self.send(be::PARSE_COMPLETE, b"");
        Ok(())
    }

    fn statement(&self, name: &str) -> Result<String, Failure> {
        if name.is_empty() {
            return self
                .unnamed
                .clone()
                .ok_or(("26000", "unnamed prepared statement does not exist".to_owned()));
        }
        self.named
            .get(name)
            .cloned()
            .ok_or(("26000", format!("prepared statement \"{name}\" does not exist")))
    }

    /// Refuses what a failed transaction refuses.
    fn allow(&self, sql: &str) -> Result<(), Failure> {
        if self.status == b'E' && !ends_transaction(sql) {
            return Err(("25P02", "current transaction is aborted".to_owned()));
        }
        Ok(())
    }

    /// The same for what is not run yet: an empty text is taken at any time (exec_parse_message).
    fn allow_to_prepare(&self, sql: &str) -> Result<(), Failure> {
        if sql.is_empty() { Ok(()) } else { self.allow(sql) }
    }

    fn describe(&mut self, kind: u8, name: &str) -> Result<(), Failure> {
        let sql = if kind == b'S' {
            self.statement(name)?
        } else {
            let portal = self.portals.get(name);
            portal.ok_or(("34000", format!("portal \"{name}\" does not exist")))?.text.clone()
        };
        // PostgreSQL refuses only to describe rows. But what the cache has lost cannot be prepared again in a failed
        // transaction: there a client may get this error in place of NoData.
        self.allow_to_prepare(&sql)?;
        if kind == b'S' {
            self.send(be::PARAMETER_DESCRIPTION, &[0, 0]);
        }
        if selects(&sql) {
            self.send(be::ROW_DESCRIPTION, format!("columns of {sql}").as_bytes());
        } else {
            self.send(be::NO_DATA, b"");
        }
        Ok(())
    }

    fn execute(&mut self, name: &str, most: u32) -> Result<(), Failure> {
        let portal = self.portals.get(name).cloned();
        let Portal { text, fetched } =
            portal.ok_or(("34000", format!("portal \"{name}\" does not exist")))?;
        self.allow(&text)?;
        if text.starts_with("rows") {
            let end = if most == 0 { 3 } else { (fetched + most as usize).min(3) };
            for row in fetched..end {
                self.send(be::DATA_ROW, format!("{row} of {text}").as_bytes());
            }
            if let Some(portal) = self.portals.get_mut(name) {
                portal.fetched = end;
            }
            if most != 0 && end - fetched == most as usize {
                self.send(be::PORTAL_SUSPENDED, b"");
            } else {
                self.complete("SELECT");
            }
            return Ok(());
        }
        if fetched > 0 {
            return Err(("55000", format!("portal \"{name}\" cannot be run")));
        }
        if let Some(portal) = self.portals.get_mut(name) {
            portal.fetched = 1;
        }
        if text == "COPY" {
            self.copying = Some(Copying::Execute);
            self.send(be::COPY_IN_RESPONSE, b"");
            return Ok(());
        }
        self.run(&text)
    }

    /// A simple query: drops the unnamed statement and portal, runs statements up to the first that fails.
    fn query(&mut self, sql: &str) {
        self.start();
        self.unnamed = None;
        self.portals.remove("");
        let statements: Vec<&str> = sql.split(';').map(str::trim).filter(|s| !s.is_empty()).collect();
        if statements.is_empty() {
            self.send(be::EMPTY_QUERY_RESPONSE, b"");
        }
        for statement in &statements {
            let bad = statement.starts_with("bad");
            let result = if bad {
                Err(("42601", format!("syntax error in {statement}")))
            } else if *statement == "DISCARD ALL" && statements.len() > 1 {
                Err(("25001", "DISCARD ALL cannot run inside a transaction block".to_owned()))
            } else {
                self.allow(statement)
            };
            let result = result.and_then(|()| {
                if *statement == "COPY" {
                    self.copying = Some(Copying::Query);
                    self.send(be::COPY_IN_RESPONSE, b"");
                    return Ok(());
                }
                if selects(statement) {
                    self.send(be::ROW_DESCRIPTION, format!("columns of {statement}").as_bytes());
                }
                if statement.starts_with("rows") {
                    for row in 0..3 {
                        self.send(be::DATA_ROW, format!("{row} of {statement}").as_bytes());
                    }
                    self.complete("SELECT");
                    return Ok(());
                }
                self.run(statement)
            });
            if let Err(failure) = result {
                self.fail(failure);
                break;
            }
        }
        if self.copying.is_some() {
            return;
        }
        self.end_implicit();
        self.ready();
    }

    fn run(&mut self, sql: &str) -> Result<(), Failure> {
        let parts = words(sql);
        match *parts.iter().map(String::as_str).collect::<Vec<_>>() {
            [] => self.send(be::EMPTY_QUERY_RESPONSE, b""),
            ["BEGIN"] if self.status == b'T' => {
                self.warn("there is already a transaction in progress");
                self.complete("BEGIN");
            }
            ["BEGIN"] => {
                self.status = b'T';
                self.implicit = false;
                self.complete("BEGIN");
            }
            [end @ ("COMMIT" | "ROLLBACK")] => {
                let failed = self.status == b'E';
                if self.status == b'I' {
                    self.warn("there is no transaction in progress");
                    // ROLLBACK ends the implicit transaction all the same.
                    if end == "ROLLBACK" {
                        self.undo();
                    }
                } else {
                    self.status = b'I';
                    self.implicit = true;
                    self.portals.clear();
                    if failed || end == "ROLLBACK" {
                        self.undo();
                    }
                    self.before = Some(self.settings.clone());
                }
                self.complete(if failed { "ROLLBACK" } else { end });
            }
            ["SET", name, "TO", "DEFAULT"] => {
                self.reset(name);
                self.complete("SET");
            }
            ["SET", name, "TO", ref value @ ..] => {
                let value = value.first().copied().unwrap_or_default().to_owned();
                self.settings.insert(name.to_ascii_lowercase(), value);
                self.complete("SET");
            }
            ["RESET", "ALL"] => {
                self.settings.clone_from(&self.defaults);
                self.complete("RESET");
            }
            ["RESET", name] => {
                self.reset(name);
                self.complete("RESET");
            }
            ["SHOW", name] => {
                let value = self.settings.get(&name.to_ascii_lowercase()).cloned().unwrap_or_default();
                self.send(be::DATA_ROW, value.as_bytes());
                self.complete("SHOW");
            }
            ["DISCARD", "ALL"] if self.status != b'I' || !self.portals.is_empty() => {
                return Err(("25001", "DISCARD ALL cannot run inside a transaction block".to_owned()));
            }
            ["DISCARD", "ALL"] => {
                self.settings.clone_from(&self.defaults);
                self.before = Some(self.settings.clone());
                self.named.clear();
                self.complete("DISCARD ALL");
            }
            ["deallocate", "prepare", _] => return self.run("DEALLOCATE c"),
            ["DEALLOCATE", "ALL"] => {
                self.named.clear();
                self.complete("DEALLOCATE ALL");
            }
            ["DEALLOCATE", name] => {
                if self.named.remove(name).is_none() {
                    return Err(("26000", format!("prepared statement \"{name}\" does not exist")));
                }
                self.complete("DEALLOCATE");
            }
            ["notice", ..] => {
                self.warn("look here");
                self.complete("NOTICE");
            }
            ["fail", ..] => {
                self.send(be::DATA_ROW, b"one row");
                return Err(("22012", format!("division by zero in {sql}")));
            }
            _ => self.complete("DONE"),
        }
        Ok(())
    }

    fn reset(&mut self, name: &str) {
        let name = name.to_ascii_lowercase();
        match self.defaults.get(&name) {
            Some(value) => self.settings.insert(name, value.clone()),
            None => self.settings.remove(&name),
        };
    }

    fn start(&mut self) {
        if self.status == b'I' && !self.implicit {
            self.implicit = true;
            self.before = Some(self.settings.clone());
        }
    }

    fn undo(&mut self) {
        if let Some(before) = &self.before {
            self.settings.clone_from(before);
        }
    }

    fn fail(&mut self, (code, message): Failure) {
        encode::error(&mut self.output, Severity::Error, code, &message, None, None);
        // Settings go back at once, also in a transaction block (AtEOXact_GUC in AbortTransaction).
        self.undo();
        if self.status == b'I' {
            self.end_implicit();
        } else {
            self.status = b'E';
        }
    }

    fn end_implicit(&mut self) {
        if self.status == b'I' {
            self.implicit = false;
            self.before = None;
            self.portals.clear();
        }
    }

    fn ready(&mut self) {
        let zone = self.settings[REPORTED].clone();
        if zone != self.told {
            encode::parameter_status(&mut self.output, "TimeZone", &zone);
            self.told = zone;
        }
        encode::ready_for_query(&mut self.output, self.status);
    }

    fn complete(&mut self, tag: &str) {
        self.send(be::COMMAND_COMPLETE, format!("{tag}\0").as_bytes());
    }

    fn warn(&mut self, text: &str) {
        encode::error(&mut self.output, Severity::Notice, "25001", text, None, None);
    }

    fn send(&mut self, tag: u8, body: &[u8]) {
        encode::message(&mut self.output, tag, |b| b.extend_from_slice(body));
    }
}

/// A string up to its NUL, and what follows.
fn text(body: &[u8]) -> (String, &[u8]) {
    let (text, rest) = split_cstr(body).unwrap();
    (String::from_utf8(text.to_vec()).unwrap(), rest)
}
