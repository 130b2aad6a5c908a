//! The vDSO: a small shared object that the kernel maps into every program, and the page of numbers it reads clocks by.
//!
//! The image is guest code, built from `vdso.c`; nothing of it runs in the Sentry. What it computes, and how the page is
//! read while it changes, is said there. The page lies right before the image.
#![forbid(unsafe_code)]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The ELF image. It is mapped whole, read and execute, at a page boundary.
pub const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vdso.so"));

/// Bytes before the image that belong to the [`ClockPage`].
pub const DATA_BYTES: u64 = 4096;

/// Ask the kernel for every clock.
pub const MODE_ASK: u32 = 0;
/// The time stamp counter can be trusted.
pub const MODE_TSC: u32 = 1;

/// `CLOCK_*_COARSE` has the resolution of Linux's tick, as of HZ=250.
pub const COARSE_TICK_NS: u64 = 4_000_000;

/// The data page, as `struct clock_page` in `vdso.c`. With the counter at `tsc`, CLOCK_MONOTONIC is
/// `mono_ns + ((tsc - tsc_base) * mult + fraction) / 2^32` nanoseconds.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ClockPage {
    /// Odd while the page is being written.
    pub seq: u32,
    pub mode: u32,
    pub tsc_base: u64,
    pub mult: u64,
    pub mono_ns: u64,
    pub fraction: u64,
    pub realtime_offset_ns: i64,
    pub boottime_offset_ns: i64,
    pub coarse_tick_ns: u64,
}
