//! Which value counts, and what `*` makes of a name.

use super::*;

fn config() -> Config {
    let text = "[pooler]\npool_mode='session'\ndefault_pool_size=10\nmin_pool_size=4\nreserve_pool_size=1\n\
        max_db_connections=50\nquery_timeout=10\nquery_wait_timeout=20\nserver_tls_sslmode='require'\n\
        [databases.plain]\nhost='h'\n\
        [databases.own]\nhost='h'\nuser='forced'\npool_mode='statement'\npool_size=0\nmin_pool_size=2\n\
        reserve_pool_size=0\nmax_db_connections=0\nquery_wait_timeout=0\nserver_lifetime=0\n\
        server_tls_sslmode='disable'\n\
        [databases.'*']\nhost='star'\n\
        [users.plain]\n[users.own]\npool_mode='transaction'\npool_size=3\nreserve_pool_size=9\n\
        query_timeout=0\nquery_wait_timeout=1\nmax_user_connections=5\n";
    load(text).unwrap().config
}

#[test]
fn the_user_counts_before_the_database_before_the_settings() {
    let config = config();
    let values = |database: &str, user: &str| {
        let (database, user) = (&config.databases[database], &config.users[user]);
        (
            config.pool_mode(database, user),
            config.pool_size(database, user),
            config.reserve_pool_size(database, user),
            config.query_wait_timeout(database, user).map(|time| time.as_secs()),
        )
    };
    assert_eq!(values("plain", "plain"), (PoolMode::Session, Some(10), 1, Some(20)));
    assert_eq!(values("own", "plain"), (PoolMode::Statement, None, 0, None));
    assert_eq!(values("own", "own"), (PoolMode::Transaction, Some(3), 9, Some(1)));
    assert_eq!(values("plain", "own"), (PoolMode::Transaction, Some(3), 9, Some(1)));
}

#[test]
fn zero_is_no_limit() {
    let config = config();
    let (plain, own) = (&config.databases["plain"], &config.databases["own"]);
    let (plain_user, own_user) = (&config.users["plain"], &config.users["own"]);
    assert_eq!((config.max_db_connections(plain), config.max_db_connections(own)), (Some(50), None));
    assert_eq!(
        (config.max_user_connections(plain_user), config.max_user_connections(own_user)),
        (None, Some(5))
    );
    assert_eq!(config.max_db_client_connections(plain), None);
    assert_eq!(config.max_user_client_connections(plain_user), None);
    assert_eq!(config.query_timeout(plain_user), Some(Duration::from_secs(10)));
    assert_eq!(config.query_timeout(own_user), None);
    assert_eq!(config.transaction_timeout(plain_user), None);
    assert_eq!(config.idle_transaction_timeout(plain_user), None);
    assert_eq!(config.client_idle_timeout(plain_user), None);
    assert_eq!(config.server_lifetime(plain), Duration::from_secs(3600));
    assert_eq!(config.server_lifetime(own), Duration::ZERO);
    assert_eq!(config.server_tls_sslmode(plain), SslMode::Require);
    assert_eq!(config.server_tls_sslmode(own), SslMode::Disable);
    assert_eq!(config.min_pool_size(plain, plain_user), 4);
    assert_eq!(config.min_pool_size(own, plain_user), 2);
    assert_eq!(config.min_pool_size(plain, own_user), 3, "never more than the pool's size");
}

#[test]
fn star_serves_every_other_name_but_the_console() {
    let config = config();
    let database = config.resolve_database("whatever").unwrap();
    assert_eq!((database.name.as_str(), database.host.as_str()), ("whatever", "star"));
    assert_eq!(database.server_dbname(), "whatever");
    assert_eq!(config.resolve_database("own").unwrap().server_user("client"), "forced");
    assert_eq!(database.server_user("client"), "client");
    for name in ["pooler", "pgbouncer", "*", &"x".repeat(64)] {
        assert!(config.resolve_database(name).is_none(), "{name}");
    }
    assert!(config.resolve_database(&"x".repeat(63)).is_some());
    assert!(is_console("pooler") && is_console("pgbouncer") && !is_console("app"));
}
