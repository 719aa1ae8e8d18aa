//! Which thread-local relocations have a meaning where they stand.

use crate::link::apply::{Deferred, Fields, Slow, Target, fields};
use crate::link::error::LinkError;
use crate::link::howto::{Formula, Howto, howto};
use crate::link::object::Rela;
use crate::link::value::{TLS, Value, WEAK_ZERO};

impl Target<'_, '_> {
    /// Refuses what an initial value of a thread-local variable cannot hold: every thread's
    /// copy has another place, so only addresses and sizes have a meaning.
    pub(crate) fn check_image(&self, errors: &mut Vec<LinkError>) {
        for rela in &*self.section.relas {
            let f = fields(rela);
            let meant = howto(f.r_type).is_none_or(|howto| {
                matches!(
                    howto.formula,
                    Formula::Nothing | Formula::Absolute | Formula::Size | Formula::DynamicOnly
                )
            });
            if !meant {
                errors.push(*self.thread_local_error(
                    f,
                    "the initial value of a thread-local variable can hold addresses and sizes only: each thread's copy has another place; initialise it in code",
                ));
            }
        }
    }

    /// A relocation of thread-local kind, or one against a thread-local symbol.
    pub(crate) fn thread_local(
        &self,
        bytes: &mut [u8],
        f: Fields,
        howto: &Howto,
        value: Value,
    ) -> Result<Slow, Box<LinkError>> {
        if howto.formula != Formula::Tls {
            return Err(self.thread_local_error(
                f,
                "the symbol is thread-local, the relocation is for ordinary ones; declare it thread-local (__thread, thread_local) where it is used",
            ));
        }
        if !self.section.is_alloc() {
            // Debug information: the offset in the block, whatever the code does.
            if !matches!(f.r_type, 17 | 21) {
                return Err(self.thread_local_error(f, "it has no meaning in debug information"));
            }
            let number = value.addr.wrapping_add_signed(f.addend);
            self.write(bytes, f, howto, number)?;
            return Ok(Slow::Written {
                s: value.addr,
                number,
                action: "direct",
            });
        }
        if value.has(WEAK_ZERO) {
            return Err(self.thread_local_error(
                f,
                "the weak variable is nowhere defined, and a thread-local one has no address 0; define it, or add the object or library that does",
            ));
        }
        // The module's own number needs no symbol.
        let symbol_matters = !matches!(f.r_type, 16 | 20) || f.symbol != 0;
        if !value.has(TLS) && symbol_matters {
            return Err(self.thread_local_error(
                f,
                "the relocation is thread-local, the symbol is not; declare it the same way where it is defined and used",
            ));
        }
        Ok(Slow::ThreadLocal)
    }

    /// The call of `__tls_get_addr` that belongs to the `TLSGD` or `TLSLD` of `f`: the next relocation.
    pub(crate) fn call_of(&self, f: Fields, rest: &[Rela], values: &[Value]) -> Option<Deferred> {
        let next = rest.first().filter(|_| matches!(f.r_type, 19 | 20))?;
        let call = fields(next);
        let near = (f.offset..f.offset.saturating_add(12)).contains(&call.offset);
        let plain = matches!(call.r_type, 2 | 4 | 9 | 31 | 41 | 42);
        let index = usize::try_from(call.symbol).ok()?;
        let named = self.object.symbol_display(index) == "__tls_get_addr";
        let value = *values.get(index)?;
        (near && plain && named).then(|| self.deferred(next, value))
    }

    pub(crate) fn thread_local_error(&self, f: Fields, reason: &str) -> Box<LinkError> {
        Box::new(LinkError::Tls {
            site: Box::new(self.site(f)),
            reason: reason.to_owned(),
        })
    }
}
