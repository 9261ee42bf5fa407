// pgjdbc with its defaults (unnamed statements first, named ones from the fifth execution), alone and under HikariCP.

import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.math.BigDecimal;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Array;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import javax.sql.DataSource;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.ds.PGPoolingDataSource;

public class Jdbc extends Checks {
    static final String URL = System.getenv("DATABASE_URL");
    static final String DIRECT = System.getenv("DIRECT_URL");
    /** A replica that reads may run on, if there is one. */
    static final String REPLICA = System.getenv("REPLICA_URL");
    /** What changes behind the back of the pooler is seen at once with this; PostgreSQL takes it for any setting. */
    static final String STRICT = "set pooler.read_consistency = 'strict'";
    static final int POOL_SIZE = Integer.parseInt(System.getenv().getOrDefault("POOL_SIZE", "0"));
    static final int CLIENTS = 50;
    static final int ROUNDS = 20;

    interface Use<T> {
        T apply(Connection connection) throws Exception;
    }

    public static void main(String[] only) throws Exception {
        Map<String, Check> checks = new LinkedHashMap<>();
        checks.put("wrong_password_is_refused", Jdbc::wrongPassword);
        checks.put("values_of_many_types_round_trip", Jdbc::types);
        checks.put("values_of_ten_megabytes_round_trip", Jdbc::large);
        checks.put("prepared_statements_work_across_servers", Jdbc::preparedAcrossServers);
        checks.put("prepared_statement_follows_its_client_to_another_server", Jdbc::preparedFollows);
        checks.put("evicted_statements_are_closed_and_prepared_again", Jdbc::evicted);
        checks.put("simple_query_mode", Jdbc::simpleMode);
        checks.put("transactions_commit_and_roll_back", Jdbc::transactions);
        checks.put("errors_keep_their_sqlstate_and_the_connection", Jdbc::errors);
        checks.put("batches_are_pipelined", Jdbc::batches);
        checks.put("fetch_size_reads_in_portions", Jdbc::fetchSize);
        checks.put("copy_in_and_out", Jdbc::copy);
        checks.put("large_objects_by_function_calls", Jdbc::largeObjects);
        checks.put("cancel_and_timeout_spare_the_connection", Jdbc::cancel);
        checks.put("notifications_reach_their_client", Jdbc::notifications);
        checks.put("pools_share_servers", Jdbc::pools);
        checks.put("session_parameters_follow_the_client", Jdbc::parameters);
        checks.put("no_client_sees_the_answer_of_another", Jdbc::isolation);
        checks.put("settings_of_poolers_own_can_be_prepared", Jdbc::ownSettings);
        checks.put("result_type_changed_by_ddl", Jdbc::resultTypeChanged);
        checks.put("lost_server_is_one_error_and_then_work_goes_on", Jdbc::lostServer);
        runAll(checks, only);
    }

    // --- Helpers -----------------------------------------------------------------------------------

    static Connection connect(String url, String... options) throws SQLException {
        URI uri = URI.create(url);
        String[] login = uri.getUserInfo().split(":");
        Properties properties = new Properties();
        properties.setProperty("user", login[0]);
        properties.setProperty("password", login[1]);
        for (int i = 0; i < options.length; i += 2) {
            properties.setProperty(options[i], options[i + 1]);
        }
        return DriverManager.getConnection(
                "jdbc:postgresql://" + uri.getHost() + ":" + uri.getPort() + uri.getPath(), properties);
    }

    static Connection connect() throws SQLException {
        return connect(URL);
    }

    static void execute(Connection connection, String... statements) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            for (String text : statements) {
                statement.execute(text);
            }
        }
    }

    static Object value(Connection connection, String query, Object... parameters) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(query)) {
            for (int i = 0; i < parameters.length; i++) {
                statement.setObject(i + 1, parameters[i]);
            }
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                return rows.getObject(1);
            }
        }
    }

    static int serverOf(Connection connection) throws SQLException {
        return (Integer) value(connection, "select pg_backend_pid()");
    }

    static SQLException raises(String state, Check check) throws Exception {
        try {
            check.run();
        } catch (SQLException error) {
            must(state.equals(error.getSQLState()), error.getSQLState() + " instead of " + state + ": " + error);
            return error;
        }
        throw new AssertionError("no error instead of " + state);
    }

    /** A text that only this client sends, of a length that varies from a few bytes to some KB. */
    static String marker(int client, int turn) {
        return "client " + client + " turn " + turn + " " + "x".repeat(client * turn * 37 % 9000);
    }

    /** Holds that server in a transaction of another client: everybody else gets a different one. */
    static void serverTaken(int pid, Check check) throws Exception {
        List<Connection> others = new ArrayList<>();
        try {
            for (int held = 0; POOL_SIZE > 0 && held != pid; ) {
                must(others.size() < POOL_SIZE, "server " + pid + " has left the pool");
                Connection other = connect();
                others.add(other);
                other.setAutoCommit(false);
                held = serverOf(other);
            }
            check.run();
        } finally {
            for (Connection other : others) {
                other.close();
            }
        }
    }

    /** Many clients at once, each with its own connection; each returns the servers they met. */
    static void crowd(Use<Set<Integer>> work) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(CLIENTS);
        List<Connection> connections = new ArrayList<>();
        List<Callable<Set<Integer>>> tasks = new ArrayList<>();
        for (int i = 0; i < CLIENTS; i++) {
            Connection connection = connect();
            connections.add(connection);
            tasks.add(() -> work.apply(connection));
        }
        Set<Integer> servers = new HashSet<>();
        for (Future<Set<Integer>> done : threads.invokeAll(tasks)) {
            servers.addAll(done.get());
        }
        threads.shutdown();
        for (Connection connection : connections) {
            connection.close();
        }
        serversWereShared(servers);
    }

    /** The transactions of many clients met several servers, and no more than the pool has. */
    static void serversWereShared(Set<Integer> servers) {
        must(POOL_SIZE == 0 || servers.size() > 1 && servers.size() <= POOL_SIZE,
                servers.size() + " servers for a pool of " + POOL_SIZE);
    }

    static final java.util.concurrent.atomic.AtomicInteger NUMBERS = new java.util.concurrent.atomic.AtomicInteger();

    /** Waits until PostgreSQL shows the query as running. */
    static void untilRunning(String query) throws Exception {
        String running = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and query = ?";
        try (Connection direct = connect(DIRECT); Connection replica = connect(REPLICA == null ? DIRECT : REPLICA)) {
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
            while ((Long) value(direct, running, query) == 0 && (Long) value(replica, running, query) == 0) {
                must(System.nanoTime() < deadline, "never running: " + query);
            }
        }
    }

    // --- Checks ------------------------------------------------------------------------------------

    static void wrongPassword() throws Exception {
        raises("28P01", () -> connect(URL, "password", "wrong").close());
    }

    static void types() throws Exception {
        try (Connection c = connect()) {
            OffsetDateTime when = OffsetDateTime.of(2024, 2, 29, 12, 30, 15, 123456000, ZoneOffset.UTC);
            byte[] raw = new byte[256];
            for (int i = 0; i < raw.length; i++) {
                raw[i] = (byte) i;
            }
            // Often enough for text transfer first and binary transfer afterwards.
            try (PreparedStatement s = c.prepareStatement("select ?::text, ?::numeric, ?::timestamptz, ?::bytea,"
                    + " ?::jsonb, ?::int[], ?::int, ?::bool, ?::uuid, ?::float8")) {
                for (int turn = 0; turn < 12; turn++) {
                    s.setString(1, "Ünïcödé ☃ 𝄞 '\"\\");
                    s.setBigDecimal(2, new BigDecimal("12345678901234567890.123456789"));
                    s.setObject(3, when);
                    s.setBytes(4, raw);
                    s.setString(5, "{\"a\": [1, null]}");
                    s.setArray(6, c.createArrayOf("int4", new Integer[] {1, null, -3}));
                    s.setNull(7, java.sql.Types.INTEGER);
                    s.setBoolean(8, true);
                    s.setObject(9, new java.util.UUID(1, 2));
                    s.setDouble(10, 0.1 + 0.2);
                    try (ResultSet r = s.executeQuery()) {
                        must(r.next(), "a row");
                        same(r.getString(1), "Ünïcödé ☃ 𝄞 '\"\\");
                        same(r.getBigDecimal(2), new BigDecimal("12345678901234567890.123456789"));
                        same(r.getObject(3, OffsetDateTime.class).toInstant(), when.toInstant());
                        same(r.getBytes(4), raw);
                        same(r.getString(5), "{\"a\": [1, null]}");
                        Array array = r.getArray(6);
                        same(array.getArray(), new Integer[] {1, null, -3});
                        must(r.getInt(7) == 0 && r.wasNull(), "null");
                        same(r.getBoolean(8), true);
                        same(r.getObject(9), new java.util.UUID(1, 2));
                        same(r.getDouble(10), 0.1 + 0.2);
                    }
                }
            }
            try (Statement s = c.createStatement()) {
                must(s.execute("select 1; select 2; create temp table if not exists jdbc_t (a int) on commit drop"), "rows");
                must(s.getMoreResults(), "second result");
            }
        }
    }

    static void large() throws Exception {
        String text = "☃x".repeat(2_600_000);
        byte[] raw = new byte[10_000_000];
        Arrays.fill(raw, (byte) 7);
        try (Connection c = connect()) {
            same(value(c, "select ?::text", text), text);
            same(value(c, "select ?::bytea", (Object) raw), raw);
        }
    }

    static void preparedAcrossServers() throws Exception {
        crowd(c -> {
            int number = NUMBERS.incrementAndGet();
            Set<Integer> servers = new HashSet<>();
            // One statement of the same name (S_1) with another text in every client, one with the same.
            try (PreparedStatement own = c.prepareStatement("select " + number + " + ?::int");
                    PreparedStatement shared = c.prepareStatement("select pg_backend_pid(), ?::int * 2, ?::text")) {
                for (int turn = 0; turn < ROUNDS; turn++) {
                    own.setInt(1, turn);
                    try (ResultSet r = own.executeQuery()) {
                        r.next();
                        same(r.getInt(1), number + turn);
                    }
                    shared.setInt(1, number);
                    shared.setString(2, marker(number, turn));
                    try (ResultSet r = shared.executeQuery()) {
                        r.next();
                        servers.add(r.getInt(1));
                        same(r.getInt(2), number * 2);
                        same(r.getString(3), marker(number, turn));
                    }
                }
            }
            return servers;
        });
    }

    static void preparedFollows() throws Exception {
        try (Connection c = connect(); PreparedStatement s = c.prepareStatement("select pg_backend_pid(), ?::int + 1")) {
            s.unwrap(org.postgresql.PGStatement.class).setPrepareThreshold(1);
            int[] first = ask(s, 1);
            ask(s, 1);
            serverTaken(first[0], () -> {
                int[] second = ask(s, 2);
                same(second[1], 3);
                must(POOL_SIZE == 0 || second[0] != first[0], "still on the same server");
            });
        }
    }

    static int[] ask(PreparedStatement s, int n) throws SQLException {
        s.setInt(1, n);
        try (ResultSet r = s.executeQuery()) {
            r.next();
            return new int[] {r.getInt(1), r.getInt(2)};
        }
    }

    static void evicted() throws Exception {
        try (Connection c = connect(URL, "prepareThreshold", "1", "preparedStatementCacheQueries", "5")) {
            for (int turn = 0; turn < 3; turn++) {
                for (int n = 0; n < 30; n++) {
                    same(value(c, "select " + n + " + ?::int", 1), n + 1);
                }
            }
            execute(c, "deallocate all"); // pgjdbc notices the tag
            same(value(c, "select 29 + ?::int", 1), 30);
            execute(c, "discard all");
            same(value(c, "select 29 + ?::int", 1), 30);
        }
    }

    static void simpleMode() throws Exception {
        try (Connection c = connect(URL, "preferQueryMode", "simple")) {
            same(value(c, "select ?::int + ?::int", 40, 2), 42);
            same(value(c, "select ?::text", "quote ' \\"), "quote ' \\");
        }
        for (String mode : List.of("extendedForPrepared", "extendedCacheEverything")) {
            try (Connection c = connect(URL, "preferQueryMode", mode)) {
                for (int n = 0; n < 10; n++) {
                    same(value(c, "select ?::int", n), n);
                    execute(c, "select 1");
                }
            }
        }
    }

    static List<Object> ids(Connection direct, String table) throws SQLException {
        Array ids = (Array) value(direct, "select coalesce(array_agg(id order by id), '{}') from " + table);
        return List.of((Object[]) ids.getArray());
    }

    static void transactions() throws Exception {
        try (Connection c = connect(); Connection direct = connect(DIRECT)) {
            execute(c, "drop table if exists jdbc_tx", "create table jdbc_tx (id int primary key)");
            c.setAutoCommit(false);
            execute(c, "insert into jdbc_tx values (1)");
            var savepoint = c.setSavepoint("named");
            execute(c, "insert into jdbc_tx values (2)");
            raises("23505", () -> execute(c, "insert into jdbc_tx values (1)"));
            raises("25P02", () -> execute(c, "select 1"));
            c.rollback(savepoint);
            execute(c, "insert into jdbc_tx values (3)");
            same(ids(direct, "jdbc_tx"), List.of());
            c.commit();
            same(ids(direct, "jdbc_tx"), List.of(1, 3));
            execute(c, "delete from jdbc_tx");
            c.rollback();
            c.setReadOnly(true);
            c.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
            same(value(c, "show transaction_isolation"), "repeatable read");
            raises("25006", () -> execute(c, "delete from jdbc_tx"));
            c.rollback();
            c.setReadOnly(false);
            c.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
            c.setAutoCommit(true);
            same(ids(direct, "jdbc_tx"), List.of(1, 3));
        }
    }

    static void errors() throws Exception {
        try (Connection c = connect()) {
            execute(c, "drop table if exists jdbc_errors", "create table jdbc_errors (id int primary key)",
                    "insert into jdbc_errors values (1)");
            for (int turn = 0; turn < 7; turn++) {
                raises("23505", () -> value(c, "insert into jdbc_errors values (?) returning id", 1));
                raises("42601", () -> value(c, "select 1 frm x"));
                raises("22012", () -> value(c, "select 1 / ?::int", 0));
                raises("42P01", () -> value(c, "select * from no_such_table"));
                raises("22012", () -> execute(c, "select 1; select 1/0; select 2"));
                same(value(c, "select 1"), 1);
            }
        }
    }

    static void batches() throws Exception {
        try (Connection c = connect(); Connection direct = connect(DIRECT)) {
            execute(c, "drop table if exists jdbc_batch", "create table jdbc_batch (id int primary key, body text)");
            try (PreparedStatement s = c.prepareStatement("insert into jdbc_batch values (?, ?)", Statement.RETURN_GENERATED_KEYS)) {
                for (int turn = 0; turn < 3; turn++) {
                    for (int n = 0; n < 2000; n++) {
                        s.setInt(1, turn * 2000 + n);
                        s.setString(2, marker(n % 50, turn));
                        s.addBatch();
                    }
                    same(Arrays.stream(s.executeBatch()).sum(), 2000);
                }
                try (ResultSet keys = s.getGeneratedKeys()) {
                    must(keys.next(), "generated keys");
                }
            }
            same(value(direct, "select count(*) from jdbc_batch"), 6000L);
            c.setAutoCommit(false);
            try (PreparedStatement s = c.prepareStatement("insert into jdbc_batch values (?, '')")) {
                for (int id : new int[] {10001, 10002, 1, 10003}) {
                    s.setInt(1, id);
                    s.addBatch();
                }
                try {
                    s.executeBatch();
                    throw new AssertionError("no error in the batch");
                } catch (BatchUpdateException error) {
                    same(error.getSQLState(), "23505");
                }
                raises("25P02", () -> value(c, "select 1"));
                c.rollback();
            }
            c.setAutoCommit(true);
            try (Statement s = c.createStatement()) {
                s.addBatch("insert into jdbc_batch values (20001, 'a')");
                s.addBatch("update jdbc_batch set body = 'b' where id = 20001");
                s.addBatch("delete from jdbc_batch where id < 100");
                s.executeBatch();
            }
            same(value(direct, "select count(*) from jdbc_batch"), 5901L);
        }
        try (Connection c = connect(URL, "reWriteBatchedInserts", "true")) {
            try (PreparedStatement s = c.prepareStatement("insert into jdbc_batch values (?, ?)")) {
                for (int n = 0; n < 1000; n++) {
                    s.setInt(1, 30000 + n);
                    s.setString(2, "rewritten");
                    s.addBatch();
                }
                s.executeBatch();
            }
            same(value(c, "select count(*) from jdbc_batch where body = 'rewritten'"), 1000L);
        }
    }

    static void fetchSize() throws Exception {
        try (Connection c = connect()) {
            c.setAutoCommit(false);
            try (PreparedStatement a = c.prepareStatement("select n from generate_series(1, ?::int) n");
                    PreparedStatement b = c.prepareStatement("select -n from generate_series(1, 100) n")) {
                a.setFetchSize(7);
                b.setFetchSize(3);
                for (int turn = 0; turn < 7; turn++) { // portals of an unnamed and then of a named statement
                    a.setInt(1, 100);
                    try (ResultSet up = a.executeQuery(); ResultSet down = b.executeQuery()) {
                        for (int n = 1; n <= 100; n++) {
                            must(up.next() && down.next(), "a row");
                            same(up.getInt(1), n);
                            same(down.getInt(1), -n);
                            same(n == 50 ? value(c, "select 50") : 50, 50);
                        }
                        must(!up.next() && !down.next(), "the end");
                    }
                    if (turn % 2 == 0) {
                        c.commit();
                    }
                }
            }
            c.commit();
            c.setAutoCommit(true);
            try (Statement s = c.createStatement()) {
                s.setMaxRows(10); // a row limit without transaction
                try (ResultSet r = s.executeQuery("select n from generate_series(1, 1000) n")) {
                    int rows = 0;
                    while (r.next()) {
                        rows++;
                    }
                    same(rows, 10);
                }
            }
            same(value(c, "select 1"), 1);
        }
    }

    static void copy() throws Exception {
        try (Connection c = connect()) {
            execute(c, "drop table if exists jdbc_copy", "create table jdbc_copy (id int primary key, body text)");
            StringBuilder lines = new StringBuilder();
            for (int n = 0; n < 20000; n++) {
                lines.append(n).append("\tline ").append(n).append(" ☃\n");
            }
            byte[] data = lines.toString().getBytes(StandardCharsets.UTF_8);
            var copies = c.unwrap(PGConnection.class).getCopyAPI();
            same(copies.copyIn("copy jdbc_copy from stdin", new ByteArrayInputStream(data)), 20000L);
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            copies.copyOut("copy (select * from jdbc_copy order by id) to stdout", out);
            same(out.toByteArray(), data);
            raises("23505", () -> copies.copyIn("copy jdbc_copy from stdin", new ByteArrayInputStream(data)));
            var given_up = copies.copyIn("copy jdbc_copy from stdin");
            given_up.writeToCopy("99999\tx\n".getBytes(StandardCharsets.UTF_8), 0, 8);
            given_up.cancelCopy();
            same(value(c, "select count(*) from jdbc_copy"), 20000L);
        }
    }

    static void largeObjects() throws Exception {
        try (Connection c = connect()) {
            c.setAutoCommit(false);
            var objects = c.unwrap(PGConnection.class).getLargeObjectAPI();
            long oid = objects.createLO();
            byte[] data = new byte[300_000];
            Arrays.fill(data, (byte) 5);
            try (var object = objects.open(oid)) {
                object.write(data);
                object.seek(0);
                same(object.read(data.length), data);
            }
            c.commit();
            objects.delete(oid);
            c.commit();
            raises("42704", () -> objects.open(oid));
            c.rollback();
        }
    }

    static void cancel() throws Exception {
        try (Connection c = connect(); Connection bystander = connect(); Statement s = c.createStatement()) {
            for (int turn = 0; turn < 3; turn++) {
                s.setQueryTimeout(1);
                raises("57014", () -> s.executeQuery("select pg_sleep(30)"));
                s.setQueryTimeout(0);
                same(value(c, "select 1"), 1);
                String query = "select pg_sleep(30), 'jdbc'";
                Thread canceller = new Thread(() -> {
                    try {
                        untilRunning(query);
                        s.cancel();
                    } catch (Exception error) {
                        error.printStackTrace();
                    }
                });
                canceller.start();
                raises("57014", () -> s.executeQuery(query));
                canceller.join();
                same(value(c, "select 1"), 1);
                same(value(bystander, "select 2"), 2);
            }
            c.setAutoCommit(false);
            execute(c, "set local statement_timeout = 50");
            raises("57014", () -> execute(c, "select pg_sleep(30)"));
            c.rollback();
            same(value(c, "show statement_timeout"), "0");
        }
    }

    static void notifications() throws Exception {
        try (Connection listener = connect(); Connection sender = connect()) {
            execute(listener, "listen jdbc_news");
            for (int n = 0; n < 50; n++) {
                value(sender, "select pg_notify('jdbc_news', ?)::text", String.valueOf(n));
            }
            PGConnection news = listener.unwrap(PGConnection.class);
            for (int n = 0; n < 50; ) {
                PGNotification[] got = news.getNotifications(10_000);
                must(got != null && got.length > 0, "notification " + n + " does not come");
                for (PGNotification notification : got) {
                    same(notification.getParameter(), String.valueOf(n++));
                }
            }
            // Between its notifications the listener works as everybody else.
            same(value(listener, "select ?::int", 1), 1);
            execute(listener, "unlisten *");
            execute(sender, "notify jdbc_news");
            same(value(listener, "select ?::int", 2), 2);
            must(news.getNotifications().length == 0, "a late notification");
        }
    }

    /** HikariCP, and pgjdbc's own pool. */
    static void pools() throws Exception {
        URI uri = URI.create(URL);
        String[] login = uri.getUserInfo().split(":");
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl("jdbc:postgresql://" + uri.getHost() + ":" + uri.getPort() + uri.getPath());
        config.setUsername(login[0]);
        config.setPassword(login[1]);
        config.setMaximumPoolSize(20);
        try (HikariDataSource hikari = new HikariDataSource(config)) {
            borrowMany(hikari);
        }
        PGPoolingDataSource own = new PGPoolingDataSource();
        own.setDataSourceName("jdbc suite");
        own.setServerNames(new String[] {uri.getHost()});
        own.setPortNumbers(new int[] {uri.getPort()});
        own.setDatabaseName(uri.getPath().substring(1));
        own.setUser(login[0]);
        own.setPassword(login[1]);
        own.setMaxConnections(20);
        borrowMany(own);
        own.close();
    }

    static void borrowMany(DataSource source) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(30);
        List<Callable<Integer>> tasks = new ArrayList<>();
        for (int i = 0; i < 300; i++) {
            int number = i;
            tasks.add(() -> {
                try (Connection c = source.getConnection()) {
                    c.setAutoCommit(number % 2 == 0);
                    c.setReadOnly(number % 3 == 0);
                    int pid = serverOf(c);
                    same(value(c, "select ?::int", number), number);
                    if (number % 2 == 1) {
                        same(serverOf(c), pid);
                        if (number % 10 == 1) {
                            raises("22012", () -> execute(c, "select 1/0"));
                        }
                        c.rollback();
                    }
                    return pid;
                }
            });
        }
        Set<Integer> servers = new HashSet<>();
        for (Future<Integer> done : threads.invokeAll(tasks)) {
            servers.add(done.get());
        }
        threads.shutdown();
        serversWereShared(servers);
    }

    static void parameters() throws Exception {
        try (Connection c = connect(URL, "ApplicationName", "jdbc check", "options", "-c geqo=off"); Connection other = connect()) {
            int first = serverOf(c);
            execute(c, "set timezone to 'Asia/Tokyo'");
            serverTaken(first, () -> {
                same(value(c, "select current_setting('timezone') || ', ' || current_setting('application_name')"),
                        "Asia/Tokyo, jdbc check");
                must(!"Asia/Tokyo".equals(value(other, "show timezone")), "another client has this time zone");
            });
            c.setClientInfo("ApplicationName", "renamed");
            same(value(c, "show application_name"), "renamed");
            must(c.isValid(5), "valid");
            System.out.println("note options: geqo=" + value(c, "show geqo"));
        }
    }

    static void isolation() throws Exception {
        crowd(c -> {
            int number = NUMBERS.incrementAndGet();
            Set<Integer> servers = new HashSet<>();
            c.setAutoCommit(false);
            for (int turn = 0; turn < ROUNDS; turn++) {
                int pid = serverOf(c);
                same(value(c, "select ?::text", marker(number, turn)), marker(number, turn));
                execute(c, "set local suite.mine = '" + number + "'");
                if (turn % 4 == 0) {
                    var savepoint = c.setSavepoint();
                    raises("22012", () -> execute(c, "select 1/0"));
                    c.rollback(savepoint);
                }
                same(value(c, "select current_setting('suite.mine')"), String.valueOf(number));
                same(serverOf(c), pid);
                c.commit();
                servers.add(pid);
            }
            return servers;
        });
    }

    static void ownSettings() throws Exception {
        try (Connection c = connect(URL, "prepareThreshold", "1")) {
            c.setAutoCommit(false);
            for (String setting : new String[] {"eventual", "strict"}) {
                execute(c, "set pooler.read_consistency = '" + setting + "'");
                same(value(c, "show pooler.read_consistency"), setting);
                same(value(c, "show pooler.read_consistency"), setting);
            }
            execute(c, "reset pooler.read_consistency");
            same(value(c, "select 'other'"), "other");
            c.commit();
        }
    }

    static void resultTypeChanged() throws Exception {
        try (Connection c = connect(URL, "prepareThreshold", "1"); Connection direct = connect(DIRECT)) {
            execute(direct, "drop table if exists jdbc_ddl", "create table jdbc_ddl (a int)", "insert into jdbc_ddl values (1)");
            execute(c, STRICT);
            String query = "select * from jdbc_ddl";
            value(c, query);
            value(c, query);
            execute(direct, "alter table jdbc_ddl add column b text default 'new'");
            try (PreparedStatement s = c.prepareStatement(query); ResultSet r = s.executeQuery()) {
                System.out.println("note result_type_changed: " + r.getMetaData().getColumnCount() + " columns");
            } catch (SQLException error) {
                System.out.println("note result_type_changed: " + error.getSQLState());
            }
            same(value(c, "select b from jdbc_ddl"), "new");
        }
    }

    static void lostServer() throws Exception {
        try (Connection c = connect(); Connection direct = connect(DIRECT)) {
            c.setAutoCommit(false);
            int pid = serverOf(c);
            value(direct, "select pg_terminate_backend(?)", pid);
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
            while (Files.exists(Path.of("/proc/" + pid))) { // its socket is closed when the process is gone
                must(System.nanoTime() < deadline, "the server does not exit");
            }
            try {
                value(c, "select 1");
                throw new AssertionError("the transaction went on without its server");
            } catch (SQLException error) {
                must(error.getSQLState().startsWith("57") || error.getSQLState().startsWith("08"), error.toString());
            }
        }
        try (Connection c = connect()) {
            same(value(c, "select 1"), 1);
        }
    }
}
