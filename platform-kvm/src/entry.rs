//! Guest ring 0: a few instructions, and the tables that lead to them.
//!
//! The supervisor's half of every address space is one top-level entry that all of them share:
//!
//! ```text
//! BASE + 0x0000   code: the SYSCALL entry, an IRETQ, one stub per exception vector
//! BASE + 0x1000   IDT (32 gates, all on interrupt stack 1)
//! BASE + 0x2000   GDT (Linux's selectors; no 32-bit user code segment)
//! BASE + 0x10000  one page per vCPU: its TSS at the start, its interrupt stack down from the end
//! ```
//!
//! A stub is one `out` to a port that names it; the vCPU never comes back to a stub. To resume, the Sentry writes an
//! interrupt frame on the vCPU's page and points RIP to the IRETQ. Nothing here is accessible to guest ring 3.
//! All vectors use an interrupt stack, so that even an exception right at the SYSCALL entry, where RSP is the
//! user's still, pushes its frame onto supervisor memory.

use std::sync::atomic::Ordering;

use quicksand_platform::PlatformError;

use crate::page_table::{SUPERVISOR_CODE, SUPERVISOR_DATA, SUPERVISOR_RO, TABLE};
use crate::window::{PAGE, Window};

/// First address of the supervisor's half.
pub(crate) const BASE: u64 = 0xffff_8000_0000_0000;
/// The index of its top-level entry.
pub(crate) const TOP_INDEX: usize = 256;

const CODE: u64 = BASE;
pub(crate) const IDT: u64 = BASE + PAGE;
pub(crate) const GDT: u64 = BASE + 2 * PAGE;
const FIRST_VCPU_PAGE: u64 = 16;

pub(crate) const SYSCALL_ENTRY: u64 = CODE;
pub(crate) const IRETQ: u64 = CODE + 0x40;
const VECTORS: u64 = CODE + 0x100;
const VECTOR_SIZE: u64 = 16;
const VECTOR_COUNT: u64 = 32;

/// The port that the SYSCALL entry writes.
pub(crate) const PORT_SYSCALL: u16 = 0x40;
/// The port of exception vector 0; vector `n` has this plus `n`.
pub(crate) const PORT_VECTORS: u16 = 0x80;

pub(crate) const KERNEL_CS: u16 = 0x10;
pub(crate) const USER_CS: u16 = 0x33;
pub(crate) const USER_SS: u16 = 0x2b;
pub(crate) const TSS_SELECTOR: u16 = 0x40;
pub(crate) const IDT_LIMIT: u16 = (VECTOR_COUNT * 16 - 1) as u16;
pub(crate) const GDT_LIMIT: u16 = 10 * 8 - 1;
pub(crate) const TSS_LIMIT: u32 = 0x67;

/// Vectors that push an error code.
pub(crate) fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
}

/// Which stub, if any, starts at `rip`: what a vCPU stopped there was about to report.
pub(crate) fn stub_port(rip: u64) -> Option<u16> {
    if rip == SYSCALL_ENTRY {
        return Some(PORT_SYSCALL);
    }
    let offset = rip.checked_sub(VECTORS)?;
    (offset % VECTOR_SIZE == 0 && offset / VECTOR_SIZE < VECTOR_COUNT)
        .then(|| PORT_VECTORS + (offset / VECTOR_SIZE) as u16)
}

/// The supervisor's tables, made once per VM.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pdpt: u64,
    /// Page tables of the supervisor's half, in order; each has room for 512 pages.
    leaves: parking_lot::Mutex<Vec<u64>>,
    /// The vCPUs' pages, by vCPU.
    vcpus: parking_lot::Mutex<Vec<VcpuPage>>,
    directory: u64,
}

/// A vCPU's own page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VcpuPage {
    pub(crate) gpa: u64,
    pub(crate) address: u64,
}

impl VcpuPage {
    /// The stack pointer that an interrupt frame has: five words below the top.
    pub(crate) fn frame_address(self) -> u64 {
        self.address + PAGE - 40
    }
}

impl Supervisor {
    pub(crate) fn new(window: &Window) -> Result<Supervisor, PlatformError> {
        // The pages are taken together: the first one of the window stays unused, so that no frame has GPA 0.
        let first = window.alloc(8 * PAGE)?;
        let page = |i: u64| first + i * PAGE;
        let (code, idt, gdt, pdpt, directory, leaf) = (page(1), page(2), page(3), page(4), page(5), page(6));
        let set =
            |table: u64, index: usize, value: u64| window.words(table)[index].store(value, Ordering::Release);
        set(pdpt, 0, directory | TABLE);
        set(directory, 0, leaf | TABLE);
        set(leaf, 0, code | SUPERVISOR_CODE);
        set(leaf, 1, idt | SUPERVISOR_RO);
        set(leaf, 2, gdt | SUPERVISOR_RO);

        let put = |offset: u64, bytes: [u8; 8]| set(code, (offset / 8) as usize, u64::from_le_bytes(bytes));
        // out %al, $port; ud2
        let stub = |port: u16| [0xe6, port as u8, 0x0f, 0x0b, 0x0f, 0x0b, 0x0f, 0x0b];
        put(SYSCALL_ENTRY - CODE, stub(PORT_SYSCALL));
        // iretq; ud2
        put(IRETQ - CODE, [0x48, 0xcf, 0x0f, 0x0b, 0x0f, 0x0b, 0x0f, 0x0b]);
        for vector in 0..VECTOR_COUNT {
            put(VECTORS - CODE + vector * VECTOR_SIZE, stub(PORT_VECTORS + vector as u16));
            let handler = VECTORS + vector * VECTOR_SIZE;
            // Programs may raise breakpoint and overflow by `int3` and `into`; any other `int n` is #GP.
            let dpl: u64 = if matches!(vector, 3 | 4) { 3 } else { 0 };
            let low = handler & 0xffff
                | u64::from(KERNEL_CS) << 16
                | 1 << 32
                | (0x8e00 | dpl << 13) << 32
                | (handler >> 16 & 0xffff) << 48;
            set(idt, 2 * vector as usize, low);
            set(idt, 2 * vector as usize + 1, handler >> 32);
        }
        set(gdt, 2, 0x00af_9b00_0000_ffff);
        set(gdt, 3, 0x00cf_9300_0000_ffff);
        set(gdt, 5, 0x00cf_f300_0000_ffff);
        set(gdt, 6, 0x00af_fb00_0000_ffff);
        Ok(Supervisor {
            pdpt,
            leaves: parking_lot::Mutex::new(vec![leaf]),
            vcpus: Default::default(),
            directory,
        })
    }

    /// The top-level entry that every address space has, and its place.
    pub(crate) fn top_entry(&self) -> (usize, u64) {
        (TOP_INDEX, self.pdpt | TABLE)
    }

    /// The page of vCPU `id`, made if it is new: in a forked Sentry the parent's are there.
    pub(crate) fn vcpu_page(&self, window: &Window, id: u32) -> Result<VcpuPage, PlatformError> {
        let mut vcpus = self.vcpus.lock();
        if let Some(page) = vcpus.get(id as usize) {
            return Ok(*page);
        }
        let number = FIRST_VCPU_PAGE + u64::from(id);
        let (table, index) = ((number / 512) as usize, (number % 512) as usize);
        let mut leaves = self.leaves.lock();
        while leaves.len() <= table {
            let leaf = window.alloc_table()?;
            window.words(self.directory)[leaves.len()].store(leaf | TABLE, Ordering::Release);
            leaves.push(leaf);
        }
        let gpa = window.alloc(PAGE)?;
        window.words(leaves[table])[index].store(gpa | SUPERVISOR_DATA, Ordering::Release);
        let page = VcpuPage { gpa, address: BASE + number * PAGE };
        // The TSS: RSP0 and IST1, which lie at 4 modulo 8; the I/O bitmap begins beyond the limit, so there is none.
        let top = page.address + PAGE;
        let mut tss = [0u8; 0x68];
        tss[4..12].copy_from_slice(&top.to_le_bytes());
        tss[0x24..0x2c].copy_from_slice(&top.to_le_bytes());
        tss[0x66..0x68].copy_from_slice(&0x68u16.to_le_bytes());
        for (word, bytes) in window.words(gpa).iter().zip(tss.chunks_exact(8)) {
            let mut value = [0u8; 8];
            value.copy_from_slice(bytes);
            word.store(u64::from_le_bytes(value), Ordering::Release);
        }
        if vcpus.len() == id as usize {
            vcpus.push(page);
        }
        Ok(page)
    }
}
