//! Which addresses a call may reach: public ones, those that an entry of the allow list has to name, and those that it never
//! does, since what answers there hands out credentials or is nobody's business.
//!
//! Sources: the IANA registries of special-purpose addresses (RFC 6890), and the clouds' own pages for their metadata services.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// How far an address is open to calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// An address on the public internet.
    Public,
    /// Loopback, private or reserved: only where an entry names it.
    Named,
    /// Link-local, metadata, multicast, no address at all: never.
    Never,
}

/// Metadata services outside of the link-local ranges: Alibaba's, Azure's, Oracle's, and those on IPv6 of AWS and Google.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

const NEVER: &[Range] = &[
    Range::v4(0, 0, 0, 0, 8),
    Range::v4(169, 254, 0, 0, 16),
    Range::v4(224, 0, 0, 0, 4),
    Range::v4(240, 0, 0, 0, 4),
    Range::v6([0, 0, 0, 0, 0, 0, 0, 0], 128),
    Range::v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    Range::v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
    // Teredo: the address that it stands for is scrambled.
    Range::v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32),
];

const NAMED: &[Range] = &[
    Range::v4(10, 0, 0, 0, 8),
    Range::v4(100, 64, 0, 0, 10),
    Range::v4(127, 0, 0, 0, 8),
    Range::v4(172, 16, 0, 0, 12),
    Range::v4(192, 0, 0, 0, 24),
    Range::v4(192, 0, 2, 0, 24),
    Range::v4(192, 88, 99, 0, 24),
    Range::v4(192, 168, 0, 0, 16),
    Range::v4(198, 18, 0, 0, 15),
    Range::v4(198, 51, 100, 0, 24),
    Range::v4(203, 0, 113, 0, 24),
    Range::v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    Range::v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    Range::v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
];

/// All of IPv6 that is routed today; loopback and unique local addresses are outside of it.
const GLOBAL: Range = Range::v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// How far this address is open.
pub(super) fn reach(address: IpAddr) -> Reach {
    let address = address.to_canonical();
    let within = |ranges: &[Range]| ranges.iter().any(|range| range.has(address));
    if METADATA.contains(&address) || within(NEVER) {
        return Reach::Never;
    }
    if let IpAddr::V6(address) = address
        && let Some(inner) = carried(address)
    {
        // By a detour nobody gets where the direct way needs a name.
        return if reach(IpAddr::V4(inner)) == Reach::Public { Reach::Public } else { Reach::Never };
    }
    match address {
        _ if within(NAMED) => Reach::Named,
        IpAddr::V4(_) => Reach::Public,
        IpAddr::V6(_) if GLOBAL.has(address) => Reach::Public,
        IpAddr::V6(_) => Reach::Named,
    }
}

/// The IPv4 address that a translator makes of it: NAT64 (RFC 6052), 6to4 (RFC 3056), or an IPv4-compatible one.
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let pair = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => None,
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0, high, low] => Some(pair(high, low)),
        [0x2002, high, low, ..] => Some(pair(high, low)),
        _ => None,
    }
}

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    first: IpAddr,
    prefix: u8,
}

impl Range {
    const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Self {
        Self { first: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
    }

    const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> Self {
        Self { first: IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h)), prefix }
    }

    /// One address alone.
    pub(super) fn only(address: IpAddr) -> Self {
        let first = address.to_canonical();
        Self { first, prefix: if first.is_ipv4() { 32 } else { 128 } }
    }

    pub(super) fn has(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let differ = first.to_bits() ^ address.to_bits();
                differ.leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                let differ = first.to_bits() ^ address.to_bits();
                differ.leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Whether no address of it may ever be called.
    pub(super) fn is_never(&self) -> bool {
        NEVER.iter().any(|never| never.prefix <= self.prefix && never.has(self.first))
            || METADATA.iter().any(|address| *self == Self::only(*address))
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let instead =
            || format!("`{text}` is no range of addresses; write 10.0.0.0/8, fd00::/8 or one address");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let first: IpAddr = address.trim_matches(['[', ']']).parse().map_err(|_| instead())?;
        let one = Self::only(first);
        let Some(prefix) = prefix else { return Ok(one) };
        match prefix.parse::<u8>() {
            // Its own notation: a prefix of the mapped form would mean another width.
            Ok(prefix) if prefix <= one.prefix && one.first == first => Ok(Self { first, prefix }),
            _ => Err(instead()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str) -> Reach {
        reach(address.parse().unwrap())
    }

    #[test]
    fn what_is_not_everybodys_has_to_be_named_or_is_never_called() {
        for address in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808"] {
            assert_eq!(of(address), Reach::Public, "{address}");
        }
        for address in [
            "127.0.0.1",
            "127.255.255.255",
            "10.0.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "::1",
            "fd12::1",
            "::ffff:10.0.0.1",
            "198.19.0.1",
            "2001:db8::1",
            "64:ff9b:1::1",
            "fec0::1",
        ] {
            assert_eq!(of(address), Reach::Named, "{address}");
        }
        for address in [
            "169.254.169.254",
            "169.254.170.2",
            "fe80::1",
            "::ffff:169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::7f00:1",
            "2002:a00:1::1",
            "2002:a9fe:a9fe::",
            "::a9fe:a9fe",
            "::7f00:1",
            "2001:0:1::1",
        ] {
            assert_eq!(of(address), Reach::Never, "{address}");
        }
    }

    #[test]
    fn a_range_has_what_begins_like_it() {
        let range: Range = "10.96.0.0/12".parse().unwrap();
        assert!(
            range.has("10.111.255.255".parse().unwrap()) && range.has("::ffff:10.96.0.1".parse().unwrap())
        );
        assert!(!range.has("10.112.0.0".parse().unwrap()) && !range.has("fd00::1".parse().unwrap()));
        assert!("0.0.0.0/0".parse::<Range>().unwrap().has("8.8.8.8".parse().unwrap()));
        assert!("::1".parse::<Range>().unwrap().has("::1".parse().unwrap()));
        for text in ["10.0.0.0/33", "10.0.0/8", "x", "fd00::/129", "::ffff:10.0.0.0/8", "10.0.0.0/-1", ""] {
            assert!(text.parse::<Range>().unwrap_err().contains("write 10.0.0.0/8"), "{text}");
        }
        for text in ["169.254.0.0/16", "169.254.169.254", "fe80::/64", "100.100.100.200"] {
            assert!(text.parse::<Range>().unwrap().is_never(), "{text}");
        }
        assert!(!"100.64.0.0/10".parse::<Range>().unwrap().is_never());
    }
}
