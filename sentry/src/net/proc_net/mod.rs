//! The files of `/proc/net`, as text, `proc_net(5)`.
//!
//! A stack that cannot say what it has shows nothing: a file is then only its heading.

mod counters;
mod interfaces;
mod sockets;

use super::NetNamespace;

/// A file and what makes its text.
type File = (&'static str, fn(&NetNamespace) -> String);

/// The files, in order of their names.
const FILES: &[File] = &[
    ("arp", |_| "IP address       HW type     Flags       HW address            Mask     Device\n".into()),
    ("dev", interfaces::dev),
    ("dev_mcast", |_| String::new()),
    ("icmp", sockets::icmp),
    ("icmp6", sockets::icmp6),
    ("if_inet6", interfaces::if_inet6),
    ("igmp", |_| "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n".into()),
    ("igmp6", |_| String::new()),
    ("ipv6_route", interfaces::ipv6_route),
    ("netlink", |_| {
        "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n".into()
    }),
    ("netstat", counters::netstat),
    ("packet", |_| "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n".into()),
    ("psched", |_| "000003e8 00000040 000f4240 3b9aca00\n".into()),
    ("raw", sockets::raw),
    ("raw6", sockets::raw6),
    ("route", interfaces::route),
    ("snmp", counters::snmp),
    ("snmp6", counters::snmp6),
    ("sockstat", counters::sockstat),
    ("sockstat6", counters::sockstat6),
    ("tcp", sockets::tcp),
    ("tcp6", sockets::tcp6),
    ("udp", sockets::udp),
    ("udp6", sockets::udp6),
    ("udplite", sockets::udplite),
    ("udplite6", sockets::udplite6),
    ("unix", |net| net.unix.proc_text()),
];

/// The names of the files that [`read`] knows, in order.
pub fn files() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// The content of the file at `index` of [`files`]; nothing where there is no such file.
pub fn read(net: &NetNamespace, index: usize) -> String {
    FILES.get(index).map_or_else(String::new, |(_, text)| text(net))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_can_be_read_and_they_are_in_order() {
        let net = NetNamespace::default();
        assert!(files().is_sorted());
        for (index, name) in files().enumerate() {
            let text = read(&net, index);
            assert!(text.is_empty() || text.ends_with('\n'), "{name}");
            if name == "dev" {
                assert!(text.contains("lo:"));
            }
        }
        assert_eq!(read(&net, usize::MAX), "");
    }
}
