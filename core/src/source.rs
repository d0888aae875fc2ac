//! Where a call comes from, when others pass it on: whose word is taken for it. Pure; the words themselves are read
//! elsewhere.

use std::net::IpAddr;

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

/// Proxies whose word about the source of a call is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

impl Network {
    /// The block that shares the first `prefix_bits` with `address`; `None` where that has other bits set, or not so
    /// many.
    pub fn new(address: IpAddr, prefix_bits: u8) -> Option<Network> {
        let network = Network { address, prefix_bits };
        let fits = prefix_bits <= width(address) && network.masked(bits(address)) == bits(address);
        fits.then_some(network)
    }

    /// The block of one address.
    pub fn only(address: IpAddr) -> Network {
        Network { address, prefix_bits: width(address) }
    }

    /// Whether an address is in it. Those of the two families are never in each other's.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && self.masked(bits(address)) == bits(self.address)
    }

    /// Whether it is everything.
    pub fn is_everything(&self) -> bool {
        self.prefix_bits == 0
    }

    fn masked(&self, bits: u128) -> u128 {
        let host_bits = u32::from(width(self.address)) - u32::from(self.prefix_bits.min(width(self.address)));
        bits.checked_shr(host_bits).and_then(|it| it.checked_shl(host_bits)).unwrap_or(0)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(it) => u128::from(it.to_bits()),
        IpAddr::V6(it) => it.to_bits(),
    }
}

impl TrustedProxies {
    /// Those in these blocks.
    pub fn new(networks: Vec<Network>) -> TrustedProxies {
        TrustedProxies(networks)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address is one of them.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|it| it.contains(address))
    }

    /// The source of a call that `peer`, one of them, passed on: of the addresses in its list (the nearest last, `None`
    /// where an element names none) the nearest that is not one of them. What stands before that, anybody may have
    /// written; so may what stands before an element without an address.
    pub fn source(&self, peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
        let mut source = None;
        for hop in hops {
            match hop {
                None => source = None,
                Some(address) if source.is_none() || !self.trusts(address) => source = Some(address),
                Some(_) => {}
            }
        }
        source.unwrap_or(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address of a test")
    }

    fn proxies() -> TrustedProxies {
        let network = |it: &str, bits| Network::new(ip(it), bits).expect("a network of a test");
        TrustedProxies::new(vec![
            network("10.0.0.0", 8),
            network("fd00::", 8),
            Network::only(ip("192.0.2.7")),
        ])
    }

    #[test]
    fn blocks_hold_what_shares_their_prefix() {
        for (address, expect) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("192.0.2.7", true),
            ("192.0.2.6", false),
            ("fd12::1", true),
            ("fe00::1", false),
            ("::a00:0", false),
        ] {
            assert_eq!(proxies().trusts(ip(address)), expect, "{address}");
        }
        let everything = Network::new(ip("0.0.0.0"), 0).expect("a network");
        assert!(everything.is_everything() && everything.contains(ip("203.0.113.1")));
        assert!(!everything.contains(ip("::1")));
        assert!(Network::new(ip("::"), 0).is_some_and(|it| it.contains(ip("2001:db8::1"))));
        for (address, bits) in [("10.0.0.1", 8), ("10.0.0.0", 33), ("fd00::1", 64), ("::", 129)] {
            assert_eq!(Network::new(ip(address), bits), None, "{address}/{bits}");
        }
    }

    #[test]
    fn the_source_is_the_nearest_that_is_no_proxy() {
        let peer = "10.0.0.1";
        for (hops, expect) in [
            (&[][..], peer),
            (&["203.0.113.7"], "203.0.113.7"),
            (&["6.6.6.6", "203.0.113.7"], "203.0.113.7"),
            (&["6.6.6.6", "203.0.113.7", "10.0.0.2", "192.0.2.7"], "203.0.113.7"),
            (&["10.0.0.3", "10.0.0.2"], "10.0.0.3"),
            (&["203.0.113.7", "-"], peer),
            (&["203.0.113.7", "-", "10.0.0.2"], "10.0.0.2"),
            (&["-", "203.0.113.7", "10.0.0.2"], "203.0.113.7"),
            (&["-"], peer),
        ] {
            let hop = |it: &&str| (*it != "-").then(|| ip(it));
            assert_eq!(proxies().source(ip(peer), hops.iter().map(hop)), ip(expect), "{hops:?}");
        }
    }
}
