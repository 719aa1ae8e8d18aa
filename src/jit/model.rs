//! Whether an allocator's addresses serve a code model.
//!
//! The code model is the compiler's choice and an input here: nothing of it can be read off the
//! machine code in time, and a wrong one shows only when a field overflows or, worse, does not.

use low2g_platform::AddrRange;

use crate::alloc::LowAllocator;
use crate::alloc::reach::SMALL_MODEL_END;
use crate::place::CodeModel;

use super::error::JitError;

/// How code of the small and medium models names what it refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relocations {
    /// By absolute address, sign-extended from 32 bits: the static relocation model.
    Absolute,
    /// By distance from the instruction, 32 bits: position-independent code, Cranelift's code.
    PcRelative,
}

/// Whether every block of `allocator` serves code of `model`.
///
/// # Errors
/// [`JitError::AbsoluteReach`] or [`JitError::RelativeReach`]: some block could come out of reach.
pub fn check_reach(
    allocator: &LowAllocator,
    model: CodeModel,
    relocations: Relocations,
) -> Result<(), JitError> {
    check_window(allocator.window(), model, relocations)
}

fn check_window(
    window: AddrRange,
    model: CodeModel,
    relocations: Relocations,
) -> Result<(), JitError> {
    match (model, relocations) {
        (CodeModel::Large, _) => Ok(()),
        (CodeModel::Small | CodeModel::Medium, Relocations::Absolute) => {
            if window.end() <= 1 << 31 {
                Ok(())
            } else {
                Err(JitError::AbsoluteReach { model, window })
            }
        }
        (CodeModel::Small | CodeModel::Medium, Relocations::PcRelative) => {
            if window.len() <= SMALL_MODEL_END {
                Ok(())
            } else {
                Err(JitError::RelativeReach { model, window })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reach_serves_a_model_or_is_refused_with_its_bounds() {
        use CodeModel::{Large, Medium, Small};
        use Relocations::{Absolute, PcRelative};
        let mib = |start: u64, end: u64| AddrRange::new(start << 20, end << 20).expect("ordered");
        let (low, full, four) = (mib(16, 2032), mib(16, 2048), mib(16, 4096));
        let (near, high) = (
            mib(1 << 20, (1 << 20) + 4064),
            mib(1 << 20, (1 << 20) + 100),
        );
        for (window, absolute, relative) in [
            (low, true, true),
            (full, true, true),
            (four, false, false),
            (near, false, false),
            (high, false, true),
        ] {
            for model in [Small, Medium] {
                let check = |relocations| check_window(window, model, relocations);
                assert_eq!(check(Absolute).is_ok(), absolute, "{window}");
                assert_eq!(check(PcRelative).is_ok(), relative, "{window}");
            }
            for relocations in [Absolute, PcRelative] {
                assert_eq!(check_window(window, Large, relocations), Ok(()));
            }
        }
        let error = check_window(four, Small, Absolute).expect_err("4 GiB");
        let text = error.to_string();
        assert!(
            text.contains("small") && text.contains(&four.to_string()),
            "{text}"
        );
    }
}
