//! What PostgreSQL's own functions and relations do on a standby: the knowledge that no catalog holds.
//!
//! `provolatile` is where judging starts, not where it ends: some stable functions need a transaction id, some tell of
//! the server and not of the data, some run SQL that they are given as text. Of what begins with `pg_` only what is
//! listed is safe, so that the functions of a new version are dangerous until somebody looked at them.
//! Measured on PostgreSQL 15 and 18; tests/catalog.rs walks the catalogs of both.

/// Volatile, and all the same as good on a standby. (`bernoulli` and `system` are methods of TABLESAMPLE.)
/// Not here: functions that tell the size of relations (the free space map of a standby has its own).
const SAFE_VOLATILE: &[&str] = &[
    "array_sample",
    "array_shuffle",
    "bernoulli",
    "clock_timestamp",
    "current_query",
    "gen_random_uuid",
    "lo_get",
    "pg_partition_ancestors",
    "pg_partition_tree",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "random",
    "random_normal",
    "system",
    "timeofday",
    "uuidv4",
    "uuidv7",
];

/// Begin with `pg_`, and depend on nothing but arguments, catalogs and settings that sessions take along.
const SAFE_PG: &[&str] = &[
    "pg_basetype",
    "pg_char_to_encoding",
    "pg_client_encoding",
    "pg_collation_for",
    "pg_collation_is_visible",
    "pg_column_compression",
    "pg_column_is_updatable",
    "pg_column_size",
    "pg_column_toast_chunk_id",
    "pg_conversion_is_visible",
    "pg_describe_object",
    "pg_encoding_max_length",
    "pg_encoding_to_char",
    "pg_function_is_visible",
    "pg_get_acl",
    "pg_get_catalog_foreign_keys",
    "pg_get_constraintdef",
    "pg_get_expr",
    "pg_get_function_arg_default",
    "pg_get_function_arguments",
    "pg_get_function_identity_arguments",
    "pg_get_function_result",
    "pg_get_function_sqlbody",
    "pg_get_functiondef",
    "pg_get_indexdef",
    "pg_get_keywords",
    "pg_get_object_address",
    "pg_get_partition_constraintdef",
    "pg_get_partkeydef",
    "pg_get_publication_tables",
    "pg_get_replica_identity_index",
    "pg_get_ruledef",
    "pg_get_serial_sequence",
    "pg_get_statisticsobjdef",
    "pg_get_statisticsobjdef_columns",
    "pg_get_statisticsobjdef_expressions",
    "pg_get_triggerdef",
    "pg_get_userbyid",
    "pg_get_viewdef",
    "pg_has_role",
    "pg_identify_object",
    "pg_identify_object_as_address",
    "pg_index_column_has_property",
    "pg_index_has_property",
    "pg_indexam_has_property",
    "pg_mcv_list_items",
    "pg_opclass_is_visible",
    "pg_operator_is_visible",
    "pg_opfamily_is_visible",
    "pg_options_to_table",
    "pg_partition_ancestors",
    "pg_partition_root",
    "pg_partition_tree",
    "pg_relation_is_publishable",
    "pg_relation_is_updatable",
    "pg_sequence_parameters",
    "pg_size_bytes",
    "pg_size_pretty",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "pg_statistics_obj_is_visible",
    "pg_table_is_visible",
    "pg_ts_config_is_visible",
    "pg_ts_dict_is_visible",
    "pg_ts_parser_is_visible",
    "pg_ts_template_is_visible",
    "pg_type_is_visible",
    "pg_typeof",
    "pg_wal_lsn_diff",
];

/// Neither volatile nor `pg_`, and not safe: other server, other transaction, or SQL as text.
const UNSAFE: &[&str] = &[
    "current_setting",
    "icu_unicode_version",
    "inet_client_addr",
    "inet_client_port",
    "inet_server_addr",
    "inet_server_port",
    "mxid_age",
    "system_user",
    "unicode_version",
    "version",
];

/// Leave something in the session, or need what was left there; or run SQL that may.
const SESSION: &[&str] = &[
    "currval",
    "lastval",
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_advisory_unlock",
    "pg_advisory_unlock_all",
    "pg_advisory_unlock_shared",
    "pg_listening_channels",
    "pg_replication_origin_session_progress",
    "pg_replication_origin_session_reset",
    "pg_replication_origin_session_setup",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
    "set_config",
    "setseed",
    "ts_rewrite",
    "ts_stat",
];

/// Look into catalogs or large objects by a name or number that no identifier in the text shows.
const READS: &[&str] = &[
    "col_description",
    "format_type",
    "has_any_column_privilege",
    "has_column_privilege",
    "has_database_privilege",
    "has_foreign_data_wrapper_privilege",
    "has_function_privilege",
    "has_language_privilege",
    "has_largeobject_privilege",
    "has_parameter_privilege",
    "has_schema_privilege",
    "has_sequence_privilege",
    "has_server_privilege",
    "has_table_privilege",
    "has_tablespace_privilege",
    "has_type_privilege",
    "lo_get",
    "obj_description",
    "row_security_active",
    "shobj_description",
    "to_regclass",
    "to_regcollation",
    "to_regnamespace",
    "to_regoper",
    "to_regoperator",
    "to_regproc",
    "to_regprocedure",
    "to_regrole",
    "to_regtype",
    "to_regtypemod",
    "ts_rewrite",
    "ts_stat",
];

/// Begin with `pg_` and read nothing that changes.
const PURE_PG: &[&str] = &[
    "pg_char_to_encoding",
    "pg_client_encoding",
    "pg_collation_for",
    "pg_column_compression",
    "pg_column_size",
    "pg_column_toast_chunk_id",
    "pg_encoding_max_length",
    "pg_encoding_to_char",
    "pg_get_keywords",
    "pg_mcv_list_items",
    "pg_size_bytes",
    "pg_size_pretty",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "pg_typeof",
    "pg_wal_lsn_diff",
];

/// Not safe, but they change no relation that a replica is asked for: sequences, large objects and what shows the server
/// are for the primary anyway. (lo_get is not: whatever else has to do with large objects changes everything.)
const NO_WRITES: &[&str] = &[
    "current_setting",
    "currval",
    "lastval",
    "mxid_age",
    "nextval",
    "pg_backend_pid",
    "pg_blocking_pids",
    "pg_cancel_backend",
    "pg_collation_actual_version",
    "pg_conf_load_time",
    "pg_database_size",
    "pg_export_snapshot",
    "pg_indexes_size",
    "pg_is_in_recovery",
    "pg_is_other_temp_schema",
    "pg_jit_available",
    "pg_listening_channels",
    "pg_lock_status",
    "pg_my_temp_schema",
    "pg_notification_queue_usage",
    "pg_notify",
    "pg_postmaster_start_time",
    "pg_relation_filenode",
    "pg_relation_filepath",
    "pg_relation_size",
    "pg_sequence_last_value",
    "pg_show_all_settings",
    "pg_table_size",
    "pg_tablespace_size",
    "pg_terminate_backend",
    "pg_total_relation_size",
    "pg_trigger_depth",
    "pg_xact_status",
    "set_config",
    "setseed",
    "setval",
    "version",
];

/// The same, by how names begin.
const NO_WRITES_PREFIXES: [&str; 8] = [
    "inet_",
    "pg_advisory_",
    "pg_control_",
    "pg_current_",
    "pg_last_",
    "pg_stat_get_",
    "pg_try_advisory_",
    "txid_",
];

/// System views that show the same on a standby. Those of a new version are dangerous until somebody looked.
const SAFE_VIEWS: &[&str] = &[
    "pg_indexes",
    "pg_matviews",
    "pg_policies",
    "pg_publication_tables",
    "pg_rules",
    "pg_stats",
    "pg_stats_ext",
    "pg_stats_ext_exprs",
    "pg_tables",
    "pg_views",
];

/// Functions of builtin triggers that change nothing but the row.
const SAFE_TRIGGERS: &[&str] =
    &["suppress_redundant_updates_trigger", "tsvector_update_trigger", "tsvector_update_trigger_column"];

fn listed(list: &[&str], name: &str) -> bool {
    list.binary_search(&name).is_ok()
}

/// A builtin function of this name is safe. `callable`: every overload can be called from SQL in a sensible way.
pub(super) fn is_safe(name: &str, volatile: bool, callable: bool) -> bool {
    if listed(SAFE_VOLATILE, name) {
        return true;
    }
    if volatile || !callable || listed(UNSAFE, name) || name.starts_with("txid_") {
        return false;
    }
    // They run SQL given as text, or read relations given by name.
    if name.contains("_to_xml") || name.ends_with("_validator") {
        return false;
    }
    if name.starts_with("pg_lsn") || name.starts_with("pg_snapshot_") {
        return true;
    }
    !name.starts_with("pg_") || listed(SAFE_PG, name)
}

/// A builtin function of this name may read what no identifier shows.
pub(super) fn reads_anything(name: &str) -> bool {
    listed(READS, name)
        || name.contains("_to_xml")
        || (name.starts_with("pg_") && !name.starts_with("pg_lsn") && !listed(PURE_PG, name))
}

/// A builtin function of this name may change the session, or depends on what was left there.
pub(super) fn touches_session(name: &str) -> bool {
    listed(SESSION, name) || name.contains("_to_xml")
}

/// A builtin function of this name, dangerous or not, changes no relation.
pub(super) fn writes_nothing(name: &str) -> bool {
    listed(NO_WRITES, name) || NO_WRITES_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// A relation of pg_catalog shows on a standby what it shows on the primary, and changes with this database alone.
/// Catalogs shared by all databases are not: who writes to them may do it in any database.
pub(super) fn relation_is_safe(name: &str, view: bool, shared: bool) -> bool {
    !shared && (!view || listed(SAFE_VIEWS, name))
}

/// A builtin trigger function changes nothing but the row.
pub(super) fn trigger_is_safe(name: &str) -> bool {
    listed(SAFE_TRIGGERS, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_for_the_search() {
        for list in
            [SAFE_VOLATILE, SAFE_PG, UNSAFE, SESSION, READS, PURE_PG, NO_WRITES, SAFE_VIEWS, SAFE_TRIGGERS]
        {
            assert!(list.is_sorted_by(|a, b| a < b), "{list:?}");
        }
    }

    #[test]
    fn unknown_pg_functions_are_dangerous_whatever_their_volatility_says() {
        assert!(!is_safe("pg_function_of_postgresql_25", false, true));
        assert!(is_safe("function_of_postgresql_25", false, true));
    }
}
