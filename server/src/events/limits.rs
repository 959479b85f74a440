//! How many may listen: in all, under one client id, from one address. Who is one too many is refused before the upgrade.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// How many may listen; 0 sets no limit.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// In this process.
    pub total: u32,
    /// Under one client id.
    pub per_client: u32,
    /// From one IPv4 address, or one /64 of IPv6, which is what one customer or one node has.
    pub per_address: u32,
}

impl Default for Limits {
    /// At most 6 KiB each, the default total costs about 60 MiB. A client is a person with some tabs; an address
    /// may be a NAT or a node of the cluster, through which many come.
    fn default() -> Self {
        Self { total: 10_240, per_client: 64, per_address: 4096 }
    }
}

/// Which limit was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crowded {
    Total,
    Client,
    Address,
}

/// Counts listeners, and refuses those above a limit.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    limits: Limits,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    total: u32,
    clients: HashMap<Arc<str>, u32>,
    addresses: HashMap<IpAddr, u32>,
}

/// One who listens; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    client: Option<Arc<str>>,
    address: Option<IpAddr>,
    taken: Arc<Mutex<Taken>>,
}

impl Places {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, taken: Arc::default() }
    }

    /// Takes a place, if there is one.
    pub(crate) fn take(&self, client: Option<Arc<str>>, address: Option<IpAddr>) -> Result<Place, Crowded> {
        let address = address.map(network);
        let Limits { total, per_client, per_address } = self.limits;
        let mut taken = self.taken.lock();
        let full = |limit: u32, count: u32| limit != 0 && count >= limit;
        if full(total, taken.total) {
            return Err(Crowded::Total);
        }
        if client.as_ref().is_some_and(|client| full(per_client, count(&taken.clients, client))) {
            return Err(Crowded::Client);
        }
        if address.is_some_and(|address| full(per_address, count(&taken.addresses, &address))) {
            return Err(Crowded::Address);
        }
        taken.total += 1;
        if let Some(client) = &client {
            *taken.clients.entry(client.clone()).or_default() += 1;
        }
        if let Some(address) = address {
            *taken.addresses.entry(address).or_default() += 1;
        }
        drop(taken);
        Ok(Place { client, address, taken: self.taken.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        taken.total -= 1;
        if let Some(client) = &self.client {
            release(&mut taken.clients, client);
        }
        if let Some(address) = &self.address {
            release(&mut taken.addresses, address);
        }
    }
}

// Nothing panics under the lock.
fn count<K: Eq + Hash>(counts: &HashMap<K, u32>, key: &K) -> u32 {
    counts.get(key).copied().unwrap_or_default()
}

fn release<K: Eq + Hash>(counts: &mut HashMap<K, u32>, key: &K) {
    match counts.get_mut(key) {
        Some(count) if *count > 1 => *count -= 1,
        _ => {
            counts.remove(key);
        }
    }
}

/// What counts as one address. IPv4 comes as `::ffff:a.b.c.d` through a socket that listens for both.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Places, client: &str, address: &str) -> Result<Place, Crowded> {
        places.take(Some(client.into()), Some(address.parse().unwrap()))
    }

    #[test]
    fn each_limit_holds_and_a_place_that_is_left_is_free_again() {
        let places = Places::new(Limits { total: 3, per_client: 1, per_address: 2 });
        let first = take(&places, "a", "10.0.0.1").unwrap();
        assert_eq!(take(&places, "a", "10.0.0.2").unwrap_err(), Crowded::Client);
        let second = take(&places, "b", "::ffff:10.0.0.1").unwrap();
        assert_eq!(
            take(&places, "c", "10.0.0.1").unwrap_err(),
            Crowded::Address,
            "mapped is the same address"
        );
        let _third = take(&places, "c", "10.0.0.3").unwrap();
        assert_eq!(take(&places, "d", "10.0.0.4").unwrap_err(), Crowded::Total);
        drop((first, second));
        let _again = take(&places, "a", "10.0.0.1").unwrap();
        assert_eq!(places.taken.lock().clients.len(), 2, "who left is forgotten");
        assert_eq!(places.taken.lock().addresses.len(), 2);
    }

    #[test]
    fn a_customer_of_ipv6_is_its_64() {
        let places = Places::new(Limits { total: 0, per_client: 0, per_address: 1 });
        let _one = take(&places, "a", "2001:db8:0:1::1").unwrap();
        assert_eq!(take(&places, "b", "2001:db8:0:1:ffff::2").unwrap_err(), Crowded::Address);
        take(&places, "c", "2001:db8:0:2::1").unwrap();
    }

    #[test]
    fn zero_is_no_limit_and_no_name_no_client() {
        let places = Places::new(Limits { total: 0, per_client: 1, per_address: 0 });
        let all: Result<Vec<_>, _> = (0..1000).map(|_| places.take(None, None)).collect();
        assert_eq!(all.unwrap().len(), 1000);
    }
}
