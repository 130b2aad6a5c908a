//! What a benchmark found: as a table, as JSON, and as a page with a chart in `docs/bench/`.

use super::chart::{self, Bar, Group};
use super::runners::Runner;
use super::stats::{Spread, pretty};
use crate::report::Table;
use crate::setup;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// One figure of one runner.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    what: String,
    runner: String,
    unit: &'static str,
    #[serde(flatten)]
    spread: Spread,
}

impl Figure {
    pub(super) fn new(what: &str, runner: &str, unit: &'static str, spread: Spread) -> Self {
        Self { what: what.to_owned(), runner: runner.to_owned(), unit, spread }
    }
}

/// A ratio of two medians of this run, with the limit promised for it.
#[derive(Debug, Serialize)]
struct Ratio {
    what: String,
    text: String,
    value: f64,
    limit: Option<f64>,
    held: Option<bool>,
}

/// Everything one run found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    name: &'static str,
    title: &'static str,
    machine: String,
    versions: Vec<String>,
    runners: Vec<String>,
    pub(super) figures: Vec<Figure>,
    ratios: Vec<Ratio>,
    /// What could not be measured, and why.
    pub(super) problems: Vec<String>,
}

impl Report {
    pub(super) fn new(
        name: &'static str,
        title: &'static str,
        runners: &[Runner],
        problems: Vec<String>,
    ) -> Self {
        Self {
            name,
            title,
            machine: machine(),
            versions: runners.iter().map(Runner::version).filter(|version| !version.is_empty()).collect(),
            runners: runners.iter().map(|runner| runner.name.clone()).collect(),
            figures: Vec::new(),
            ratios: Vec::new(),
            problems,
        }
    }

    /// Adds the ratio of two runners' medians, when both were measured.
    pub(super) fn compare(&mut self, what: &str, ours: &str, theirs: &str, limit: Option<f64>) {
        let (Some(a), Some(b)) = (self.median(what, ours), self.median(what, theirs)) else { return };
        let value = a / b;
        self.ratios.push(Ratio {
            what: what.to_owned(),
            text: format!("{what}: {ours} takes {} × {theirs}", ratio(value)),
            value,
            limit,
            held: limit.map(|limit| value <= limit),
        });
    }

    /// Adds the ratio of two figures of one runner.
    pub(super) fn compare_whats(&mut self, what: &str, other: &str, runner: &str, limit: Option<f64>) {
        let (Some(a), Some(b)) = (self.median(what, runner), self.median(other, runner)) else { return };
        let value = a / b;
        self.ratios.push(Ratio {
            what: what.to_owned(),
            text: format!("{runner}: {what} takes {} × {other}", ratio(value)),
            value,
            limit,
            held: limit.map(|limit| value <= limit),
        });
    }

    /// Adds a figure that has an absolute limit.
    pub(super) fn limit(&mut self, what: &str, ours: &str, limit: f64, unit: &str) {
        let Some(value) = self.median(what, ours) else { return };
        let text = format!("{what}: {ours} has {} {unit}", pretty(value));
        self.ratios.push(Ratio {
            what: what.to_owned(),
            text,
            value,
            limit: Some(limit),
            held: Some(value <= limit),
        });
    }

    fn find(&self, what: &str, runner: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.what == what && figure.runner == runner)
    }

    fn median(&self, what: &str, runner: &str) -> Option<f64> {
        self.find(what, runner).map(|figure| figure.spread.median)
    }

    fn whats(&self) -> Vec<(&str, &'static str)> {
        let mut whats = Vec::new();
        for figure in &self.figures {
            if !whats.contains(&(figure.what.as_str(), figure.unit)) {
                whats.push((figure.what.as_str(), figure.unit));
            }
        }
        whats
    }

    fn cell(&self, what: &str, runner: &str) -> String {
        self.find(what, runner).map_or("-".to_owned(), |figure| {
            let Spread { median, p10, p90, .. } = figure.spread;
            format!("{} ({}–{})", pretty(median), pretty(p10), pretty(p90))
        })
    }

    /// Medians with the 10th and 90th percentile, a row per figure, a column per runner.
    pub(super) fn table(&self) -> Table {
        let head = ["", "unit"].into_iter().chain(self.runners.iter().map(String::as_str));
        let mut table = Table::with_head(head);
        for (what, unit) in self.whats() {
            let cells = self.runners.iter().map(|runner| self.cell(what, runner));
            table.row([what.to_owned(), unit.to_owned()].into_iter().chain(cells));
        }
        table
    }

    /// The ratios, each with whether its limit held.
    pub(super) fn ratios(&self) -> Vec<String> {
        let limit = |ratio: &Ratio| match (ratio.limit, ratio.held) {
            (Some(limit), Some(held)) => {
                format!(
                    " (limit {}: {})",
                    (limit * 1e4).round() / 1e4,
                    if held { "held" } else { "NOT HELD" }
                )
            }
            _ => String::new(),
        };
        self.ratios.iter().map(|ratio| format!("{}{}", ratio.text, limit(ratio))).collect()
    }

    pub(super) fn write_json(&self, file: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Writes `NAME.md`, `NAME.json` and `NAME.svg` to `docs/bench/`.
    pub(super) fn record(&self) -> Result<()> {
        let dir = setup::root().join("docs/bench");
        fs::create_dir_all(&dir)?;
        self.write_json(&dir.join(format!("{}.json", self.name)))?;
        fs::write(dir.join(format!("{}.svg", self.name)), self.chart())?;
        fs::write(dir.join(format!("{}.md", self.name)), self.page())?;
        println!("recorded in docs/bench/{}.{{md,json,svg}}", self.name);
        Ok(())
    }

    fn chart(&self) -> String {
        let groups: Vec<Group> = self
            .whats()
            .into_iter()
            .map(|(what, unit)| Group {
                name: format!("{what} ({unit})"),
                bars: self
                    .runners
                    .iter()
                    .filter_map(|runner| self.find(what, runner))
                    .map(|figure| Bar { series: figure.runner.clone(), spread: figure.spread })
                    .collect(),
            })
            .collect();
        chart::svg(self.title, &groups)
    }

    fn page(&self) -> String {
        let mut page = format!("# {}\n\n", self.title);
        let _infallible = writeln!(
            page,
            "Written by `cargo xtask bench {} --with-peers --record`. Medians with the 10th and 90th percentile; all runners took turns \
             in one run.\n\nMachine: {}. {}\n\n![chart]({}.svg)\n",
            self.name,
            self.machine,
            self.versions.join("; "),
            self.name
        );
        let columns = self.runners.join(" | ");
        let _infallible =
            writeln!(page, "| | unit | {columns} |\n|---|---|{}", "---|".repeat(self.runners.len()));
        for (what, unit) in self.whats() {
            let cells: Vec<String> = self.runners.iter().map(|runner| self.cell(what, runner)).collect();
            let _infallible = writeln!(page, "| {what} | {unit} | {} |", cells.join(" | "));
        }
        page.push('\n');
        for line in self.ratios() {
            let _infallible = writeln!(page, "- {line}");
        }
        for problem in &self.problems {
            let _infallible = writeln!(page, "- not measured: {}", problem.lines().next().unwrap_or(""));
        }
        page
    }
}

/// As [`pretty`], with enough digits where a ratio is small.
fn ratio(value: f64) -> String {
    if value < 0.1 { format!("{value:.4}") } else { pretty(value) }
}

/// Processor, cores and kernel, as far as they explain figures.
fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let model = field("model name").unwrap_or_else(|| "unknown processor".to_owned());
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let hardware =
        field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "vmx" || flag == "svm"));
    let kvm = match (Path::new("/dev/kvm").exists(), hardware) {
        (false, _) => "no KVM",
        (true, true) => "KVM on hardware",
        (true, false) => "nested KVM without hardware virtualisation",
    };
    format!("{model}, {cores} processors, Linux {}, {kvm}", kernel.trim())
}
