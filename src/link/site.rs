//! Errors about one relocation: where it is, what it wanted, what to do.

use super::apply::{Fields, Target};
use super::error::{LinkError, Place, RelocationSite};
use super::howto::{Howto, Width, howto};

impl Target<'_, '_> {
    pub(crate) fn site(&self, f: Fields) -> RelocationSite {
        let index = usize::try_from(f.symbol).unwrap_or(usize::MAX);
        RelocationSite {
            at: Place {
                object: self.object.name.clone(),
                section: self.section.display_name(),
                offset: f.offset,
            },
            r_type: howto(f.r_type).map_or_else(
                || format!("relocation type {}", f.r_type),
                |howto| howto.name.to_owned(),
            ),
            symbol: self.object.symbol_display(index),
            addend: f.addend,
        }
    }

    /// An overflow error unless `number` fits.
    pub(crate) fn check(
        &self,
        howto: &Howto,
        f: Fields,
        s: u64,
        number: u64,
        place: u64,
    ) -> Result<(), Box<LinkError>> {
        if howto.check.fits(howto.width, number) {
            return Ok(());
        }
        Err(self.overflow(howto, f, s, number, place, advice(howto, place)))
    }

    pub(crate) fn overflow(
        &self,
        howto: &Howto,
        f: Fields,
        s: u64,
        number: u64,
        place: u64,
        advice: &str,
    ) -> Box<LinkError> {
        Box::new(LinkError::Overflow {
            site: Box::new(self.site(f)),
            symbol_addr: s,
            value: number,
            place,
            range: howto.check.range(howto.width),
            advice: advice.to_owned(),
        })
    }

    pub(crate) fn unsupported(&self, f: Fields, reason: &str) -> Box<LinkError> {
        Box::new(LinkError::UnsupportedRelocation {
            site: Box::new(self.site(f)),
            reason: reason.to_owned(),
        })
    }
}

pub(crate) fn input_error(target: &Target<'_, '_>, offset: u64, reason: String) -> LinkError {
    LinkError::Input {
        at: Place {
            object: target.object.name.clone(),
            section: target.section.display_name(),
            offset,
        },
        reason,
    }
}

/// What to do about a value that does not fit.
const fn advice(howto: &Howto, place: u64) -> &'static str {
    match howto.width {
        Width::Byte | Width::Half => {
            "use a wider field: this one cannot hold an address of this process"
        }
        _ if place >= 1 << 31 => {
            "small static code needs a reach of 2g, and this one goes beyond: use reach 2g, or compile with -fPIC or -mcmodel=large"
        }
        _ => "compile with -fPIC or -mcmodel=large, or place the two nearer to each other",
    }
}
