//! A toy JIT: compiles `1 + 2 * x - 3` and the like to machine code below 2 GiB, and calls it.
//!
//! `cargo run --example toy_jit -- 'x * x + 1' 6`

use low2g::alloc::{LowAllocator, PublishedCode};

/// Compiles sums of products of numbers and `x` into a function of `x` (in rdi).
struct Compiler<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    text: Vec<u8>,
}

impl Compiler<'_> {
    fn next_is(&mut self, wanted: &[char]) -> Option<char> {
        while self.rest.next_if(|c| c.is_whitespace()).is_some() {}
        self.rest.next_if(|c| wanted.contains(c))
    }

    /// The value goes to rax.
    fn atom(&mut self) -> Result<(), String> {
        if self.next_is(&['x']).is_some() {
            self.text.extend([0x48, 0x89, 0xf8]); // mov rax, rdi
            return Ok(());
        }
        let mut digits = String::new();
        while let Some(digit) = self.rest.next_if(char::is_ascii_digit) {
            digits.push(digit);
        }
        let value: i64 = digits
            .parse()
            .map_err(|_| format!("a number or x expected before {:?}", self.rest.peek()))?;
        self.text.extend([0x48, 0xb8]); // mov rax, imm64
        self.text.extend(value.to_le_bytes());
        Ok(())
    }

    fn product(&mut self) -> Result<(), String> {
        self.atom()?;
        while self.next_is(&['*']).is_some() {
            self.text.push(0x50); // push rax
            self.atom()?;
            self.text.extend([0x59, 0x48, 0x0f, 0xaf, 0xc1]); // pop rcx; imul rax, rcx
        }
        Ok(())
    }

    fn sum(&mut self) -> Result<(), String> {
        self.product()?;
        while let Some(sign) = self.next_is(&['+', '-']) {
            self.text.push(0x50); // push rax
            self.product()?;
            match sign {
                '+' => self.text.extend([0x59, 0x48, 0x01, 0xc8]), // pop rcx; add rax, rcx
                // mov rcx, rax; pop rax; sub rax, rcx
                _ => self.text.extend([0x48, 0x89, 0xc1, 0x58, 0x48, 0x29, 0xc8]),
            }
        }
        Ok(())
    }
}

fn compile(low: &LowAllocator, source: &str) -> Result<PublishedCode, String> {
    let mut compiler = Compiler {
        rest: source.chars().peekable(),
        text: Vec::new(),
    };
    compiler.sum()?;
    if let Some(left) = compiler.rest.peek() {
        return Err(format!("{left:?} was not expected"));
    }
    compiler.text.push(0xc3); // ret
    let text = compiler.text;
    let size = low2g::platform::to_u64(text.len());
    let mut block = low.allocate_code(size, 16).map_err(|e| e.to_string())?;
    block.working_mem().copy_from_slice(&text);
    block.publish().map_err(|error| error.to_string())
}

fn call(code: &PublishedCode, x: i64) -> i64 {
    let entry =
        std::ptr::with_exposed_provenance::<()>(usize::try_from(code.exec_addr()).expect("64-bit"));
    // SAFETY: transmute needs a function of that type there: the compiler wrote one, which takes
    // its argument in rdi and returns in rax, and its block is alive.
    let function = unsafe { std::mem::transmute::<*const (), extern "C" fn(i64) -> i64>(entry) };
    function(x)
}

fn main() -> Result<(), String> {
    let low = LowAllocator::new().map_err(|error| error.to_string())?;
    for (source, x, expected) in [("1 + 2 * x - 3", 10, 18), ("x * x + 1", 6, 37), ("7", 0, 7)] {
        let code = compile(&low, source)?;
        assert_eq!(call(&code, x), expected);
        println!("{:#x}: {source} at x = {x} is {expected}", code.exec_addr());
    }
    assert!(compile(&low, "1 + ").is_err());
    let mut arguments = std::env::args().skip(1);
    if let (Some(source), Some(x)) = (arguments.next(), arguments.next()) {
        let x = x.parse().map_err(|error| format!("{x}: {error}"))?;
        println!("{}", call(&compile(&low, &source)?, x));
    }
    Ok(())
}
