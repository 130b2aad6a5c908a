//! A progress bar on standard error for work that takes longer than a second, where that is a terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use quicksand_checkpoint::OnProgress;

/// Shorter work shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shows how far `doing` is. A total of zero is not known.
pub fn bar(doing: &'static str) -> OnProgress<'static> {
    let begun = Instant::now();
    let mut bar: Option<ProgressBar> = None;
    Box::new(move |progress| {
        if bar.is_none() && begun.elapsed() < PATIENCE {
            return;
        }
        let bar = bar.get_or_insert_with(|| {
            let (bar, template) = match progress.total_bytes {
                0 => (ProgressBar::no_length(), "{msg} {spinner} {bytes} ({bytes_per_sec})"),
                total => {
                    (ProgressBar::new(total), "{msg} {bar:30} {bytes}/{total_bytes} ({bytes_per_sec}, {eta})")
                }
            };
            // Not a terminal: nothing is drawn. A template that is wrong would be ours.
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style);
            bar.set_message(doing);
            bar
        });
        bar.set_position(progress.done_bytes);
        if progress.total_bytes > 0 && progress.done_bytes >= progress.total_bytes {
            bar.finish_and_clear();
        }
    })
}
