-- What the statements of routing_table.txt run on. Run at the primary by a superuser, block by block; @PORT@ is the
-- primary's, @PASSWORD@ that of app.

SET ROLE app

CREATE TABLE item (id int PRIMARY KEY, name text NOT NULL, price numeric(10,2), tags text[], doc jsonb,
    made timestamptz DEFAULT '2024-01-01 00:00:00Z', span int4range, "update" int DEFAULT 0)

INSERT INTO item (id, name, price, tags, doc, span) SELECT n, 'item ' || n, n * 1.5, ARRAY['t' || n % 3, 'all'],
    jsonb_build_object('n', n, 'deep', jsonb_build_array(n, n + 1)), int4range(n, n + 3) FROM generate_series(1, 20) n

CREATE TABLE category (id int PRIMARY KEY, parent int, title text)

INSERT INTO category VALUES (1, NULL, 'root'), (2, 1, 'left'), (3, 1, 'right'), (4, 2, 'leaf')

CREATE TABLE item_category (item int REFERENCES item, category int REFERENCES category)

INSERT INTO item_category SELECT n, 1 + n % 4 FROM generate_series(1, 20) n

CREATE TABLE "Odd Table" ("select" int, "from" text, "Into" int)

INSERT INTO "Odd Table" VALUES (1, 'odd', 2)

CREATE SCHEMA other

CREATE TABLE other.thing (id int, note text)

INSERT INTO other.thing VALUES (1, 'elsewhere')

CREATE TABLE part (id int, x int) PARTITION BY RANGE (id)

CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (0) TO (100)

CREATE TABLE part_high PARTITION OF part FOR VALUES FROM (100) TO (200)

INSERT INTO part SELECT n, n FROM generate_series(0, 199) n

CREATE TABLE base (id int)

CREATE TABLE derived (extra int) INHERITS (base)

INSERT INTO derived VALUES (1, 2)

CREATE VIEW v_item AS SELECT id, upper(name) AS name FROM item

CREATE VIEW v_nested AS SELECT v.name, c.category FROM v_item v JOIN item_category c ON c.item = v.id

CREATE MATERIALIZED VIEW m_item AS SELECT count(*) AS n FROM item

CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')

CREATE TYPE pair AS (a int, b int)

CREATE DOMAIN positive AS int CHECK (VALUE > 0)

CREATE FUNCTION f_immutable(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 2'

CREATE FUNCTION f_stable() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM item'

CREATE FUNCTION f_stable_pl(int) RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT name FROM item WHERE id = $1); END $$

CREATE FUNCTION f_rows(int) RETURNS SETOF item STABLE LANGUAGE sql AS 'SELECT * FROM item WHERE id <= $1'

CREATE AGGREGATE agg_safe(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0')

CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)

CREATE SEQUENCE seq

CREATE TABLE log (what text)

CREATE TABLE target (id int, x int DEFAULT 0, at timestamptz DEFAULT '2024-01-01Z')

INSERT INTO target VALUES (1), (2), (3)

CREATE TABLE vip (id int)

CREATE UNLOGGED TABLE u_item (id int)

INSERT INTO u_item SELECT generate_series(1, 10)

CREATE VIEW v_unlogged AS SELECT id FROM u_item

CREATE VIEW v_unlogged_deep AS SELECT count(*) AS n FROM (SELECT * FROM v_unlogged) AS inner_one

CREATE TABLE mixed (id int) PARTITION BY RANGE (id)

CREATE TABLE mixed_logged PARTITION OF mixed FOR VALUES FROM (0) TO (10)

CREATE UNLOGGED TABLE mixed_unlogged PARTITION OF mixed FOR VALUES FROM (10) TO (20)

CREATE TABLE kin (id int)

CREATE UNLOGGED TABLE kin_unlogged () INHERITS (kin)

CREATE VIEW v_next AS SELECT nextval('seq') AS n

CREATE VIEW v_next_deep AS SELECT n + 1 AS n FROM v_next

CREATE VIEW v_last AS SELECT last_value FROM seq

CREATE VIEW v_activity AS SELECT pid FROM pg_stat_activity

CREATE VIEW v_tables AS SELECT relname, n_live_tup FROM pg_stat_user_tables

CREATE VIEW v_setting AS SELECT current_setting('transaction_read_only') AS ro

CREATE VIEW v_recovery AS SELECT pg_is_in_recovery() AS r

CREATE VIEW v_locking AS SELECT id FROM item WHERE id = 1 FOR UPDATE

CREATE VIEW v_lock_call AS SELECT pg_try_advisory_lock(4711) AS got

CREATE FUNCTION f_insert() RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES ('f'); RETURN 1; END $$

CREATE FUNCTION f_insert_sql(text) RETURNS int LANGUAGE sql AS $$ INSERT INTO log VALUES ($1); SELECT 1 $$

CREATE FUNCTION "f Insert"() RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES ('f'); RETURN 1; END $$

CREATE FUNCTION f_swallow() RETURNS text LANGUAGE plpgsql AS $$
BEGIN INSERT INTO log VALUES ('s'); RETURN 'inserted'; EXCEPTION WHEN OTHERS THEN RETURN 'swallowed'; END $$

CREATE FUNCTION f_asks_role() RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN CASE WHEN pg_is_in_recovery() THEN 'replica' ELSE 'primary' END; END $$

CREATE FUNCTION f_asks_setting() RETURNS text LANGUAGE sql STABLE AS $$ SELECT current_setting('transaction_read_only') $$

CREATE FUNCTION f_stable_lock() RETURNS boolean LANGUAGE sql STABLE AS 'SELECT pg_try_advisory_lock(4712)'

CREATE FUNCTION f_liar() RETURNS bigint LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN nextval('seq'); END $$

CREATE FUNCTION f_calls_liar() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT f_liar()'

CREATE FUNCTION f_stable_stat() RETURNS bigint LANGUAGE sql STABLE AS
    $$ SELECT n_live_tup FROM pg_stat_user_tables WHERE relname = 'item' $$

CREATE FUNCTION f_stable_last() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT last_value FROM seq'

CREATE FUNCTION f_stable_dynamic(text) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE r text; BEGIN EXECUTE $1 INTO r; RETURN r; END $$

CREATE FUNCTION f_over(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'

CREATE FUNCTION f_over(text) RETURNS int LANGUAGE sql AS $$ INSERT INTO log VALUES ($1); SELECT 2 $$

CREATE FUNCTION other.initcap(text) RETURNS text LANGUAGE sql AS $$ INSERT INTO public.log VALUES ($1); SELECT $1 $$

CREATE FUNCTION f_default(a bigint DEFAULT nextval('seq')) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT $1'

CREATE FUNCTION f_default_lock(a boolean DEFAULT pg_try_advisory_lock(4713)) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1'

CREATE FUNCTION f_attribute(item) RETURNS int LANGUAGE sql AS $$ INSERT INTO log VALUES ('attribute'); SELECT 3 $$

CREATE FUNCTION f_attribute_lock(category) RETURNS boolean LANGUAGE sql AS 'SELECT pg_try_advisory_lock(4714)'

CREATE FUNCTION f_step(int, int) RETURNS int LANGUAGE sql AS $$ INSERT INTO log VALUES ('step'); SELECT $1 + $2 $$

CREATE AGGREGATE agg_write(int) (SFUNC = f_step, STYPE = int, INITCOND = '0')

CREATE FUNCTION f_final(int) RETURNS boolean LANGUAGE sql AS 'SELECT pg_try_advisory_lock(4715)'

CREATE AGGREGATE agg_lock(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0', FINALFUNC = f_final)

CREATE OPERATOR <~> (LEFTARG = int, RIGHTARG = int, FUNCTION = f_step)

CREATE FUNCTION f_lock_operator(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT pg_try_advisory_lock($1, $2)'

CREATE OPERATOR @#@ (LEFTARG = int, RIGHTARG = int, FUNCTION = f_lock_operator)

CREATE TYPE trap_source AS ENUM ('x')

CREATE TYPE trap_result AS ENUM ('t', 'f')

CREATE FUNCTION f_cast(trap_source) RETURNS trap_result LANGUAGE sql AS 'SELECT left(pg_try_advisory_lock(4716)::text, 1)::trap_result'

CREATE CAST (trap_source AS trap_result) WITH FUNCTION f_cast(trap_source)

CREATE FUNCTION f_check(int) RETURNS boolean LANGUAGE sql AS 'SELECT pg_try_advisory_lock(4717, $1)'

CREATE DOMAIN trap_domain AS int CHECK (f_check(VALUE))

CREATE TABLE rls_item (id int, tenant text)

INSERT INTO rls_item VALUES (1, 'a'), (2, 'b'), (3, 'a')

ALTER TABLE rls_item ENABLE ROW LEVEL SECURITY

ALTER TABLE rls_item FORCE ROW LEVEL SECURITY

CREATE POLICY tenant ON rls_item USING (tenant = current_setting('app.tenant', true))

CREATE VIEW v_rls AS SELECT id FROM rls_item

CREATE TABLE rls_lock (id int)

INSERT INTO rls_lock VALUES (1)

ALTER TABLE rls_lock ENABLE ROW LEVEL SECURITY

ALTER TABLE rls_lock FORCE ROW LEVEL SECURITY

CREATE POLICY locks ON rls_lock USING (pg_try_advisory_lock(4718))

RESET ROLE

CREATE EXTENSION postgres_fdw

CREATE EXTENSION dblink

GRANT EXECUTE ON FUNCTION pg_read_file(text), pg_ls_dir(text), pg_reload_conf() TO app

GRANT CREATE ON SCHEMA public TO app

CREATE SERVER here FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '@PORT@', dbname 'replicated')

CREATE USER MAPPING FOR app SERVER here OPTIONS (user 'app', password '@PASSWORD@')

GRANT USAGE ON FOREIGN SERVER here TO app

SET ROLE app

CREATE FOREIGN TABLE ft_item (id int, name text) SERVER here OPTIONS (table_name 'item')

CREATE FOREIGN TABLE ft_next (n bigint) SERVER here OPTIONS (table_name 'v_next')

CREATE VIEW v_foreign AS SELECT n FROM ft_next

CREATE TABLE spread (id int, name text) PARTITION BY RANGE (id)

CREATE FOREIGN TABLE spread_far PARTITION OF spread FOR VALUES FROM (0) TO (1000) SERVER here OPTIONS (table_name 'item')

SELECT lo_from_bytea(424242, 'large')

RESET ROLE

VACUUM ANALYZE
