//! The relocation loop: one pass over a section's relocations, in safe code on bytes.
//!
//! What fits is written at once; what needs a GOT slot, a stub or an island is put on
//! a list and done in a second, short pass (`far`), when those have addresses.
//! No allocation a relocation; nothing is looked up by name.

use object::endian::LittleEndian as LE;

use super::engine::Tables;
use super::error::LinkError;
use super::far::Key;
use super::howto::{Check, Formula, Howto, Width, howto, write_field};
use super::object::{Object, Rela, Section};
use super::options::Relax;
use super::relax::{self, Prefix};
use super::site::input_error;
use super::symbols::{Definition, to_index};
use super::tls;
use super::value::{
    ABSOLUTE, CARE, DISCARDED, EXTERNAL, GOT_SYMBOL, IFUNC, TLS, UNRESOLVED, Value, WEAK_ZERO,
};

/// Errors after which a link stops collecting more.
pub(crate) const ERROR_LIMIT: usize = 100;

/// A relocation whose field was written, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) object: u32,
    pub(crate) section: u32,
    pub(crate) offset: u64,
    pub(crate) r_type: u32,
    pub(crate) symbol: u32,
    pub(crate) addend: i64,
    pub(crate) place: u64,
    pub(crate) s: u64,
    pub(crate) value: u64,
    pub(crate) action: &'static str,
}

/// A relocation to be done in the second pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deferred {
    pub(crate) object: u32,
    pub(crate) section: u32,
    pub(crate) rela: Rela,
    pub(crate) value: Value,
}

/// What the pass brings up besides bytes.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) deferred: Vec<Deferred>,
    /// Relocations of thread-local kind.
    pub(crate) thread_local: Vec<tls::Use>,
    pub(crate) rows: Vec<Row>,
    pub(crate) errors: Vec<LinkError>,
}

/// A section being relocated.
#[derive(Debug)]
pub(crate) struct Target<'a, 'd> {
    pub(crate) tables: &'a Tables<'d>,
    pub(crate) object: &'a Object<'d>,
    pub(crate) object_number: u32,
    pub(crate) section: &'a Section<'d>,
    pub(crate) section_number: u32,
    pub(crate) addr: u64,
    pub(crate) relax: Relax,
}

/// Fields of a relocation, decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields {
    pub(crate) offset: u64,
    pub(crate) r_type: u32,
    pub(crate) symbol: u32,
    pub(crate) addend: i64,
}

#[inline]
pub(crate) fn fields(rela: &Rela) -> Fields {
    let info = rela.r_info.get(LE);
    Fields {
        offset: rela.r_offset.get(LE),
        r_type: u32::try_from(info & 0xffff_ffff).expect("masked"),
        symbol: u32::try_from(info >> 32).expect("shifted"),
        addend: rela.r_addend.get(LE),
    }
}

/// Applies all relocations of `target` to `bytes`; `values` by symbol number.
pub(crate) fn apply<const RECORD: bool>(
    target: &Target<'_, '_>,
    bytes: &mut [u8],
    values: &[Value],
    out: &mut Outcome,
) {
    let mut relas = target.section.relas.iter();
    while let Some(rela) = relas.next() {
        let f = fields(rela);
        let value = usize::try_from(f.symbol)
            .ok()
            .and_then(|index| values.get(index));
        let Some(&value) = value else {
            if f.r_type == 0 {
                // R_X86_64_NONE means nothing, whatever its symbol.
                continue;
            }
            if out.errors.len() >= ERROR_LIMIT {
                return;
            }
            out.errors.push(input_error(
                target,
                f.offset,
                format!(
                    "relocation refers to symbol #{}, of {}",
                    f.symbol,
                    values.len()
                ),
            ));
            continue;
        };
        let place = target.addr.wrapping_add(f.offset);
        if value.flags & CARE == 0 {
            let absolute = value.addr.wrapping_add_signed(f.addend);
            let (number, fits, width) = match f.r_type {
                1 => (absolute, true, Width::Xword),
                2 | 4 => {
                    let number = absolute.wrapping_sub(place);
                    (number, Check::Signed.fits(Width::Word, number), Width::Word)
                }
                10 => (
                    absolute,
                    Check::Unsigned.fits(Width::Word, absolute),
                    Width::Word,
                ),
                11 => (
                    absolute,
                    Check::Signed.fits(Width::Word, absolute),
                    Width::Word,
                ),
                _ => (0, false, Width::None),
            };
            if fits && write_field(bytes, f.offset, width, number) {
                if RECORD {
                    out.rows
                        .push(target.row(f, value.addr, place, number, "direct"));
                }
                continue;
            }
        }
        match target.slow(bytes, f, value, place) {
            Ok(Slow::Written { s, number, action }) => {
                if RECORD {
                    out.rows.push(target.row(f, s, place, number, action));
                }
            }
            Ok(Slow::Deferred) => out.deferred.push(target.deferred(rela, value)),
            Ok(Slow::ThreadLocal) => {
                let item = target.deferred(rela, value);
                let call = target.call_of(f, relas.as_slice(), values);
                if call.is_some() {
                    relas.next();
                }
                out.thread_local.push(tls::Use { item, call });
            }
            Err(error) => {
                out.errors.push(*error);
                if out.errors.len() >= ERROR_LIMIT {
                    return;
                }
            }
        }
    }
}

/// What became of a relocation that is not one of the common cases.
#[derive(Debug)]
pub(crate) enum Slow {
    Written {
        s: u64,
        number: u64,
        action: &'static str,
    },
    Deferred,
    /// For `tls`, after this pass.
    ThreadLocal,
}

impl Target<'_, '_> {
    pub(crate) fn row(
        &self,
        f: Fields,
        s: u64,
        place: u64,
        value: u64,
        action: &'static str,
    ) -> Row {
        Row {
            object: self.object_number,
            section: self.section_number,
            offset: f.offset,
            r_type: f.r_type,
            symbol: f.symbol,
            addend: f.addend,
            place,
            s,
            value,
            action,
        }
    }

    /// Everything but the common cases.
    fn slow(
        &self,
        bytes: &mut [u8],
        f: Fields,
        value: Value,
        place: u64,
    ) -> Result<Slow, Box<LinkError>> {
        let Some(howto) = howto(f.r_type) else {
            return Err(self.unsupported(f, "the psABI defines types 0 to 51"));
        };
        let written = |s, number, action| Ok(Slow::Written { s, number, action });
        match howto.formula {
            Formula::Nothing => return written(value.addr, 0, "direct"),
            Formula::DynamicOnly => {
                return Err(self.unsupported(
                    f,
                    "it belongs in executables and shared libraries; give the relocatable object",
                ));
            }
            _ => {}
        }
        if !field_inside(bytes, f.offset, howto.width) {
            return Err(Box::new(input_error(
                self,
                f.offset,
                format!(
                    "{} field of {} bytes ends past the section's {} bytes",
                    howto.name,
                    howto.width.bytes(),
                    bytes.len()
                ),
            )));
        }
        let s = self.checked_value(f, value)?;
        if howto.formula == Formula::Tls || (value.has(TLS) && howto.formula != Formula::Size) {
            return self.thread_local(bytes, f, howto, value);
        }
        match howto.formula {
            Formula::Size => {
                let size = self.symbol_size(f).wrapping_add_signed(f.addend);
                self.check(howto, f, s, size, place)?;
                self.write(bytes, f, howto, size)?;
                written(s, size, "direct")
            }
            Formula::GotRelative => self.got_relative(bytes, f, value, place),
            Formula::GotOffset
            | Formula::GotBaseRelative
            | Formula::OffsetFromGot
            | Formula::StubOffsetFromGot => Ok(Slow::Deferred),
            _ if value.flags & (IFUNC | GOT_SYMBOL) != 0 => Ok(Slow::Deferred),
            _ => {
                let mut number = s.wrapping_add_signed(f.addend);
                if howto.formula != Formula::Absolute {
                    number = number.wrapping_sub(place);
                }
                let fits = howto.check.fits(howto.width, number);
                // Debuggers take 0 for dropped code, whatever the addend (as GNU ld and lld write it).
                if value.has(DISCARDED) && !(fits && self.section.is_alloc()) {
                    self.write(bytes, f, howto, 0)?;
                    return written(s, 0, "direct");
                }
                if fits {
                    self.write(bytes, f, howto, number)?;
                    return written(s, number, "direct");
                }
                let reachable = howto.width == Width::Word
                    && (value.has(EXTERNAL) || howto.formula != Formula::Absolute)
                    && !value.has(ABSOLUTE | WEAK_ZERO);
                if reachable {
                    return Ok(Slow::Deferred);
                }
                self.check(howto, f, s, number, place)?;
                Ok(Slow::Deferred)
            }
        }
    }

    pub(crate) fn deferred(&self, rela: &Rela, value: Value) -> Deferred {
        Deferred {
            object: self.object_number,
            section: self.section_number,
            rela: *rela,
            value,
        }
    }

    /// S, unless the symbol has none.
    fn checked_value(&self, f: Fields, value: Value) -> Result<u64, Box<LinkError>> {
        if value.has(UNRESOLVED) {
            return Err(Box::new(input_error(
                self,
                f.offset,
                format!(
                    "{} is neither defined nor a global symbol",
                    self.site(f).symbol
                ),
            )));
        }
        // Frame and exception tables of a dropped function stay behind; linkers give them 0.
        let tolerant = [
            &b".eh_frame"[..],
            b".gcc_except_table",
            b".stack_sizes",
            b".ARM.exidx",
        ]
        .iter()
        .any(|name| self.section.name.starts_with(name));
        if value.has(DISCARDED) && !tolerant && self.section.is_alloc() {
            return Err(Box::new(input_error(
                self,
                f.offset,
                format!(
                    "{} is in a COMDAT section that another object's copy replaced; the object is inconsistent, compile it anew",
                    self.site(f).symbol
                ),
            )));
        }
        Ok(value.addr)
    }

    /// G + GOT + A - P: without a slot where a relaxation applies.
    fn got_relative(
        &self,
        bytes: &mut [u8],
        f: Fields,
        value: Value,
        place: u64,
    ) -> Result<Slow, Box<LinkError>> {
        let prefix = match f.r_type {
            9 => Some(Prefix::Unknown),
            41 => Some(Prefix::None),
            42 => Some(Prefix::Rex),
            _ => None,
        };
        if let Some(prefix) = prefix
            && self.section.is_exec()
            && value.flags & (IFUNC | GOT_SYMBOL) == 0
            && let Ok(offset) = usize::try_from(f.offset)
            && let Some(relaxed) = relax::relax(
                self.relax, prefix, bytes, offset, value.addr, f.addend, place,
            )
        {
            return Ok(Slow::Written {
                s: value.addr,
                number: relaxed.value,
                action: relaxed.action,
            });
        }
        Ok(Slow::Deferred)
    }

    /// Z: the size that the definition gives.
    pub(crate) fn symbol_size(&self, f: Fields) -> u64 {
        let size_in = |object: &Object<'_>, index: u32| {
            let symbol = object.symbols().get(to_index(index));
            symbol.map_or(0, |symbol| symbol.st_size.get(LE))
        };
        match Key::of(self.object_number, self.object, f.symbol) {
            Key::Local { symbol, .. } => size_in(self.object, symbol),
            Key::Global(id) => match self.tables.symbols.list[to_index(id)].definition {
                Definition::Object { object, symbol } => {
                    size_in(&self.tables.objects[to_index(object)], symbol)
                }
                Definition::Common { size, .. } => size,
                Definition::External(external) => external.size,
                _ => 0,
            },
        }
    }

    pub(crate) fn write(
        &self,
        bytes: &mut [u8],
        f: Fields,
        howto: &Howto,
        number: u64,
    ) -> Result<(), Box<LinkError>> {
        if write_field(bytes, f.offset, howto.width, number) {
            Ok(())
        } else {
            Err(Box::new(input_error(
                self,
                f.offset,
                format!(
                    "{} field ends past the section's {} bytes",
                    howto.name,
                    bytes.len()
                ),
            )))
        }
    }
}

fn field_inside(bytes: &[u8], offset: u64, width: Width) -> bool {
    usize::try_from(offset)
        .ok()
        .and_then(|start| start.checked_add(width.bytes()))
        .is_some_and(|end| end <= bytes.len())
}
