//! A few x86-64 instructions, put together by hand: guest programs for the tests.

/// A register, by its number in instruction encodings.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Reg {
    Rax = 0,
    Rcx = 1,
    Rdx = 2,
    Rbx = 3,
    Rsp = 4,
    Rbp = 5,
    Rsi = 6,
    Rdi = 7,
    R8 = 8,
    R9 = 9,
    R10 = 10,
    R11 = 11,
    R12 = 12,
    R13 = 13,
    R14 = 14,
    R15 = 15,
}

/// A program being written.
#[derive(Clone, Debug, Default)]
pub struct Code(Vec<u8>);

impl Code {
    pub fn new() -> Code {
        Code::default()
    }
    /// Bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Code {
        self.0.extend_from_slice(bytes);
        self
    }
    /// `movabs $value, reg`
    pub fn mov(self, reg: Reg, value: u64) -> Code {
        let n = reg as u8;
        self.raw(&[0x48 | n >> 3, 0xb8 | n & 7]).raw(&value.to_le_bytes())
    }
    /// `mov (rbx), rdx`
    pub fn load_rdx_from_rbx(self) -> Code {
        self.raw(&[0x48, 0x8b, 0x13])
    }
    /// `mov rdx, (rbx)`
    pub fn store_rdx_to_rbx(self) -> Code {
        self.raw(&[0x48, 0x89, 0x13])
    }
    /// `add $n, rbx`
    pub fn add_rbx(self, n: u32) -> Code {
        self.raw(&[0x48, 0x81, 0xc3]).raw(&n.to_le_bytes())
    }
    pub fn syscall(self) -> Code {
        self.raw(&[0x0f, 0x05])
    }
    /// `jmp` to an offset in the program.
    pub fn jump(self, to: usize) -> Code {
        let from = self.0.len() + 5;
        self.raw(&[0xe9]).raw(&(to as i32).wrapping_sub(from as i32).to_le_bytes())
    }
    /// `dec reg; jnz to`
    pub fn dec_jnz(self, reg: Reg, to: usize) -> Code {
        let n = reg as u8;
        let code = self.raw(&[0x48 | n >> 3, 0xff, 0xc8 | n & 7]);
        let from = code.0.len() + 6;
        code.raw(&[0x0f, 0x85]).raw(&(to as i32).wrapping_sub(from as i32).to_le_bytes())
    }
    /// Where the next instruction goes.
    pub fn here(&self) -> usize {
        self.0.len()
    }
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}
