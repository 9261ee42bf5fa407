-- A database full of traps, for PostgreSQL 14 and newer.
CREATE SCHEMA other_schema;
CREATE SEQUENCE a_sequence;
CREATE TABLE log_table (id int, what text);
CREATE TABLE items (id serial PRIMARY KEY, name text);
CREATE TABLE attributes (id int);
CREATE TABLE child_of_items (extra int) INHERITS (items);
CREATE UNLOGGED TABLE unlogged_table (x int);
CREATE UNLOGGED TABLE "Unlogged_Mixed" (x int);
CREATE TABLE unlogged_grand (x int);
CREATE TABLE unlogged_parent () INHERITS (unlogged_grand);
CREATE UNLOGGED TABLE unlogged_child () INHERITS (unlogged_parent);
CREATE TABLE permanent_child () INHERITS (unlogged_parent);
CREATE TABLE unlogged_mixed (x int);
CREATE TABLE parts (id int, at int) PARTITION BY RANGE (at);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100) PARTITION BY LIST (id);
CREATE TABLE parts_1a PARTITION OF parts_1 FOR VALUES IN (1);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200);

-- Functions that are safe, whatever they are declared.
CREATE FUNCTION pure_sql(x int) RETURNS int LANGUAGE sql AS 'SELECT abs_of_int4 FROM (SELECT x + 1 AS abs_of_int4) AS t';
CREATE OR REPLACE FUNCTION pure_sql(x int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT x + 1';
CREATE FUNCTION pure_plpgsql(x int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    -- never an INSERT or nextval('a_sequence')
    IF (x > 1) THEN RETURN upper('insert into') || x::text; ELSE RETURN lower(now()::text); END IF;
END $$;
CREATE FUNCTION volatile_reader(k int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE found_name items.name%TYPE; n numeric(10,2) := 0;
BEGIN
    SELECT name INTO found_name FROM items WHERE id = k;
    SELECT count(*) INTO n FROM parts;
    RETURN coalesce(found_name, 'none') || n;
END $$;
CREATE FUNCTION calls_safe(x int) RETURNS int LANGUAGE sql AS 'SELECT pure_sql(x) * 2';
CREATE FUNCTION calls_reader(x int) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN volatile_reader(x); END';
CREATE FUNCTION recursive_tree(k int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE r record; n int := 0;
BEGIN
    FOR r IN SELECT id FROM items WHERE id > k LOOP n := n + recursive_tree(r.id); END LOOP;
    RETURN n;
END $$;
CREATE FUNCTION mutual_a(x int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN x; END';
CREATE FUNCTION mutual_b(x int) RETURNS int LANGUAGE plpgsql AS 'BEGIN IF x > 0 THEN RETURN mutual_a(x - 1); END IF; RETURN 0; END';
CREATE OR REPLACE FUNCTION mutual_a(x int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN mutual_b(x); END';
CREATE FUNCTION mutual_c(x int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN x; END';
CREATE FUNCTION mutual_d(x int) RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM nextval(''a_sequence''); RETURN mutual_c(x); END';
CREATE OR REPLACE FUNCTION mutual_c(x int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN mutual_d(x); END';
CREATE FUNCTION typed(x int) RETURNS varchar LANGUAGE plpgsql AS 'BEGIN RETURN x::varchar(20); END';
CREATE FUNCTION raises(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF x < 0 THEN RAISE EXCEPTION 'negative: %', x USING ERRCODE = '22003'; END IF;
    RETURN x;
END $$;
CREATE FUNCTION assigns(x int) RETURNS int LANGUAGE plpgsql AS $$
<<outer_block>>
DECLARE a int[] := ARRAY[1, 2]; b int;
BEGIN
    a[1] := x; b = a[1]; $1 := 4; b := CASE WHEN b > 1 THEN lower('3')::int ELSE 4 END;
    RETURN b;
END $$;
CREATE FUNCTION loops(x int) RETURNS SETOF int LANGUAGE plpgsql AS $$
DECLARE i int;
BEGIN
    FOR i IN 1..x LOOP
        CONTINUE WHEN i % 2 = 0;
        RETURN NEXT i;
    END LOOP;
    FOREACH i IN ARRAY ARRAY[1,2] LOOP RETURN NEXT i; END LOOP;
    WHILE i < 10 LOOP i := i + 1; EXIT WHEN i = 5; END LOOP;
    RETURN QUERY SELECT generate_series(1, x);
END $$;
CREATE FUNCTION over_cursor() RETURNS int LANGUAGE plpgsql AS $$
DECLARE c CURSOR FOR SELECT id FROM items; n int;
BEGIN OPEN c; FETCH c INTO n; CLOSE c; RETURN n; END $$;
CREATE FUNCTION new_sql_body(x int) RETURNS int LANGUAGE sql RETURN x + 1;
CREATE FUNCTION atomic_body(x int) RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM items WHERE id > x; END;
CREATE FUNCTION with_default(x int DEFAULT 3, y timestamptz DEFAULT now()) RETURNS int LANGUAGE sql AS 'SELECT x';
CREATE FUNCTION sum_step(a int, b int) RETURNS int LANGUAGE sql AS 'SELECT a + b';
CREATE AGGREGATE sum_up(int) (sfunc = sum_step, stype = int, initcond = '0');
CREATE FUNCTION "Mixed"(x int) RETURNS int LANGUAGE sql AS 'SELECT x';
CREATE FUNCTION hidden_in_comment() RETURNS int LANGUAGE plpgsql AS 'BEGIN /* nextval( */ RETURN 1; END';
CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE DOMAIN good_domain AS text CHECK (length(value) < 10 AND lower(value) <> 'x');
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE FUNCTION small(x positive) RETURNS int LANGUAGE sql AS 'SELECT x::int';
CREATE TABLE typed_table (p positive, d good_domain, m mood);

CREATE TYPE float_span AS RANGE (subtype = float8);

-- Functions that write, or lie.
CREATE FUNCTION writes_sql() RETURNS void LANGUAGE sql AS 'INSERT INTO log_table VALUES (1)';
CREATE FUNCTION writes_plpgsql() RETURNS void LANGUAGE plpgsql AS 'BEGIN DELETE FROM log_table; END';
CREATE FUNCTION liar_stable() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN nextval(''a_sequence''); END';
CREATE FUNCTION liar_immutable() RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT nextval(''a_sequence'')';
CREATE FUNCTION calls_liar() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN liar_stable() + 1; END';
CREATE FUNCTION swallows() RETURNS text STABLE LANGUAGE plpgsql AS $$
BEGIN
    RETURN 'inserted';
EXCEPTION WHEN OTHERS THEN RETURN 'swallowed';
END $$;
CREATE FUNCTION dynamic(t text) RETURNS int STABLE LANGUAGE plpgsql AS $$
DECLARE n int; BEGIN EXECUTE 'SELECT count(*) FROM ' || t INTO n; RETURN n; END $$;
CREATE FUNCTION asks_role() RETURNS bool STABLE LANGUAGE sql AS 'SELECT pg_is_in_recovery()';
CREATE FUNCTION asks_setting() RETURNS text STABLE LANGUAGE sql AS 'SELECT current_setting(''transaction_read_only'')';
CREATE FUNCTION asks_variable() RETURNS text STABLE LANGUAGE plpgsql AS 'BEGIN RETURN current_setting(''app.x'', true); END';
CREATE FUNCTION reads_unlogged() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM unlogged_table); END';
CREATE FUNCTION locks_rows() RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM 1 FROM items FOR KEY SHARE; END';
CREATE FUNCTION notifies() RETURNS void LANGUAGE plpgsql AS 'BEGIN NOTIFY x; END';
CREATE FUNCTION evil_default(x bigint DEFAULT nextval('a_sequence')) RETURNS bigint LANGUAGE sql AS 'SELECT x';
CREATE FUNCTION evil_step(a bigint, b int) RETURNS bigint LANGUAGE sql AS 'SELECT nextval(''a_sequence'')';
CREATE AGGREGATE evil_aggregate(int) (sfunc = evil_step, stype = bigint, initcond = '0');
CREATE FUNCTION lower_overload(text) RETURNS text LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION other_schema.lower_overload(int) RETURNS bigint LANGUAGE sql AS 'SELECT nextval(''a_sequence'')';
CREATE FUNCTION other_schema.abs(text) RETURNS bigint LANGUAGE plpgsql AS 'BEGIN TRUNCATE log_table; RETURN 1; END';
CREATE FUNCTION atomic_liar() RETURNS bigint STABLE LANGUAGE sql BEGIN ATOMIC SELECT nextval('a_sequence'::regclass); END;
CREATE FUNCTION quoted_liar() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN pg_catalog."nextval"(''a_sequence''); END';
CREATE FUNCTION backslash() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN ''a\''; END';
CREATE FUNCTION backslash_sql() RETURNS text LANGUAGE sql AS 'SELECT ''a\b''';
CREATE FUNCTION reads_sequence() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT last_value FROM a_sequence); END';
CREATE FUNCTION row_liar(log_table) RETURNS bigint STABLE LANGUAGE sql AS 'SELECT nextval(''a_sequence'')';
CREATE FUNCTION row_reader(log_table) RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM items';
CREATE FUNCTION domain_evil(int) RETURNS bool LANGUAGE sql AS 'SELECT nextval(''a_sequence'') > 0';
CREATE DOMAIN evil_domain AS int CHECK (domain_evil(value));
CREATE FUNCTION uses_evil_domain(x int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN x::evil_domain; END';
CREATE FUNCTION takes_domain(x evil_domain) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION evil_operator(int, int) RETURNS bool LANGUAGE sql AS 'SELECT nextval(''a_sequence'') > 0';
CREATE OPERATOR <~~> (leftarg = int, rightarg = int, function = evil_operator);
CREATE FUNCTION good_operator(int, int) RETURNS bool LANGUAGE sql AS 'SELECT $1 + $2 > 0';
CREATE OPERATOR <+> (leftarg = int, rightarg = int, function = good_operator);
CREATE FUNCTION liar_via_operator() RETURNS bool STABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1 <~~> 2; END';

-- Functions and the session.
CREATE FUNCTION sets_path() RETURNS void LANGUAGE plpgsql AS 'BEGIN SET search_path TO x; END';
CREATE FUNCTION sets_config() RETURNS text LANGUAGE sql AS 'SELECT set_config(''app.x'', ''1'', false)';
CREATE FUNCTION calls_sets_config() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN sets_config(); END';
CREATE FUNCTION takes_advisory() RETURNS bool LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_lock(1); RETURN true; END';
CREATE FUNCTION makes_temp() RETURNS void LANGUAGE plpgsql AS 'BEGIN CREATE TEMP TABLE x (y int); END';
CREATE FUNCTION session_in_string() RETURNS text LANGUAGE sql AS 'SELECT query_to_xml(''SELECT set_config()'', true, true, '''')::text';
CREATE FUNCTION update_sets() RETURNS void LANGUAGE plpgsql AS 'BEGIN UPDATE items SET name = lower(name); END';

-- Views.
CREATE VIEW good_view AS SELECT id, lower(name) AS name FROM items;
CREATE TABLE orders (id int PRIMARY KEY, item int);
CREATE VIEW good_view_2 AS SELECT v.id, o.item FROM good_view v JOIN orders o ON o.item = v.id;
CREATE VIEW view_of_parts AS SELECT * FROM parts;
CREATE MATERIALIZED VIEW mat AS SELECT * FROM good_view_2;
CREATE VIEW view_of_unlogged AS SELECT * FROM unlogged_table;
CREATE VIEW view_nextval AS SELECT nextval('a_sequence') AS n FROM items;
CREATE VIEW view_of_view_nextval AS SELECT n + 1 AS m FROM view_nextval;
CREATE VIEW view_writing AS SELECT writes_plpgsql()::text AS x;
CREATE VIEW view_of_view_writing AS SELECT x FROM view_writing;
CREATE VIEW view_of_liar AS SELECT liar_stable() AS x;
CREATE VIEW view_unqualified_setting AS SELECT * FROM items WHERE name = current_setting('app.x', true);
CREATE VIEW view_stat AS SELECT count(*) AS n FROM pg_stat_activity;
CREATE VIEW view_of_session AS SELECT set_config('app.x', '1', false) AS x;
CREATE VIEW reading_view AS SELECT calls_reader(1) AS x;
CREATE VIEW view_of_reading_view AS SELECT * FROM reading_view;
CREATE FUNCTION reads_bad_view() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM view_of_view_nextval';
-- Made safe before what it depends on is there: the order of oids is against it.
CREATE VIEW late_view AS SELECT 1 AS x;
CREATE FUNCTION late_view_reader() RETURNS int LANGUAGE sql AS 'SELECT x FROM late_view';
CREATE OR REPLACE VIEW late_view AS SELECT pure_sql(2) AS x;

-- Policies.
CREATE TABLE rls_members (who name, item int);
CREATE TABLE rls_user (owner name, item int);
ALTER TABLE rls_user ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON rls_user USING (owner = CURRENT_USER OR EXISTS (SELECT 1 FROM rls_members m WHERE m.item = rls_user.item));
CREATE TABLE rls_setting (tenant text);
ALTER TABLE rls_setting ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON rls_setting FOR SELECT USING (tenant = current_setting('app.tenant', true));
CREATE VIEW view_of_rls_setting AS SELECT * FROM rls_setting;
CREATE TABLE rls_liar (x int);
ALTER TABLE rls_liar ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON rls_liar USING (liar_stable() > x);
CREATE TABLE rls_off (x int);
CREATE POLICY own ON rls_off USING (liar_stable() > x);

-- Foreign keys, triggers, rules.
CREATE TABLE lines (id int PRIMARY KEY, order_id int REFERENCES orders ON DELETE CASCADE);
CREATE TABLE notes (order_id int REFERENCES orders ON UPDATE SET NULL);
CREATE TABLE deep (line int REFERENCES lines ON DELETE SET DEFAULT);
CREATE TABLE orphans (order_id int REFERENCES orders);
CREATE FUNCTION trigger_audit() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO log_table VALUES (1, TG_OP); UPDATE items SET name = ''x''; RETURN NEW; END';
CREATE FUNCTION trigger_stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.at := now(); RETURN NEW; END';
CREATE FUNCTION trigger_session() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM set_config(''app.x'', ''1'', false); RETURN NEW; END';
CREATE TABLE audited (id int PRIMARY KEY);
CREATE TRIGGER audit AFTER INSERT ON audited FOR EACH ROW EXECUTE FUNCTION trigger_audit();
-- A delete here reaches a table with a trigger.
CREATE TABLE audited_target (id int PRIMARY KEY);
ALTER TABLE audited ADD COLUMN target int REFERENCES audited_target ON DELETE CASCADE;
CREATE TABLE stamped (id int, at timestamptz);
CREATE TRIGGER stamp BEFORE UPDATE ON stamped FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION trigger_stamp();
CREATE TABLE when_triggered (id int, at timestamptz);
CREATE TRIGGER stamp BEFORE UPDATE ON when_triggered FOR EACH ROW WHEN (liar_stable() > NEW.id) EXECUTE FUNCTION trigger_stamp();
CREATE TABLE disabled_trigger (id int);
CREATE TRIGGER audit AFTER INSERT ON disabled_trigger FOR EACH ROW EXECUTE FUNCTION trigger_audit();
ALTER TABLE disabled_trigger DISABLE TRIGGER audit;
CREATE TABLE session_triggered (id int);
CREATE TRIGGER session AFTER INSERT ON session_triggered FOR EACH ROW EXECUTE FUNCTION trigger_session();
CREATE TABLE restricted_child (id int PRIMARY KEY);
CREATE TRIGGER audit AFTER DELETE ON restricted_child FOR EACH ROW EXECUTE FUNCTION trigger_audit();
CREATE TABLE restricted (id int PRIMARY KEY);
CREATE TABLE restricted_part () INHERITS (restricted);
CREATE TRIGGER audit AFTER DELETE ON restricted_part FOR EACH ROW EXECUTE FUNCTION trigger_audit();
CREATE TABLE ruled (id int);
CREATE RULE also AS ON INSERT TO ruled DO ALSO INSERT INTO log_table VALUES (1);
CREATE TABLE evil_defaulted (id int DEFAULT liar_stable());
