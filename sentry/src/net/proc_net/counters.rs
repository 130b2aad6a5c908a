//! Counters: `snmp`, `snmp6`, `netstat`, `sockstat`, `sockstat6`.
//!
//! What sockets of this sandbox do is counted. What only the host's protocols know (checksum errors, retransmissions) is
//! shown as zero: the host tells nobody but readers of its own `/proc`.

use std::fmt::Write;

use super::super::NetNamespace;
use super::super::stack::{Counters, SocketSummary};

const TCP_ESTABLISHED: u8 = 1;
const TCP_CLOSE: u8 = 7;
const TCP_CLOSE_WAIT: u8 = 8;

/// Fields of each protocol, in Linux's order.
const IP: &str = "Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams InUnknownProtos InDiscards \
                  InDelivers OutRequests OutDiscards OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs ReasmFails FragOKs \
                  FragFails FragCreates OutTransmits";
const ICMP: &str = "InMsgs InErrors InCsumErrors InDestUnreachs InTimeExcds InParmProbs InSrcQuenchs InRedirects InEchos \
                    InEchoReps InTimestamps InTimestampReps InAddrMasks InAddrMaskReps OutMsgs OutErrors \
                    OutRateLimitGlobal OutRateLimitHost OutDestUnreachs OutTimeExcds OutParmProbs OutSrcQuenchs \
                    OutRedirects OutEchos OutEchoReps OutTimestamps OutTimestampReps OutAddrMasks OutAddrMaskReps";
const TCP: &str = "RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs \
                   OutSegs RetransSegs InErrs OutRsts InCsumErrors";
const UDP: &str =
    "InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors";
const IP6: &str = "InReceives InHdrErrors InTooBigErrors InNoRoutes InAddrErrors InUnknownProtos InTruncatedPkts InDiscards \
                   InDelivers OutForwDatagrams OutRequests OutDiscards OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs \
                   ReasmFails FragOKs FragFails FragCreates InMcastPkts OutMcastPkts InOctets OutOctets InMcastOctets \
                   OutMcastOctets InBcastOctets OutBcastOctets";
const ICMP6: &str = "InMsgs InErrors OutMsgs OutErrors InCsumErrors";
const TCP_EXT: &str = "SyncookiesSent SyncookiesRecv SyncookiesFailed EmbryonicRsts PruneCalled RcvPruned OfoPruned \
                       OutOfWindowIcmps LockDroppedIcmps ArpFilter TW TWRecycled TWKilled PAWSActive PAWSEstab \
                       DelayedACKs DelayedACKLocked DelayedACKLost ListenOverflows ListenDrops TCPHPHits TCPPureAcks \
                       TCPHPAcks TCPTimeouts TCPLossProbes TCPBacklogCoalesce TCPAbortOnData TCPAbortOnClose \
                       TCPAbortOnMemory TCPAbortOnTimeout TCPAbortOnLinger TCPAbortFailed TCPMemoryPressures \
                       TCPRetransFail TCPRcvCoalesce TCPOFOQueue TCPSynRetrans TCPOrigDataSent TCPDelivered";
const IP_EXT: &str = "InNoRoutes InTruncatedPkts InMcastPkts OutMcastPkts InBcastPkts OutBcastPkts InOctets OutOctets \
                      InMcastOctets OutMcastOctets InBcastOctets OutBcastOctets InCsumErrors InNoECTPkts InECT1Pkts \
                      InECT0Pkts InCEPkts";

/// What is counted, by the names of the fields.
fn value(name: &str, counters: &Counters, established: usize) -> i64 {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    match name {
        "ActiveOpens" => number(counters.active_opens),
        "PassiveOpens" => number(counters.passive_opens),
        "CurrEstab" => established as i64,
        "InDatagrams" => number(counters.datagrams_in),
        "OutDatagrams" => number(counters.datagrams_out),
        // The constants of Linux's TCP, and of its IP where nothing is forwarded.
        "RtoAlgorithm" => 1,
        "RtoMin" => 200,
        "RtoMax" => 120_000,
        "MaxConn" => -1,
        "Forwarding" => 2,
        "DefaultTTL" => 64,
        _ => 0,
    }
}

fn established(all: &[SocketSummary]) -> usize {
    all.iter().filter(|s| is_tcp(s) && matches!(s.state, TCP_ESTABLISHED | TCP_CLOSE_WAIT)).count()
}
fn is_tcp(s: &SocketSummary) -> bool {
    s.protocol == libc::IPPROTO_TCP
}

/// Two lines per protocol: names, then values.
fn pairs(net: &NetNamespace, tables: &[(&str, &str)]) -> String {
    let established = established(&net.stack().sockets());
    let counters = net.stack().counters(libc::AF_INET);
    let mut out = String::new();
    for (protocol, names) in tables {
        let names: Vec<&str> = names.split_whitespace().collect();
        let values: Vec<String> =
            names.iter().map(|name| value(name, &counters, established).to_string()).collect();
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(out, "{protocol}: {}\n{protocol}: {}", names.join(" "), values.join(" "));
    }
    out
}

pub(super) fn snmp(net: &NetNamespace) -> String {
    let mut text = pairs(net, &[("Ip", IP), ("Icmp", ICMP), ("Tcp", TCP), ("Udp", UDP)]);
    let zeroes = UDP.split_whitespace().map(|_| "0").collect::<Vec<_>>().join(" ");
    let _ = writeln!(text, "UdpLite: {UDP}\nUdpLite: {zeroes}");
    text
}

pub(super) fn netstat(net: &NetNamespace) -> String {
    pairs(net, &[("TcpExt", TCP_EXT), ("IpExt", IP_EXT)])
}

/// A line per counter.
pub(super) fn snmp6(net: &NetNamespace) -> String {
    let counters = net.stack().counters(libc::AF_INET6);
    let mut out = String::new();
    for (prefix, names) in [("Ip6", IP6), ("Icmp6", ICMP6), ("Udp6", UDP), ("UdpLite6", UDP)] {
        for name in names.split_whitespace() {
            let value = if prefix == "Udp6" { value(name, &counters, 0) } else { 0 };
            let _ = writeln!(out, "{:<32}\t{value}", format!("{prefix}{name}"));
        }
    }
    out
}

/// How many sockets of a family are in use: TCP (connected or listening), and UDP (with a port).
fn in_use(all: &[SocketSummary], family: i32) -> (usize, usize) {
    let count = |wanted: &dyn Fn(&SocketSummary) -> bool| {
        all.iter().filter(|s| s.family == family && wanted(s)).count()
    };
    (
        count(&|s| is_tcp(s) && s.state != TCP_CLOSE),
        count(&|s| s.protocol == libc::IPPROTO_UDP && s.local.get(2..4).is_some_and(|p| p != [0, 0])),
    )
}

pub(super) fn sockstat(net: &NetNamespace) -> String {
    let all = net.stack().sockets();
    let used = all.len() + net.unix.count();
    let (tcp, udp) = in_use(&all, libc::AF_INET);
    let allocated = all.iter().filter(|s| is_tcp(s)).count();
    format!(
        "sockets: used {used}\nTCP: inuse {tcp} orphan 0 tw 0 alloc {allocated} mem 0\nUDP: inuse {udp} mem 0\n\
         UDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n"
    )
}

pub(super) fn sockstat6(net: &NetNamespace) -> String {
    let (tcp, udp) = in_use(&net.stack().sockets(), libc::AF_INET6);
    format!(
        "TCP6: inuse {tcp}\nUDP6: inuse {udp}\nUDPLITE6: inuse 0\nRAW6: inuse 0\nFRAG6: inuse 0 memory 0\n"
    )
}
