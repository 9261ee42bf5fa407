//! The addresses of a name, by the system's resolver.

use std::{net::IpAddr, time::Duration};

use super::{DiscoveryError, Found};
use crate::config::{At, MOST_NODES, NodeAddress};

/// Looks a name up.
pub(super) async fn look_up(name: &str, port: u16, limit: Duration) -> Result<Found, DiscoveryError> {
    let lookup = tokio::time::timeout(limit, tokio::net::lookup_host((name, port)));
    let addresses = match lookup.await {
        Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
        Ok(Err(error)) => return Err(DiscoveryError::Lookup(error.to_string())),
        Err(_) => return Err(DiscoveryError::Lookup(format!("no answer within {limit:?}"))),
    };
    let addresses = of_one_family(addresses);
    match addresses.len() {
        0 => Err(DiscoveryError::NoAddress),
        1..=MOST_NODES => {
            let node = |ip| NodeAddress { at: At::Ip(ip), ..NodeAddress::new(name, port) };
            Ok(Found { nodes: addresses.into_iter().map(node).collect(), leader: None })
        }
        _ => Err(DiscoveryError::TooMany),
    }
}

/// A server that has an address of each kind is one node.
fn of_one_family(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    if addresses.iter().any(IpAddr::is_ipv4) {
        addresses.retain(IpAddr::is_ipv4);
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_sorted_and_of_one_kind() {
        for (given, expected) in [
            (&["10.0.0.2", "::1", "10.0.0.1", "10.0.0.2"][..], &["10.0.0.1", "10.0.0.2"][..]),
            (&["::2", "::1"], &["::1", "::2"]),
            (&[], &[]),
        ] {
            let parse =
                |texts: &[&str]| -> Vec<IpAddr> { texts.iter().map(|t| t.parse().unwrap()).collect() };
            assert_eq!(of_one_family(parse(given)), parse(expected));
        }
    }

    #[tokio::test]
    async fn address_is_its_own_answer_and_nonsense_has_none() {
        let limit = Duration::from_secs(10);
        let found = look_up("127.0.0.7", 1, limit).await.unwrap();
        assert_eq!(found.nodes[0].to_string(), "127.0.0.7(127.0.0.7):1");
        assert!(look_up("no such name", 1, limit).await.is_err());
    }
}
