//! Where the time of a restore goes.

use std::time::{Duration, Instant};

/// A stop watch: each moment between its making and its end belongs to one named stage. A stage that is entered again goes on.
#[derive(Debug)]
pub(super) struct Stages {
    since: Instant,
    now: usize,
    spent: Vec<(&'static str, Duration)>,
}

impl Stages {
    pub(super) fn begin(name: &'static str) -> Stages {
        Stages { since: Instant::now(), now: 0, spent: vec![(name, Duration::ZERO)] }
    }

    /// What follows belongs to stage `name`.
    pub(super) fn enter(&mut self, name: &'static str) {
        self.count();
        self.now = self.spent.iter().position(|(known, _)| *known == name).unwrap_or(self.spent.len());
        if self.now == self.spent.len() {
            self.spent.push((name, Duration::ZERO));
        }
    }

    /// The stages in the order in which they were first entered.
    pub(super) fn end(mut self) -> Vec<(&'static str, Duration)> {
        self.count();
        self.spent
    }

    fn count(&mut self) {
        let now = Instant::now();
        if let Some((_, spent)) = self.spent.get_mut(self.now) {
            *spent += now - self.since;
        }
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_keep_their_order_and_go_on() {
        let mut stages = Stages::begin("a");
        stages.enter("b");
        stages.enter("a");
        stages.enter("c");
        let names: Vec<_> = stages.end().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }
}
