//! What a restore took: time by stage, objects made, pages of the image touched and copied. As a table, and as JSON.
//!
//! Times and objects are told by the sandbox. Pages are counted here, from what the host says of the memory of its processes:
//! a page is *touched* when it is in a process's page tables (the host maps some around each that is used), and *copied* when
//! it is no longer the image's.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use serde::{Deserialize, Serialize};

use crate::cli::ListFormat;
use crate::error::{Context, Result};

/// One stage and how long it took.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    pub name: String,
    pub us: u64,
}

/// Records of one kind.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Objects {
    pub kind: String,
    pub materialised: u64,
    pub total: u64,
}

/// Pages of the image, each process's own counted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pages {
    pub total: u64,
    pub touched: u64,
    pub copied: u64,
}

/// What a restore took so far.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The image's id.
    pub image: String,
    pub stages: Vec<Stage>,
    /// Since the command was started: all of it until the threads were started, the first instruction of the guest, its first
    /// output, and the first response as far as somebody has told.
    pub started_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_instruction_us: Option<u64>,
    /// To a standard stream or an internet socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_output_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_response_us: Option<u64>,
    pub objects: Vec<Objects>,
    /// The digests of the image's page layers, and how many pages its extents have.
    pub layers: Vec<String>,
    pub image_pages: u64,
    /// `None` where nothing can be counted (any more).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages: Option<Pages>,
}

impl Report {
    /// Counts the pages of the sandbox whose first process is `pid`.
    pub fn count_pages(&mut self, pid: i32) {
        let mut pages = Pages { total: self.image_pages, ..Pages::default() };
        let mut readable = false;
        for pid in family(pid) {
            if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps")) {
                readable |= !text.is_empty();
                self.add_pages(&text, &mut pages);
            }
        }
        self.pages = readable.then_some(pages);
    }

    fn add_pages(&self, smaps: &str, pages: &mut Pages) {
        const PAGE_KIB: u64 = 4;
        let mut of_image = false;
        for line in smaps.lines() {
            let mut words = line.split_ascii_whitespace();
            let Some(first) = words.next() else { continue };
            if !first.ends_with(':') {
                // `START-END perms offset device inode path`
                let name = words.nth(4).and_then(|path| path.rsplit('/').next()).unwrap_or_default();
                of_image = self.layers.iter().any(|layer| layer == name);
                continue;
            }
            let counter = match first {
                "Rss:" => &mut pages.touched,
                "Anonymous:" => &mut pages.copied,
                _ => continue,
            };
            if of_image {
                *counter += words.next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / PAGE_KIB;
            }
        }
    }

    /// The sum of all kinds: materialised, total.
    pub fn object_sum(&self) -> (u64, u64) {
        let sum = |of: fn(&Objects) -> u64| self.objects.iter().map(of).fold(0, u64::saturating_add);
        (sum(|kind| kind.materialised), sum(|kind| kind.total))
    }

    /// As lines, or as one JSON document.
    pub fn show(&self, format: ListFormat) -> Result<String> {
        if format == ListFormat::Json {
            return serde_json::to_string_pretty(self).context("the statistics");
        }
        let mut text = String::new();
        let ms = |us: u64| format!("{}.{:02}", us / 1000, us % 1000 / 10);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:<26} {:>10}", "STAGE", "MS");
        for stage in &self.stages {
            let _ = writeln!(text, "{:<26} {:>10}", stage.name, ms(stage.us));
        }
        let moments = [
            ("started", Some(self.started_us)),
            ("first instruction", self.first_instruction_us),
            ("first output", self.first_output_us),
            ("first response", self.first_response_us),
        ];
        let _ = writeln!(text, "\n{:<26} {:>10}", "SINCE THE COMMAND", "MS");
        for (name, us) in moments {
            let _ = writeln!(text, "{name:<26} {:>10}", us.map_or("-".into(), ms));
        }
        let _ = writeln!(text, "\n{:<26} {:>10} {:>10}", "OBJECTS", "MADE", "TOTAL");
        for kind in &self.objects {
            let _ = writeln!(text, "{:<26} {:>10} {:>10}", kind.kind, kind.materialised, kind.total);
        }
        let (made, total) = self.object_sum();
        let _ = writeln!(text, "{:<26} {made:>10} {total:>10}", "all");
        if let Some(pages) = self.pages {
            let _ = writeln!(text, "\n{:<26} {:>10} {:>10}", "PAGES OF THE IMAGE", "", "TOTAL");
            for (name, count) in [("touched", pages.touched), ("copied", pages.copied)] {
                let _ = writeln!(text, "{name:<26} {count:>10} {:>10}", pages.total);
            }
        }
        Ok(text.trim_end().to_owned())
    }
}

/// A process and all that descend from it.
pub fn family(first: i32) -> BTreeSet<i32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if let Some(parent) = crate::state::parent(pid) {
            parents.push((pid, parent));
        }
    }
    let mut family = BTreeSet::from([first]);
    loop {
        let before = family.len();
        family.extend(
            parents
                .iter()
                .filter(|(_, parent)| family.contains(parent))
                .map(|(pid, _)| *pid)
                .collect::<Vec<_>>(),
        );
        if family.len() == before {
            return family;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            image: "blake3:00".into(),
            stages: vec![Stage { name: "memory".into(), us: 1234 }],
            started_us: 5000,
            first_instruction_us: Some(5100),
            first_output_us: None,
            first_response_us: None,
            objects: vec![Objects { kind: "file".into(), materialised: 1, total: 17 }],
            layers: vec!["abcd".into()],
            image_pages: 9,
            pages: None,
        }
    }

    #[test]
    fn pages_of_the_image_are_told_from_others() {
        let smaps = "1000-3000 r--p 00000000 fd:01 7 /images/one/blobs/blake3/abcd\nRss:  8 kB\nAnonymous:  4 kB\n\
                     3000-4000 rw-p 00000000 00:00 0\nRss:  4 kB\nAnonymous:  4 kB\nVmFlags: rd wr\n";
        let mut pages = Pages::default();
        report().add_pages(smaps, &mut pages);
        assert_eq!((pages.touched, pages.copied), (2, 1));
    }

    #[test]
    fn a_table_and_json_say_the_same() {
        let report = report();
        let table = report.show(ListFormat::Table).unwrap();
        assert!(table.contains("memory") && table.contains("1.23") && table.contains("17"), "{table}");
        let json: Report = serde_json::from_str(&report.show(ListFormat::Json).unwrap()).unwrap();
        assert_eq!(json.object_sum(), (1, 17));
    }
}
