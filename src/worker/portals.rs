//! Portals of statements that are answered here: they live up to Sync, and behave as those of a server (portalmem.c,
//! pquery.c).

use super::{answer::Answer, own::Request};
use crate::protocol::frame::{split_cstr, split_u32};

/// More portals than this nobody needs at a time, and their texts are the client's.
const MOST: usize = 64;

/// What a Bind asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bind<'a> {
    pub(super) portal: &'a [u8],
    pub(super) statement: &'a [u8],
    values: usize,
    /// Formats of results.
    formats: Vec<u16>,
}

/// A statement that has been bound.
#[derive(Clone, Debug)]
pub(super) struct Portal {
    name: Box<[u8]>,
    pub(super) request: Request,
    /// Format of its row.
    pub(super) format: u16,
    /// It has been executed.
    ran: bool,
}

/// Those of a client.
#[derive(Debug, Default)]
pub(super) struct Portals(Vec<Portal>);

/// What Execute has to do.
#[derive(Debug)]
pub(super) enum Run {
    /// Carry it out.
    Now(Request),
    /// It has been.
    Answer(Answer),
}

impl<'a> Bind<'a> {
    /// Reads the body of a Bind; `None` if it is not in order.
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let (portal, rest) = split_cstr(body)?;
        let (statement, rest) = split_cstr(rest)?;
        let (_, rest) = shorts(rest)?;
        let (count, mut rest) = rest.split_first_chunk::<2>()?;
        let values = usize::from(u16::from_be_bytes(*count));
        for _ in 0..values {
            let (len, behind) = split_u32(rest)?;
            let len = if len == u32::MAX { 0 } else { usize::try_from(len).ok()? };
            rest = behind.get(len..)?;
        }
        let (formats, rest) = shorts(rest)?;
        rest.is_empty().then_some(Self { portal, statement, values, formats })
    }

    /// Why a server would refuse it for a statement with so many parameters (postgres.c, exec_bind_message).
    pub(super) fn refusal(&self, parameters: usize, request: &Request) -> Option<Answer> {
        let refused = |message| Some(Answer::Refused("08P01", message, "Bind it as it was prepared."));
        if self.values != parameters {
            let name = String::from_utf8_lossy(self.statement);
            return refused(format!(
                "bind message supplies {} parameters, but prepared statement \"{name}\" requires {parameters}",
                self.values
            ));
        }
        let formats = self.formats.len();
        if request.is_show() && formats > 1 {
            return refused(format!("bind message has {formats} result formats but query has 1 columns"));
        }
        None
    }
}

/// A count, and so many numbers of 16 bits.
fn shorts(bytes: &[u8]) -> Option<(Vec<u16>, &[u8])> {
    let (count, rest) = bytes.split_first_chunk::<2>()?;
    let (shorts, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*count)) * 2)?;
    let (pairs, _) = shorts.as_chunks::<2>();
    Some((pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect(), rest))
}

impl Portals {
    pub(super) fn get(&self, name: &[u8]) -> Option<&Portal> {
        self.0.iter().find(|portal| *portal.name == *name)
    }

    pub(super) fn remove(&mut self, name: &[u8]) {
        self.0.retain(|portal| *portal.name != *name);
    }

    /// Binds a statement. The unnamed portal is replaced, any other has to be closed first.
    pub(super) fn bind(&mut self, bind: &Bind<'_>, request: Request) -> Result<(), Answer> {
        let name = bind.portal;
        if name.is_empty() {
            self.remove(name);
        } else if self.get(name).is_some() {
            let message = format!("cursor \"{}\" already exists", String::from_utf8_lossy(name));
            return Err(Answer::Refused("42P03", message, "Close it first."));
        }
        if self.0.len() >= MOST {
            let message = format!("more than {MOST} portals of pooler's own statements before a Sync");
            return Err(Answer::Refused("54000", message, "Send Sync, or close those that are done with."));
        }
        let format = bind.formats.first().copied().unwrap_or(0);
        self.0.push(Portal { name: name.into(), request, format, ran: false });
        Ok(())
    }

    /// What an Execute of a portal has to do.
    pub(super) fn run(&self, name: &[u8]) -> Option<Run> {
        let portal = self.get(name)?;
        Some(match portal.request.is_show() {
            true if portal.format > 1 => {
                let message = format!("unsupported format code: {}", portal.format);
                Run::Answer(Answer::Refused("22023", message, "Formats: 0 is text, 1 is binary."))
            }
            // All of its result has been fetched.
            true if portal.ran => Run::Answer(Answer::Done("SHOW")),
            false if portal.ran => {
                let message = format!("portal \"{}\" cannot be run", String::from_utf8_lossy(name));
                Run::Answer(Answer::Refused("55000", message, "It has been run. Bind it again."))
            }
            _ => Run::Now(portal.request.clone()),
        })
    }

    /// A portal has been carried out, for at most so many rows (0: all). False if its end is not to be told yet: a server
    /// that has given as many rows as it was asked for does not look for more.
    pub(super) fn ran(&mut self, name: &[u8], rows: u32) -> bool {
        let Some(portal) = self.0.iter_mut().find(|portal| *portal.name == *name) else { return true };
        portal.ran = true;
        !portal.request.is_show() || rows != 1
    }
}
