//! Which addresses may be asked: a pod's own, and nothing that a forged pod status could point us at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is {1}, which is no pod's own address: it is not asked")]
pub(crate) struct Forbidden(IpAddr, &'static str);

/// Cloud metadata services outside the link-local range: Alibaba's, Oracle's, Azure's, and EC2's and GCP's over IPv6.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// The address in its canonical form (an IPv4 address dressed as IPv6 is judged as what it is), if it may be asked.
pub(crate) fn permitted(address: IpAddr) -> Result<IpAddr, Forbidden> {
    let address = address.to_canonical();
    let no = |what| Err(Forbidden(address, what));
    if address.is_loopback() {
        return no("loopback");
    }
    if address.is_unspecified() {
        return no("unspecified");
    }
    if address.is_multicast() {
        return no("multicast");
    }
    match address {
        IpAddr::V4(v4) if v4.is_link_local() => no("link-local"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => no("unspecified"),
        IpAddr::V4(v4) if v4.is_broadcast() => no("broadcast"),
        IpAddr::V4(v4) if METADATA_V4.contains(&v4) => no("a cloud's metadata service"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => no("link-local"),
        IpAddr::V6(v6) if METADATA_V6.contains(&v6) => no("a cloud's metadata service"),
        // ::a.b.c.d, deprecated and still routed by some: to_canonical leaves it alone.
        IpAddr::V6(v6) if v6.segments()[..6] == [0; 6] => no("an IPv4 address in disguise"),
        // 64:ff9b::/96, 64:ff9b:1::/48 and 2002::/16 translate to any IPv4 address, the metadata service's among them.
        IpAddr::V6(v6)
            if matches!(
                v6.segments(),
                [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] | [0x2002, ..]
            ) =>
        {
            no("an IPv4 address in disguise")
        }
        IpAddr::V4(_) | IpAddr::V6(_) => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_s_address_is_asked() {
        for text in ["10.244.1.7", "192.168.3.4", "172.16.0.9", "100.64.0.3", "fd00:10:244::7", "2001:db8::5"]
        {
            assert!(permitted(text.parse().unwrap()).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_forged_status_reaches_nothing_of_ours() {
        for text in [
            "127.0.0.1",
            "168.63.129.16",
            "64:ff9b:1::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "127.8.8.8",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "192.0.0.192",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
        ] {
            assert!(permitted(text.parse().unwrap()).is_err(), "{text}");
        }
    }
}
