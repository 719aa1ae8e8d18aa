//! A system that low2g has no backend for: everything compiles, and asking for memory is an error.

use crate::contract::Platform;
use crate::error::PlatformError;
use crate::range::AddrRange;
use std::sync::Arc;

/// No platform.
///
/// # Errors
/// Always: the error names the system.
pub fn native() -> Result<Arc<dyn Platform>, PlatformError> {
    Err(PlatformError {
        call: "native",
        range: AddrRange::at(0, 0).expect("starts at 0"),
        code: 0,
        reason: format!(
            "low2g has no backend for {} on {}",
            std::env::consts::OS,
            std::env::consts::ARCH
        ),
    })
}
