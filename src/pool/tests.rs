//! Budgets of pools that share a database and a user, under random events.

use std::collections::HashMap;

use super::{registry::*, *};
use crate::{
    config::{Config, NodeAddress, User},
    net::tls::ServerTls,
};

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) >> 33).unwrap() % n
    }
}

fn live(config: Config) -> (Arc<Config>, Arc<ServerTls>) {
    let tls = Arc::new(ServerTls::build(&config.settings).unwrap());
    (Arc::new(config), tls)
}

fn pools() -> Vec<Arc<Pool>> {
    let mut config = Config::default();
    config.settings.default_pool_size = 4;
    config.settings.reserve_pool_size = 2;
    config.settings.max_db_connections = 7;
    config.settings.max_user_connections = 6;
    let (config, tls) = live(config);
    let pools = Pools::new(1);
    let names = [("a", "ann"), ("a", "bob"), ("b", "ann"), ("b", "bob")];
    names
        .map(|(database, user)| {
            let database = Arc::new(Database { name: database.to_owned(), ..Database::default() });
            let user = User { name: user.to_owned(), ..User::default() };
            pools.pool(|| (Arc::clone(&config), Arc::clone(&tls)), &database, &user)
        })
        .to_vec()
}

/// S33: a million servers opened, failed and closed at random. No limit is passed, a place that is refused changes
/// nothing, and in the end all places are free.
#[test]
fn million_of_random_checkouts_keep_every_budget() {
    let pools = pools();
    let mut open = vec![0_u32; pools.len()];
    let mut random = Random(1);
    let mut refused = 0;
    for step in 0..1_000_000 {
        let which = random.below(pools.len());
        let (pool, count) = (&pools[which], open[which]);
        if random.below(2) == 0 && count > 0 {
            pool.release_server();
            open[which] -= 1;
        } else {
            let reserve = random.below(8) == 0;
            let total = |same: &dyn Fn(&PoolKey) -> bool| {
                pools.iter().zip(&open).filter(|(p, _)| same(&p.key)).map(|(_, n)| n).sum::<u32>()
            };
            let database = total(&|key| key.database == pool.key.database);
            let user = total(&|key| key.user == pool.key.user);
            let fits = count < if reserve { 6 } else { 4 } && database < 7 && user < 6;
            assert_eq!(pool.reserve_server(reserve), fits, "step {step}");
            open[which] += u32::from(fits);
            refused += u32::from(!fits);
        }
        assert_eq!(pool.open_servers(), open[which], "step {step}");
    }
    assert!(refused > 10_000, "the limits were hardly met: {refused}");
    for (pool, count) in pools.iter().zip(open) {
        (0..count).for_each(|_| pool.release_server());
    }
    for pool in &pools {
        assert_eq!((pool.open_servers(), pool.database.servers.used(), pool.user_servers.used()), (0, 0, 0));
    }
}

/// The same from many threads at once: what is out never passes a limit, and all of it comes back.
#[test]
fn budgets_hold_when_workers_race() {
    let pools = pools();
    let mut left = HashMap::new();
    std::thread::scope(|scope| {
        for seed in 1..5 {
            let pools = &pools;
            scope.spawn(move || {
                let mut random = Random(seed);
                let mut open = vec![0; pools.len()];
                for _ in 0..50_000 {
                    let which = random.below(pools.len());
                    let pool = &pools[which];
                    if open[which] > 0 && random.below(2) == 0 {
                        pool.release_server();
                        open[which] -= 1;
                    } else if pool.reserve_server(random.below(4) == 0) {
                        open[which] += 1;
                    }
                    assert!(pool.open_servers() <= 6);
                    assert!(pool.database.servers.used() <= 7 && pool.user_servers.used() <= 6);
                }
                for (pool, count) in pools.iter().zip(open) {
                    (0..count).for_each(|_| pool.release_server());
                }
            });
        }
    });
    for pool in &pools {
        left.insert(
            pool.key.clone(),
            (pool.open_servers(), pool.database.servers.used(), pool.user_servers.used()),
        );
    }
    assert!(left.values().all(|counts| *counts == (0, 0, 0)), "{left:?}");
}

/// A login that comes between a new configuration and the reload of the pools finds one list of nodes, not two: the old
/// one ends, and what it knew goes on (H29).
#[test]
fn login_before_the_reload_renews_what_the_configuration_changes() {
    let config = |hosts: &[&str]| {
        let mut config = Config::default();
        let nodes = hosts.iter().map(|host| NodeAddress::new(*host, 5432)).collect();
        let database = Database { name: "db".to_owned(), nodes, ..Database::default() };
        config.databases.insert("db".to_owned(), Arc::new(database));
        live(config)
    };
    let (old, new, plain) = (config(&["a", "b"]), config(&["b", "c"]), config(&[]));
    let pools = Pools::new(1);
    let login = |live: &(Arc<Config>, Arc<ServerTls>), name: &str| {
        let user = User { name: name.to_owned(), ..User::default() };
        // The database as it was when the login began.
        pools.pool(|| live.clone(), &old.0.databases["db"], &user)
    };
    let before = [login(&old, "ann"), login(&old, "bob")];
    let first = pools.cluster("db").unwrap();
    let early = login(&new, "ann");
    let second = pools.cluster("db").unwrap();
    assert!(first.is_stopped() && !second.is_stopped() && !Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(&first.floors, &second.floors));
    assert!(before.iter().all(|pool| pool.is_replaced()));
    let (config, tls) = &new;
    let reloaded = pools.reload(Context { config, tls, names: None }, false);
    let mut users: Vec<&str> = reloaded.renewed.iter().map(|pool| pool.key.user.as_str()).collect();
    users.sort_unstable();
    assert_eq!(users, ["ann", "bob"], "the reload sees to both");
    assert!(Arc::ptr_eq(&second, &pools.cluster("db").unwrap()));
    let all = pools.all();
    assert_eq!(all.len(), 4);
    for pool in all.iter().chain([&early]) {
        let seat = pool.seat.as_ref().unwrap();
        assert!(Arc::ptr_eq(&seat.cluster, &second));
        assert!(seat.pools().all(|sibling| Arc::ptr_eq(&sibling.seat.as_ref().unwrap().cluster, &second)));
        assert_eq!(seat.pools().count(), 2);
    }
    // Without nodes nobody takes note of writes: what was known before is not enough when there are some again.
    assert_eq!(second.catalog.changes(), 0);
    for (config, tls) in [&plain, &new] {
        pools.reload(Context { config, tls, names: None }, false);
    }
    let third = pools.cluster("db").unwrap();
    assert!(second.is_stopped() && !Arc::ptr_eq(&second, &third));
    assert!(Arc::ptr_eq(&second.catalog, &third.catalog) && third.catalog.changes() == 1);
}
