//! What every platform must do, as tests that are generic over the [`Platform`] trait.
//!
//! Each case is a function that panics when the platform is wrong; [`conformance_tests!`] makes a `#[test]` of each in the
//! platform's own crate. Guest programs are a few instructions each (`code.rs`). The binaries are static, so they
//! can be copied into any machine and run there.
#![forbid(unsafe_code)]

pub mod code;
mod concurrency;
mod fork;
mod memory;
mod processor;
mod registers;
mod support;

pub use concurrency::*;
pub use fork::*;
pub use memory::*;
pub use processor::*;
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
            fault_addresses, protections, map_unmap, huge_reservations_are_free, window_grows_and_shrinks,
            relocate_moves_pages, dont_need, shared_file, private_file, beyond_end_of_file, truncated_file,
            sentry_access, forced_writes, residency, populate, many_small_mappings,
            mappings_made_together, contents_of_files,
            fork_copies_on_write, fork_of_fork, fork_shares_files, fork_keeps_protections, many_forks,
            traps, single_step, breakpoint, software_interrupts, privileged_instructions, supervisor_is_out_of_reach,
            extended_state_per_context, extended_state_round_trip, hostile_extended_state,
            kick_before_run, kick_while_running, kicks_are_not_lost, unmap_stops_other_threads,
            protect_stops_other_threads, threads_share_memory, many_contexts, parallel_faults, fork_under_load
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
