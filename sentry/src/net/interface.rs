//! Interface requests of `ioctl(2)`, `netdevice(7)`: any socket takes them.

use quicksand_abi::{Errno, UserAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::stack::{Interface, InterfaceAddress};
use crate::syscalls::SyscallResult;
use crate::task::CurrentTask;

const SIOCGIFNAME: u32 = 0x8910;
const SIOCGIFCONF: u32 = 0x8912;
const SIOCGIFFLAGS: u32 = 0x8913;
const SIOCGIFADDR: u32 = 0x8915;
const SIOCGIFDSTADDR: u32 = 0x8917;
const SIOCGIFBRDADDR: u32 = 0x8919;
const SIOCGIFNETMASK: u32 = 0x891b;
const SIOCGIFMETRIC: u32 = 0x891d;
const SIOCGIFMTU: u32 = 0x8921;
const SIOCGIFHWADDR: u32 = 0x8927;
const SIOCGIFINDEX: u32 = 0x8933;
const SIOCGIFTXQLEN: u32 = 0x8942;
const SIOCGIFMAP: u32 = 0x8970;
const SIOCGARP: u32 = 0x8954;
/// The requests that change an interface, a route or a neighbour: `SIOCSIFFLAGS`, `SIOCSIFADDR`, `SIOCADDRT`, ….
const SET: [u32; 16] = [
    0x890b, 0x890c, 0x8911, 0x8914, 0x8916, 0x8918, 0x891a, 0x891c, 0x891e, 0x8922, 0x8923, 0x8924, 0x8943,
    0x8953, 0x8955, 0x8971,
];

/// Requests that an interface's driver answers where it can: SIOCETHTOOL, MII registers, SIOCWANDEV, SIOCDEVPRIVATE. Those
/// seen here cannot.
fn is_drivers(cmd: u32) -> bool {
    matches!(cmd, 0x8946..=0x894a | 0x89f0..=0x89ff)
}

/// `struct ifreq`: a name and a union.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct IfReq {
    name: [u8; 16],
    value: [u8; 24],
}

/// `struct ifconf`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct IfConf {
    len: i32,
    pad: u32,
    buf: u64,
}

impl IfReq {
    fn named(name: &str) -> IfReq {
        let mut request = IfReq { name: [0; 16], value: [0; 24] };
        let len = name.len().min(15);
        request.name[..len].copy_from_slice(&name.as_bytes()[..len]);
        request
    }
    fn name(&self) -> &[u8] {
        let end = self.name.iter().position(|b| *b == 0).unwrap_or(15);
        &self.name[..end]
    }
    fn set(&mut self, bytes: &[u8]) {
        self.value[..bytes.len()].copy_from_slice(bytes);
    }
    /// An AF_INET `sockaddr` with this address.
    fn set_inet(&mut self, address: [u8; 4]) {
        self.value = [0; 24];
        self.set(&(libc::AF_INET as u16).to_ne_bytes());
        self.value[4..8].copy_from_slice(&address);
    }
}

/// Answers a request. ENOTTY for what is none of an interface's.
pub(super) fn ioctl(task: &CurrentTask, cmd: u32, arg: UserAddr) -> SyscallResult {
    if SET.contains(&cmd) {
        return Err(Errno::EPERM.into());
    }
    match cmd {
        SIOCGIFCONF => return configuration(task, arg),
        // No neighbour is known.
        SIOCGARP => return Err(Errno::ENXIO.into()),
        _ if is_drivers(cmd) => {}
        SIOCGIFNAME | SIOCGIFFLAGS | SIOCGIFADDR | SIOCGIFDSTADDR | SIOCGIFBRDADDR | SIOCGIFNETMASK
        | SIOCGIFMETRIC | SIOCGIFMTU | SIOCGIFHWADDR | SIOCGIFINDEX | SIOCGIFTXQLEN | SIOCGIFMAP => {}
        _ => return Err(Errno::ENOTTY.into()),
    }
    let mut request: IfReq = task.read_object(arg)?;
    let interfaces = task.kernel().net.stack().interfaces()?;
    if cmd == SIOCGIFNAME {
        let index =
            i32::from_ne_bytes([request.value[0], request.value[1], request.value[2], request.value[3]]);
        let found = interfaces.iter().find(|i| i.index == index).ok_or(Errno::ENODEV)?;
        request.name = IfReq::named(&found.name).name;
        task.write_object(arg, &request)?;
        return Ok(0);
    }
    // `eth0:1` names an address of `eth0`.
    let label = request.name().to_vec();
    let name = label.split(|b| *b == b':').next().unwrap_or_default();
    let found = interfaces.iter().find(|i| i.name.as_bytes() == name).ok_or(Errno::ENODEV)?;
    match cmd {
        _ if is_drivers(cmd) => return Err(Errno::EOPNOTSUPP.into()),
        SIOCGIFFLAGS => request.set(&(found.flags as u16).to_ne_bytes()),
        SIOCGIFMETRIC => request.set(&0i32.to_ne_bytes()),
        SIOCGIFMTU => request.set(&(found.mtu as i32).to_ne_bytes()),
        SIOCGIFINDEX => request.set(&found.index.to_ne_bytes()),
        SIOCGIFTXQLEN => request.set(&(found.queue_len as i32).to_ne_bytes()),
        SIOCGIFMAP => request.value = [0; 24],
        SIOCGIFHWADDR => {
            request.value = [0; 24];
            request.set(&found.kind.to_ne_bytes());
            let len = found.address.len().min(14);
            request.value[2..2 + len].copy_from_slice(&found.address[..len]);
        }
        _ => {
            let address = address_of(task, found, &label)?;
            request.set_inet(match cmd {
                SIOCGIFADDR => bytes(&address.local),
                SIOCGIFDSTADDR => bytes(&address.peer),
                SIOCGIFBRDADDR => bytes(&address.broadcast),
                _ => netmask(address.prefix_len),
            });
        }
    }
    task.write_object(arg, &request)?;
    Ok(0)
}

/// The IPv4 address that a name or label stands for. EADDRNOTAVAIL where there is none.
fn address_of(task: &CurrentTask, interface: &Interface, label: &[u8]) -> Result<InterfaceAddress, Errno> {
    let addresses = task.kernel().net.stack().addresses()?;
    let own = |a: &InterfaceAddress| a.index == interface.index && i32::from(a.family) == libc::AF_INET;
    let labelled = |a: &InterfaceAddress| a.label.as_ref().is_none_or(|l| l.as_bytes() == label);
    let found = addresses.iter().find(|a| own(a) && labelled(a));
    found.or_else(|| addresses.iter().find(|a| own(a))).cloned().ok_or(Errno::EADDRNOTAVAIL)
}

fn bytes(address: &[u8]) -> [u8; 4] {
    address.try_into().unwrap_or([0; 4])
}
fn netmask(prefix_len: u8) -> [u8; 4] {
    u32::MAX.checked_shl(32 - u32::from(prefix_len.min(32))).unwrap_or(0).to_be_bytes()
}

/// SIOCGIFCONF: the IPv4 addresses of all interfaces. Without a buffer, the length that one would need.
fn configuration(task: &CurrentTask, arg: UserAddr) -> SyscallResult {
    const SIZE: usize = size_of::<IfReq>();
    let mut conf: IfConf = task.read_object(arg)?;
    let stack = task.kernel().net.stack();
    let interfaces = stack.interfaces()?;
    let addresses = stack.addresses()?;
    let mut requests = Vec::new();
    for address in addresses.iter().filter(|a| i32::from(a.family) == libc::AF_INET) {
        let Some(interface) = interfaces.iter().find(|i| i.index == address.index) else { continue };
        let mut request = IfReq::named(address.label.as_deref().unwrap_or(&interface.name));
        request.set_inet(bytes(&address.local));
        requests.push(request);
    }
    if conf.buf == 0 {
        conf.len = (requests.len() * SIZE) as i32;
    } else {
        let room = usize::try_from(conf.len).map_err(|_| Errno::EINVAL)? / SIZE;
        requests.truncate(room);
        task.write_array(UserAddr(conf.buf), &requests)?;
        conf.len = (requests.len() * SIZE) as i32;
    }
    task.write_object(arg, &conf)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netmasks() {
        assert_eq!(netmask(0), [0; 4]);
        assert_eq!(netmask(8), [255, 0, 0, 0]);
        assert_eq!(netmask(32), [255; 4]);
    }
}
