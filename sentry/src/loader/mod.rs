//! Loading programs: ELF files, `#!` scripts, the first stack.
