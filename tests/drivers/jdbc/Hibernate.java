// Hibernate on pgjdbc, with the defaults of both: sessions, lazy loads, batches, locks, sequences and scrolled results.
//
// Debian has Hibernate 3.6: what it asks of JDBC (prepared statements, portals in a transaction, generated keys) is what newer
// ones ask, but nothing here tells about their own SQL.

import java.net.URI;
import java.util.ArrayList;
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
import javax.persistence.CascadeType;
import javax.persistence.Entity;
import javax.persistence.FetchType;
import javax.persistence.GeneratedValue;
import javax.persistence.GenerationType;
import javax.persistence.Id;
import javax.persistence.ManyToOne;
import javax.persistence.OneToMany;
import javax.persistence.OrderBy;
import javax.persistence.SequenceGenerator;
import javax.persistence.Table;
import javax.persistence.Version;
import org.hibernate.HibernateException;
import org.hibernate.LockOptions;
import org.hibernate.ScrollMode;
import org.hibernate.ScrollableResults;
import org.hibernate.Session;
import org.hibernate.SessionFactory;
import org.hibernate.StaleObjectStateException;
import org.hibernate.cfg.Configuration;
import org.postgresql.util.PSQLException;

public class Hibernate extends Checks {
    static final String URL = System.getenv("DATABASE_URL");
    static final int POOL_SIZE = Integer.parseInt(System.getenv().getOrDefault("POOL_SIZE", "0"));
    static final int THREADS = 20;
    static final int ROUNDS = 15;

    @Entity(name = "Customer")
    @Table(name = "hibernate_customer")
    public static class Customer {
        @Id
        @GeneratedValue(strategy = GenerationType.SEQUENCE, generator = "customers")
        @SequenceGenerator(name = "customers", sequenceName = "hibernate_customer_seq")
        Long id;
        String name;
        int visits;
        @Version int version;
        @OneToMany(mappedBy = "customer", cascade = CascadeType.ALL, fetch = FetchType.LAZY)
        @OrderBy("id")
        List<Purchase> purchases = new ArrayList<Purchase>();

        public Customer() {}

        Customer(String name, int purchases) {
            this.name = name;
            for (int n = 0; n < purchases; n++) {
                this.purchases.add(new Purchase(this, "thing " + n));
            }
        }

        // What stands for a customer that has not been loaded has no values of its own.
        public String name() {
            return name;
        }

        public List<Purchase> purchases() {
            return purchases;
        }
    }

    @Entity(name = "Purchase")
    @Table(name = "hibernate_purchase")
    public static class Purchase {
        // Hibernate reads the key back, by RETURNING or currval.
        @Id
        @GeneratedValue(strategy = GenerationType.IDENTITY)
        Long id;
        String thing;

        @ManyToOne(fetch = FetchType.LAZY)
        Customer customer;

        public Purchase() {}

        Purchase(Customer customer, String thing) {
            this.customer = customer;
            this.thing = thing;
        }
    }

    interface Work<T> {
        T in(Session session) throws Exception;
    }

    static SessionFactory factory;

    public static void main(String[] only) throws Exception {
        URI uri = URI.create(URL);
        String[] login = uri.getUserInfo().split(":");
        Properties settings = new Properties();
        settings.setProperty("hibernate.connection.driver_class", "org.postgresql.Driver");
        settings.setProperty(
                "hibernate.connection.url", "jdbc:postgresql://" + uri.getHost() + ":" + uri.getPort() + uri.getPath());
        settings.setProperty("hibernate.connection.username", login[0]);
        settings.setProperty("hibernate.connection.password", login[1]);
        settings.setProperty("hibernate.connection.pool_size", String.valueOf(THREADS));
        settings.setProperty("hibernate.hbm2ddl.auto", "create");
        settings.setProperty("hibernate.jdbc.batch_size", "20");
        factory = new Configuration()
                .addAnnotatedClass(Customer.class)
                .addAnnotatedClass(Purchase.class)
                .addProperties(settings)
                .buildSessionFactory();

        Map<String, Check> checks = new LinkedHashMap<>();
        checks.put("prepared_statements_work_across_servers", Hibernate::acrossServers);
        checks.put("lazy_loads_in_and_out_of_transactions", Hibernate::lazy);
        checks.put("batches_are_written_as_one", Hibernate::batches);
        checks.put("rows_that_are_locked_are_counted_up", Hibernate::locked);
        checks.put("versions_find_concurrent_changes", Hibernate::versions);
        checks.put("results_are_scrolled_in_portions", Hibernate::scrolled);
        checks.put("errors_leave_the_session_factory_in_order", Hibernate::errors);
        runAll(checks, only);
    }

    // --- Helpers -----------------------------------------------------------------------------------

    /** A session with one transaction. */
    static <T> T transaction(Work<T> work) throws Exception {
        Session session = factory.openSession();
        try {
            session.beginTransaction();
            T result = work.in(session);
            session.getTransaction().commit();
            return result;
        } catch (Exception error) {
            session.getTransaction().rollback();
            throw error;
        } finally {
            session.close();
        }
    }

    static <T> List<T> atOnce(Callable<T> work) throws Exception {
        ExecutorService executor = Executors.newFixedThreadPool(THREADS);
        List<Future<T>> running = new ArrayList<>();
        for (int n = 0; n < THREADS; n++) {
            running.add(executor.submit(work));
        }
        List<T> results = new ArrayList<>();
        for (Future<T> future : running) {
            results.add(future.get());
        }
        executor.shutdown();
        return results;
    }

    static Long create(String name, int purchases) throws Exception {
        return transaction(session -> (Long) session.save(new Customer(name, purchases)));
    }

    // --- Checks ------------------------------------------------------------------------------------

    static void acrossServers() throws Exception {
        Long id = create("shared", 3);
        Set<Object> servers = new HashSet<>();
        Set<Object> prepared = new HashSet<>();
        for (Set<Object> some : atOnce(() -> {
            Set<Object> pids = new HashSet<>();
            for (int round = 0; round < ROUNDS; round++) {
                pids.add(transaction(session -> {
                    Customer customer = (Customer) session.get(Customer.class, id);
                    same(customer.name, "shared");
                    same(customer.purchases.size(), 3);
                    Object count = session.createSQLQuery("select count(*) from pg_prepared_statements").uniqueResult();
                    synchronized (prepared) {
                        prepared.add(((Number) count).intValue() > 0);
                    }
                    return session.createSQLQuery("select pg_backend_pid()").uniqueResult();
                }));
            }
            return pids;
        })) {
            servers.addAll(some);
        }
        must(prepared.contains(true), "nothing was prepared");
        if (POOL_SIZE > 0) {
            must(servers.size() > 1 && servers.size() <= POOL_SIZE, servers.size() + " servers for a pool of " + POOL_SIZE);
        }
    }

    static void lazy() throws Exception {
        Long id = create("lazy", 5);
        for (int round = 0; round < ROUNDS; round++) {
            transaction(session -> {
                Customer customer = (Customer) session.load(Customer.class, id);
                same(customer.purchases().size(), 5);
                return null;
            });
            // Each statement is a transaction of its own.
            Session session = factory.openSession();
            Purchase last = (Purchase) session.createQuery("from Purchase where customer.id = :id order by id desc")
                    .setLong("id", id)
                    .setMaxResults(1)
                    .uniqueResult();
            same(last.thing, "thing 4");
            same(last.customer.name(), "lazy");
            session.close();
        }
    }

    static void batches() throws Exception {
        transaction(session -> {
            for (int n = 0; n < 50; n++) {
                session.save(new Customer("batch", 2));
            }
            return null;
        });
        Object[] counts = (Object[]) transaction(session -> session.createQuery(
                        "select count(distinct c.id), count(p.id) from Customer c join c.purchases p where c.name = 'batch'")
                .uniqueResult());
        same(counts[0], 50L);
        same(counts[1], 100L);
        same(transaction(session -> session.createQuery("update Customer set visits = visits + 1 where name = 'batch'")
                .executeUpdate()), 50);
    }

    static void locked() throws Exception {
        Long id = create("locked", 0);
        atOnce(() -> {
            for (int round = 0; round < ROUNDS; round++) {
                transaction(session -> {
                    Customer customer = (Customer) session.get(Customer.class, id, LockOptions.UPGRADE);
                    customer.visits++;
                    return null;
                });
            }
            return null;
        });
        same(transaction(session -> ((Customer) session.get(Customer.class, id)).visits), THREADS * ROUNDS);
    }

    static void versions() throws Exception {
        Long id = create("versioned", 0);
        Session session = factory.openSession();
        session.beginTransaction();
        Customer mine = (Customer) session.get(Customer.class, id);
        transaction(other -> {
            ((Customer) other.get(Customer.class, id)).visits = 7;
            return null;
        });
        mine.visits = 1;
        try {
            session.getTransaction().commit();
            must(false, "no error");
        } catch (StaleObjectStateException expected) {
            session.getTransaction().rollback();
        } finally {
            session.close();
        }
        same(transaction(after -> ((Customer) after.get(Customer.class, id)).visits), 7);
    }

    static void scrolled() throws Exception {
        transaction(session -> {
            session.createSQLQuery("insert into hibernate_customer (id, name, visits, version) "
                            + "select -n, 'scrolled', n, 0 from generate_series(1, 500) n")
                    .executeUpdate();
            return null;
        });
        for (int round = 0; round < 3; round++) {
            long sum = transaction(session -> {
                ScrollableResults results = session.createQuery("from Customer where name = 'scrolled' order by visits")
                        .setFetchSize(50)
                        .scroll(ScrollMode.FORWARD_ONLY);
                long total = 0;
                while (results.next()) {
                    total += ((Customer) results.get(0)).visits;
                }
                return total;
            });
            same(sum, 500L * 501 / 2);
        }
    }

    static void errors() throws Exception {
        Long id = create("once", 1);
        for (int round = 0; round < 5; round++) {
            try {
                transaction(session -> session.createSQLQuery("insert into hibernate_customer (id, name, visits, version) "
                                + "values (" + id + ", 'twice', 0, 0)")
                        .executeUpdate());
                must(false, "no error");
            } catch (HibernateException error) {
                same(((PSQLException) error.getCause()).getSQLState(), "23505");
            }
            same(transaction(session -> ((Customer) session.get(Customer.class, id)).name), "once");
        }
    }
}
