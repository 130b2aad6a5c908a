//! File systems, one per module.
