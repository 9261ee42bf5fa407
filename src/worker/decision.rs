//! Why requests go where they go: what is counted, and what operators are told.

use super::scan::Scan;
use crate::sql::{Class, Hint, Kind, Why};

/// Why a request goes where it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Decision {
    /// None yet.
    #[default]
    None,
    /// To a replica: reads only.
    Read,
    /// To a replica: a transaction that is read-only.
    ReadOnlyTransaction,
    /// To a replica: asked for.
    AskedReplica,
    /// To the primary: asked for (hint, setting).
    AskedPrimary,
    /// To the primary: read_consistency is `primary`.
    Consistency,
    /// To the primary: pool mode `session`.
    SessionMode,
    /// To the primary: it may write, or cannot be told.
    Class(Why),
    /// To the primary: its end has not been seen.
    Open,
    /// To the primary: state of the session is there.
    Session,
    /// To the primary: no replica has caught up.
    Stale,
    /// To the primary: there is no replica.
    NoReplica,
    /// To the primary: a replica could not answer.
    Again,
    /// Waits for a replica to see the end of this epoch.
    Waits(u64),
    /// Waits: there is no primary.
    NoPrimary,
    /// Waits: a replica is asked for what may write, and none can take it.
    LacksReplica,
}

impl Decision {
    /// A replica was chosen for what only reads.
    pub(super) fn is_proven(self) -> bool {
        matches!(self, Self::Read | Self::ReadOnlyTransaction)
    }

    /// A replica was chosen.
    pub(super) fn is_replica(self) -> bool {
        matches!(self, Self::Read | Self::ReadOnlyTransaction | Self::AskedReplica)
    }

    /// Some node was chosen.
    pub(super) fn has_a_node(self) -> bool {
        !matches!(self, Self::None | Self::Waits(_) | Self::NoPrimary | Self::LacksReplica)
    }

    /// It waits for a replica to catch up, and goes to the primary if none does.
    pub(super) fn waits(self) -> bool {
        matches!(self, Self::Waits(_))
    }

    /// All, by their numbers.
    pub(crate) const ALL: [Self; 22] = [
        Self::None,
        Self::Read,
        Self::ReadOnlyTransaction,
        Self::AskedReplica,
        Self::AskedPrimary,
        Self::Consistency,
        Self::SessionMode,
        Self::Open,
        Self::Session,
        Self::Stale,
        Self::NoReplica,
        Self::Again,
        Self::NoPrimary,
        Self::LacksReplica,
        Self::Class(Why::Statement),
        Self::Class(Why::Word),
        Self::Class(Why::Function),
        Self::Class(Why::Relation),
        Self::Class(Why::Unreadable),
        Self::Class(Why::Encoding),
        Self::Class(Why::NoCatalog),
        Self::Class(Why::Several),
    ];

    /// Its number among [`Self::ALL`].
    pub(crate) fn index(self) -> usize {
        Self::ALL.iter().position(|decision| *decision == self).unwrap_or(0)
    }

    /// Where to, and one word for the reason.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Read => "replica: read",
            Self::ReadOnlyTransaction => "replica: read_only",
            Self::AskedReplica => "replica: asked",
            Self::AskedPrimary => "primary: asked",
            Self::Consistency => "primary: read_consistency",
            Self::SessionMode => "primary: session_mode",
            Self::Class(Why::Read) => "primary: read",
            Self::Class(Why::Statement) => "primary: statement",
            Self::Class(Why::Word) => "primary: word",
            Self::Class(Why::Function) => "primary: function",
            Self::Class(Why::Relation) => "primary: relation",
            Self::Class(Why::Unreadable) => "primary: unreadable",
            Self::Class(Why::Encoding) => "primary: encoding",
            Self::Class(Why::NoCatalog) => "primary: no_catalog",
            Self::Class(Why::Several) => "primary: several",
            Self::Open => "primary: open",
            Self::Session => "primary: session",
            Self::Stale => "primary: stale",
            Self::NoReplica => "primary: no_replica",
            Self::Again => "primary: again",
            Self::Waits(_) => "hold: stale",
            Self::NoPrimary => "hold: no_primary",
            Self::LacksReplica => "hold: no_replica",
        }
    }
}

/// What a request was taken for, wherever it was asked to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestClass {
    Read,
    /// A transaction that may only read.
    ReadOnly,
    /// A transaction that may write.
    Transaction,
    /// It may write, or cannot be told.
    Other(Why),
}

impl RequestClass {
    pub(super) fn of(scan: &Scan) -> Self {
        match scan.begins {
            Some(mode) if mode.read_only == Some(true) => Self::ReadOnly,
            Some(_) => Self::Transaction,
            None if scan.reads_only => Self::Read,
            None => Self::Other(scan.why),
        }
    }

    /// One word; of what may write the reason, as in SHOW WHY.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadOnly => "read_only",
            Self::Transaction => "transaction",
            Self::Other(why) => why.as_str(),
        }
    }
}

/// Where a text would go by itself, with everybody's defaults and replicas that have caught up.
pub(crate) fn decision_for(class: &Class) -> Decision {
    match (class.hint, &class.kind) {
        (Some(Hint::Primary), _) => Decision::AskedPrimary,
        (Some(Hint::Replica), _) => Decision::AskedReplica,
        (None, Kind::Read | Kind::Empty) if class.session => Decision::Session,
        (None, Kind::Read | Kind::Empty | Kind::Savepoint | Kind::End) => Decision::Read,
        (None, Kind::Begin(mode)) if mode.read_only == Some(true) && mode.serializable != Some(true) => {
            Decision::ReadOnlyTransaction
        }
        (None, Kind::Begin(_)) => Decision::Class(Why::Statement),
        (None, _) => Decision::Class(class.why),
    }
}
