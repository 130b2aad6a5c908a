//! Comparing the host's answer with the sandbox's, check by check, and showing what differs.

use super::Outcome;
use super::known::{END, Reasons, means};
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
    /// Compares two outcomes. What is known to differ is taken out on both sides and counted apart; the rest must agree.
    pub(crate) fn new(host: &Outcome, sandbox: &Outcome, known: &Reasons, stderr: &str) -> Self {
        let (host_text, sandbox_text) =
            (String::from_utf8_lossy(&host.stdout), String::from_utf8_lossy(&sandbox.stdout));
        let (mut ours, mut theirs): (Vec<&str>, Vec<&str>) =
            (host_text.lines().collect(), sandbox_text.lines().collect());
        let mut ends_differ = host.code != sandbox.code;
        let mut verdict = Self::default();
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for (pattern, reason, must_differ) in known.iter() {
            let count = if pattern == END {
                usize::from(std::mem::take(&mut ends_differ))
            } else {
                take_out(pattern, &mut ours, &mut theirs)
            };
            if count == 0 && must_differ {
                let _infallible = writeln!(verdict.text, "  {pattern} agrees now: take it out of KNOWN.toml");
                verdict.tally.failed += 1;
            }
            verdict.tally.skipped += count;
            *reasons.entry(reason).or_default() += count;
        }
        for (reason, count) in reasons.iter().filter(|(_, count)| **count > 0) {
            let _infallible = writeln!(verdict.text, "  known difference ({count}): {reason}");
        }
        let agreeing = common(&ours, &theirs);
        // A program that prints nothing is judged by how it ends.
        let silent = host.stdout.is_empty() && sandbox.stdout.is_empty() && host.code == sandbox.code;
        verdict.tally.passed += agreeing + usize::from(silent);
        let missing = ours.len().max(theirs.len()).saturating_sub(agreeing);
        if missing > 0 || ends_differ {
            verdict.tally.failed += missing.max(1);
            if ends_differ {
                let _infallible =
                    writeln!(verdict.text, "  host: {}   sandbox: {}", ended(host.code), ended(sandbox.code));
            }
            if missing > 0 {
                verdict.text.push_str(&difference(&ours, &theirs));
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
}

/// Takes the lines that the pattern means, and that the other side does not have, out of both. Returns how many checks
/// those are.
fn take_out<'a>(pattern: &str, host: &mut Vec<&'a str>, sandbox: &mut Vec<&'a str>) -> usize {
    let others = |lines: &[&str], other: &[&str]| {
        let mut counts = counts(other);
        let is_known = |line: &&str| {
            let shared =
                counts.get_mut(*line).is_some_and(|count| count.checked_sub(1).map(|n| *count = n).is_some());
            !shared && means(pattern, name_of(line))
        };
        lines.iter().map(is_known).collect::<Vec<bool>>()
    };
    let known = [others(host, sandbox), others(sandbox, host)];
    let keep = |lines: &mut Vec<_>, known: &[bool]| {
        let mut known = known.iter();
        lines.retain(|_| !known.next().copied().unwrap_or_default());
    };
    keep(host, &known[0]);
    keep(sandbox, &known[1]);
    known.iter().map(|known| known.iter().filter(|known| **known).count()).max().unwrap_or_default()
}

/// `name: value`
fn name_of(line: &str) -> &str {
    line.split_once(": ").map_or(line, |(name, _)| name)
}

fn ended(code: Option<i32>) -> String {
    code.map_or("did not end in time".to_owned(), |code| format!("exit {code}"))
}

fn counts<'a>(lines: &[&'a str]) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        *counts.entry(*line).or_default() += 1;
    }
    counts
}

/// How many lines both have, wherever they stand (processes may interleave, but a check's name is its own).
fn common(host: &[&str], sandbox: &[&str]) -> usize {
    let mut counts = counts(sandbox);
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

    #[test]
    fn equal_answers_are_counted_by_line_and_say_nothing() {
        let verdict = Verdict::new(
            &outcome(0, "a: 1\nb: 2\n"),
            &outcome(0, "a: 1\nb: 2\n"),
            &Reasons::default(),
            "noise",
        );
        assert_eq!(verdict, Verdict { tally: Tally { passed: 2, ..Tally::default() }, text: String::new() });
    }

    #[test]
    fn only_what_differs_is_shown() {
        let verdict =
            Verdict::new(&outcome(0, "a\nb\nc\n"), &outcome(1, "a\nx\nc\n"), &Reasons::default(), "oops");
        assert_eq!(verdict.tally, Tally { passed: 2, failed: 1, skipped: 0 });
        assert_eq!(verdict.text, "  host: exit 0   sandbox: exit 1\n  - b\n  + x\n  stderr: oops\n");
    }

    #[test]
    fn a_missing_end_is_a_failure() {
        let verdict = Verdict::new(&outcome(0, "a\nb\n"), &outcome(0, "a\n"), &Reasons::default(), "");
        assert_eq!((verdict.tally.passed, verdict.tally.failed), (1, 1));
        assert_eq!(verdict.text, "  - b\n");
    }

    #[test]
    fn the_exit_status_alone_is_a_failure() {
        let verdict = Verdict::new(&outcome(0, "a\n"), &outcome(137, "a\n"), &Reasons::default(), "");
        assert_eq!((verdict.tally.passed, verdict.tally.failed), (1, 1));
    }

    #[test]
    fn a_known_check_counts_apart_and_hides_nothing_else() {
        let reasons = Reasons::from([("b", "why")]);
        let verdict = Verdict::new(&outcome(0, "a: 1\nb: 2\n"), &outcome(0, "a: 1\nb: 3\n"), &reasons, "");
        assert_eq!(verdict.tally, Tally { passed: 1, failed: 0, skipped: 1 });
        let verdict = Verdict::new(&outcome(0, "a: 1\nb: 2\n"), &outcome(0, "a: 9\nb: 3\n"), &reasons, "");
        assert_eq!(verdict.tally, Tally { passed: 0, failed: 1, skipped: 1 });
    }

    #[test]
    fn a_known_check_that_agrees_is_a_failure() {
        let verdict =
            Verdict::new(&outcome(0, "b: 2\n"), &outcome(0, "b: 2\n"), &Reasons::from([("b", "why")]), "");
        assert_eq!(verdict.tally.failed, 1);
    }

    #[test]
    fn a_pattern_takes_every_check_it_means_but_must_differ() {
        let (host, guest) = (outcome(0, "a.x: 1\na.y: 2\nc: 3\n"), outcome(0, "a.x: 7\na.y: 2\nc: 3\n"));
        let verdict = Verdict::new(&host, &guest, &Reasons::from([("a.*", "why")]), "");
        assert_eq!(verdict.tally, Tally { passed: 2, failed: 0, skipped: 1 });
        let reasons = Reasons::from([("a.*", "why"), ("c", "why"), ("gone", "why")]);
        assert_eq!(
            Verdict::new(&host, &guest, &reasons, "").tally,
            Tally { passed: 2, failed: 2, skipped: 1 }
        );
    }

    #[test]
    fn a_known_end_hides_neither_lines_nor_an_end_that_agrees() {
        let reasons = Reasons::from([("(end)", "hangs"), ("b", "hangs")]);
        let host = outcome(0, "a: 1\nb: 2\n");
        let hung = Outcome { code: None, stdout: b"a: 1\n".to_vec() };
        assert_eq!(
            Verdict::new(&host, &hung, &reasons, "").tally,
            Tally { passed: 1, failed: 0, skipped: 2 }
        );
        let hung = Outcome { code: None, stdout: Vec::new() };
        assert_eq!(
            Verdict::new(&host, &hung, &reasons, "").tally,
            Tally { passed: 0, failed: 1, skipped: 2 }
        );
        assert_eq!(
            Verdict::new(&host, &host, &reasons, "").tally,
            Tally { passed: 2, failed: 2, skipped: 0 }
        );
    }
}
