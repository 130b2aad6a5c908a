//! Prints the compatibility page from the syscall table. `cargo xtask docs` writes it to `docs/compatibility.md`.

use quicksand_sentry::syscalls::table::{Syscall, table};

fn main() {
    let (answered, missing): (Vec<&Syscall>, Vec<&Syscall>) =
        table().iter().partition(|call| call.handler.is_some());
    let full = answered.iter().filter(|call| call.support == "full").count();
    println!("# Compatibility\n");
    println!(
        "Written by `cargo xtask docs` from the syscall table (`sentry/src/syscalls/table.rs`); do not edit.\n"
    );
    println!(
        "Of Linux's {} system calls on x86-64, {} are answered, {full} of them in full. The others fail with `ENOSYS`, and the first use of \
         each is logged with its name.\n",
        table().len(),
        answered.len(),
    );
    println!("| Number | Call | Supported |\n|---:|---|---|");
    for call in &answered {
        let support = call.support.replace('|', "\\|");
        println!("| {} | `{}` | {support} |", call.number, call.name);
    }
    println!("\n## Not answered (`ENOSYS`)\n");
    let names: Vec<String> = missing.iter().map(|call| format!("`{}`", call.name)).collect();
    println!("{}", names.join(", "));
}
