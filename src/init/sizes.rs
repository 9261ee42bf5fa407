//! How large pools may be, by what the server has room for and what it can work at.
//!
//! More connections at work than a few for each core only wait for one another; fewer than there are cores leave some idle.
//! Sources: PostgreSQL wiki, "Number Of Database Connections"; PostgreSQL docs, "max_connections".

/// Connections of a pool for each core of the server.
const FOR_EACH_CORE: u32 = 4;
/// Even a small server waits for disks and networks.
const FEWEST: u32 = 10;
/// Where cores are not known: pooler's own default.
const DEFAULT: u32 = 20;
/// pooler's own default of `pinned_pool_size`.
const PINNED: u32 = 5;
/// Pools smaller than this are better shared among databases by a limit of the user's.
const SMALL: u32 = 8;

/// What there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) max_connections: u32,
    pub(super) reserved: u32,
    /// CONNECTION LIMIT of the role, or of the database.
    pub(super) limit: Option<u32>,
    /// Of the server's machine.
    pub(super) cores: Option<u32>,
    pub(super) databases: u32,
    pub(super) has_replicas: bool,
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) default_pool_size: u32,
    pub(super) pinned_pool_size: u32,
    pub(super) max_user_connections: Option<u32>,
    /// Why, in lines.
    pub(super) reason: Vec<String>,
}

impl Sizes {
    /// They are not pooler's own default.
    pub(super) fn pins_fewer(&self) -> bool {
        self.pinned_pool_size != PINNED
    }
}

pub(super) fn sizes(room: Room) -> Sizes {
    let usable = room.max_connections.saturating_sub(room.reserved);
    let databases = room.databases.max(1);
    // As `check --connect` counts them: listeners, catalogs, and the watch over nodes.
    let own = databases * (2 + u32::from(room.has_replicas));
    let for_all = usable.saturating_sub(own) / 5 * 4;
    let budget = room.limit.map_or(for_all, |limit| limit.saturating_sub(own).min(for_all)).max(1);
    let wanted = room.cores.map_or(DEFAULT, |cores| cores.saturating_mul(FOR_EACH_CORE).max(FEWEST));
    let each = budget / databases;
    let pinned = if each >= SMALL { PINNED.min(each / 3) } else { PINNED.min(budget / 4) };
    let (size, together) = if each >= wanted.saturating_add(pinned) {
        (wanted, None)
    } else if each >= SMALL {
        (each - pinned, None)
    } else {
        (wanted.min(budget - pinned).max(1), Some(budget))
    };
    let mut reason = vec![format!(
        "The server allows {} connections (max_connections), {} of them reserved: {usable} for all users.",
        room.max_connections, room.reserved
    )];
    if let Some(limit) = room.limit.filter(|limit| *limit < usable) {
        reason.push(format!("CONNECTION LIMIT allows {limit} of them here."));
    }
    reason.push(format!(
        "A fifth is left to others, and {own} to pooler itself (LISTEN, catalogs{}): {budget} for {databases} pool{}.",
        if room.has_replicas { ", the watch over nodes" } else { "" },
        if databases == 1 { "" } else { "s" },
    ));
    reason.push(match room.cores {
        Some(cores) => format!(
            "With {cores} core{} more than about {wanted} connections at work would only wait for one another.",
            if cores == 1 { "" } else { "s" }
        ),
        None => format!(
            "How many cores it has is not known from here (--cores N tells): {wanted}, pooler's own default, suits about \
             {}.",
            wanted / FOR_EACH_CORE
        ),
    });
    if size < wanted && together.is_none() {
        reason.push(format!("There is room for {} in each pool.", size + pinned));
    }
    Sizes { default_pool_size: size, pinned_pool_size: pinned, max_user_connections: together, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room {
        max_connections: 100,
        reserved: 3,
        limit: None,
        cores: Some(4),
        databases: 1,
        has_replicas: false,
    };

    fn sized(room: Room) -> (u32, u32, Option<u32>) {
        let sizes = sizes(room);
        (sizes.default_pool_size, sizes.pinned_pool_size, sizes.max_user_connections)
    }

    #[test]
    fn cores_decide_where_there_is_room_and_room_where_there_is_not() {
        assert_eq!(sized(ROOM), (16, 5, None));
        assert_eq!(sized(Room { cores: Some(1), ..ROOM }), (10, 5, None));
        assert_eq!(sized(Room { cores: None, ..ROOM }), (20, 5, None));
        assert_eq!(sized(Room { cores: Some(64), ..ROOM }), (71, 5, None));
        assert_eq!(sized(Room { databases: 5, ..ROOM }), (9, 4, None));
        assert_eq!(sized(Room { databases: 40, ..ROOM }), (9, 3, Some(12)));
        assert_eq!(sized(Room { limit: Some(12), ..ROOM }), (7, 3, None));
    }

    #[test]
    fn pools_always_fit() {
        for max_connections in [1, 4, 10, 25, 100, 500, 5000] {
            for databases in [1, 2, 3, 10, 50] {
                for cores in [None, Some(1), Some(8), Some(128)] {
                    for limit in [None, Some(0), Some(1), Some(5), Some(40)] {
                        for has_replicas in [false, true] {
                            let room =
                                Room { max_connections, databases, cores, limit, has_replicas, ..ROOM };
                            let (size, pinned, together) = sized(room);
                            let demand = together.unwrap_or((size + pinned) * databases);
                            let usable = max_connections.saturating_sub(3);
                            let most = limit.unwrap_or(usable).min(usable).max(1);
                            assert!(size > 0 && demand <= most, "{room:?}: {size} {pinned} {together:?}");
                        }
                    }
                }
            }
        }
    }
}
