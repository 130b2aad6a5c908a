//! Messages in a socket's queue, and whom they are charged to.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quicksand_abi::socket::Ucred;

use super::Name;
use crate::sync::{Events, WaitQueue};
use crate::vfs::OpenFile;

/// `net.core.wmem_default`, and `wmem_max`.
pub(super) const DEFAULT_BUFFER: usize = 212_992;

/// What a socket has sent and nobody has read.
pub(super) struct Account {
    used: AtomicUsize,
    /// SO_SNDBUF.
    limit: AtomicUsize,
    queue: Arc<WaitQueue>,
}

impl Account {
    pub(super) fn new(queue: Arc<WaitQueue>) -> Arc<Account> {
        Arc::new(Account { used: AtomicUsize::new(0), limit: AtomicUsize::new(DEFAULT_BUFFER), queue })
    }
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }
    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }
    pub(super) fn set_limit(&self, bytes: usize) {
        self.limit.store(bytes, Ordering::Relaxed);
        self.queue.notify(Events::WRITABLE);
    }
    pub(super) fn restore_limit(&self, bytes: usize) {
        self.limit.store(bytes, Ordering::Relaxed);
    }
    /// `unix_writable`: three quarters of the buffer are free.
    pub(super) fn is_writable(&self) -> bool {
        self.used().saturating_mul(4) <= self.limit()
    }
    /// Charges a message of `len` bytes; `None` where the sender has to wait.
    pub(super) fn charge(self: &Arc<Self>, len: usize) -> Option<Charge> {
        // As Linux: whoever is below the limit may send, and passes it by one message at most (per sender).
        if self.used() >= self.limit() {
            return None;
        }
        Some(self.charge_anyway(len))
    }
    /// Charges a message that has been sent already.
    pub(super) fn charge_anyway(self: &Arc<Self>, len: usize) -> Charge {
        let bytes = true_size(len);
        self.used.fetch_add(bytes, Ordering::AcqRel);
        Charge { account: self.clone(), bytes }
    }
}

/// What a message of `len` bytes costs, with its bookkeeping (`skb->truesize`).
fn true_size(len: usize) -> usize {
    const SK_BUFF: usize = 256;
    const SHARED_INFO: usize = 320;
    const MAX_HEAD: usize = 4096 - SHARED_INFO;
    let head = (len.min(MAX_HEAD) + SHARED_INFO).next_power_of_two().max(512);
    let pages = len.saturating_sub(MAX_HEAD).next_multiple_of(4096);
    SK_BUFF + head + pages
}

/// A sender's charge for one message; given back when dropped.
pub(super) struct Charge {
    account: Arc<Account>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.used.fetch_sub(self.bytes, Ordering::AcqRel);
        if self.account.is_writable() {
            self.account.queue.notify(Events::WRITABLE);
        }
    }
}

/// A message, or a piece of a stream as it was written.
pub(super) struct Message {
    data: Vec<u8>,
    /// How much of it has been read (streams).
    start: usize,
    pub(super) from: Option<Name>,
    pub(super) credentials: Option<Ucred>,
    pub(super) rights: Vec<Arc<OpenFile>>,
    pub(super) eor: bool,
    charge: Charge,
}

impl Message {
    pub(super) fn new(data: Vec<u8>, charge: Charge) -> Message {
        Message { data, start: 0, from: None, credentials: None, rights: Vec::new(), eor: false, charge }
    }
    /// Whether `account` pays for it.
    pub(super) fn is_charged_to(&self, account: &Arc<Account>) -> bool {
        Arc::ptr_eq(&self.charge.account, account)
    }
    pub(super) fn bytes(&self) -> &[u8] {
        self.data.get(self.start..).unwrap_or_default()
    }
    pub(super) fn len(&self) -> usize {
        self.data.len() - self.start
    }
    pub(super) fn consume(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.data.len());
    }
    pub(super) fn has_rights(&self) -> bool {
        !self.rights.is_empty()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_small_messages_fit_as_on_linux() {
        let account = Account::new(WaitQueue::new());
        let charges: Vec<Charge> = std::iter::from_fn(|| account.charge(1)).collect();
        assert_eq!(charges.len(), 278);
        assert!(!account.is_writable());
        drop(charges);
        assert_eq!(account.used(), 0);
        assert!(account.is_writable());
    }
}
