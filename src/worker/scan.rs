//! What a client's next request asks for, all its texts together.

use super::{
    Worker,
    begin::HeldBegin,
    classes::{Classes, DIALECT},
};
use crate::{
    cluster::{Cluster, floors::Changes},
    session::{
        state::ClientSession,
        unit::{self, Extent, Part},
    },
    sql::{self, Catalog, Class, Hint, Kind, Names, TransactionMode, Why},
};

/// What a request asks for, all its texts together.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) extent: Extent,
    /// Nothing but reads, and what may go with them on a replica.
    pub(super) reads_only: bool,
    /// Why not.
    pub(super) why: Why,
    /// It begins a transaction.
    pub(super) begins: Option<TransactionMode>,
    pub(super) ends: bool,
    pub(super) hint: Option<Hint>,
    /// The epoch that what it reads was last changed in.
    pub(super) floor: u64,
    /// It is about pooler itself: no server is to see it.
    pub(super) own: bool,
    /// It may leave something in the session.
    pub(super) attaches: bool,
    /// What it may change.
    pub(super) wrote: Changes,
    /// It may change definitions without saying so.
    pub(super) alters: bool,
    /// What it may show, if it shows anything at all.
    pub(super) reads: Changes,
    pub(super) shows: bool,
    /// A statement among it was not looked into: its client writes in another way than most.
    pub(super) unread: bool,
}

impl Worker {
    /// What a client's bytes ask for, which may have been found out just now.
    pub(super) fn scan_once(&mut self, slot: usize, input: &[u8]) -> Option<Scan> {
        match self.scanned.take() {
            Some((of, len, scan)) if of == slot && len == input.len() => Some(scan),
            _ => self.scan(slot, input),
        }
    }

    /// What a client's next request asks for; `None` where nothing is routed.
    fn scan(&mut self, slot: usize, input: &[u8]) -> Option<Scan> {
        let client = self.clients.get(slot)?;
        let seat = self.shards.get_mut(client.shard)?.seat.as_mut()?;
        seat.refresh_catalog();
        let begin = client.routing.as_ref().and_then(|routing| routing.begin.as_ref());
        Some(scan(input, &client.session, &seat.cluster, &seat.catalog, begin, &mut self.classes))
    }

    /// What a client's bytes ask for; remembered for [`Self::scan_once`].
    pub(super) fn look_at(&mut self, slot: usize, input: &[u8]) -> Option<&Scan> {
        let scan = self.scan_once(slot, input)?;
        Some(&self.scanned.insert((slot, input.len(), scan)).2)
    }
}

/// What a request asks for.
fn scan(
    input: &[u8],
    client: &ClientSession,
    cluster: &Cluster,
    catalog: &Catalog,
    begin: Option<&HeldBegin>,
    classes: &mut Classes,
) -> Scan {
    let mut scan = Scan {
        extent: Extent::Cut,
        reads_only: true,
        why: Why::Read,
        begins: begin.map(|begin| begin.mode),
        ends: false,
        hint: None,
        // What the transaction will read is not known.
        floor: if begin.is_some() { cluster.floors.of(&Names::Any) } else { 0 },
        own: false,
        attaches: false,
        wrote: Changes::default(),
        alters: false,
        reads: Changes::default(),
        shows: false,
        unread: false,
    };
    let dialect = classes.dialect(client);
    scan.extent = unit::parts(input, client, |part| match part {
        Part::Text(text) => {
            let class = classes.of_text(text, dialect, catalog);
            scan.alters |= class.is_none_or(|class| class.kind != Kind::Read) && sql::hides_definitions(text);
            scan.add_known(class, cluster);
        }
        Part::Prepared(statement) if dialect == DIALECT => {
            scan.add_known(classes.of_statement(statement, catalog), cluster);
        }
        Part::Prepared(_) => {
            scan.unread = true;
            scan.add(&Class::primary(Why::Unreadable), cluster);
        }
        Part::Start(text) => {
            // What changes rows leaves nothing in the session, as far as can be seen.
            let session = !sql::changes_rows(text);
            scan.add(&Class { session, ..Class::primary(Why::Unreadable) }, cluster);
        }
        // Of a COPY that has been noted.
        Part::Data => {
            let writes = Names::Known(Box::default());
            scan.add(&Class { session: false, writes, ..Class::primary(Why::Statement) }, cluster);
        }
        Part::Unknown => scan.add(&Class::primary(Why::Unreadable), cluster),
    });
    scan
}

impl Scan {
    /// It may read what others are changing, as it was before.
    pub(super) fn reads_a_snapshot(&self) -> bool {
        self.reads_only || self.begins.is_some() || self.why != Why::Statement
    }

    /// What runs on the primary may show what has not been acknowledged, too.
    fn show_changes(&mut self, class: &Class) {
        let shown = match &class.writes {
            // Settings and the like show no rows.
            Names::Known(slots) if slots.is_empty() && class.why == Why::Statement => return,
            Names::Known(slots) if slots.is_empty() => &Names::Any,
            written => written,
        };
        self.shows = true;
        self.reads.add(shown);
    }

    fn add_known(&mut self, class: Option<&Class>, cluster: &Cluster) {
        match class {
            Some(class) => self.add(class, cluster),
            None => self.add(&Class::primary(Why::Unreadable), cluster),
        }
    }

    fn add(&mut self, class: &Class, cluster: &Cluster) {
        self.hint = self.hint.or(class.hint);
        // While nothing is known of the database, any function might.
        self.attaches |= class.session && class.why != Why::NoCatalog;
        if class.async_commit {
            cluster.note_async_commits();
        }
        let reads_only = match &class.kind {
            Kind::Read => {
                self.floor = self.floor.max(cluster.floors.of(&class.reads));
                self.shows = true;
                self.reads.add(&class.reads);
                true
            }
            Kind::Begin(mode) => {
                self.begins = Some(*mode);
                // What it will read is not known.
                self.floor = cluster.floors.of(&Names::Any);
                true
            }
            // Outside of a transaction it means nothing; the server says so.
            Kind::SetTransaction(mode) => match &mut self.begins {
                Some(begins) => {
                    begins.read_only = mode.read_only.or(begins.read_only);
                    begins.serializable = mode.serializable.or(begins.serializable);
                    true
                }
                None => false,
            },
            Kind::End => {
                self.ends = true;
                true
            }
            Kind::Savepoint | Kind::Empty => true,
            Kind::SetCharacteristics(_) | Kind::Primary => false,
            Kind::Pooler(_) => {
                self.own = true;
                false
            }
        };
        if !reads_only {
            self.wrote.add(&class.writes);
            self.show_changes(class);
        }
        if !reads_only && self.reads_only {
            self.reads_only = false;
            self.why = class.why;
        }
    }
}
