//! What a server says of itself, and of who asks.
//!
//! One question, which needs no rights. Source: PostgreSQL docs, "System Information Functions", "pg_settings",
//! "pg_roles", "pg_stat_database".

use std::time::Duration;

use crate::server::{OwnSession, QueryError, Row};

/// The timeline of a primary is in the name of its WAL file: its last checkpoint may be older. Settings by pg_settings: in their own units, and NULL where a version has no such setting.
const QUESTION: &str = "\
SELECT s.standby, (SELECT system_identifier FROM pg_catalog.pg_control_system()), \
CASE WHEN s.standby THEN (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint())::text \
 ELSE pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) END, \
(CASE WHEN s.standby THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END \
 OPERATOR(pg_catalog.-) '0/0'::pg_catalog.pg_lsn)::pg_catalog.int8, \
CASE WHEN s.standby THEN (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_wal_receiver) END, \
CASE WHEN s.standby THEN pg_catalog.floor(extract(epoch FROM pg_catalog.now() OPERATOR(pg_catalog.-) \
 pg_catalog.pg_last_xact_replay_timestamp())) END, \
(SELECT setting FROM pg_catalog.pg_settings WHERE name = 'server_version_num'), \
(SELECT setting FROM pg_catalog.pg_settings WHERE name = 'max_connections'), \
(SELECT setting FROM pg_catalog.pg_settings WHERE name = 'superuser_reserved_connections'), \
(SELECT setting FROM pg_catalog.pg_settings WHERE name = 'reserved_connections'), \
(SELECT setting FROM pg_catalog.pg_settings WHERE name = 'idle_session_timeout'), \
(SELECT setting FROM pg_catalog.pg_settings WHERE name = 'default_transaction_read_only'), \
(SELECT setting FROM pg_catalog.pg_settings WHERE name = 'default_transaction_isolation'), \
(SELECT setting FROM pg_catalog.pg_settings WHERE name = 'recovery_min_apply_delay'), \
(SELECT pg_catalog.string_agg(name OPERATOR(pg_catalog.||) '=' OPERATOR(pg_catalog.||) setting, E'\\n' ORDER BY name) \
 FROM pg_catalog.pg_settings WHERE name IN ('DateStyle', 'IntervalStyle', 'TimeZone', 'bytea_output', \
 'default_text_search_config', 'extra_float_digits', 'lc_messages', 'lc_monetary', 'lc_numeric', 'lc_time', 'search_path', \
 'standard_conforming_strings', 'transform_null_equals', 'xmlbinary', 'xmloption')), \
r.rolconnlimit, r.rolsuper, d.datconnlimit, \
pg_catalog.pg_has_role('pg_monitor', 'USAGE'), \
(SELECT pg_catalog.sum(numbackends) FROM pg_catalog.pg_stat_database) \
FROM (SELECT pg_catalog.pg_is_in_recovery() AS standby OFFSET 0) s, pg_catalog.pg_roles r, pg_catalog.pg_database d \
WHERE r.rolname = current_user AND d.datname = pg_catalog.current_database()";

/// From 15 on: by which version of its library the database is sorted on this machine.
const COLLATION: &str = "\
SELECT pg_catalog.pg_database_collation_actual_version(oid) FROM pg_catalog.pg_database \
WHERE datname = pg_catalog.current_database()";
const COLLATION_SINCE: u32 = 150_000;

/// What was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) standby: bool,
    pub(crate) system: String,
    pub(crate) timeline: u32,
    /// Written by a primary, replayed by a replica; `None`: nothing yet.
    pub(crate) lsn: Option<u64>,
    /// Of a replica: it receives WAL from another server.
    pub(crate) streams: bool,
    /// Of a replica: seconds since the last transaction that it has replayed was committed.
    pub(crate) replayed_ago: Option<u64>,
    /// As 150006.
    pub(crate) version: u32,
    pub(crate) max_connections: u32,
    /// Of these for superusers, and for other roles with a right to them.
    pub(crate) reserved: u32,
    /// In milliseconds; 0: none.
    pub(crate) idle_session_timeout: u64,
    pub(crate) read_only: bool,
    pub(crate) serializable: bool,
    /// In milliseconds.
    pub(crate) apply_delay: u64,
    /// By which the same query may be answered otherwise, as the role has them: `name=value`.
    pub(crate) settings: Vec<String>,
    /// `None`: not known, or of no version.
    pub(crate) collation: Option<String>,
    /// Of the role; `None`: no limit.
    pub(crate) role_limit: Option<u32>,
    pub(crate) superuser: bool,
    /// Of the database; `None`: no limit.
    pub(crate) database_limit: Option<u32>,
    pub(crate) monitors: bool,
    /// Connections that are open.
    pub(crate) open: u32,
}

impl Facts {
    /// Asks a server.
    pub(crate) async fn ask(session: &mut OwnSession, limit: Duration) -> Result<Self, QueryError> {
        let rows = session.query(QUESTION, limit).await?;
        let read = rows.first().and_then(read);
        let mut facts = read.ok_or(QueryError::Protocol("the answer is not one of PostgreSQL's"))?;
        if facts.version >= COLLATION_SINCE {
            let rows = session.query(COLLATION, limit).await?;
            facts.collation = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
        }
        Ok(facts)
    }

    /// 15 for 15.6.
    pub(crate) fn major(&self) -> u32 {
        self.version / 10_000
    }

    /// Connections that ordinary roles may have.
    pub(crate) fn usable(&self) -> u32 {
        self.max_connections.saturating_sub(self.reserved)
    }
}

fn read(row: &Row) -> Option<Facts> {
    let field = |index: usize| row.get(index).and_then(Option::as_deref);
    let number = |index: usize| field(index).and_then(|text| text.parse::<u32>().ok());
    let long = |index: usize| field(index).and_then(|text| text.parse::<u64>().ok());
    let is = |index: usize| matches!(field(index), Some("t" | "on"));
    let timeline = field(2)?;
    let timeline = match is(0) {
        true => timeline.parse().ok()?,
        false => u32::from_str_radix(timeline.get(..8)?, 16).ok()?,
    };
    // -1 is no limit.
    Some(Facts {
        standby: is(0),
        system: field(1)?.to_owned(),
        timeline,
        lsn: long(3),
        streams: number(4).is_some_and(|receivers| receivers > 0),
        replayed_ago: long(5),
        version: number(6)?,
        max_connections: number(7)?,
        reserved: number(8)?.saturating_add(number(9).unwrap_or(0)),
        idle_session_timeout: long(10).unwrap_or(0),
        read_only: is(11),
        serializable: field(12) == Some("serializable"),
        apply_delay: long(13).unwrap_or(0),
        settings: field(14).unwrap_or_default().lines().map(str::to_owned).collect(),
        collation: None,
        role_limit: number(15),
        superuser: is(16),
        database_limit: number(17),
        monitors: is(18),
        open: number(19).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> Row {
        text.split(' ').map(|field| (field != "-").then(|| field.to_owned())).collect()
    }

    #[test]
    fn answers_of_a_primary_and_of_an_old_replica() {
        let primary =
            read(&row("f 7 0000000A0000000000000001 1000 - - 160004 100 3 5 60000 off serializable 0 a=1\nb=2 -1 f 20 t 12"))
                .unwrap();
        let expected = Facts {
            system: "7".to_owned(),
            timeline: 10,
            lsn: Some(1000),
            version: 160_004,
            max_connections: 100,
            reserved: 8,
            idle_session_timeout: 60_000,
            serializable: true,
            settings: vec!["a=1".to_owned(), "b=2".to_owned()],
            database_limit: Some(20),
            monitors: true,
            open: 12,
            ..Facts::default()
        };
        assert_eq!(primary, expected);
        assert_eq!((primary.major(), primary.usable()), (16, 92));

        let replica = read(&row("t 7 3 - 1 9 130002 50 3 - - on - 5 - 4 t -1 f -")).unwrap();
        assert!(replica.standby && replica.streams && replica.read_only && replica.superuser);
        assert!(!replica.serializable && replica.apply_delay == 5 && replica.settings.is_empty());
        assert_eq!((replica.lsn, replica.replayed_ago, replica.reserved), (None, Some(9), 3));
        assert_eq!((replica.role_limit, replica.database_limit, replica.open), (Some(4), None, 0));
        assert_eq!(read(&row("t 7")), None);
    }
}
