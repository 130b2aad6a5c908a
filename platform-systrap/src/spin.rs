//! How long to look out for the other side before going to sleep.
//!
//! Waking somebody up costs several microseconds, and a processor that looks out is lost to everybody else. So one looks
//! out for a while where that has paid of late, and hardly at all where it has not (the guest computes, the call blocks,
//! or there are fewer processors than threads that want one); now and then it is tried again.

/// Nanoseconds.
const MOST: u64 = 20_000;
const LEAST: u64 = 500;
/// How many short looks there are between two long ones.
const RETRY: u8 = 24;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Spin {
    budget: u64,
    short: u8,
}

impl Default for Spin {
    fn default() -> Spin {
        Spin { budget: MOST, short: 0 }
    }
}

impl Spin {
    /// For how long now, in nanoseconds.
    pub(crate) fn next(&mut self) -> u64 {
        if self.budget >= LEAST {
            return self.budget;
        }
        self.short += 1;
        if self.short < RETRY {
            return 0;
        }
        self.short = 0;
        MOST
    }

    /// Whether the other side came while one looked out.
    pub(crate) fn learn(&mut self, paid: bool) {
        self.budget = if paid { (self.budget * 2).clamp(MOST / 4, MOST) } else { self.budget / 2 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_pay_is_given_up_and_tried_again() {
        let mut spin = Spin::default();
        for _ in 0..6 {
            spin.next();
            spin.learn(false);
        }
        assert_eq!(spin.next(), 0);
        let total: u64 = (0..1000)
            .map(|_| {
                let spent = spin.next();
                spin.learn(false);
                spent
            })
            .sum();
        assert!((20 * MOST..60 * MOST).contains(&total), "{total}");
        while spin.next() == 0 {}
        spin.learn(true);
        assert!(spin.next() >= MOST / 4);
    }
}
