//! A binary search in front of a system call filter.
//!
//! `seccompiler` tries the calls of a filter one after the other. The kernel does so too for each of some 450 numbers when a
//! filter is installed (to learn which it need not ask about again): 0.3 ms for a list of a hundred. Calls that are
//! allowed whatever their arguments are found here by bisection first; the rest is `seccompiler`'s.

use seccompiler::sock_filter;

/// The arch and the number in `struct seccomp_data`.
const ARCH: u32 = 4;
const NUMBER: u32 = 0;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Where a jump of the search goes.
#[derive(Clone, Copy)]
enum To {
    /// An instruction of the search.
    At(usize),
    Allowed,
    Elsewhere,
}

/// A program that allows the calls in `numbers` and leaves all others to `rest`. `rest` must itself look at the
/// architecture. Short jumps reach 255 instructions: some 80 runs of numbers.
pub(super) fn allow_or(numbers: &[u32], rest: Vec<sock_filter>) -> Option<Vec<sock_filter>> {
    if numbers.is_empty() {
        return Some(rest);
    }
    let mut search: Vec<(u32, To, To)> = Vec::new();
    bisect(&runs(numbers), &mut search);
    // Behind the search: the answer, then what comes for everything else.
    let (allowed, elsewhere) = (search.len(), search.len() + 1);
    let mut program = vec![
        sock_filter { code: LOAD, jt: 0, jf: 0, k: ARCH },
        // Another architecture's numbers mean something else.
        sock_filter { code: EQUAL, jt: 0, jf: u8::try_from(elsewhere + 1).ok()?, k: AUDIT_ARCH_X86_64 },
        sock_filter { code: LOAD, jt: 0, jf: 0, k: NUMBER },
    ];
    for (i, (k, yes, no)) in search.iter().enumerate() {
        let distance = |to: &To| {
            let target = match to {
                To::At(at) => *at,
                To::Allowed => allowed,
                To::Elsewhere => elsewhere,
            };
            u8::try_from(target.checked_sub(i + 1)?).ok()
        };
        program.push(sock_filter { code: AT_LEAST, jt: distance(yes)?, jf: distance(no)?, k: *k });
    }
    program.push(sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW });
    program.extend(rest);
    Some(program)
}

/// Numbers as half-open runs, in order.
fn runs(numbers: &[u32]) -> Vec<(u32, u32)> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in sorted {
        match runs.last_mut() {
            Some(last) if last.1 == number => last.1 += 1,
            _ => runs.push((number, number + 1)),
        }
    }
    runs
}

fn bisect(runs: &[(u32, u32)], out: &mut Vec<(u32, To, To)>) {
    match runs {
        [] => {}
        [(first, end)] => {
            let at = out.len();
            out.push((*first, To::At(at + 1), To::Elsewhere));
            out.push((*end, To::Elsewhere, To::Allowed));
        }
        _ => {
            let (low, high) = runs.split_at(runs.len() / 2);
            let at = out.len();
            out.push((high[0].0, To::Elsewhere, To::At(at + 1)));
            bisect(low, out);
            out[at].1 = To::At(out.len());
            bisect(high, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does; `None`: it fell off the end, which the kernel would not let in.
    fn run(program: &[sock_filter], arch: u32, number: u32) -> Option<u32> {
        let (mut at, mut a) = (0, 0);
        loop {
            let i = program.get(at)?;
            at += 1;
            match i.code {
                LOAD => a = if i.k == ARCH { arch } else { number },
                EQUAL => at += usize::from(if a == i.k { i.jt } else { i.jf }),
                AT_LEAST => at += usize::from(if a >= i.k { i.jt } else { i.jf }),
                _ => return Some(i.k),
            }
        }
    }

    #[test]
    fn just_the_numbers_are_found() {
        for numbers in
            [vec![], vec![7], vec![0, 1, 2, 9], (0..400).filter(|n| n % 4 < 2).collect::<Vec<u32>>()]
        {
            let numbers: Vec<u32> = numbers.into_iter().take(120).collect();
            let dead = vec![sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_KILL_PROCESS }];
            let program = allow_or(&numbers, dead).unwrap();
            for number in 0..500 {
                let answer = run(&program, AUDIT_ARCH_X86_64, number);
                assert_eq!(answer == Some(libc::SECCOMP_RET_ALLOW), numbers.contains(&number), "{number}");
                assert_eq!(run(&program, 0x4000_0003, number), Some(libc::SECCOMP_RET_KILL_PROCESS));
            }
        }
    }

    #[test]
    fn too_many_are_refused() {
        let numbers: Vec<u32> = (0..2000).step_by(2).collect();
        assert!(allow_or(&numbers, Vec::new()).is_none());
    }
}
