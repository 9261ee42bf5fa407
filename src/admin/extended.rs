//! The extended query protocol of the console: prepared statements and portals.
//!
//! Commands take no parameters; results come in the formats that Bind asks for. As at PostgreSQL an error skips
//! everything up to the next Sync, and the end of the transaction ends all portals.

use std::{collections::HashMap, vec};

use super::{
    Refused,
    command::Command,
    result::{self, Columns, Format, Row},
    show,
};
use crate::protocol::{
    backend, encode,
    frame::{split_cstr, split_u32},
};

/// Statements or portals that one client may have: more is a leak at its end.
const MOST: usize = 256;

/// A result that is being fetched.
enum Progress {
    NotRun,
    Rows(Columns, vec::IntoIter<Row>),
    Over,
}

struct Portal {
    command: Command,
    formats: Vec<Format>,
    progress: Progress,
}

/// What a client has prepared.
#[derive(Default)]
pub(super) struct Extended {
    statements: HashMap<String, Command>,
    portals: HashMap<String, Portal>,
    /// An error: everything up to the next Sync is skipped.
    pub(super) failed: bool,
}

/// What Execute asks for.
pub(super) enum Execution {
    /// The command has to be run first; its rows go to the portal.
    Run { portal: String, command: Command, most: usize },
    /// Everything has been sent.
    Sent,
}

fn broken(message: &str) -> Refused {
    Refused::new("08P01", format!("invalid {message} message"))
}

impl Extended {
    /// Parse. `command` is what the text means.
    pub(super) fn parse(&mut self, name: &str, command: Command, out: &mut Vec<u8>) -> Result<(), Refused> {
        if !name.is_empty() && self.statements.contains_key(name) {
            return Err(Refused::new("42P05", format!("prepared statement \"{name}\" already exists")));
        }
        if self.statements.len() >= MOST {
            return Err(Refused::new("53400", "too many prepared statements".to_owned()));
        }
        self.statements.insert(name.to_owned(), command);
        encode::message(out, backend::PARSE_COMPLETE, |_| {});
        Ok(())
    }

    /// Bind.
    pub(super) fn bind(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Refused> {
        let bind = read_bind(body).ok_or_else(|| broken("Bind"))?;
        let command = self.statement(bind.statement)?.clone();
        if bind.values > 0 {
            let text = format!(
                "bind message supplies {} parameters, but prepared statement \"{}\" requires 0",
                bind.values, bind.statement
            );
            return Err(Refused::new("08P01", text));
        }
        let columns = columns_of(&command).map_or(0, <[_]>::len);
        let formats = match *bind.formats.as_slice() {
            [] => Vec::new(),
            [all] => vec![all; columns],
            _ if bind.formats.len() == columns => bind.formats,
            _ => {
                let text = format!(
                    "bind message has {} result formats but query has {columns} columns",
                    bind.formats.len()
                );
                return Err(Refused::new("08P01", text));
            }
        };
        if !bind.portal.is_empty() && self.portals.contains_key(bind.portal) {
            return Err(Refused::new("42P03", format!("cursor \"{}\" already exists", bind.portal)));
        }
        if self.portals.len() >= MOST {
            return Err(Refused::new("53400", "too many portals".to_owned()));
        }
        let portal = Portal { command, formats, progress: Progress::NotRun };
        self.portals.insert(bind.portal.to_owned(), portal);
        encode::message(out, backend::BIND_COMPLETE, |_| {});
        Ok(())
    }

    /// Describe.
    pub(super) fn describe(&self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Refused> {
        let (columns, formats) = match named(body).ok_or_else(|| broken("Describe"))? {
            (b'S', name) => {
                let columns = columns_of(self.statement(name)?);
                encode::message(out, backend::PARAMETER_DESCRIPTION, |b| b.extend_from_slice(&[0; 2]));
                (columns, &[] as &[Format])
            }
            (_, name) => {
                let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
                (columns_of(&portal.command), portal.formats.as_slice())
            }
        };
        match columns {
            Some(columns) => result::describe(out, columns, formats),
            None => encode::message(out, backend::NO_DATA, |_| {}),
        }
        Ok(())
    }

    /// Close.
    pub(super) fn close(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Refused> {
        match named(body).ok_or_else(|| broken("Close"))? {
            (b'S', name) => drop(self.statements.remove(name)),
            (_, name) => drop(self.portals.remove(name)),
        }
        encode::message(out, backend::CLOSE_COMPLETE, |_| {});
        Ok(())
    }

    /// Execute: sends rows that are there, or says what to run.
    pub(super) fn execute(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<Execution, Refused> {
        let (name, most) = read_execute(body).ok_or_else(|| broken("Execute"))?;
        let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        if matches!(portal.progress, Progress::NotRun) {
            let command = portal.command.clone();
            return Ok(Execution::Run { portal: name.to_owned(), command, most });
        }
        portal.send(name, most, out).map(|()| Execution::Sent)
    }

    /// The rows that the command of a portal gave; `None`: it gives none, and all has been said.
    pub(super) fn fetched(
        &mut self,
        name: &str,
        rows: Option<(Columns, Vec<Row>)>,
        most: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        let Some((columns, rows)) = rows else {
            portal.progress = Progress::Over;
            return Ok(());
        };
        portal.progress = Progress::Rows(columns, rows.into_iter());
        portal.send(name, most, out)
    }

    /// Sync: the end of an error, and outside of a transaction that of all portals.
    pub(super) fn sync(&mut self, in_transaction: bool) {
        self.failed = false;
        if !in_transaction {
            self.portals.clear();
        }
    }

    /// A simple query replaces what is unnamed.
    pub(super) fn simple_query(&mut self) {
        self.statements.remove("");
        self.portals.remove("");
        self.failed = false;
    }

    fn statement(&self, name: &str) -> Result<&Command, Refused> {
        self.statements
            .get(name)
            .ok_or_else(|| Refused::new("26000", format!("prepared statement \"{name}\" does not exist")))
    }
}

impl Portal {
    /// Sends at most so many rows (0: all), and how it ended.
    fn send(&mut self, name: &str, most: usize, out: &mut Vec<u8>) -> Result<(), Refused> {
        let Progress::Rows(columns, rows) = &mut self.progress else {
            return Err(Refused::new("55000", format!("portal \"{name}\" cannot be run")));
        };
        let most = if most == 0 { usize::MAX } else { most };
        for row in rows.take(most) {
            result::row(out, columns, &self.formats, &row);
        }
        if rows.len() > 0 {
            encode::message(out, backend::PORTAL_SUSPENDED, |_| {});
        } else {
            result::complete(out, "SHOW");
        }
        Ok(())
    }
}

fn columns_of(command: &Command) -> Option<Columns> {
    match command {
        Command::Show(what) => show::columns(what).filter(|columns| !columns.is_empty()),
        Command::Why(_) => Some(show::WHY),
        _ => None,
    }
}

fn no_portal(name: &str) -> Refused {
    Refused::new("34000", format!("portal \"{name}\" does not exist"))
}

fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (text, rest) = split_cstr(bytes)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

/// Name and text of a Parse; types of parameters say nothing about commands without any.
pub(super) fn read_parse(body: &[u8]) -> Option<(&str, &str)> {
    let (name, rest) = text(body)?;
    let (sql, _) = text(rest)?;
    Some((name, sql))
}

struct Bind<'a> {
    portal: &'a str,
    statement: &'a str,
    values: usize,
    formats: Vec<Format>,
}

fn split_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (first, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*first), rest))
}

fn read_bind(body: &[u8]) -> Option<Bind<'_>> {
    let (portal, rest) = text(body)?;
    let (statement, rest) = text(rest)?;
    let (formats, rest) = split_u16(rest)?;
    let (values, mut rest) = split_u16(rest.get(usize::from(formats) * 2..)?)?;
    for _ in 0..values {
        let (length, after) = split_u32(rest)?;
        // -1 is a null.
        let length = if length == u32::MAX { 0 } else { usize::try_from(length).ok()? };
        rest = after.get(length..)?;
    }
    let (count, mut rest) = split_u16(rest)?;
    let mut formats = Vec::new();
    for _ in 0..count {
        let (code, after) = split_u16(rest)?;
        rest = after;
        formats.push(if code == 1 { Format::Binary } else { Format::Text });
    }
    Some(Bind { portal, statement, values: usize::from(values), formats })
}

fn read_execute(body: &[u8]) -> Option<(&str, usize)> {
    let (name, rest) = text(body)?;
    let (most, _) = split_u32(rest)?;
    // Negative is "all", as in PostgreSQL.
    Some((name, usize::try_from(i32::try_from(most).unwrap_or(0)).unwrap_or(0)))
}

/// Body of Describe and Close.
fn named(body: &[u8]) -> Option<(u8, &str)> {
    let (&kind, rest) = body.split_first()?;
    matches!(kind, b'S' | b'P').then_some(())?;
    Some((kind, text(rest)?.0))
}
