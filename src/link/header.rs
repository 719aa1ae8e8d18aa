//! What a file is, by its first bytes.

use object::elf;
use object::endian::LittleEndian as LE;
use object::read::elf::FileHeader as _;

/// The header of a 64-bit little-endian ELF file.
pub(crate) type Header = elf::FileHeader64<LE>;

/// Checks that `data` is a relocatable x86-64 ELF object, and says what else it is.
pub(crate) fn check_header(data: &[u8]) -> Result<&Header, String> {
    if data.starts_with(b"BC\xc0\xde") || data.starts_with(b"\xde\xc0\x17\x0b") {
        return Err("is LLVM bitcode, not machine code; compile without -flto".to_owned());
    }
    if !data.starts_with(b"\x7fELF") {
        let head: Vec<String> = data
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        return Err(format!(
            "is not an ELF file ({} bytes, begins with [{}]); give relocatable objects (.o), archives (.a) or C sources (.c)",
            data.len(),
            head.join(" ")
        ));
    }
    match (data.get(4), data.get(5)) {
        (Some(2), Some(1)) => {}
        (Some(class), Some(order)) => {
            return Err(format!(
                "is ELF of class {class} and byte order {order}; x86-64 needs class 2 (64-bit) and order 1 (little-endian)"
            ));
        }
        _ => {
            return Err(format!(
                "ends after {} bytes, inside the ELF header",
                data.len()
            ));
        }
    }
    let header = Header::parse(data)
        .map_err(|error| format!("{error} ({} bytes); is the file truncated?", data.len()))?;
    if header.e_machine(LE) != elf::EM_X86_64 {
        return Err(format!(
            "is for machine {} (e_machine); only x86-64 ({}) can be loaded",
            header.e_machine(LE).0,
            elf::EM_X86_64.0
        ));
    }
    match header.e_type(LE) {
        elf::ET_REL => Ok(header),
        elf::ET_DYN => Err(
            "is a shared library or position-independent executable; give libraries with -l"
                .to_owned(),
        ),
        elf::ET_EXEC => Err("is a linked executable; give relocatable objects (.o)".to_owned()),
        other => Err(format!(
            "is ELF of type {}, not a relocatable object (1)",
            other.0
        )),
    }
}
