//! A simulated kernel: address spaces without memory, integer-seeded and deterministic.
//!
//! [`SimKernel`] is what every operating system has in common: an address
//! space, a random source, planned failures. A personality (`linux`) puts one
//! system's calls and rules on it, so the real backend of that system runs
//! here unchanged, also in situations that no test machine is in.
//!
//! Invariant: the same seed and the same calls give the same answers.

mod controls;
pub mod freebsd;
mod kernel;
pub mod linux;
pub mod macos;
mod space;
pub mod windows;

pub use controls::Simulated;
pub use freebsd::{FreeBsdOptions, MapExcl, SimFreeBsd};
pub use kernel::SimKernel;
pub use linux::{LowMemory, Map32Bit, SimLinux, SimOptions};
pub use macos::{MacOsOptions, SimMacOs};
pub use space::{Owner, SimMapping};
pub use windows::{BoundedAlloc, SimWindows, WindowsOptions};

use crate::freebsd::FreeBsdPlatform;
use crate::linux::{LinuxPlatform, Options};
use crate::macos::MacOsPlatform;
use crate::windows::WindowsPlatform;

/// The Linux backend on a simulated kernel.
///
/// # Panics
/// The options leave no room for the backend's probing pages.
#[must_use]
pub fn linux(options: SimOptions) -> LinuxPlatform<SimLinux> {
    LinuxPlatform::new(SimLinux::new(options), Options::default())
        .expect("the simulated kernel has room for a probing page")
}

impl LinuxPlatform<SimLinux> {
    /// The simulated kernel below, to inspect it and to inject trouble.
    #[must_use]
    pub fn kernel(&self) -> &SimLinux {
        self.syscalls()
    }
}

/// The FreeBSD backend on a simulated kernel.
///
/// # Panics
/// The options leave no room for the backend's probing pages.
#[must_use]
pub fn freebsd(options: FreeBsdOptions) -> FreeBsdPlatform<SimFreeBsd> {
    FreeBsdPlatform::new(SimFreeBsd::new(options), crate::freebsd::Options::default())
        .expect("the simulated kernel has room for a probing page")
}

impl FreeBsdPlatform<SimFreeBsd> {
    /// The simulated kernel below, to inspect it and to inject trouble.
    #[must_use]
    pub fn kernel(&self) -> &SimFreeBsd {
        self.syscalls()
    }
}

/// The macOS backend on a simulated system.
///
/// # Panics
/// Never: what the backend asks at first always works there.
#[must_use]
pub fn macos(options: MacOsOptions) -> MacOsPlatform<SimMacOs> {
    MacOsPlatform::new(SimMacOs::new(options)).expect("the simulated system has a program")
}

impl MacOsPlatform<SimMacOs> {
    /// The simulated kernel below, to inspect it and to inject trouble.
    #[must_use]
    pub fn kernel(&self) -> &SimMacOs {
        self.syscalls()
    }
}

/// The Windows backend on a simulated system.
///
/// # Panics
/// Never: what the backend asks at first always works there.
#[must_use]
pub fn windows(options: WindowsOptions) -> WindowsPlatform<SimWindows> {
    WindowsPlatform::new(SimWindows::new(options)).expect("the simulated system has addresses")
}

impl WindowsPlatform<SimWindows> {
    /// The simulated kernel below, to inspect it and to inject trouble.
    #[must_use]
    pub fn kernel(&self) -> &SimWindows {
        self.syscalls()
    }
}
