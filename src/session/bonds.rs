//! What binds a server to its client: what it has left there that cannot follow it.

/// One reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bond {
    /// A setting that no text names.
    Setting,
    /// What not even DISCARD ALL clears: the seed of random numbers, connections of dblink, variables of languages.
    Lasting,
    Authorization,
    Load,
    Temporary,
    Cursor,
    Listen,
    Prepare,
    Advisory,
    /// It asks for numbers of sequences that it has drawn in an earlier transaction.
    Currval,
    /// Data of a COPY that has failed is still on its way.
    Copy,
}

impl Bond {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Setting,
        Self::Lasting,
        Self::Authorization,
        Self::Load,
        Self::Temporary,
        Self::Cursor,
        Self::Listen,
        Self::Prepare,
        Self::Advisory,
        Self::Currval,
        Self::Copy,
    ];

    /// What operators read, and what servers are asked to call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Setting => "setting",
            Self::Lasting => "what outlives DISCARD ALL",
            Self::Authorization => "SESSION AUTHORIZATION",
            Self::Load => "LOAD",
            Self::Temporary => "temporary objects",
            Self::Cursor => "cursor WITH HOLD",
            Self::Listen => "LISTEN",
            Self::Prepare => "PREPARE",
            Self::Advisory => "advisory lock",
            Self::Currval => "currval",
            Self::Copy => "COPY",
        }
    }

    /// An object of a session, by the word for it.
    pub(super) fn object(word: &[u8]) -> Option<Self> {
        let objects = [Self::Temporary, Self::Cursor, Self::Listen, Self::Prepare];
        objects.into_iter().find(|known| known.as_str().as_bytes() == word)
    }
}

/// What there is: each is there until it is gone by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bonds {
    /// Something that nobody can ask for: it stays until the client leaves.
    pub(super) stays: Option<Bond>,
    /// Something that nobody can clear: it stays until the client leaves, and nobody else gets the server.
    pub(super) lasts: bool,
    /// A library: it stays even where the client has made its session as new.
    loaded: bool,
    pub(super) authorization: bool,
    pub(super) sequences: bool,
    pub(super) objects: Option<Bond>,
    pub(super) listens: bool,
    pub(super) locks: bool,
}

impl Bonds {
    /// Why the server stays with its client, if it does.
    pub fn reason(&self) -> Option<Bond> {
        let named = |there: bool, bond| there.then_some(bond);
        let others = || named(self.loaded, Bond::Load).or(self.objects).or(named(self.locks, Bond::Advisory));
        let first = named(self.lasts, Bond::Lasting).or(self.stays);
        let first = first.or(named(self.authorization, Bond::Authorization)).or_else(others);
        first.or(named(self.sequences, Bond::Currval))
    }

    /// It listens for its client.
    pub fn listens(&self) -> bool {
        self.listens
    }

    /// The server is of no use to others.
    pub fn last(&self) -> bool {
        self.lasts
    }

    /// Nothing binds it any more; whether something did.
    pub fn cut(&mut self) -> bool {
        std::mem::take(self).reason().is_some()
    }

    /// The client has made its session as new.
    pub(super) fn discard(&mut self) {
        self.stays = None;
        self.sequences = false;
    }

    /// A statement has ended with this tag: it holds until an answer says otherwise.
    pub(super) fn on_tag(&mut self, tag: &[u8]) {
        match tag {
            b"PREPARE" => self.objects = Some(Bond::Prepare),
            b"LISTEN" => (self.objects, self.listens) = (Some(Bond::Listen), true),
            b"LOAD" => self.loaded = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bonds_are_numbered_in_their_order() {
        for (number, bond) in Bond::ALL.into_iter().enumerate() {
            assert_eq!(bond as usize, number, "{bond:?}");
        }
        let words: std::collections::HashSet<&str> = Bond::ALL.map(Bond::as_str).into_iter().collect();
        assert_eq!(words.len(), Bond::ALL.len());
    }
}
