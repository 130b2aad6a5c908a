//! What every platform must do, as tests that are generic over the [`Platform`] trait.
//!
//! Each case is a function that panics when the platform is wrong; [`conformance_tests!`] makes a `#[test]` of each in the
//! platform's own crate. Guest programs are a few instructions each (`code.rs`). The binaries are static, so they
//! can be copied into any machine and run there.
#![forbid(unsafe_code)]

pub mod code;
mod memory;
mod registers;
mod support;

pub use memory::*;
pub use registers::*;

use quicksand_platform::Platform;

/// A test: panics when the platform does not conform.
pub type Case = fn(&dyn Platform);

/// Makes a `#[test]` of every case. `$make` is an expression that gives an `Option<impl Platform>`; on `None` (this
/// host has no such platform) the test says so and does not count as a proof of anything.
#[macro_export]
macro_rules! conformance_tests {
    ($make:expr) => {
        $crate::conformance_tests! { @each $make;
            syscall_round_trip, all_registers_travel, flags_travel, segment_bases_travel, bad_rip_is_refused,
            fault_addresses
        }
    };
    (@each $make:expr; $($case:ident),*) => { $(
        #[test]
        fn $case() {
            match $make {
                Some(platform) => $crate::$case(&platform),
                None => eprintln!("NOT RUN: {}: this host does not have the platform", stringify!($case)),
            }
        }
    )* };
}
