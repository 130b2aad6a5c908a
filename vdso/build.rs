//! Builds the guest's shared object from C with the system's compiler, which Rust needs for linking anyway.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join("vdso.so");
    let source = root.join("src/vdso.c");
    let script = root.join("src/vdso.lds");
    println!("cargo::rerun-if-changed={}", source.display());
    println!("cargo::rerun-if-changed={}", script.display());
    println!("cargo::rerun-if-env-changed=CC");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let status = Command::new(&compiler)
        .args(["-std=gnu11", "-O2", "-Wall", "-Werror", "-fPIC", "-fvisibility=hidden", "-ffreestanding"])
        // Guest code of any make calls it: no stack canary from a TLS that may not be there, and vector registers untouched.
        .args(["-fno-stack-protector", "-mgeneral-regs-only", "-fcf-protection=none"])
        .args(["-fasynchronous-unwind-tables", "-ffile-prefix-map=/=", "-g0"])
        .args([
            "-shared",
            "-nostdlib",
            "-Wl,-soname=linux-vdso.so.1",
            "-Wl,--hash-style=both",
            "-Wl,-Bsymbolic",
        ])
        .args([
            "-Wl,--eh-frame-hdr",
            "-Wl,--build-id=sha1",
            "-Wl,-z,max-page-size=4096",
            "-Wl,-z,noexecstack",
        ])
        .arg(format!("-Wl,-T,{}", script.display()))
        .arg("-o")
        .arg(&out)
        .arg(&source)
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => {
            panic!("{compiler} could not build the vDSO ({status}); install a C compiler (Debian: gcc)")
        }
        Err(error) => {
            panic!("{compiler} could not be run: {error}; install a C compiler (Debian: gcc) or set CC")
        }
    }
}
