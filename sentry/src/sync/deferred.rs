//! Work that must wait until its thread holds no lock.
//!
//! A wake-up comes with its queue locked, often with the object's own lock too. What has to take earlier locks because of
//! it (to send a signal) is put off here, and done by the same thread as soon as it is outside: after a system call's
//! handler, and after an event of the host or of a timer.

use std::cell::RefCell;

thread_local! {
    static DEFERRED: RefCell<Vec<Box<dyn FnOnce()>>> = const { RefCell::new(Vec::new()) };
}

/// Puts `work` off until this thread calls [`run_deferred`].
pub fn defer(work: Box<dyn FnOnce()>) {
    DEFERRED.with_borrow_mut(|all| all.push(work));
}

/// Does what was put off, in order, and what that puts off in turn. With no lock held.
pub fn run_deferred() {
    loop {
        let all = DEFERRED.take();
        if all.is_empty() {
            return;
        }
        for work in all {
            work();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn what_is_put_off_is_done_once_and_in_order() {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let (a, b) = (seen.clone(), seen.clone());
        defer(Box::new(move || {
            a.borrow_mut().push(1);
            let later = a.clone();
            defer(Box::new(move || later.borrow_mut().push(3)));
        }));
        defer(Box::new(move || b.borrow_mut().push(2)));
        assert!(seen.borrow().is_empty());
        run_deferred();
        run_deferred();
        assert_eq!(*seen.borrow(), [1, 2, 3]);
    }
}
