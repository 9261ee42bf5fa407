//! Names as the server folds them, without allocation; and which relations a text touches.

use super::{
    Names,
    lexer::{HIGH, ODD, Token, TokenKind, UPPER},
};

/// Longest name that the server keeps (NAMEDATALEN - 1); it cuts what is longer.
pub(super) const LONGEST: usize = 63;

/// Room for a name.
pub(super) type Buffer = [u8; LONGEST];

/// A token as a name: in lower case, or without its quotes; cut as the server cuts it. `None`: it cannot be told what
/// the server makes of it.
pub(super) fn fold<'a>(text: &'a [u8], token: Token, buffer: &'a mut Buffer) -> Option<&'a [u8]> {
    let quoted = token.kind == TokenKind::Quoted;
    let raw = text.get(token.range())?;
    let raw = if quoted { raw.get(1..raw.len() - 1)? } else { raw };
    if token.classes & HIGH != 0 && !is_certain(raw, quoted) {
        return None;
    }
    if quoted && token.classes & ODD != 0 {
        return Some(unquote(raw, buffer));
    }
    let name = raw.get(..LONGEST).unwrap_or(raw);
    if quoted || token.classes & UPPER == 0 {
        return Some(name);
    }
    let folded = buffer.get_mut(..name.len())?;
    folded.copy_from_slice(name);
    folded.make_ascii_lowercase();
    Some(folded)
}

/// `""` is one quote.
fn unquote<'a>(raw: &[u8], buffer: &'a mut Buffer) -> &'a [u8] {
    let (mut len, mut at) = (0, 0);
    while let (Some(&byte), Some(place)) = (raw.get(at), buffer.get_mut(len)) {
        *place = byte;
        len += 1;
        at += if byte == b'"' { 2 } else { 1 };
    }
    buffer.get(..len).unwrap_or_default()
}

/// The server finds the same name, whatever its own encoding is: one of a byte per character folds more than ASCII,
/// and cuts after as many characters.
fn is_certain(raw: &[u8], quoted: bool) -> bool {
    let Ok(name) = std::str::from_utf8(raw) else { return false };
    raw.len() <= LONGEST && (quoted || name.chars().all(|c| c.is_ascii() || c.to_lowercase().eq([c])))
}

/// Relations, while they are gathered.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) any: bool,
    pub(super) slots: Vec<u16>,
}

impl Gathered {
    /// Room for what most texts name, at once.
    pub(super) fn reserve(&mut self) {
        if self.slots.capacity() == 0 {
            self.slots.reserve(16);
        }
    }

    pub(super) fn add(&mut self, names: &Names) {
        match names {
            Names::Known(slots) => self.slots.extend_from_slice(slots),
            Names::Any => self.any = true,
        }
    }

    pub(super) fn into_names(mut self) -> Names {
        if self.any {
            return Names::Any;
        }
        self.slots.sort_unstable();
        self.slots.dedup();
        Names::Known(self.slots.into_boxed_slice())
    }
}
