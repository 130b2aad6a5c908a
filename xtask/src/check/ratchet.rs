//! The unsafe ratchet: per crate, how often `unsafe`, `transmute`, `static mut` and other global state occur.
//!
//! The counts stand in `xtask/ratchet.toml` and may only fall. In the crates that the design names as the home of
//! `unsafe` they may also rise, but only by an explicit `cargo xtask check --update-ratchet`, so that the rise is a
//! line in somebody's review.

use crate::report::Table;
use crate::setup;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The crates that may hold `unsafe`; everywhere else it is forbidden by the compiler too.
const UNSAFE_HOMES: &[&str] = &["host", "platform-kvm", "platform-systrap"];

/// The types that make a `static` shared state rather than a constant.
const STATE_TYPES: &[&str] =
    &["Atomic", "Mutex", "RwLock", "OnceLock", "OnceCell", "LazyLock", "LazyCell", "Cell<"];

/// One crate's counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counts {
    #[serde(rename = "unsafe")]
    unsafe_code: usize,
    transmute: usize,
    static_mut: usize,
    global_state: usize,
}

impl Counts {
    fn named(self) -> [(&'static str, usize); 4] {
        [
            ("unsafe", self.unsafe_code),
            ("transmute", self.transmute),
            ("static mut", self.static_mut),
            ("global state", self.global_state),
        ]
    }

    fn add(&mut self, other: Self) {
        self.unsafe_code += other.unsafe_code;
        self.transmute += other.transmute;
        self.static_mut += other.static_mut;
        self.global_state += other.global_state;
    }
}

type PerCrate = BTreeMap<String, Counts>;

/// Compares today's counts with the file; prints what rose, and returns whether nothing did.
pub(super) fn check() -> Result<bool> {
    let (old, new) = (read()?, count_tree()?);
    let mut table = Table::new(["crate", "unsafe", "transmute", "static mut", "global state"]);
    let mut rises = Vec::new();
    let mut falls = false;
    for (name, counts) in &new {
        let allowed = old.get(name).copied().unwrap_or_default();
        for ((what, now), (_, limit)) in counts.named().into_iter().zip(allowed.named()) {
            if now > limit {
                rises.push(format!("{name}: {what} {limit} → {now}"));
            }
            falls |= now < limit;
        }
        table.row(std::iter::once(name.clone()).chain(counts.named().map(|(_, now)| now.to_string())));
    }
    print!("{table}");
    if !rises.is_empty() {
        for rise in &rises {
            println!("ROSE: {rise}");
        }
        println!(
            "Unsafe code and global state may only fall. Where the design allows them ({}), and for global state \
             with a good reason, run `cargo xtask check --update-ratchet` and let the reviewer see the line.",
            UNSAFE_HOMES.join(", ")
        );
        return Ok(false);
    }
    println!(
        "{}",
        if falls { "ok, and lower than recorded: run `cargo xtask check --update-ratchet`" } else { "ok" }
    );
    Ok(true)
}

/// Writes today's counts, unless unsafe code would rise outside its homes.
pub(super) fn update() -> Result<()> {
    let (old, new) = (read()?, count_tree()?);
    for (name, counts) in &new {
        let allowed = old.get(name).copied().unwrap_or_default();
        let rose = counts.unsafe_code > allowed.unsafe_code
            || counts.transmute > allowed.transmute
            || counts.static_mut > allowed.static_mut;
        if rose && !UNSAFE_HOMES.contains(&name.as_str()) {
            bail!("{name} may hold no unsafe code; it belongs into one of: {}", UNSAFE_HOMES.join(", "));
        }
    }
    let text = format!(
        "# Written by `cargo xtask check --update-ratchet`. These counts may only fall; see xtask/src/check/ratchet.rs.\n\n{}",
        toml::to_string(&new)?
    );
    std::fs::write(file(), text).with_context(|| format!("cannot write {}", file().display()))
}

fn file() -> PathBuf {
    setup::root().join("xtask/ratchet.toml")
}

fn read() -> Result<PerCrate> {
    let text = match std::fs::read_to_string(file()) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(PerCrate::new()),
        Err(error) => return Err(error).context("xtask/ratchet.toml"),
    };
    toml::from_str(&text).context("xtask/ratchet.toml")
}

/// Every member of the workspace, by its folder.
fn count_tree() -> Result<PerCrate> {
    let manifest = std::fs::read_to_string(setup::root().join("Cargo.toml")).context("Cargo.toml")?;
    let manifest: toml::Table = toml::from_str(&manifest).context("Cargo.toml")?;
    let members = manifest.get("workspace").and_then(|workspace| workspace.get("members")?.as_array());
    let mut all = PerCrate::new();
    for name in members.into_iter().flatten().filter_map(toml::Value::as_str) {
        let mut counts = Counts::default();
        count_dir(&setup::root().join(name), &mut counts)?;
        all.insert(name.to_owned(), counts);
    }
    Ok(all)
}

fn count_dir(dir: &Path, counts: &mut Counts) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                count_dir(&path, counts)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source =
                std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            counts.add(count(&source));
        }
    }
    Ok(())
}

/// Counts in one source file, comments and literals left out.
fn count(source: &str) -> Counts {
    let code = strip(source);
    let mut counts = Counts::default();
    let words: Vec<(usize, &str)> = words(&code);
    for (index, &(at, word)) in words.iter().enumerate() {
        match word {
            "unsafe" => counts.unsafe_code += 1,
            "transmute" | "transmute_copy" if is_path_or_call(&code[at + word.len()..]) => {
                counts.transmute += 1
            }
            "thread_local" => counts.global_state += 1,
            "static" if !code[..at].ends_with('\'') => {
                if words.get(index + 1).is_some_and(|&(_, next)| next == "mut") {
                    counts.static_mut += 1;
                } else if is_shared_state(&code[at..]) {
                    counts.global_state += 1;
                }
            }
            _ => {}
        }
    }
    counts
}

/// Whether a name is used as a function here, rather than being a field of that name.
fn is_path_or_call(after: &str) -> bool {
    after.starts_with('(') || after.starts_with("::")
}

/// Whether the `static` item that starts here has a type that can change.
fn is_shared_state(item: &str) -> bool {
    let end = item.find(['=', ';']).unwrap_or(item.len());
    let Some((_, kind)) = item[..end].split_once(':') else { return false };
    STATE_TYPES.iter().any(|state| kind.contains(state))
}

fn words(code: &str) -> Vec<(usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut start = None;
    for (at, c) in code.char_indices().chain(std::iter::once((code.len(), ' '))) {
        match (is_word(c), start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                found.push((from, &code[from..at]));
                start = None;
            }
            _ => {}
        }
    }
    found
}

/// The source with comments and string and character literals replaced by nothing that counts.
fn strip(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if c == '"' {
            string(rest)
        } else if let Some(length) = raw_string(rest) {
            if code.ends_with(|c: char| c.is_alphanumeric() || c == '_') { 0 } else { length }
        } else if c == '\'' {
            character(rest)
        } else {
            0
        };
        if skip > 0 {
            code.push(' ');
            rest = rest.get(skip..).unwrap_or("");
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    code
}

/// Block comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let tail = &text.as_bytes()[at..];
        if tail.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if tail.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// `r"…"`, `r#"…"#`, and the byte and C forms (whose prefix letter was passed over already).
fn raw_string(text: &str) -> Option<usize> {
    let after =
        text.strip_prefix('r').or_else(|| text.strip_prefix("br")).or_else(|| text.strip_prefix("cr"))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = body.find(&close).map_or(body.len(), |at| at + close.len());
    Some(text.len() - body.len() + end)
}

/// A character literal, or 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            chars.next();
            chars.find(|&(_, c)| c == '\'').map_or(0, |(at, _)| at + 1)
        }
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_counted_and_prose_is_not() {
        let source = r###"
            // unsafe in a comment
            /* static mut /* nested */ unsafe */
            const S: &'static str = "unsafe { \" transmute }";
            const R: &str = r#"unsafe " fn"#;
            const C: char = '\''; const Q: char = '"'; // unsafe
            unsafe fn f() {}
            unsafe impl Send for X {}
            fn g() { unsafe { core::mem::transmute::<u8, i8>(1) }; }
            static mut A: u8 = 0;
            static B: AtomicU64 = AtomicU64::new(0);
            static TABLE: [u8; 2] = [0; 2];
            thread_local! { static D: Cell<u8> = const { Cell::new(0) }; }
        "###;
        let expected = Counts { unsafe_code: 3, transmute: 1, static_mut: 1, global_state: 3 };
        assert_eq!(count(source), expected);
    }

    #[test]
    fn lifetimes_are_not_characters() {
        assert_eq!(
            strip("fn f<'a>(x: &'a str, c: char) { c == 'x' }"),
            "fn f<'a>(x: &'a str, c: char) { c ==   }"
        );
    }
}
