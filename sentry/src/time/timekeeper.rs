//! Clocks by the processor's counter: what the vDSO computes in guest code, the Sentry computes by the same numbers.
//!
//! The host's clocks are the truth, and cost guest code an exit. So the time stamp counter is measured against
//! them now and then, and a line through the latest measurement is published: to system calls here, to guest
//! code through the vDSO's page ([`quicksand_vdso::ClockPage`]).
//!
//! No clock may ever go back, on any thread, whether read by guest code or by a system call. That is kept so:
//! - Both readers use one line. Its slope is the measured rate less the measurement's own uncertainty, so that it falls
//!   behind the host rather than run ahead: a correction is then a small step forward. It starts at the latest moment
//!   that the measurement allows, for the same reason.
//! - Where the line is ahead nevertheless (the host is slowing its own clock), it is continued at a lower slope, never set
//!   back.
//! - A new line begins one nanosecond above the old one, at a counter value read while both readers were held off. A
//!   reader that took the old line and a slightly later counter value is still not above the new line.
//! - Before the first line, and after the last (the counter turned out to be no clock), system calls read the host's
//!   clock, shifted so that it goes on from the line.
//!
//! There is no thread for this. Whoever reads a clock, leaves guest code or starts a program calls
//! [`Timekeeper::tick`], which compares the counter with the time when the line has to be drawn anew: when its error may
//! have grown to a microsecond. A program that computes for hours and only ever reads its clock in guest code
//! sees the error of one measurement, some parts per million.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering, fence};

use parking_lot::Mutex;
use quicksand_host::tsc;
use quicksand_vdso::{COARSE_TICK_NS, ClockPage, DATA_BYTES, IMAGE, MODE_ASK, MODE_TSC};
use rustix::time::ClockId;
use zerocopy::IntoBytes;

/// How large the memory of [`Timekeeper::vdso_memory`] is.
pub const VDSO_BYTES: u64 = DATA_BYTES + (IMAGE.len() as u64).next_multiple_of(4096);

/// No line is drawn through two measurements that are closer than this.
const MIN_BASELINE_NS: u64 = 2_000_000;
/// The measurements that a rate is computed from are at most about twice this far apart, so that it follows the host's.
const MAX_BASELINE_NS: u64 = 32_000_000_000;
/// A line is drawn anew when its error may be this large, but not more often nor more rarely than so.
const TOLERATED_ERROR_NS: u64 = 1_000;
const MIN_AGE_NS: u64 = 5_000_000;
const MAX_AGE_NS: u64 = 1_000_000_000;
/// How much the host may change its own rate between two measurements, in parts per billion.
const HOST_WANDER_PPB: u64 = 500;
/// How fast a line that is ahead is slowed down, at most, in parts per billion.
const MAX_SLOWDOWN_PPB: u64 = 500_000;
/// The counter is given up when it is off by more than this, in parts per million.
const MAX_RATE_CHANGE_PPM: u64 = 2_000;

/// One look at the counter and the host's clocks.
#[derive(Clone, Copy, Debug)]
struct Sample {
    tsc: u64,
    /// CLOCK_MONOTONIC was this at `tsc` at the latest; at the earliest it was `uncertainty_ns` less.
    mono_ns: u64,
    uncertainty_ns: u64,
}

/// What the latest line was drawn by. Only one thread at a time draws.
#[derive(Debug)]
struct Calibration {
    /// The measurement that rates are computed from, and the one that will replace it.
    anchor: Sample,
    next_anchor: Option<Sample>,
    /// The counter is no clock here.
    given_up: bool,
    realtime_offset_ns: i64,
    boottime_offset_ns: i64,
}

/// The line, as [`ClockPage`] has it. Written only with the calibration locked, while `seq` is odd.
#[derive(Debug, Default)]
struct Line {
    seq: AtomicU32,
    /// MODE_ASK or MODE_TSC.
    mode: AtomicU32,
    tsc_base: AtomicU64,
    mult: AtomicU64,
    mono_ns: AtomicU64,
    fraction: AtomicU64,
    realtime_offset_ns: AtomicI64,
    boottime_offset_ns: AtomicI64,
}

/// The sandbox's clocks.
#[derive(Debug)]
pub struct Timekeeper {
    line: Line,
    /// When the counter passes this, the line is drawn anew.
    due_tsc: AtomicU64,
    calibration: Mutex<Calibration>,
    /// The vDSO and its page: page 0 is the data, the image follows.
    memory: Option<Arc<OwnedFd>>,
    /// Added to the host's monotonic clock where there is no line.
    host_offset_ns: AtomicI64,
    /// What guest code reads as the counter, less what the Sentry reads; unknown until the platform says so.
    guest_tsc_offset: AtomicI64,
    guest_tsc_known: AtomicBool,
}

impl Default for Timekeeper {
    fn default() -> Timekeeper {
        Timekeeper::new()
    }
}

impl Timekeeper {
    pub fn new() -> Timekeeper {
        let trusted = tsc::is_invariant() && !host_distrusts_tsc();
        let (realtime_offset_ns, boottime_offset_ns) = host_offsets();
        let memory = vdso_memory().map_err(|error| tracing::warn!("no vDSO: {error}")).ok();
        let calibration = Calibration {
            anchor: sample(),
            next_anchor: None,
            given_up: !trusted,
            realtime_offset_ns,
            boottime_offset_ns,
        };
        let due = if trusted { 0 } else { u64::MAX };
        Timekeeper {
            line: Line::default(),
            due_tsc: AtomicU64::new(due),
            calibration: Mutex::new(calibration),
            memory,
            host_offset_ns: AtomicI64::new(0),
            guest_tsc_offset: AtomicI64::new(0),
            guest_tsc_known: AtomicBool::new(false),
        }
    }

    /// The memory that holds the vDSO's page and image. `None` where the host gave none: programs then run without.
    pub fn vdso_memory(&self) -> Option<Arc<OwnedFd>> {
        self.memory.clone()
    }

    /// Tells by how much guest code's counter differs from the Sentry's, once the platform knows. Until then guest code
    /// asks for every clock.
    pub fn set_guest_tsc_offset(&self, ticks: i64) {
        self.guest_tsc_offset.store(ticks, Ordering::Relaxed);
        self.guest_tsc_known.store(true, Ordering::Release);
        if self.line.mode.load(Ordering::Relaxed) == MODE_TSC {
            // Publish the line to guest code as well.
            self.due_tsc.store(0, Ordering::Relaxed);
        }
    }

    /// CLOCK_MONOTONIC, in nanoseconds.
    pub fn monotonic_ns(&self) -> u64 {
        self.read(|_| 0, || self.host_monotonic())
    }
    /// CLOCK_REALTIME.
    pub fn realtime_ns(&self) -> i64 {
        self.read(|line| line.realtime_offset_ns.load(Ordering::Relaxed), || host_ns(ClockId::Realtime))
            as i64
    }
    /// CLOCK_BOOTTIME. Shifted as the monotonic clock is.
    pub fn boottime_ns(&self) -> u64 {
        let shifted =
            || host_ns(ClockId::Boottime).saturating_add_signed(self.host_offset_ns.load(Ordering::Relaxed));
        self.read(|line| line.boottime_offset_ns.load(Ordering::Relaxed), shifted)
    }
    /// CLOCK_MONOTONIC_COARSE: the clock at the last tick.
    pub fn monotonic_coarse_ns(&self) -> u64 {
        let mono = self.monotonic_ns();
        mono - mono % COARSE_TICK_NS
    }
    /// CLOCK_REALTIME_COARSE. Its ticks are those of the monotonic clock.
    pub fn realtime_coarse_ns(&self) -> i64 {
        let since_tick = self.monotonic_ns() % COARSE_TICK_NS;
        self.realtime_ns().saturating_sub(since_tick as i64)
    }

    fn host_monotonic(&self) -> u64 {
        host_ns(ClockId::Monotonic).saturating_add_signed(self.host_offset_ns.load(Ordering::Relaxed))
    }

    /// Draws the line anew if that is due. Cheap when it is not: to be called wherever time may have passed.
    pub fn tick(&self) {
        if tsc::read() >= self.due_tsc.load(Ordering::Relaxed) {
            self.redraw();
        }
    }

    /// The monotonic clock by the line, plus what `offset` finds in it; without a line, what `host` says.
    fn read(&self, offset: impl Fn(&Line) -> i64, host: impl Fn() -> u64) -> u64 {
        self.tick();
        let line = &self.line;
        loop {
            let seq = line.seq.load(Ordering::Acquire);
            if seq & 1 != 0 {
                std::thread::yield_now();
                continue;
            }
            let ns = if line.mode.load(Ordering::Relaxed) == MODE_TSC {
                let base = line.tsc_base.load(Ordering::Relaxed);
                let mult = line.mult.load(Ordering::Relaxed);
                let mono = line.mono_ns.load(Ordering::Relaxed);
                let fraction = line.fraction.load(Ordering::Relaxed);
                along(base, mult, mono, fraction, tsc::read()).0.wrapping_add_signed(offset(line))
            } else {
                host()
            };
            fence(Ordering::Acquire);
            if line.seq.load(Ordering::Relaxed) == seq {
                return ns;
            }
        }
    }

    #[cold]
    fn redraw(&self) {
        // Another thread is at it: its line will do.
        let Some(mut calibration) = self.calibration.try_lock() else { return };
        if calibration.given_up {
            self.due_tsc.store(u64::MAX, Ordering::Relaxed);
            return;
        }
        let now = sample();
        let baseline = now.mono_ns.saturating_sub(calibration.anchor.mono_ns);
        if baseline < MIN_BASELINE_NS {
            return;
        }
        let Some((mult, uncertainty_ppb)) = rate(&calibration.anchor, &now) else {
            self.give_up(&mut calibration, "it does not advance");
            return;
        };
        let old_mult = self.line.mult.load(Ordering::Relaxed);
        if old_mult != 0 && mult.abs_diff(old_mult) > old_mult / 1_000_000 * MAX_RATE_CHANGE_PPM {
            self.give_up(&mut calibration, "its rate changed");
            return;
        }
        follow_anchor(&mut calibration, now);
        update_offsets(&mut calibration);
        self.draw(&calibration, mult, uncertainty_ppb);
    }

    /// Publishes a new line with the rate `mult`, both to system calls and to guest code.
    fn draw(&self, calibration: &Calibration, mult: u64, uncertainty_ppb: u64) {
        let line = &self.line;
        let for_guests = self.guest_tsc_known.load(Ordering::Acquire);
        let page_seq = line.seq.load(Ordering::Relaxed);
        if for_guests {
            self.write_page(0, page_seq.wrapping_add(1).as_bytes());
        }
        line.seq.store(page_seq.wrapping_add(1), Ordering::SeqCst);
        fence(Ordering::SeqCst);

        // From here on nobody reads the old line at a later counter value.
        let now = sample();
        let host = now.mono_ns.saturating_add_signed(self.host_offset_ns.load(Ordering::Relaxed));
        let slowed = |by_ppb: u64| mult - (u128::from(mult) * u128::from(by_ppb) / 1_000_000_000) as u64;
        let (mono_ns, fraction, slope) = if line.mode.load(Ordering::Relaxed) == MODE_TSC {
            let base = line.tsc_base.load(Ordering::Relaxed);
            let old_mult = line.mult.load(Ordering::Relaxed);
            let old_ns = line.mono_ns.load(Ordering::Relaxed);
            let (old, fraction) =
                along(base, old_mult, old_ns, line.fraction.load(Ordering::Relaxed), now.tsc);
            if old < host {
                (host, 0, slowed(uncertainty_ppb))
            } else {
                // Ahead: lose it within a second, or as fast as allowed.
                let ahead_ppb = (old - host).min(MAX_SLOWDOWN_PPB);
                (old + 1, fraction, slowed(uncertainty_ppb + ahead_ppb))
            }
        } else {
            (host, 0, slowed(uncertainty_ppb))
        };

        line.tsc_base.store(now.tsc, Ordering::Relaxed);
        line.mult.store(slope, Ordering::Relaxed);
        line.mono_ns.store(mono_ns, Ordering::Relaxed);
        line.fraction.store(fraction, Ordering::Relaxed);
        let shift = self.host_offset_ns.load(Ordering::Relaxed);
        let realtime_offset_ns = calibration.realtime_offset_ns.wrapping_sub(shift);
        let boottime_offset_ns = calibration.boottime_offset_ns;
        line.realtime_offset_ns.store(realtime_offset_ns, Ordering::Relaxed);
        line.boottime_offset_ns.store(boottime_offset_ns, Ordering::Relaxed);
        line.mode.store(MODE_TSC, Ordering::Relaxed);
        let next_seq = page_seq.wrapping_add(2);
        if for_guests {
            let page = ClockPage {
                seq: page_seq.wrapping_add(1),
                mode: MODE_TSC,
                tsc_base: now.tsc.wrapping_add_signed(self.guest_tsc_offset.load(Ordering::Relaxed)),
                mult: slope,
                mono_ns,
                fraction,
                realtime_offset_ns,
                boottime_offset_ns,
                coarse_tick_ns: COARSE_TICK_NS,
            };
            self.write_page(4, &page.as_bytes()[4..]);
            self.write_page(0, next_seq.as_bytes());
        }
        line.seq.store(next_seq, Ordering::Release);

        // When the error may have grown to what is tolerated: the slope is between right and twice too low.
        let age_ns = TOLERATED_ERROR_NS * 500_000_000 / uncertainty_ppb.max(1);
        let age_ns = age_ns.clamp(MIN_AGE_NS, MAX_AGE_NS);
        let age_ticks = ((u128::from(age_ns) << 32) / u128::from(slope.max(1))) as u64;
        self.due_tsc.store(now.tsc.saturating_add(age_ticks), Ordering::Relaxed);
    }

    /// Back to the host's clock, going on from where the line is.
    fn give_up(&self, calibration: &mut Calibration, why: &str) {
        tracing::warn!("the time stamp counter is not used as a clock: {why}");
        calibration.given_up = true;
        self.due_tsc.store(u64::MAX, Ordering::Relaxed);
        let line = &self.line;
        if line.mode.load(Ordering::Relaxed) != MODE_TSC {
            return;
        }
        let for_guests = self.guest_tsc_known.load(Ordering::Acquire);
        let seq = line.seq.load(Ordering::Relaxed);
        if for_guests {
            self.write_page(0, seq.wrapping_add(1).as_bytes());
        }
        line.seq.store(seq.wrapping_add(1), Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let (base, mult) = (line.tsc_base.load(Ordering::Relaxed), line.mult.load(Ordering::Relaxed));
        let (ns, fraction) = (line.mono_ns.load(Ordering::Relaxed), line.fraction.load(Ordering::Relaxed));
        let last = along(base, mult, ns, fraction, tsc::read()).0 + 1;
        let host = host_ns(ClockId::Monotonic);
        let offset = self.host_offset_ns.load(Ordering::Relaxed).max(last.wrapping_sub(host) as i64);
        self.host_offset_ns.store(offset, Ordering::Relaxed);
        line.mode.store(MODE_ASK, Ordering::Relaxed);
        if for_guests {
            self.write_page(4, MODE_ASK.as_bytes());
            self.write_page(0, seq.wrapping_add(2).as_bytes());
        }
        line.seq.store(seq.wrapping_add(2), Ordering::Release);
    }

    /// Shifts the monotonic clock by `ns` from the host's (a restore, before any guest code runs).
    pub fn set_offset_ns(&self, ns: i64) {
        let mut calibration = self.calibration.lock();
        self.host_offset_ns.store(ns, Ordering::Relaxed);
        // The old line is of another time: the next measurement starts anew.
        self.line.mode.store(MODE_ASK, Ordering::Relaxed);
        self.write_page(4, MODE_ASK.as_bytes());
        self.line.mult.store(0, Ordering::Relaxed);
        calibration.anchor = sample();
        calibration.next_anchor = None;
        if !calibration.given_up {
            self.due_tsc.store(0, Ordering::Relaxed);
        }
    }

    fn write_page(&self, offset: u64, bytes: &[u8]) {
        let Some(memory) = &self.memory else { return };
        if let Err(error) = rustix::io::pwrite(memory.as_fd(), bytes, offset) {
            tracing::error!("the vDSO's page cannot be written: {error}");
        }
    }
}

/// The point of a line at `tsc`: nanoseconds, and the 32 bits below.
fn along(base: u64, mult: u64, mono_ns: u64, fraction: u64, tsc: u64) -> (u64, u64) {
    let product = u128::from(tsc.saturating_sub(base)) * u128::from(mult) + u128::from(fraction);
    (mono_ns.wrapping_add((product >> 32) as u64), product as u64 & 0xffff_ffff)
}

/// The rate between two measurements as a 32.32 fixed-point number, and how wrong it may be.
fn rate(first: &Sample, second: &Sample) -> Option<(u64, u64)> {
    let ticks = second.tsc.checked_sub(first.tsc).filter(|t| *t != 0)?;
    let ns = second.mono_ns.checked_sub(first.mono_ns).filter(|n| *n != 0)?;
    let mult = u64::try_from((u128::from(ns) << 32) / u128::from(ticks)).ok().filter(|m| *m != 0)?;
    let doubt = first.uncertainty_ns.saturating_add(second.uncertainty_ns);
    let ppb = u128::from(doubt) * 1_000_000_000 / u128::from(ns);
    Some((mult, u64::try_from(ppb).ok()?.min(100_000_000) + HOST_WANDER_PPB))
}

/// Lets the anchor follow, so that a rate is never an average over hours.
fn follow_anchor(calibration: &mut Calibration, now: Sample) {
    match calibration.next_anchor {
        None => calibration.next_anchor = Some(now),
        Some(next) if now.mono_ns.saturating_sub(next.mono_ns) > MAX_BASELINE_NS => {
            calibration.anchor = next;
            calibration.next_anchor = Some(now);
        }
        Some(_) => {}
    }
}

/// The distances of the other clocks change only in steps: what is less is the noise of reading two clocks.
fn update_offsets(calibration: &mut Calibration) {
    const NOISE_NS: u64 = 20_000;
    let (realtime, boottime) = host_offsets();
    if realtime.abs_diff(calibration.realtime_offset_ns) > NOISE_NS {
        calibration.realtime_offset_ns = realtime;
    }
    if boottime.abs_diff(calibration.boottime_offset_ns) > NOISE_NS {
        calibration.boottime_offset_ns = boottime;
    }
}

/// The counter and the host's clock at one moment: the best of a few tries.
fn sample() -> Sample {
    let mut best = Sample { tsc: 0, mono_ns: 0, uncertainty_ns: u64::MAX };
    let mut best_ticks = u64::MAX;
    for _ in 0..4 {
        let before = tsc::read();
        let mono_ns = host_ns(ClockId::Monotonic);
        let after = tsc::read();
        let ticks = after.saturating_sub(before);
        if ticks < best_ticks {
            best_ticks = ticks;
            // A tick is taken for at most a nanosecond, as of a counter of 1 GHz or more.
            best = Sample { tsc: before, mono_ns, uncertainty_ns: ticks };
        }
    }
    best
}

/// CLOCK_REALTIME and CLOCK_BOOTTIME less CLOCK_MONOTONIC, at the most that the host allows: a clock computed by them must
/// not be behind what the host said before.
fn host_offsets() -> (i64, i64) {
    let mut best = (0, 0);
    let mut shortest = u64::MAX;
    for _ in 0..3 {
        let before = host_ns(ClockId::Monotonic);
        let realtime = host_ns(ClockId::Realtime);
        let boottime = host_ns(ClockId::Boottime);
        let took = host_ns(ClockId::Monotonic).saturating_sub(before);
        if took < shortest {
            shortest = took;
            best = (realtime.wrapping_sub(before) as i64, boottime.wrapping_sub(before) as i64);
        }
    }
    best
}

fn host_ns(clock: ClockId) -> u64 {
    let t = rustix::time::clock_gettime(clock);
    (t.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(t.tv_nsec as u64)
}

/// Whether the host itself has turned away from the counter. Where it does not say, the processor's word counts.
fn host_distrusts_tsc() -> bool {
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    match std::fs::read_to_string(path) {
        Ok(name) => {
            let by_counter = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "xen"];
            let distrusted = !by_counter.contains(&name.trim());
            if distrusted {
                tracing::info!("the host's clock is {}: guest clocks are read by system calls", name.trim());
            }
            distrusted
        }
        Err(_) => false,
    }
}

/// Memory with an empty page and the image.
fn vdso_memory() -> rustix::io::Result<Arc<OwnedFd>> {
    let fd = rustix::fs::memfd_create("vdso", rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&fd, VDSO_BYTES)?;
    let page = ClockPage { coarse_tick_ns: COARSE_TICK_NS, ..ClockPage::default() };
    rustix::io::pwrite(&fd, page.as_bytes(), 0)?;
    let mut done = 0;
    while done < IMAGE.len() {
        done += rustix::io::pwrite(&fd, &IMAGE[done..], DATA_BYTES + done as u64)?;
    }
    Ok(Arc::new(fd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;
    use std::time::{Duration, Instant};

    /// Draws lines until the counter is in use; false where the host does not trust its counter.
    fn settled(keeper: &Timekeeper) -> bool {
        let until = Instant::now() + Duration::from_secs(5);
        while keeper.line.mode.load(Ordering::Relaxed) != MODE_TSC {
            if keeper.calibration.lock().given_up || Instant::now() > until {
                eprintln!("NOT RUN: the counter is no clock on this machine");
                return false;
            }
            keeper.tick();
        }
        true
    }

    #[test]
    fn clocks_follow_the_host() {
        let keeper = Timekeeper::new();
        if !settled(&keeper) {
            return;
        }
        for _ in 0..1000 {
            let before = host_ns(ClockId::Monotonic);
            let ours = keeper.monotonic_ns();
            let after = host_ns(ClockId::Monotonic);
            // A line may be a microsecond off, and a few more when it has just begun on a loaded machine.
            assert!(ours + 50_000 > before && ours < after + 50_000, "{before} {ours} {after}");
            let before = host_ns(ClockId::Realtime) as i64;
            let ours = keeper.realtime_ns();
            let after = host_ns(ClockId::Realtime) as i64;
            assert!(ours + 10_000_000 > before && ours < after + 10_000_000, "{before} {ours} {after}");
            keeper.due_tsc.store(0, Ordering::Relaxed);
        }
        assert!(keeper.monotonic_coarse_ns().is_multiple_of(COARSE_TICK_NS));
    }

    #[test]
    fn no_thread_sees_time_go_back() {
        let keeper = Timekeeper::new();
        let latest = AtomicU64::new(0);
        let until = Instant::now() + Duration::from_millis(300);
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (keeper, latest) = (&keeper, &latest);
                scope.spawn(move || {
                    let mut last_real = i64::MIN;
                    while Instant::now() < until {
                        // A reader must not be behind what any other has published before.
                        let seen = latest.load(Ordering::SeqCst);
                        let now = keeper.monotonic_ns();
                        assert!(now >= seen, "{now} after {seen}");
                        latest.fetch_max(now, Ordering::SeqCst);
                        let real = keeper.realtime_ns();
                        assert!(real >= last_real, "{real} after {last_real}");
                        last_real = real;
                        if n == 0 {
                            // As many lines as possible.
                            keeper.due_tsc.fetch_min(0, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        // Giving the counter up in the end does not take time back either.
        let seen = keeper.monotonic_ns();
        let mut calibration = keeper.calibration.lock();
        keeper.give_up(&mut calibration, "the test says so");
        drop(calibration);
        assert!(keeper.monotonic_ns() >= seen);
    }

    #[test]
    fn the_page_says_what_system_calls_say() {
        use zerocopy::FromBytes;
        let keeper = Timekeeper::new();
        keeper.set_guest_tsc_offset(0);
        let Some(memory) = keeper.vdso_memory() else { panic!("no memory for the vDSO") };
        let page = || {
            let mut bytes = [0; size_of::<ClockPage>()];
            rustix::io::pread(&*memory, &mut bytes, 0).expect("the page");
            ClockPage::read_from_bytes(&bytes).expect("the page")
        };
        assert_eq!(page().mode, MODE_ASK);
        if !settled(&keeper) {
            return;
        }
        let page = page();
        assert_eq!((page.mode, page.seq % 2), (MODE_TSC, 0));
        keeper.due_tsc.store(u64::MAX, Ordering::Relaxed);
        let before = keeper.monotonic_ns();
        let guest = along(page.tsc_base, page.mult, page.mono_ns, page.fraction, tsc::read()).0;
        let after = keeper.monotonic_ns();
        assert!(before <= guest && guest <= after);
        let mut magic = [0; 4];
        rustix::io::pread(&*memory, &mut magic, DATA_BYTES).expect("the image");
        assert_eq!(&magic, b"\x7fELF");
    }
}
