//! Logging: errors to standard error, everything to `--log`, as text or as the JSON lines that engines read.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, OnceLock};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::cli::{Global, LogFormat};
use crate::error::{Context, Result, complain};

static LOG: OnceLock<Log> = OnceLock::new();

#[derive(Debug)]
struct Log {
    file: Option<Mutex<File>>,
    format: LogFormat,
    /// Where `strace` lines go; standard error where it is not given.
    strace: Option<Mutex<File>>,
    level: Level,
}

/// Opens the logs and installs them for `tracing`.
pub fn start(global: &Global) -> Result<()> {
    let open = |path: &std::path::Path| {
        let file = File::options().create(true).append(true).open(path);
        file.context(format!("opening the log {}", path.display()))
    };
    let file = global.log.as_deref().map(open).transpose()?.map(Mutex::new);
    let strace = global.strace_log.as_deref().map(open).transpose()?.map(Mutex::new);
    let level = if global.debug { Level::DEBUG } else { Level::INFO };
    let log = Log { file, format: global.log_format, strace, level };
    // Called once, by `main`.
    let _ = LOG.set(log);
    let _ = tracing::subscriber::set_global_default(Writer);
    Ok(())
}

/// The descriptors that logging needs, for a child that closes all others.
pub fn descriptors() -> Vec<i32> {
    let number = |file: &Mutex<File>| file.lock().map(|f| f.as_raw_fd()).unwrap_or(-1);
    let own = LOG.get().into_iter().flat_map(|log| [&log.file, &log.strace]).flatten().map(number);
    own.chain([libc::STDERR_FILENO]).collect()
}

/// Reports the error that ends this process.
pub fn failure(message: &str) {
    complain(format_args!("quicksand: {message}"));
    if let Some(log) = LOG.get() {
        log.to_file("error", message);
    }
}

impl Log {
    fn to_file(&self, level: &str, message: &str) {
        let Some(file) = &self.file else { return };
        let time = rfc3339(std::time::SystemTime::now());
        let line = match self.format {
            LogFormat::Json => {
                let text = serde_json::Value::from(message);
                format!("{{\"msg\":{text},\"level\":\"{level}\",\"time\":\"{time}\"}}\n")
            }
            LogFormat::Text => format!("time=\"{time}\" level={level} msg={message:?}\n"),
        };
        write_line(file, &line);
    }
}

fn write_line(file: &Mutex<File>, line: &str) {
    let mut file = match file.lock() {
        Ok(file) => file,
        Err(poisoned) => poisoned.into_inner(),
    };
    // A full disk must not take the sandbox down.
    let _ = file.write_all(line.as_bytes());
}

/// Writes events as lines. Spans are not used here, so they cost nothing.
struct Writer;

impl Subscriber for Writer {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        LOG.get().is_some_and(|log| *metadata.level() <= log.level) || metadata.target() == "strace"
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let Some(log) = LOG.get() else { return };
        let mut message = Message(String::new());
        event.record(&mut message);
        let Message(text) = message;
        if event.metadata().target() == "strace" {
            match &log.strace {
                Some(file) => write_line(file, &(text + "\n")),
                None => complain(format_args!("{text}")),
            }
            return;
        }
        let level = *event.metadata().level();
        let name = match level {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        log.to_file(name, &text);
        // A log that nobody asked for stays quiet but for what a person must know.
        if log.file.is_none() && (level <= Level::ERROR || log.level >= Level::DEBUG) {
            complain(format_args!("quicksand: {name}: {text}"));
        }
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let separator = if self.0.is_empty() { "" } else { " " };
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{separator}{value:?}"),
            name => write!(self.0, "{separator}{name}={value:?}"),
        };
    }
}

/// `2026-01-31T12:00:00.123456789Z`.
pub fn rfc3339(time: std::time::SystemTime) -> String {
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86400, since.as_secs() % 86400);
    // Civil date from days since 1970, with years that begin in March so that leap days come last.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:09}Z", since.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn times_are_civil_dates() {
        let at = |s| rfc3339(UNIX_EPOCH + Duration::from_secs(s));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(at(4_102_444_799), "2099-12-31T23:59:59.000000000Z");
    }
}
