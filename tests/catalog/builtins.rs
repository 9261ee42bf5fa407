//! Builtin functions that must be judged right in every version.

/// Of ROUTING 2.2 and 2.3: fail on a standby, or succeed and mean something else.
pub(crate) const DANGEROUS: &str = "
    nextval setval currval lastval
    lo_creat lo_create lo_from_bytea lo_import lo_put lo_unlink lo_truncate lo_truncate64 lowrite lo_open lo_export
    pg_notify txid_current pg_current_xact_id pg_current_xact_id_if_assigned txid_current_if_assigned
    txid_current_snapshot pg_current_snapshot txid_status pg_xact_status
    pg_replication_origin_create pg_replication_origin_drop pg_replication_origin_advance
    pg_replication_origin_session_setup pg_replication_origin_xact_setup pg_replication_origin_oid
    pg_current_wal_lsn pg_current_wal_insert_lsn pg_current_wal_flush_lsn pg_switch_wal pg_create_restore_point
    pg_walfile_name pg_walfile_name_offset
    pg_log_standby_snapshot brin_summarize_range brin_summarize_new_values brin_desummarize_range gin_clean_pending_list
    pg_restore_relation_stats pg_clear_relation_stats pg_restore_attribute_stats pg_clear_attribute_stats
    pg_logical_emit_message pg_create_logical_replication_slot pg_copy_logical_replication_slot
    pg_create_physical_replication_slot pg_drop_replication_slot pg_get_replication_slots
    pg_logical_slot_get_changes pg_logical_slot_peek_changes pg_replication_slot_advance
    pg_advisory_lock pg_advisory_lock_shared pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_try_advisory_lock
    pg_try_advisory_lock_shared pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared pg_advisory_unlock
    pg_advisory_unlock_shared pg_advisory_unlock_all pg_lock_status pg_blocking_pids
    pg_listening_channels pg_notification_queue_usage
    pg_sequence_last_value pg_get_sequence_data pg_prepared_xact pg_prepared_statement pg_cursor
    pg_stat_get_live_tuples pg_stat_get_numscans pg_stat_get_activity pg_stat_get_wal pg_stat_get_backend_pid
    pg_stat_get_xact_tuples_inserted pg_stat_get_snapshot_timestamp pg_stat_get_db_xact_commit pg_stat_get_wal_senders
    pg_show_all_settings current_setting set_config pg_is_in_recovery pg_last_wal_receive_lsn pg_last_wal_replay_lsn
    pg_last_xact_replay_timestamp pg_control_checkpoint pg_control_system pg_control_init pg_control_recovery
    pg_postmaster_start_time pg_conf_load_time inet_server_addr inet_server_port inet_client_addr inet_client_port
    version pg_backend_pid pg_relation_size pg_table_size pg_total_relation_size pg_indexes_size pg_database_size
    pg_tablespace_size pg_read_file pg_read_binary_file pg_ls_dir pg_ls_waldir pg_ls_logdir pg_stat_file
    pg_hba_file_rules pg_show_all_file_settings pg_export_snapshot setseed pg_my_temp_schema pg_is_other_temp_schema
    pg_reload_conf pg_rotate_logfile pg_promote pg_stat_reset pg_stat_reset_shared pg_stat_reset_single_table_counters
    pg_stat_clear_snapshot pg_log_backend_memory_contexts pg_cancel_backend pg_terminate_backend pg_backup_start
    pg_backup_stop pg_wal_replay_pause pg_wal_replay_resume pg_get_wal_replay_pause_state
    query_to_xml query_to_xml_and_xmlschema query_to_xmlschema table_to_xml schema_to_xml database_to_xml cursor_to_xml
    ts_stat ts_rewrite pg_relation_filenode pg_relation_filepath pg_timezone_names pg_available_extensions
    pg_collation_actual_version pg_jit_available pg_last_committed_xact pg_xact_commit_timestamp pg_nextoid
    pg_import_system_collations pg_trigger_depth pg_event_trigger_ddl_commands currtid2 domain_in record_in
    pg_get_shmem_allocations pg_get_backend_memory_contexts pg_config pg_current_logfile pg_safe_snapshot_blocking_pids
    binary_upgrade_set_next_pg_type_oid pg_stat_have_stats pg_wal_summary_contents loread lo_close
";

/// What applications use all day.
pub(crate) const EVERYDAY: &str = "
    lower upper initcap length char_length octet_length bit_length substr substring left right lpad rpad btrim ltrim
    rtrim trim_array replace translate reverse repeat split_part strpos position overlay concat concat_ws format
    quote_ident quote_literal quote_nullable ascii chr md5 sha256 sha512 encode decode starts_with to_hex
    regexp_replace regexp_match regexp_matches regexp_split_to_array regexp_split_to_table regexp_count regexp_like
    string_to_array string_to_table array_to_string string_agg
    abs ceil ceiling floor round trunc sign sqrt cbrt exp ln log power mod div gcd lcm pi degrees radians sin cos tan
    atan2 random width_bucket
    now clock_timestamp statement_timestamp transaction_timestamp timeofday date_trunc date_part date_bin extract age
    make_date make_time make_timestamp make_timestamptz make_interval justify_days justify_hours justify_interval
    to_char to_date to_timestamp to_number timezone isfinite overlaps date timestamptz interval
    count sum avg min max bool_and bool_or every array_agg json_agg jsonb_agg json_object_agg jsonb_object_agg
    bit_and bit_or stddev stddev_pop stddev_samp variance var_pop var_samp corr covar_pop regr_slope mode
    percentile_cont percentile_disc rank dense_rank percent_rank cume_dist row_number ntile lag lead first_value
    last_value nth_value xmlagg range_agg
    generate_series generate_subscripts unnest array_length array_append array_prepend array_cat array_position
    array_positions array_remove array_replace array_upper array_lower array_ndims array_dims cardinality array_fill
    json_build_object json_build_array jsonb_build_object jsonb_build_array to_json to_jsonb row_to_json array_to_json
    json_array_elements json_array_elements_text jsonb_array_elements jsonb_array_elements_text jsonb_array_length
    json_each json_each_text jsonb_each jsonb_each_text jsonb_object_keys json_object_keys jsonb_set jsonb_insert
    jsonb_strip_nulls jsonb_pretty jsonb_typeof json_typeof jsonb_path_query jsonb_path_exists jsonb_path_query_array
    jsonb_path_query_first json_extract_path json_extract_path_text jsonb_extract_path jsonb_extract_path_text
    json_populate_record jsonb_populate_record jsonb_populate_recordset json_to_record jsonb_to_record json_to_recordset
    jsonb_to_recordset json_object jsonb_object
    to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery ts_rank ts_rank_cd ts_headline
    setweight tsvector_to_array numnode querytree
    gen_random_uuid pg_typeof pg_column_size pg_size_pretty pg_get_viewdef pg_get_expr pg_get_constraintdef
    pg_get_indexdef pg_get_functiondef pg_get_userbyid pg_get_serial_sequence format_type obj_description
    col_description has_table_privilege has_schema_privilege pg_table_is_visible to_regclass pg_sleep
    current_database current_schema current_schemas current_query
    isempty lower_inc upper_inf range_merge int4range tstzrange daterange numrange
    host network masklen family inet_merge set_masklen hostmask broadcast
    point box circle polygon area center diameter height width
    enum_first enum_last enum_range num_nonnulls num_nulls get_bit set_bit get_byte
    int4 int8 float8 text varchar bpchar numeric bool name uuid inet
    bernoulli system hashtext unistr normalize pg_client_encoding getdatabaseencoding lo_get
";
