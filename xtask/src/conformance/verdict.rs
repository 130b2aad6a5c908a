//! Comparing the host's answer with the sandbox's, check by check, and showing what differs.

use super::Outcome;
use crate::report::Tally;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The most lines of a difference that are shown.
const LINES: usize = 24;

/// What became of one program.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// In checks: lines of output.
    pub(crate) tally: Tally,
    /// What to show; empty when all agrees.
    pub(crate) text: String,
}

impl Verdict {
    /// Compares two outcomes. `known` maps check names to reasons; the empty name stands for the whole program.
    pub(crate) fn new(
        host: &Outcome,
        sandbox: &Outcome,
        known: &BTreeMap<String, String>,
        stderr: &str,
    ) -> Self {
        let (host_text, sandbox_text) =
            (String::from_utf8_lossy(&host.stdout), String::from_utf8_lossy(&sandbox.stdout));
        let (host_lines, mut sandbox_lines): (Vec<&str>, Vec<&str>) =
            (host_text.lines().collect(), sandbox_text.lines().collect());
        if host == sandbox {
            let mut verdict = Self {
                tally: Tally { passed: host_lines.len().max(1), ..Tally::default() },
                text: String::new(),
            };
            for check in known.keys() {
                verdict.stale(check);
            }
            return verdict;
        }
        if let Some(reason) = known.get("") {
            let tally = Tally { skipped: host_lines.len().max(1), ..Tally::default() };
            return Self { tally, text: format!("  known difference: {reason}\n") };
        }

        let mut verdict = Self::default();
        // Known checks are judged alone and then taken for equal, so that the rest is compared as usual.
        for (check, reason) in known {
            let line_of = |lines: &[&str]| lines.iter().position(|line| name_of(line) == check);
            let (ours, theirs) = (line_of(&host_lines), line_of(&sandbox_lines));
            match (ours, theirs) {
                (Some(ours), Some(theirs)) if host_lines[ours] != sandbox_lines[theirs] => {
                    let _infallible = writeln!(
                        verdict.text,
                        "  known difference: {reason}\n  - {}\n  + {}",
                        host_lines[ours], sandbox_lines[theirs]
                    );
                    verdict.tally.skipped += 1;
                    sandbox_lines[theirs] = host_lines[ours];
                }
                (Some(_), Some(_)) => verdict.stale(check),
                // A missing line is shown with the rest.
                _ => {}
            }
        }
        let agreeing = common(&host_lines, &sandbox_lines);
        verdict.tally.passed += agreeing.saturating_sub(verdict.tally.skipped);
        let missing = host_lines.len().max(sandbox_lines.len()).saturating_sub(agreeing);
        if missing > 0 || host.code != sandbox.code {
            verdict.tally.failed += missing.max(1);
            if host.code != sandbox.code {
                let _infallible =
                    writeln!(verdict.text, "  host: {}   sandbox: {}", ended(host.code), ended(sandbox.code));
            }
            if missing > 0 {
                verdict.text.push_str(&difference(&host_lines, &sandbox_lines));
            }
            let tail: Vec<&str> = stderr.lines().rev().take(8).collect();
            for line in tail.iter().rev() {
                let _infallible = writeln!(verdict.text, "  stderr: {line}");
            }
        }
        verdict
    }

    /// A test that could not be judged at all.
    pub(crate) fn broken(reason: &str) -> Self {
        Self { tally: Tally::failed(), text: format!("  {reason}\n") }
    }

    fn stale(&mut self, check: &str) {
        let what = if check.is_empty() { "the program" } else { check };
        let _infallible = writeln!(self.text, "  {what} agrees now: take it out of KNOWN.toml");
        self.tally.failed += 1;
    }
}

/// `name: value`
fn name_of(line: &str) -> &str {
    line.split_once(": ").map_or(line, |(name, _)| name)
}

fn ended(code: Option<i32>) -> String {
    code.map_or("did not end in time".to_owned(), |code| format!("exit {code}"))
}

/// How many lines both have, wherever they stand (processes may interleave, but a check's name is its own).
fn common(host: &[&str], sandbox: &[&str]) -> usize {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in sandbox {
        *counts.entry(line).or_default() += 1;
    }
    let mut found = 0;
    for line in host {
        if let Some(count) = counts.get_mut(line).filter(|count| **count > 0) {
            *count -= 1;
            found += 1;
        }
    }
    // The same lines in another order are a difference too.
    if found == host.len() && found == sandbox.len() && host != sandbox {
        found.saturating_sub(1)
    } else {
        found
    }
}

/// The lines that differ, `-` the host's and `+` the sandbox's, each with the lines that only one side has.
fn difference(host: &[&str], sandbox: &[&str]) -> String {
    let head = host.iter().zip(sandbox).take_while(|(a, b)| a == b).count();
    let tail = host.iter().rev().zip(sandbox.iter().rev());
    let shorter = host.len().min(sandbox.len());
    let tail = tail.take(shorter - head).take_while(|(a, b)| a == b).count();
    let (host, sandbox) = (&host[head..host.len() - tail], &sandbox[head..sandbox.len() - tail]);
    // Line by line while both have as many: that reads best when single values differ.
    let lines: Vec<String> = if host.len() == sandbox.len() {
        let pairs = host.iter().zip(sandbox).filter(|(ours, theirs)| ours != theirs);
        pairs.flat_map(|(ours, theirs)| [format!("  - {ours}\n"), format!("  + {theirs}\n")]).collect()
    } else {
        // What the sandbox says comes first and whole: it is often short, and says why it stopped.
        let theirs = sandbox.iter().map(|line| format!("  + {line}\n"));
        theirs.chain(host.iter().map(|line| format!("  - {line}\n"))).collect()
    };
    let mut text: String = lines.iter().take(LINES).map(String::as_str).collect();
    if lines.len() > LINES {
        let _infallible = writeln!(text, "  … {} more lines", lines.len() - LINES);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(code: i32, stdout: &str) -> Outcome {
        Outcome { code: Some(code), stdout: stdout.as_bytes().to_vec() }
    }

    fn known(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|&(check, reason)| (check.to_owned(), reason.to_owned())).collect()
    }

    #[test]
    fn equal_answers_are_counted_by_line_and_say_nothing() {
        let verdict =
            Verdict::new(&outcome(0, "a: 1\nb: 2\n"), &outcome(0, "a: 1\nb: 2\n"), &known(&[]), "noise");
        assert_eq!(verdict, Verdict { tally: Tally { passed: 2, ..Tally::default() }, text: String::new() });
    }

    #[test]
    fn only_what_differs_is_shown() {
        let verdict = Verdict::new(&outcome(0, "a\nb\nc\n"), &outcome(1, "a\nx\nc\n"), &known(&[]), "oops");
        assert_eq!(verdict.tally, Tally { passed: 2, failed: 1, skipped: 0 });
        assert_eq!(verdict.text, "  host: exit 0   sandbox: exit 1\n  - b\n  + x\n  stderr: oops\n");
    }

    #[test]
    fn a_missing_end_is_a_failure() {
        let verdict = Verdict::new(&outcome(0, "a\nb\n"), &outcome(0, "a\n"), &known(&[]), "");
        assert_eq!((verdict.tally.passed, verdict.tally.failed), (1, 1));
        assert_eq!(verdict.text, "  - b\n");
    }

    #[test]
    fn the_exit_status_alone_is_a_failure() {
        let verdict = Verdict::new(&outcome(0, "a\n"), &outcome(137, "a\n"), &known(&[]), "");
        assert_eq!((verdict.tally.passed, verdict.tally.failed), (1, 1));
    }

    #[test]
    fn a_known_check_counts_apart_and_hides_nothing_else() {
        let reasons = known(&[("b", "why")]);
        let verdict = Verdict::new(&outcome(0, "a: 1\nb: 2\n"), &outcome(0, "a: 1\nb: 3\n"), &reasons, "");
        assert_eq!(verdict.tally, Tally { passed: 1, failed: 0, skipped: 1 });
        let verdict = Verdict::new(&outcome(0, "a: 1\nb: 2\n"), &outcome(0, "a: 9\nb: 3\n"), &reasons, "");
        assert_eq!(verdict.tally, Tally { passed: 0, failed: 1, skipped: 1 });
    }

    #[test]
    fn a_known_check_that_agrees_is_a_failure() {
        let verdict = Verdict::new(&outcome(0, "b: 2\n"), &outcome(0, "b: 2\n"), &known(&[("b", "why")]), "");
        assert_eq!(verdict.tally.failed, 1);
    }
}
