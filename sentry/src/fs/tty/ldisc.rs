//! The line discipline N_TTY: what happens to bytes between a terminal's two ends (`termios(3)`, Linux's `n_tty.c`).
//!
//! Pure state: bytes and settings in, bytes and effects out. [`LineDiscipline`] knows no file, no task and no lock, so a
//! record of it is its fields. Echo and output go through output processing into `output`, which the master reads; input that a reader
//! may have is in `lines` (canonical) or `raw`.
//!
//! Invariants: `raw` is empty in canonical mode, `lines` and `edit` are empty otherwise. Buffers never exceed
//! [`INPUT_MAX`] and [`OUTPUT_MAX`]; what does not fit is dropped on input (Linux rings the bell) and refused on output.

use std::collections::VecDeque;

use quicksand_abi::tty::{self, Termios, cc};

use crate::syscalls::WakeReason;
use crate::task::CurrentTask;
use crate::vfs::{OpenFile, ReadTimer};

/// N_TTY_BUF_SIZE.
pub(super) const INPUT_MAX: usize = 4096;
/// What a pty holds for its reader.
pub(super) const OUTPUT_MAX: usize = 16 * 1024;

/// What processing input asks of the terminal beyond bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    /// A signal for the foreground process group.
    pub signal: Option<i32>,
    /// Queues were flushed by a signal character (TIOCPKT_FLUSHREAD and WRITE).
    pub flushed: bool,
    /// Output was stopped or started (TIOCPKT_STOP, TIOCPKT_START).
    pub stopped: Option<bool>,
}

/// A line that was completed, by its end (which is part of it) or by VEOF (which is not: an empty one is the end of
/// file).
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub bytes: VecDeque<u8>,
}

/// What a reader in non-canonical mode is content with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fs) enum Hurry {
    /// It waits for VMIN bytes.
    None,
    /// It takes whatever there is: it does not wait, or a signal has come.
    Some,
    /// Its time is over: nothing will do too.
    Over,
}

impl Hurry {
    /// As the call that is being served stands.
    pub(in crate::fs) fn of(task: &CurrentTask, file: &OpenFile) -> Hurry {
        match task.wake_reason() {
            WakeReason::Timeout => Hurry::Over,
            WakeReason::Interrupted => Hurry::Some,
            _ if file.is_nonblocking() => Hurry::Some,
            _ => Hurry::None,
        }
    }
    /// How many bytes must be there for a reader of `max`: who wants less than VMIN is served once it can have all it
    /// wants.
    pub(in crate::fs) fn enough(self, min: usize, max: usize) -> usize {
        match self {
            Hurry::None => min.min(max).max(1),
            Hurry::Some => 1,
            Hurry::Over => 0,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct LineDiscipline {
    pub(super) termios: Termios,
    pub(super) lines: VecDeque<Line>,
    pub(super) edit: Vec<u8>,
    pub(super) raw: VecDeque<u8>,
    /// VLNEXT was typed: the next byte is taken literally.
    pub(super) literal: bool,
    /// For the master to read.
    pub output: VecDeque<u8>,
    pub(super) column: usize,
    /// Output is stopped by VSTOP or `tcflow`.
    pub stopped: bool,
}

impl LineDiscipline {
    pub(super) fn new() -> LineDiscipline {
        LineDiscipline {
            termios: Termios::STANDARD,
            lines: VecDeque::new(),
            edit: Vec::new(),
            raw: VecDeque::new(),
            literal: false,
            output: VecDeque::new(),
            column: 0,
            stopped: false,
        }
    }

    pub(super) fn termios(&self) -> Termios {
        self.termios
    }

    pub(super) fn set_termios(&mut self, termios: Termios) {
        let was = self.canonical();
        self.termios = termios;
        let now = self.canonical();
        if was && !now {
            // Everything typed so far can be read at once.
            for line in self.lines.drain(..) {
                self.raw.extend(line.bytes);
            }
            self.raw.extend(self.edit.drain(..));
        } else if !was && now {
            // What nobody has read becomes the beginning of the line being edited.
            self.edit.extend(self.raw.drain(..));
        }
        if !self.iflag(tty::IXON) {
            self.stopped = false;
        }
    }

    pub(super) fn canonical(&self) -> bool {
        self.lflag(tty::ICANON)
    }
    fn iflag(&self, flag: u32) -> bool {
        self.termios.iflag & flag != 0
    }
    fn oflag(&self, flag: u32) -> bool {
        self.termios.oflag & flag != 0
    }
    fn lflag(&self, flag: u32) -> bool {
        self.termios.lflag & flag != 0
    }
    /// Whether `byte` is the control character at `index`; zero disables one.
    fn is_cc(&self, byte: u8, index: usize) -> bool {
        byte != 0 && self.termios.cc[index] == byte
    }

    // Input: from the master to readers of the slave.

    /// How many more bytes `receive` may be given now. In canonical mode there is always room for one: a full line still
    /// takes its end.
    pub(super) fn room(&self) -> usize {
        let used = self.buffered();
        if self.canonical() { INPUT_MAX.saturating_sub(used).max(1) } else { INPUT_MAX.saturating_sub(used) }
    }

    pub(super) fn buffered(&self) -> usize {
        self.raw.len() + self.edit.len() + self.lines.iter().map(|l| l.bytes.len() + 1).sum::<usize>()
    }

    /// One byte typed.
    pub(super) fn receive(&mut self, byte: u8) -> Effects {
        let mut effects = Effects::default();
        let mut byte = if self.iflag(tty::ISTRIP) { byte & 0x7f } else { byte };
        if self.iflag(tty::IUCLC) && self.lflag(tty::IEXTEN) {
            byte = byte.to_ascii_lowercase();
        }
        if std::mem::take(&mut self.literal) {
            self.take_in(byte);
            return effects;
        }
        if self.iflag(tty::IXON) {
            if self.is_cc(byte, cc::VSTART) {
                self.stopped = false;
                effects.stopped = Some(false);
                return effects;
            }
            if self.is_cc(byte, cc::VSTOP) {
                self.stopped = true;
                effects.stopped = Some(true);
                return effects;
            }
        }
        if self.stopped && self.iflag(tty::IXON) && self.iflag(tty::IXANY) {
            self.stopped = false;
            effects.stopped = Some(false);
        }
        if self.lflag(tty::ISIG) {
            let signals = [(cc::VINTR, libc::SIGINT), (cc::VQUIT, libc::SIGQUIT), (cc::VSUSP, libc::SIGTSTP)];
            for (index, signal) in signals {
                if self.is_cc(byte, index) {
                    if !self.lflag(tty::NOFLSH) {
                        self.flush_input();
                        self.output.clear();
                        effects.flushed = true;
                    }
                    self.echo(byte);
                    effects.signal = Some(signal);
                    return effects;
                }
            }
        }
        match byte {
            b'\r' if self.iflag(tty::IGNCR) => return effects,
            b'\r' if self.iflag(tty::ICRNL) => byte = b'\n',
            b'\n' if self.iflag(tty::INLCR) => byte = b'\r',
            _ => {}
        }
        if self.canonical() {
            self.edit_line(byte);
        } else {
            self.echo(byte);
            if self.raw.len() < INPUT_MAX {
                self.raw.push_back(byte);
            }
        }
        effects
    }

    fn edit_line(&mut self, byte: u8) {
        let extended = self.lflag(tty::IEXTEN);
        if self.is_cc(byte, cc::VERASE) {
            self.erase_char();
        } else if extended && self.is_cc(byte, cc::VWERASE) {
            self.erase_word();
        } else if self.is_cc(byte, cc::VKILL) {
            self.kill_line();
        } else if extended && self.is_cc(byte, cc::VLNEXT) {
            self.literal = true;
            if self.lflag(tty::ECHO) && self.lflag(tty::ECHOCTL) {
                self.put_raw(b"^\x08");
            }
        } else if extended && self.lflag(tty::ECHO) && self.is_cc(byte, cc::VREPRINT) {
            self.echo(byte);
            self.put_output_byte(b'\n');
            for b in self.edit.clone() {
                self.echo(b);
            }
        } else if byte == b'\n' {
            if self.lflag(tty::ECHO) || self.lflag(tty::ECHONL) {
                self.put_output_byte(b'\n');
            }
            self.end_line(Some(byte));
        } else if self.is_cc(byte, cc::VEOF) {
            self.end_line(None);
        } else if self.is_cc(byte, cc::VEOL) || (extended && self.is_cc(byte, cc::VEOL2)) {
            self.echo(byte);
            self.end_line(Some(byte));
        } else {
            self.take_in(byte);
        }
    }

    /// An ordinary byte of input.
    fn take_in(&mut self, byte: u8) {
        if !self.canonical() {
            self.echo(byte);
            if self.raw.len() < INPUT_MAX {
                self.raw.push_back(byte);
            }
        } else if self.buffered() < INPUT_MAX - 1 {
            self.echo(byte);
            self.edit.push(byte);
        } else if self.iflag(tty::IMAXBEL) {
            self.put_raw(b"\x07");
        }
    }

    fn end_line(&mut self, end: Option<u8>) {
        let mut bytes: VecDeque<u8> = std::mem::take(&mut self.edit).into();
        bytes.extend(end);
        self.lines.push_back(Line { bytes });
    }

    /// The columns that the echo of `byte` took.
    fn echo_width(&self, byte: u8) -> usize {
        match byte {
            b'\t' => 1,
            0..=0x1f | 0x7f if self.lflag(tty::ECHOCTL) => 2,
            0..=0x1f | 0x7f => 0,
            _ => 1,
        }
    }

    fn erase_char(&mut self) {
        // With IUTF8 a whole multi-byte character goes: its continuation bytes first.
        let mut erased = None;
        while let Some(b) = self.edit.pop() {
            erased = Some(b);
            if !(self.iflag(tty::IUTF8) && b & 0xc0 == 0x80) {
                break;
            }
        }
        let Some(byte) = erased else { return };
        self.echo_erase(byte, cc::VERASE);
    }

    fn echo_erase(&mut self, byte: u8, index: usize) {
        if !self.lflag(tty::ECHO) {
            return;
        }
        if self.lflag(tty::ECHOE) {
            for _ in 0..self.echo_width(byte) {
                self.put_raw(b"\x08 \x08");
            }
        } else {
            self.echo(self.termios.cc[index]);
        }
    }

    fn erase_word(&mut self) {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80;
        let mut seen_word = false;
        while let Some(&b) = self.edit.last() {
            if word(b) {
                seen_word = true;
            } else if seen_word {
                break;
            }
            self.edit.pop();
            if !(self.iflag(tty::IUTF8) && b & 0xc0 == 0x80) {
                self.echo_erase(b, cc::VWERASE);
            }
        }
    }

    fn kill_line(&mut self) {
        let line = std::mem::take(&mut self.edit);
        if !self.lflag(tty::ECHO) {
            return;
        }
        if self.lflag(tty::ECHOKE) && self.lflag(tty::ECHOK) && self.lflag(tty::ECHOE) {
            for b in line.into_iter().rev() {
                if !(self.iflag(tty::IUTF8) && b & 0xc0 == 0x80) {
                    self.echo_erase(b, cc::VKILL);
                }
            }
        } else {
            self.echo(self.termios.cc[cc::VKILL]);
            if self.lflag(tty::ECHOK) {
                self.put_output_byte(b'\n');
            }
        }
    }

    fn echo(&mut self, byte: u8) {
        if !self.lflag(tty::ECHO) {
            return;
        }
        match byte {
            b'\t' | b'\n' => self.put_output_byte(byte),
            0..=0x1f | 0x7f if self.lflag(tty::ECHOCTL) => self.put_raw(&[b'^', byte ^ 0x40]),
            _ => self.put_output_byte(byte),
        }
    }

    // Reading.

    /// Whether a reader would get something (or the end of file).
    pub(super) fn readable(&self) -> bool {
        if self.canonical() {
            !self.lines.is_empty()
        } else {
            // With VTIME the first byte ends the wait (`input_available_p`).
            let min = if self.time() == 0 { self.min() } else { 1 };
            self.raw.len() >= min.max(1)
        }
    }

    fn min(&self) -> usize {
        usize::from(self.termios.cc[cc::VMIN])
    }
    /// VTIME, in tenths of a second.
    fn time(&self) -> u8 {
        self.termios.cc[cc::VTIME]
    }

    /// In non-canonical mode: what a read waits for besides VMIN bytes.
    pub(super) fn read_timer(&self) -> Option<ReadTimer> {
        let timer = || ReadTimer::new(self.termios.cc[cc::VMIN], self.time(), self.raw.len() as u64);
        (!self.canonical()).then(timer)
    }

    /// Bytes that FIONREAD reports.
    pub(super) fn input_len(&self) -> usize {
        if self.canonical() { self.lines.iter().map(|l| l.bytes.len()).sum() } else { self.raw.len() }
    }

    /// Takes up to `max` bytes. `None`: nothing yet. An empty result is the end of file. In non-canonical mode `hurry`
    /// says how long the reader has waited already.
    pub(super) fn read(&mut self, max: usize, hurry: Hurry) -> Option<Vec<u8>> {
        if !self.canonical() {
            let over = self.min() == 0 && self.time() == 0;
            if self.raw.len() < hurry.enough(self.min(), max) && !over {
                return None;
            }
            let n = self.raw.len().min(max);
            return Some(self.raw.drain(..n).collect());
        }
        let line = self.lines.front_mut()?;
        let n = line.bytes.len().min(max);
        let bytes: Vec<u8> = line.bytes.drain(..n).collect();
        // A line read to its end is gone; one that VEOF ended while empty reads as the end of file, once.
        if line.bytes.is_empty() && max > 0 {
            self.lines.pop_front();
        }
        Some(bytes)
    }

    pub(super) fn flush_input(&mut self) {
        self.lines.clear();
        self.edit.clear();
        self.raw.clear();
        self.literal = false;
    }

    // Output: from writers of the slave to the master.

    /// Whether a writer may write now.
    pub(super) fn writable(&self) -> bool {
        !self.stopped && self.output.len() < OUTPUT_MAX - 256
    }

    /// Writes as much as fits; returns how much of `bytes` was taken.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        for (i, b) in bytes.iter().enumerate() {
            // One byte becomes at most eight (a tab).
            if self.stopped || self.output.len() + 8 > OUTPUT_MAX {
                return i;
            }
            self.put_output_byte(*b);
        }
        bytes.len()
    }

    /// With output processing (OPOST).
    fn put_output_byte(&mut self, byte: u8) {
        if !self.oflag(tty::OPOST) {
            self.put_raw(&[byte]);
            return;
        }
        match byte {
            b'\n' => {
                if self.oflag(tty::ONLCR) {
                    self.put_raw(b"\r\n");
                } else {
                    self.put_raw(b"\n");
                }
                if self.oflag(tty::ONLCR) || self.oflag(tty::ONLRET) {
                    self.column = 0;
                }
            }
            b'\r' if self.oflag(tty::ONOCR) && self.column == 0 => {}
            b'\r' if self.oflag(tty::OCRNL) => {
                self.put_raw(b"\n");
                if self.oflag(tty::ONLRET) {
                    self.column = 0;
                }
            }
            b'\r' => {
                self.put_raw(b"\r");
                self.column = 0;
            }
            b'\t' => {
                let spaces = 8 - self.column % 8;
                if self.termios.oflag & tty::XTABS == tty::XTABS {
                    self.put_raw(&b"        "[..spaces]);
                } else {
                    self.put_raw(b"\t");
                }
                self.column = self.column.wrapping_add(spaces);
            }
            8 => {
                self.put_raw(b"\x08");
                self.column = self.column.saturating_sub(1);
            }
            _ => {
                let shown = if self.oflag(tty::OLCUC) { byte.to_ascii_uppercase() } else { byte };
                self.put_raw(&[shown]);
                if byte >= 0x20 && byte & 0xc0 != 0x80 {
                    self.column = self.column.wrapping_add(1);
                }
            }
        }
    }

    fn put_raw(&mut self, bytes: &[u8]) {
        // Echo that does not fit is lost, as Linux's echo buffer loses its oldest.
        if self.output.len() + bytes.len() <= OUTPUT_MAX {
            self.output.extend(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_in(l: &mut LineDiscipline, s: &[u8]) -> Vec<Option<i32>> {
        s.iter().map(|b| l.receive(*b).signal).collect()
    }
    fn out(l: &mut LineDiscipline) -> Vec<u8> {
        l.output.drain(..).collect()
    }

    #[test]
    fn a_line_is_edited_and_echoed() {
        let mut l = LineDiscipline::new();
        type_in(&mut l, b"heyy\x7f\r");
        assert_eq!(l.read(100, Hurry::None), Some(b"hey\n".to_vec()));
        assert_eq!(out(&mut l), b"heyy\x08 \x08\r\n");
        assert_eq!(l.read(100, Hurry::None), None);
    }

    #[test]
    fn eof_alone_reads_as_nothing_once() {
        let mut l = LineDiscipline::new();
        type_in(&mut l, b"\x04ab\x04");
        assert_eq!(l.read(10, Hurry::None), Some(vec![]));
        assert_eq!(l.read(10, Hurry::None), Some(b"ab".to_vec()));
        assert_eq!(l.read(10, Hurry::None), None);
    }

    #[test]
    fn a_long_line_is_read_in_pieces() {
        let mut l = LineDiscipline::new();
        type_in(&mut l, b"abcdef\nx\n");
        assert_eq!(l.read(4, Hurry::None), Some(b"abcd".to_vec()));
        assert_eq!(l.read(4, Hurry::None), Some(b"ef\n".to_vec()));
        assert_eq!(l.read(4, Hurry::None), Some(b"x\n".to_vec()));
    }

    #[test]
    fn interrupt_flushes_and_signals() {
        let mut l = LineDiscipline::new();
        assert_eq!(type_in(&mut l, b"ab\x03").last(), Some(&Some(libc::SIGINT)));
        type_in(&mut l, b"c\n");
        assert_eq!(l.read(10, Hurry::None), Some(b"c\n".to_vec()));
    }

    #[test]
    fn raw_mode_gives_bytes_at_once_and_switching_keeps_them() {
        let mut l = LineDiscipline::new();
        type_in(&mut l, b"ab");
        let mut t = l.termios();
        t.lflag &= !(tty::ICANON | tty::ECHO);
        l.set_termios(t);
        type_in(&mut l, b"c\r");
        assert_eq!(l.read(10, Hurry::None), Some(b"abc\n".to_vec()));
        t.cc[cc::VMIN] = 3;
        l.set_termios(t);
        type_in(&mut l, b"xy");
        assert!(!l.readable());
        assert_eq!(l.read(10, Hurry::None), None);
        assert_eq!(l.read(2, Hurry::None), Some(b"xy".to_vec()));
        type_in(&mut l, b"z");
        assert_eq!(l.read_timer(), Some(ReadTimer { after: None, seen: 1 }));
        assert_eq!(l.read(10, Hurry::Some), Some(b"z".to_vec()));
        assert_eq!(l.read(10, Hurry::Some), None);
        assert_eq!(l.read(10, Hurry::Over), Some(vec![]));
    }

    #[test]
    fn control_characters_echo_with_a_caret() {
        let mut l = LineDiscipline::new();
        type_in(&mut l, b"\x01\x16\x03\x15");
        assert_eq!(out(&mut l), b"^A^\x08^C\x08 \x08\x08 \x08\x08 \x08\x08 \x08");
    }

    #[test]
    fn input_is_bounded() {
        let mut l = LineDiscipline::new();
        for _ in 0..10_000 {
            l.receive(b'a');
            l.output.clear();
        }
        l.receive(b'\n');
        assert_eq!(l.read(10_000, Hurry::None).map(|v| v.len()), Some(INPUT_MAX));
    }
}
