//! How a difference between the host and the sandbox is shown.

use super::Outcome;
use std::fmt::Write;

/// The most lines of a difference that are shown.
const LINES: usize = 24;

/// `None` when both agree; else the first lines that differ, how each side ended, and what the sandbox said on stderr.
pub(super) fn outcomes(host: &Outcome, sandbox: &Outcome, stderr: &str) -> Option<String> {
    if host == sandbox {
        return None;
    }
    let mut text = String::new();
    if host.code != sandbox.code {
        let _infallible = writeln!(text, "  host: {}   sandbox: {}", ended(host.code), ended(sandbox.code));
    }
    if host.stdout != sandbox.stdout {
        text.push_str(&lines(
            &String::from_utf8_lossy(&host.stdout),
            &String::from_utf8_lossy(&sandbox.stdout),
        ));
    }
    let tail: Vec<&str> = stderr.lines().rev().take(8).collect();
    for line in tail.iter().rev() {
        let _infallible = writeln!(text, "  stderr: {line}");
    }
    Some(text)
}

fn ended(code: Option<i32>) -> String {
    code.map_or("did not end in time".to_owned(), |code| format!("exit {code}"))
}

/// The differing stretch, `-` the host's lines and `+` the sandbox's, after the shared lines at both ends are left out.
fn lines(host: &str, sandbox: &str) -> String {
    let (host, sandbox): (Vec<&str>, Vec<&str>) = (host.lines().collect(), sandbox.lines().collect());
    let shorter = host.len().min(sandbox.len());
    let head = host.iter().zip(&sandbox).take_while(|(a, b)| a == b).count();
    let tail =
        host.iter().rev().zip(sandbox.iter().rev()).take(shorter - head).take_while(|(a, b)| a == b).count();
    let mut text = String::new();
    if head > 0 {
        let _infallible = writeln!(text, "    {} ({head} lines agree up to here)", host[head - 1]);
    }
    for (sign, side) in [('-', &host), ('+', &sandbox)] {
        let differing = &side[head..side.len() - tail];
        for line in differing.iter().take(LINES) {
            let _infallible = writeln!(text, "  {sign} {line}");
        }
        if differing.len() > LINES {
            let _infallible = writeln!(text, "  {sign} … {} more lines", differing.len() - LINES);
        }
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
    fn only_what_differs_is_shown() {
        assert_eq!(outcomes(&outcome(0, "a\n"), &outcome(0, "a\n"), "noise"), None);
        let text = outcomes(&outcome(0, "a\nb\nc\n"), &outcome(1, "a\nx\nc\n"), "oops").unwrap();
        assert_eq!(
            text,
            "  host: exit 0   sandbox: exit 1\n    a (1 lines agree up to here)\n  - b\n  + x\n  stderr: oops\n"
        );
    }

    #[test]
    fn a_missing_end_is_shown() {
        assert_eq!(lines("a\nb\n", "a\n"), "    a (1 lines agree up to here)\n  - b\n");
        assert_eq!(lines("a\na\n", "a\n"), "    a (1 lines agree up to here)\n  - a\n");
    }
}
