//! What kind of place an address is, and whether an upstream may be there (ARCHITECTURE.md). Pure: names are resolved
//! elsewhere, and every address is judged again after each resolution, so that a name cannot turn inwards later.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tidegate_core::snapshot::Reach;

/// The kind of place an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// This host.
    Loopback,
    /// A network of one's own.
    Private,
    /// Link-local: where clouds answer with credentials. Never an upstream.
    LinkLocal,
    /// A metadata service outside of link-local. Never an upstream.
    Metadata,
    /// No host can be there: unspecified, multicast, broadcast, documentation, reserved.
    Nowhere,
    /// The public network.
    Public,
}

/// The kind of place an address is. Addresses that carry another one inside are judged by that.
pub fn ground(address: IpAddr) -> Ground {
    match address {
        IpAddr::V4(it) => ground_v4(it),
        IpAddr::V6(it) => ground_v6(it),
    }
}

/// Whether an upstream of this reach may be at this address.
pub fn allows(reach: Reach, address: IpAddr) -> bool {
    match ground(address) {
        Ground::LinkLocal | Ground::Metadata | Ground::Nowhere => false,
        Ground::Public => true,
        Ground::Loopback | Ground::Private => reach != Reach::Public,
    }
}

fn ground_v4(address: Ipv4Addr) -> Ground {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (127, ..) => Ground::Loopback,
        (169, 254, _) => Ground::LinkLocal,
        // A cloud's metadata service stands in the range of carrier-grade translation.
        (100, 100, 100) if address == Ipv4Addr::new(100, 100, 100, 200) => Ground::Metadata,
        (168, 63, 129) if address == Ipv4Addr::new(168, 63, 129, 16) => Ground::Metadata,
        (10, ..) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) => Ground::Private,
        (0, ..) | (224..=255, ..) => Ground::Nowhere,
        (192, 0, 0 | 2) | (198, 18..=19, _) | (198, 51, 100) | (203, 0, 113) => Ground::Nowhere,
        _ => Ground::Public,
    }
}

fn ground_v6(address: Ipv6Addr) -> Ground {
    let s = address.segments();
    if let Some(inner) = address.to_ipv4_mapped() {
        return ground_v4(inner);
    }
    let low = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        [0, 0, 0, 0, 0, 0, 0, 1] => Ground::Loopback,
        // The old embedding of an IPv4 address, `::` among it.
        [0, 0, 0, 0, 0, 0, ..] => Ground::Nowhere,
        // Translation to IPv4, and tunnels that name an IPv4 router.
        [0x64, 0xff9b, 0, 0, 0, 0, x, y] => ground_v4(low(x, y)),
        [0x2002, x, y, ..] => ground_v4(low(x, y)),
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => Ground::Metadata,
        [0xfe80..=0xfebf, ..] => Ground::LinkLocal,
        [0xfc00..=0xfdff, ..] | [0x64, 0xff9b, 1, ..] => Ground::Private,
        [0x2001, 0xdb8, ..] | [0xff00..=0xffff, ..] | [0x100, 0, 0, 0, ..] | [0x2001, 0, ..] => {
            Ground::Nowhere
        }
        [0xfec0..=0xfeff, ..] => Ground::Private,
        _ => Ground::Public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_place() {
        for (address, expect) in [
            ("127.0.0.1", Ground::Loopback),
            ("127.9.9.9", Ground::Loopback),
            ("::1", Ground::Loopback),
            ("::ffff:127.0.0.1", Ground::Loopback),
            ("64:ff9b::7f00:1", Ground::Loopback),
            ("10.1.2.3", Ground::Private),
            ("172.31.0.1", Ground::Private),
            ("172.32.0.1", Ground::Public),
            ("192.168.1.1", Ground::Private),
            ("100.64.0.1", Ground::Private),
            ("fd12::1", Ground::Private),
            ("2002:a00:1::", Ground::Private),
            ("169.254.169.254", Ground::LinkLocal),
            ("::ffff:169.254.169.254", Ground::LinkLocal),
            ("64:ff9b::a9fe:a9fe", Ground::LinkLocal),
            ("fe80::1", Ground::LinkLocal),
            ("100.100.100.200", Ground::Metadata),
            ("168.63.129.16", Ground::Metadata),
            ("fd00:ec2::254", Ground::Metadata),
            ("0.0.0.0", Ground::Nowhere),
            ("::", Ground::Nowhere),
            ("255.255.255.255", Ground::Nowhere),
            ("224.0.0.1", Ground::Nowhere),
            ("192.0.2.1", Ground::Nowhere),
            ("::7f00:1", Ground::Nowhere),
            ("2001:db8::1", Ground::Nowhere),
            ("160.79.104.10", Ground::Public),
            ("2607:6bc0::10", Ground::Public),
        ] {
            let parsed: IpAddr = address.parse().expect("a literal of this table");
            assert_eq!(ground(parsed), expect, "{address}");
        }
    }

    #[test]
    fn reach_never_allows_metadata() {
        let metadata: IpAddr = Ipv4Addr::new(169, 254, 169, 254).into();
        let private: IpAddr = Ipv4Addr::new(10, 0, 0, 1).into();
        let public: IpAddr = Ipv4Addr::new(160, 79, 104, 10).into();
        for (reach, inward) in [(Reach::Literal, true), (Reach::Private, true), (Reach::Public, false)] {
            assert!(!allows(reach, metadata));
            assert_eq!(allows(reach, private), inward);
            assert!(allows(reach, public));
        }
    }
}
