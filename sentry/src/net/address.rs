//! Socket addresses between the guest and the Sentry. An address is its bytes, family included; what is in them is the
//! protocol's business.

use quicksand_abi::socket::MAX_ADDR_LEN;
use quicksand_abi::{Errno, UserAddr};

use crate::task::CurrentTask;

/// Bytes of an address.
pub type Address = Vec<u8>;

/// The family of an address; `None` where it is too short to have one.
pub fn family(address: &[u8]) -> Option<i32> {
    Some(i32::from(u16::from_ne_bytes([*address.first()?, *address.get(1)?])))
}

/// `move_addr_to_kernel`: EINVAL where the length is negative or more than any address has.
pub fn read_address(task: &CurrentTask, addr: UserAddr, len: u32) -> Result<Address, Errno> {
    let len = usize::try_from(len as i32).map_err(|_| Errno::EINVAL)?;
    if len > MAX_ADDR_LEN {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0; len];
    task.read_bytes(addr, &mut bytes)?;
    Ok(bytes)
}

/// `move_addr_to_user`: as much as the guest has room for, and the true length.
pub fn write_address(
    task: &CurrentTask,
    addr: UserAddr,
    len_addr: UserAddr,
    address: &[u8],
) -> Result<(), Errno> {
    let room: i32 = task.read_object(len_addr)?;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    task.write_bytes(addr, &address[..room.min(address.len())])?;
    task.write_object(len_addr, &(address.len() as i32))
}
