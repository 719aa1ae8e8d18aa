//! Runs one instruction with every register given, and shows every register after it.
//!
//! A machine is a low mapping with stubs that load and store the registers, a place for
//! the instruction, an island, data and a stack:
//!
//! ```text
//! 0x00000 enter   0x00400 exit   0x00800 callee (also an exit)   0x00c00 exit after a fault
//! 0x01000 place   0x02000 island 0x03000 registers in and out    0x04000 xsave areas
//! 0x0a000 data    0x0e000 data that stays near                   0x10000 stack
//! ```
//!
//! Invariant: all memory of the mapping and of the far page is touched only through
//! `bytes` and `far_bytes`, and by the code that `run` executes.

use std::cell::Cell;
use std::sync::Once;

use iced_x86::{Code, Encoder, Instruction, MemoryOperand, Register};

const SIZE: usize = 0x40000;
const EXIT: usize = 0x400;
const CALLEE: usize = 0x800;
const FAULT: usize = 0xc00;
pub const PLACE: usize = 0x1100;
pub const ISLAND: usize = 0x2000;
const INPUT: usize = 0x3000;
const OUTPUT: usize = 0x3100;
const MARKER: usize = 0x3200;
const HOST_RSP: usize = 0x3208;
const X_IN: usize = 0x4000;
const X_OUT: usize = 0x6000;
const X_HOST: usize = 0x8000;
const X_LEN: usize = 0x1000;
/// Data that the far page is the twin of.
pub const DATA: usize = 0xa000;
/// Data for operands that stay near.
pub const NEAR: usize = 0xe000;
pub const PAGE: usize = 0x1000;
/// rsp before the instruction, 16-byte aligned.
pub const STACK: usize = 0x30000;
/// Bytes around rsp that are compared: the red zone and what is pushed.
pub const RED_ZONE: usize = 128;
const ABOVE: usize = 512;

/// The components of xsave that are loaded and stored: x87, SSE, AVX, AVX-512.
const COMPONENTS: u64 = 0xe7;
pub const TRAP_FLAG: u64 = 0x100;
pub const RSP: usize = 4;

/// Everything an instruction may change.
#[derive(Clone, PartialEq, Eq)]
pub struct State {
    /// Registers by number: rax rcx rdx rbx rsp rbp rsi rdi r8..r15.
    pub gpr: [u64; 16],
    pub flags: u64,
    /// x87, SSE, AVX and AVX-512 registers as xsave lays them out.
    pub extended: Vec<u8>,
    /// The page that the far operand lies in.
    pub data: Vec<u8>,
    /// The page that near operands lie in.
    pub near: Vec<u8>,
    /// From rsp (before the instruction) - 128 upward.
    pub stack: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The next instruction was reached.
    Next,
    /// A call or jump through memory arrived.
    Callee,
    /// A signal, for a fault or an unknown instruction.
    Fault,
}

thread_local! {
    static BASE: Cell<u64> = const { Cell::new(0) };
    static STEPS: Cell<usize> = const { Cell::new(0) };
    static TRACE: [Cell<(u64, u64)>; 64] = const { [const { Cell::new((0, 0)) }; 64] };
}

pub struct Machine {
    low: *mut u8,
    far: *mut u8,
    clean: Vec<u8>,
}

fn map(len: usize, flags: i32) -> *mut u8 {
    let prot = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: mmap without a fixed address replaces nothing.
    let p = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
    assert_ne!(p, libc::MAP_FAILED, "mmap of {len:#x} bytes");
    p.cast()
}

impl Machine {
    pub fn new() -> Self {
        static HANDLERS: Once = Once::new();
        HANDLERS.call_once(install_handlers);
        let mut machine = Self {
            low: map(SIZE, libc::MAP_32BIT),
            far: map(PAGE, 0),
            clean: Vec::new(),
        };
        assert!(machine.far_data() > 1 << 40, "the far page is far");
        let base = machine.base();
        assert_eq!(BASE.replace(base), 0, "one machine a thread");
        machine.write_stubs();
        // The state of a Rust thread is a good one to start from.
        machine.put_jump(PLACE, EXIT);
        machine.bytes()[X_HOST..X_HOST + X_LEN].fill(0);
        let stack = base + STACK as u64;
        machine.put(INPUT + 8 * RSP, stack);
        machine.put(INPUT + 128, 2);
        let mut area = vec![0; X_LEN];
        area[..2].copy_from_slice(&0x37f_u16.to_le_bytes());
        area[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        machine.bytes()[X_IN..X_IN + X_LEN].copy_from_slice(&area);
        machine.call();
        machine.clean = machine.bytes()[X_OUT..X_OUT + X_LEN].to_vec();
        machine
    }

    pub fn base(&self) -> u64 {
        self.low.addr() as u64
    }

    pub fn at(&self, offset: usize) -> u64 {
        self.base() + offset as u64
    }

    pub fn far_data(&self) -> u64 {
        self.far.addr() as u64
    }

    pub fn callee(&self) -> u64 {
        self.at(CALLEE)
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `low` is a mapping of SIZE bytes that lives until drop, borrowed from self.
        unsafe { std::slice::from_raw_parts_mut(self.low, SIZE) }
    }

    fn far_bytes(&mut self) -> &mut [u8] {
        // SAFETY: `far` is a mapping of PAGE bytes that lives until drop, borrowed from self.
        unsafe { std::slice::from_raw_parts_mut(self.far, PAGE) }
    }

    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes()[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn put(&mut self, offset: usize, value: u64) {
        self.write(offset, &value.to_le_bytes());
    }

    fn get(&mut self, offset: usize) -> u64 {
        let bytes = self.bytes()[offset..offset + 8].try_into();
        u64::from_le_bytes(bytes.expect("8 bytes"))
    }

    fn put_jump(&mut self, from: usize, to: usize) {
        let target = self.at(to);
        let jump = Instruction::with_branch(Code::Jmp_rel32_64, target).expect("jmp");
        self.assemble(from, &[jump]);
    }

    fn assemble(&mut self, offset: usize, list: &[Instruction]) {
        let mut encoder = Encoder::new(64);
        let mut ip = self.at(offset);
        for insn in list {
            ip += encoder.encode(insn, ip).expect("stub") as u64;
        }
        let code = encoder.take_buffer();
        assert!(code.len() <= 0x400, "stub of {} bytes", code.len());
        self.write(offset, &code);
    }

    /// An absolute operand in the mapping.
    fn cell(&self, offset: usize) -> MemoryOperand {
        MemoryOperand::with_displ(self.at(offset), 8)
    }

    fn write_stubs(&mut self) {
        let saved = [
            Register::RBX,
            Register::RBP,
            Register::R12,
            Register::R13,
            Register::R14,
            Register::R15,
        ];
        let registers: Vec<Register> = Register::values().filter(|r| r.is_gpr64()).collect();
        let components = [
            Instruction::with2(Code::Mov_r64_imm64, Register::RAX, COMPONENTS).expect("mov"),
            Instruction::with2(Code::Mov_r64_imm64, Register::RDX, 0_u64).expect("mov"),
        ];
        let one = |code, cell| Instruction::with1(code, cell).expect("one operand");
        let mut enter: Vec<Instruction> = Vec::new();
        enter.extend(saved.map(|r| Instruction::with1(Code::Push_r64, r).expect("push")));
        enter.push(
            Instruction::with2(Code::Mov_rm64_r64, self.cell(HOST_RSP), Register::RSP)
                .expect("mov"),
        );
        enter.extend(components);
        enter.push(one(Code::Xsave64_mem, self.cell(X_HOST)));
        enter.push(one(Code::Xrstor64_mem, self.cell(X_IN)));
        enter.push(one(Code::Push_rm64, self.cell(INPUT + 128)));
        enter.push(Instruction::with(Code::Popfq));
        let rsp_last = registers.iter().filter(|&&r| r != Register::RSP);
        for &r in rsp_last.chain(&[Register::RSP]) {
            let cell = self.cell(INPUT + 8 * r.number());
            enter.push(Instruction::with2(Code::Mov_r64_rm64, r, cell).expect("mov"));
        }
        let place = self.at(PLACE);
        enter.push(Instruction::with_branch(Code::Jmp_rel32_64, place).expect("jmp"));
        self.assemble(0, &enter);

        for (offset, marker) in [(EXIT, 1), (CALLEE, 2), (FAULT, 3)] {
            let mut exit: Vec<Instruction> = Vec::new();
            for &r in &registers {
                let cell = self.cell(OUTPUT + 8 * r.number());
                exit.push(Instruction::with2(Code::Mov_rm64_r64, cell, r).expect("mov"));
            }
            exit.push(
                Instruction::with2(Code::Mov_r64_rm64, Register::RSP, self.cell(HOST_RSP))
                    .expect("mov"),
            );
            exit.push(Instruction::with(Code::Pushfq));
            exit.push(one(Code::Pop_rm64, self.cell(OUTPUT + 128)));
            exit.push(Instruction::with1(Code::Pushq_imm32, 2).expect("push"));
            exit.push(Instruction::with(Code::Popfq));
            exit.push(
                Instruction::with2(Code::Mov_rm64_imm32, self.cell(MARKER), marker).expect("mov"),
            );
            exit.extend(components);
            exit.push(one(Code::Xsave64_mem, self.cell(X_OUT)));
            exit.push(one(Code::Xrstor64_mem, self.cell(X_HOST)));
            let restore = saved.iter().rev();
            exit.extend(restore.map(|&r| Instruction::with1(Code::Pop_r64, r).expect("pop")));
            exit.push(Instruction::with(Code::Retnq));
            self.assemble(offset, &exit);
        }
    }

    fn call(&mut self) {
        type Entry = extern "sysv64" fn();
        // SAFETY: the enter stub at the start of the mapping is a function of this type: it
        // keeps callee-saved registers, the stack and the floating-point environment.
        let entry = unsafe { std::mem::transmute::<*mut u8, Entry>(self.low) };
        entry();
    }

    /// A legal extended state with `fill` in the x87, xmm and ymm registers.
    pub fn extended(&self, fill: &mut dyn FnMut() -> u8) -> Vec<u8> {
        let mut area = self.clean.clone();
        // Four valid x87 registers, top of stack at physical register 4.
        area[2..4].copy_from_slice(&(4_u16 << 11).to_le_bytes());
        area[4] = 0xf0;
        for register in area[32..160].chunks_mut(16) {
            register[..8].fill_with(&mut *fill);
            register[7] |= 0x80;
            register[8..10].copy_from_slice(&0x4005_u16.to_le_bytes());
        }
        area[160..416].fill_with(&mut *fill);
        area[576..832].fill_with(&mut *fill);
        area[512] |= 7;
        area
    }

    /// Runs what stands at the place, then jumps to the end; `len` bytes are at the place.
    /// With `far`, the data page is the far one. Returns the state after, and for each
    /// step in the island (ip, rsp), if the trap flag is set.
    pub fn run(&mut self, len: usize, before: &State, far: bool) -> (End, State, Vec<(u64, u64)>) {
        self.put_jump(PLACE + len, EXIT);
        for (i, value) in before.gpr.iter().enumerate() {
            self.put(INPUT + 8 * i, *value);
        }
        self.put(INPUT + 128, before.flags);
        self.write(X_IN, &before.extended);
        self.bytes()[X_OUT..X_OUT + X_LEN].fill(0);
        if far {
            self.far_bytes().copy_from_slice(&before.data);
        } else {
            self.write(DATA, &before.data);
        }
        self.write(NEAR, &before.near);
        self.write(STACK - RED_ZONE, &before.stack);
        STEPS.set(0);
        self.call();
        let end = match self.get(MARKER) {
            1 => End::Next,
            2 => End::Callee,
            _ => End::Fault,
        };
        let mut gpr = [0; 16];
        for (i, value) in gpr.iter_mut().enumerate() {
            *value = self.get(OUTPUT + 8 * i);
        }
        let mut extended = self.bytes()[X_OUT..X_OUT + X_LEN].to_vec();
        // The address of the last x87 instruction and operand, and the xsave header.
        extended[6..24].fill(0);
        extended[512..576].fill(0);
        let data = if far {
            self.far_bytes().to_vec()
        } else {
            self.bytes()[DATA..DATA + PAGE].to_vec()
        };
        let state = State {
            gpr,
            flags: self.get(OUTPUT + 128) & !TRAP_FLAG,
            extended,
            data,
            near: self.bytes()[NEAR..NEAR + PAGE].to_vec(),
            stack: self.bytes()[STACK - RED_ZONE..STACK + ABOVE].to_vec(),
        };
        let steps = TRACE.with(|trace| trace[..STEPS.get()].iter().map(Cell::get).collect());
        (end, state, steps)
    }

    pub fn stack_len() -> usize {
        RED_ZONE + ABOVE
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        BASE.set(0);
        for (start, len) in [(self.low, SIZE), (self.far, PAGE)] {
            // SAFETY: the mapping is this machine's own and nothing borrows from it any more.
            unsafe { libc::munmap(start.cast(), len) };
        }
    }
}

fn install_handlers() {
    for signal in [
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGILL,
        libc::SIGFPE,
        libc::SIGTRAP,
    ] {
        // SAFETY: a sigaction of zeros is a valid value.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: `action` is initialised and the handler is async-signal-safe.
        let failed = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
        assert_eq!(failed, 0, "sigaction");
    }
}

/// Sends faults of a machine to its fault exit and notes the steps of an island. It runs on
/// the machine's stack, so it overwrites what lies below the red zone.
extern "C" fn on_signal(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel passes a ucontext_t that lives for the handler's time.
    let registers = unsafe { &mut (*context).uc_mcontext.gregs };
    let rip = registers[libc::REG_RIP as usize].cast_unsigned();
    let rsp = registers[libc::REG_RSP as usize].cast_unsigned();
    let offset = rip.wrapping_sub(BASE.get());
    if signal == libc::SIGTRAP {
        if (ISLAND as u64..INPUT as u64).contains(&offset) {
            let step = STEPS.get();
            TRACE.with(|trace| trace[step].set((rip, rsp)));
            STEPS.set(step + 1);
        }
    } else if offset < SIZE as u64 {
        registers[libc::REG_RIP as usize] = (BASE.get() + FAULT as u64).cast_signed();
        registers[libc::REG_EFL as usize] &= !0x100;
    } else {
        // SAFETY: signal() with SIG_DFL is async-signal-safe; the fault then repeats and kills.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}
