//! [`Reach`]: the addresses a block may have, every byte of it.
//!
//! Invariant: a window made here never holds an address below [`HARD_FLOOR`]
//! or past the highest user address, so that nothing above must check again.

use std::fmt;
use std::str::FromStr;

use low2g_platform::{AddrRange, Config, NoLowWindow};

use crate::alloc::error::AllocError;

/// Lowest address of any window: null-dereference protection that even root keeps.
pub const HARD_FLOOR: u64 = 64 << 10;

/// Lowest address of `2g`, `2g-full` and `4g` unless configured: a null pointer plus a large field offset stays unmapped.
pub const DEFAULT_FLOOR: u64 = 16 << 20;

/// End of `2g`: the psABI's small code model puts symbols below 2^31 - 2^24, so that symbol plus a 16 MiB addend still encodes.
pub const SMALL_MODEL_END: u64 = (1 << 31) - (1 << 24);

/// How far from its address `near` reaches, for the same reason.
pub const NEAR_DISTANCE: u64 = SMALL_MODEL_END;

/// Addresses that every byte of a block must lie in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reach {
    /// `2g`: the small code model, ends at [`SMALL_MODEL_END`].
    #[default]
    TwoGib,
    /// `2g-full`: ends at 2 GiB.
    TwoGibFull,
    /// `4g`: 32-bit pointers.
    FourGib,
    /// `near:0xADDR`: every byte within [`NEAR_DISTANCE`] of the address.
    Near(u64),
    /// `0xSTART-0xEND`, end exclusive.
    Range(AddrRange),
    /// Several at once, joined by `+`: their intersection.
    All(Vec<Reach>),
}

impl Reach {
    /// The addresses this reach allows on a system, with the default floor.
    ///
    /// # Errors
    /// As [`Reach::window_above`].
    pub fn window(&self, config: &Config) -> Result<AddrRange, AllocError> {
        self.window_above(config, DEFAULT_FLOOR)
    }

    /// The addresses this reach allows on a system. `floor` bounds `2g`, `2g-full` and `4g`
    /// from below; the others only by [`HARD_FLOOR`].
    ///
    /// # Errors
    /// [`AllocError::NoLowWindow`] if the system has no low memory and the reach needs it;
    /// [`AllocError::EmptyReach`] if nothing is left.
    pub fn window_above(&self, config: &Config, floor: u64) -> Result<AddrRange, AllocError> {
        let user = AddrRange::new(HARD_FLOOR, config.user_end.max(HARD_FLOOR))
            .expect("the maximum is not below the floor");
        let window = self
            .bounds(&config.low_window, floor.max(HARD_FLOOR))
            .map_err(|reason| AllocError::NoLowWindow {
                reach: self.clone(),
                reason,
            })?;
        window
            .and_then(|window| window.intersection(user))
            .ok_or_else(|| AllocError::EmptyReach {
                reach: self.clone(),
                floor,
            })
    }

    /// The reach's own bounds; `None` if they hold no address.
    fn bounds(
        &self,
        low: &Result<AddrRange, NoLowWindow>,
        floor: u64,
    ) -> Result<Option<AddrRange>, NoLowWindow> {
        let below = |end: u64| -> Result<Option<AddrRange>, NoLowWindow> {
            let low = low.clone()?;
            Ok(AddrRange::new(floor, end).and_then(|range| range.intersection(low)))
        };
        match self {
            Self::TwoGib => below(SMALL_MODEL_END),
            Self::TwoGibFull => below(1 << 31),
            Self::FourGib => below(1 << 32),
            Self::Near(addr) => Ok(AddrRange::new(
                addr.saturating_sub(NEAR_DISTANCE),
                addr.saturating_add(NEAR_DISTANCE),
            )),
            Self::Range(range) => Ok(Some(*range)),
            Self::All(parts) => {
                let mut all = AddrRange::new(0, u64::MAX);
                for part in parts {
                    let part = part.bounds(low, floor)?;
                    all = all.and_then(|all| part.and_then(|part| all.intersection(part)));
                }
                Ok(all)
            }
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TwoGib => f.write_str("2g"),
            Self::TwoGibFull => f.write_str("2g-full"),
            Self::FourGib => f.write_str("4g"),
            Self::Near(addr) => write!(f, "near:{addr:#x}"),
            Self::Range(range) => write!(f, "{:#x}-{:#x}", range.start(), range.end()),
            Self::All(parts) => {
                for (index, part) in parts.iter().enumerate() {
                    let separator = if index == 0 { "" } else { "+" };
                    write!(f, "{separator}{part}")?;
                }
                Ok(())
            }
        }
    }
}

impl FromStr for Reach {
    type Err = AllocError;

    fn from_str(text: &str) -> Result<Self, AllocError> {
        if text.contains('+') {
            let parts = text.split('+').map(str::parse).collect::<Result<_, _>>()?;
            return Ok(Self::All(parts));
        }
        let bad = || AllocError::BadWord {
            what: "reach",
            word: text.to_owned(),
            expected: "2g, 2g-full, 4g, near:0xADDR, 0xSTART-0xEND, or several joined by +",
        };
        match text {
            "2g" => Ok(Self::TwoGib),
            "2g-full" => Ok(Self::TwoGibFull),
            "4g" => Ok(Self::FourGib),
            _ => {
                if let Some(addr) = text.strip_prefix("near:") {
                    return hexadecimal(addr).map(Self::Near).ok_or_else(bad);
                }
                let (start, end) = text.split_once('-').ok_or_else(bad)?;
                let start = hexadecimal(start).ok_or_else(bad)?;
                let end = hexadecimal(end).ok_or_else(bad)?;
                AddrRange::new(start, end)
                    .filter(|range| !range.is_empty())
                    .map(Self::Range)
                    .ok_or_else(bad)
            }
        }
    }
}

/// A number as the command line writes addresses: `0x` and hexadecimal digits.
fn hexadecimal(text: &str) -> Option<u64> {
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))?;
    // from_str_radix would take a sign here.
    if digits.starts_with(['+', '-']) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}
