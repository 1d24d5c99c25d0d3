//! How often somebody may try to log in: so often from one address and so often in all, in any minute.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Within this time tries that failed are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Tries that failed from one address.
pub(super) const TRIES_OF_ONE_MAX: u32 = 10;
/// Those of all.
const TRIES_MAX: u32 = 100;
/// Addresses that are remembered.
const ADDRESSES_MAX: usize = 10_000;

/// Tries that failed, since the first of them.
#[derive(Debug, Clone, Copy)]
struct Failed {
    since: Instant,
    count: u32,
}

impl Failed {
    /// How long until there is room for another one, if there is none.
    fn wait(self, most: u32, now: Instant) -> Option<Duration> {
        let over = self.since + WINDOW;
        (self.count >= most && over > now).then(|| over - now)
    }

    fn count(this: Option<Self>, now: Instant) -> Self {
        match this {
            Some(failed) if failed.since + WINDOW > now => Self {
                count: failed.count.saturating_add(1),
                ..failed
            },
            _ => Self {
                since: now,
                count: 1,
            },
        }
    }
}

/// Tries of everybody.
#[derive(Debug, Default)]
pub(super) struct Tries {
    of: BTreeMap<Option<IpAddr>, Failed>,
    all: Option<Failed>,
}

/// Of IPv6 somebody has a whole network.
fn network(peer: Option<IpAddr>) -> Option<IpAddr> {
    match peer? {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_none() => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            Some(IpAddr::V6(network.into()))
        }
        address => Some(address.to_canonical()),
    }
}

impl Tries {
    /// How long this address has to wait before it may try; `None`: it may.
    pub(super) fn wait(&self, peer: Option<IpAddr>, now: Instant) -> Option<Duration> {
        let own = self.of.get(&network(peer));
        let own = own.and_then(|failed| failed.wait(TRIES_OF_ONE_MAX, now));
        let all = self.all.and_then(|failed| failed.wait(TRIES_MAX, now));
        own.max(all)
    }

    /// One failed.
    pub(super) fn failed(&mut self, peer: Option<IpAddr>, now: Instant) {
        if self.of.len() >= ADDRESSES_MAX {
            self.of.retain(|_, failed| failed.since + WINDOW > now);
        }
        self.all = Some(Failed::count(self.all, now));
        let peer = network(peer);
        let own = Failed::count(self.of.get(&peer).copied(), now);
        if self.of.len() < ADDRESSES_MAX || self.of.contains_key(&peer) {
            self.of.insert(peer, own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_that_fail_are_bounded_for_each_address_and_in_all() {
        let (mut tries, start) = (Tries::default(), Instant::now());
        let peer = |text: &str| Some(text.parse().unwrap());
        for _ in 0..TRIES_OF_ONE_MAX {
            assert_eq!(tries.wait(peer("10.0.0.1"), start), None);
            tries.failed(peer("10.0.0.1"), start);
        }
        assert_eq!(tries.wait(peer("10.0.0.1"), start), Some(WINDOW));
        assert_eq!(tries.wait(peer("::ffff:10.0.0.1"), start), Some(WINDOW));
        assert_eq!(tries.wait(peer("10.0.0.2"), start), None);
        assert_eq!(tries.wait(peer("10.0.0.1"), start + WINDOW), None);
        for n in TRIES_OF_ONE_MAX..TRIES_MAX {
            tries.failed(peer(&format!("2001:db8:{n:x}::1")), start);
        }
        assert_eq!(tries.wait(None, start), Some(WINDOW), "in all");
        assert_eq!(tries.wait(None, start + WINDOW), None);
    }

    #[test]
    fn one_network_of_ipv6_is_one_address() {
        let (mut tries, now) = (Tries::default(), Instant::now());
        for n in 0..TRIES_OF_ONE_MAX {
            tries.failed(Some(format!("2001:db8::{n:x}").parse().unwrap()), now);
        }
        assert!(tries.wait("2001:db8::ffff".parse().ok(), now).is_some());
        assert!(tries.wait("2001:db8:0:1::1".parse().ok(), now).is_none());
    }
}
