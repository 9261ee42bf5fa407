//! Every rule of the table, and the stories behind them: failovers told answer by answer.

use super::*;

const SYSTEM: u64 = 77;

fn answers(standby: bool, timeline: u32, lsn: u64) -> Seen {
    let fact = Fact { standby, system: SYSTEM, timeline, lsn };
    Seen { health: Health::Answers, fact: Some(fact), diverged: false }
}

fn writes(timeline: u32, lsn: u64) -> Seen {
    answers(false, timeline, lsn)
}

fn standby(timeline: u32) -> Seen {
    answers(true, timeline, 100)
}

fn stranger(mut node: Seen) -> Seen {
    node.fact.as_mut().unwrap().system = 78;
    node
}

fn ill(health: Health, node: Seen) -> Seen {
    Seen { health, ..node }
}

const DOWN: Seen = Seen { health: Health::Refused, ..Seen::NOTHING };

fn last(node: usize, timeline: u32, lsn: u64) -> Option<Accepted> {
    Some(Accepted { node, system: SYSTEM, timeline, lsn })
}

/// Roles by their first letters, a replica that may be read from in capitals: `P`rimary, `R`eplica, `F`enced,
/// `D`own, `U`nknown.
fn roles(verdict: &Verdict) -> String {
    let letter = |ruling: &Ruling| match (ruling.role, ruling.eligible) {
        (Role::Primary, false) => 'P',
        (Role::Replica, true) => 'R',
        (Role::Replica, false) => 'r',
        (Role::Fenced, false) => 'F',
        (Role::Down, false) => 'D',
        (Role::Unknown, false) => 'U',
        other => panic!("{other:?}"),
    };
    verdict.rulings.iter().map(letter).collect()
}

#[test]
fn every_rule() {
    let missed = |times, node| ill(Health::Missed(times), node);
    let mut diverged = standby(1);
    diverged.diverged = true;
    let table = [
        ("one server alone", None, vec![writes(1, 5)], "P", Some(0)),
        ("primary and replicas", None, vec![standby(1), writes(1, 5), standby(1)], "RPR", Some(1)),
        ("replicas only", None, vec![standby(1), standby(1)], "RR", None),
        ("replicas only, one of them of yesterday", None, vec![standby(2), standby(1)], "Rr", None),
        ("nobody there", None, vec![DOWN, DOWN], "DD", None),
        ("nobody there any more", last(0, 1, 5), vec![DOWN, DOWN], "DD", None),
        // S59, H29
        ("promoted", last(0, 1, 5), vec![DOWN, writes(2, 5), standby(2)], "DPR", Some(1)),
        ("promoted, old one answers", last(0, 1, 5), vec![writes(1, 9), writes(2, 5)], "FP", Some(1)),
        ("old one comes back", last(1, 2, 5), vec![writes(1, 9), writes(2, 5)], "FP", Some(1)),
        ("old one comes back alone", last(1, 2, 5), vec![writes(1, 9), DOWN], "FD", None),
        (
            "old one comes back while the new one is slow",
            last(1, 2, 5),
            vec![writes(1, 9), missed(1, writes(2, 5))],
            "FP",
            Some(1),
        ),
        ("old one comes back as a standby", last(1, 2, 5), vec![standby(2), writes(2, 5)], "RP", Some(1)),
        (
            "old one as a standby that does not follow",
            last(1, 2, 5),
            vec![standby(1), writes(2, 5)],
            "rP",
            Some(1),
        ),
        ("both at the start", None, vec![writes(1, 9), writes(2, 5)], "FP", Some(1)),
        (
            "only the old one at the start, a standby knows better",
            None,
            vec![writes(1, 9), standby(2)],
            "FR",
            None,
        ),
        ("a standby follows somebody newer", last(0, 1, 5), vec![writes(1, 9), standby(2)], "Fr", None),
        ("switchover, half way", last(0, 1, 5), vec![standby(1), standby(1)], "RR", None),
        // Split brain on one timeline
        ("incumbent stays", last(0, 2, 5), vec![writes(2, 9), writes(2, 12), standby(2)], "PFr", Some(0)),
        (
            "incumbent of another timeline does not",
            last(0, 1, 5),
            vec![writes(2, 9), writes(2, 12)],
            "FF",
            None,
        ),
        ("no incumbent", None, vec![writes(2, 9), writes(2, 12)], "FF", None),
        ("incumbent gone, other branch", last(0, 2, 50), vec![DOWN, writes(2, 12)], "DF", None),
        ("incumbent gone, same data elsewhere", last(0, 2, 50), vec![DOWN, writes(2, 50)], "DP", Some(1)),
        ("incumbent restarts", last(0, 2, 50), vec![writes(2, 40)], "P", Some(0)),
        // Silence
        ("slow", last(0, 1, 5), vec![missed(1, writes(1, 5)), missed(2, standby(1))], "PR", Some(0)),
        ("hung", last(0, 1, 5), vec![missed(3, writes(1, 5)), missed(9, standby(1))], "DD", None),
        (
            "hung, another is promoted",
            last(0, 1, 5),
            vec![missed(1, writes(1, 5)), writes(2, 5)],
            "FP",
            Some(1),
        ),
        ("slow ones are not elected", None, vec![missed(1, writes(1, 5))], "F", None),
        ("hung from the start", None, vec![ill(Health::Missed(1), Seen::NOTHING), standby(1)], "UR", None),
        (
            "password changed",
            last(0, 1, 5),
            vec![ill(Health::Locked, writes(1, 5)), standby(1)],
            "PR",
            Some(0),
        ),
        ("password wrong", None, vec![ill(Health::Locked, Seen::NOTHING), standby(1)], "UR", None),
        // Others
        ("other system", last(0, 1, 5), vec![writes(1, 5), stranger(standby(1))], "PF", Some(0)),
        ("other system, higher timeline", last(0, 1, 5), vec![DOWN, stranger(writes(9, 5))], "DF", None),
        (
            "other system at the start",
            None,
            vec![stranger(writes(9, 5)), writes(1, 5), standby(1)],
            "FPR",
            Some(1),
        ),
        ("as many of each: who writes", None, vec![stranger(standby(1)), writes(1, 5)], "FP", Some(1)),
        ("diverged", last(0, 1, 5), vec![writes(1, 5), diverged], "Pr", Some(0)),
    ];
    for (name, accepted, seen, expected, primary) in table {
        let verdict = decide(accepted, None, &seen).expect(name);
        assert_eq!((roles(&verdict).as_str(), verdict.primary), (expected, primary), "{name}");
        for (ruling, letter) in verdict.rulings.iter().zip(expected.chars()) {
            assert_eq!(ruling.reason.is_some(), "Fr".contains(letter), "{name}: {ruling:?}");
        }
    }
}

#[test]
fn nothing_is_decided_before_every_node_was_asked() {
    assert_eq!(decide(None, None, &[writes(1, 5), Seen::NOTHING]), None);
    assert!(decide(None, None, &[writes(1, 5), DOWN]).unwrap().settled);
    assert!(!decide(None, None, &[writes(1, 5), ill(Health::Missed(2), Seen::NOTHING)]).unwrap().settled);
    assert!(decide(None, None, &[writes(1, 5), ill(Health::Missed(3), Seen::NOTHING)]).unwrap().settled);
}

/// Feeds one round of answers after another; the roles and the primary of each.
fn story(rounds: &[[Seen; 2]]) -> Vec<(String, Option<usize>)> {
    let mut accepted = None;
    let told = rounds.iter().map(|seen| {
        let verdict = decide(accepted, None, seen).unwrap();
        accepted = verdict.accepted;
        (roles(&verdict), verdict.primary)
    });
    told.collect()
}

#[test]
fn failover_and_the_return_of_the_old_primary() {
    let rounds = [
        [writes(1, 5), standby(1)],
        [DOWN, standby(1)],
        [DOWN, writes(2, 6)],
        // H29: back, and the new one dies: no writes rather than writes to the wrong one.
        [writes(1, 9), writes(2, 7)],
        [writes(1, 9), DOWN],
        [writes(1, 9), writes(2, 8)],
        [standby(2), writes(2, 9)],
        // And back again.
        [writes(3, 9), DOWN],
        [writes(3, 9), standby(3)],
    ];
    let expected = [
        ("PR", Some(0)),
        ("DR", None),
        ("DP", Some(1)),
        ("FP", Some(1)),
        ("FD", None),
        ("FP", Some(1)),
        ("RP", Some(1)),
        ("PD", Some(0)),
        ("PR", Some(0)),
    ];
    assert_eq!(story(&rounds), expected.map(|(roles, primary)| (roles.to_owned(), primary)));
}

#[test]
fn flapping_primary_stays_the_primary_whenever_it_is_there() {
    let up = [writes(1, 5), standby(1)];
    let told = story(&[up, [DOWN, standby(1)], up, [ill(Health::Missed(1), up[0]), standby(1)], up]);
    let primaries: Vec<Option<usize>> = told.into_iter().map(|(_, primary)| primary).collect();
    assert_eq!(primaries, [Some(0), None, Some(0), Some(0), Some(0)]);
}

#[test]
fn system_of_the_first_primary_is_kept_for_ever() {
    let other = stranger(writes(9, 50));
    let verdict = decide(None, None, &[writes(1, 5), DOWN, DOWN]).unwrap();
    // The majority is of another system now; it may be the restored backup of something else.
    let verdict = decide(verdict.accepted, None, &[DOWN, other, stranger(standby(9))]).unwrap();
    assert_eq!((roles(&verdict).as_str(), verdict.primary), ("DFF", None));
}

/// Who does not keep the lock gets no writes, even if all else speaks for it.
#[test]
fn another_leader_than_the_primary_leaves_none() {
    let seen = [writes(1, 5), writes(2, 5), standby(2)];
    for (leader, primary, role) in [
        (None, Some(1), Role::Primary),
        (Some(1), Some(1), Role::Primary),
        (Some(0), None, Role::Fenced),
        (Some(2), None, Role::Fenced),
    ] {
        let verdict = decide(None, leader, &seen).unwrap();
        assert_eq!((verdict.primary, verdict.rulings[1].role), (primary, role), "{leader:?}");
        assert_eq!(verdict.rulings[0].role, Role::Fenced, "{leader:?}");
    }
}
