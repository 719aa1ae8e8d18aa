//! What `low2g doctor` says is to be done about what this system does not allow.

/// A sentence for each finding.
pub(super) struct Advice {
    /// Low memory is of the kernel's choice.
    pub(super) chosen_by_kernel: &'static str,
    /// Low memory is refused.
    pub(super) refused: &'static str,
    /// The process's map cannot be read.
    pub(super) no_map: &'static str,
    /// Little is free.
    pub(super) crowded: &'static str,
    /// Code has one view only.
    pub(super) one_view: &'static str,
    /// Nothing executes.
    pub(super) no_code: &'static str,
    /// Little static thread-local storage is left, or there is none for loaded objects.
    pub(super) static_tls: &'static str,
    pub(super) exact_claims: &'static str,
    pub(super) low_claims: &'static str,
    pub(super) second_views: &'static str,
    pub(super) protect_to_execute: &'static str,
    pub(super) guard_in_place: &'static str,
    pub(super) seal: &'static str,
}

#[cfg(target_os = "linux")]
pub(super) const ADVICE: Advice = Advice {
    chosen_by_kernel: "addresses are of the kernel's choice: use Linux 4.17 or newer, and no emulator that ignores address hints",
    refused: "see `low2g map` for what holds the low 2 GiB; check ulimit -v and vm.max_map_count",
    no_map: "mount /proc",
    crowded: "`low2g map` names what holds the rest; link the program as PIE to clear the executable out of the way",
    one_view: "publishing costs a system call: allow memfd_create (seccomp, vm.memfd_noexec)",
    no_code: "a policy forbids executable memory (SELinux execmem, PR_SET_MDWE without memfd): run without it, or as another domain",
    static_tls: "start the process with GLIBC_TUNABLES=glibc.rtld.optional_static_tls=BYTES, reserve a pool (low2g::tls_pool!; for this tool LOW2G_TLS_POOL=BYTES and the feature tls-pool at build time), or compile with -fPIC, whose thread-local variables need none",
    exact_claims: "MAP_FIXED_NOREPLACE needs Linux 4.17; hints are verified instead",
    low_claims: "MAP_32BIT is the last resort when draws fail; this architecture or kernel lacks it",
    second_views: "memfd_create is refused: code is published by mprotect",
    protect_to_execute: "PR_SET_MDWE or a policy is in force: code takes two views",
    guard_in_place: "MADV_GUARD_INSTALL needs Linux 6.13: guards take mappings of their own",
    seal: "mseal needs Linux 6.10: finalized pages can be unmapped",
};

#[cfg(windows)]
pub(super) const ADVICE: Advice = Advice {
    chosen_by_kernel: "addresses are of the system's choice (VirtualAlloc2): VirtualAlloc at an address failed whatever it was",
    refused: "see `low2g map` for what holds the low 2 GiB; check the job's limit of memory and the page file's size",
    no_map: "VirtualQuery answers any process about itself: this is no system that is known",
    crowded: "`low2g map` names what holds the rest; link the program with /LARGEADDRESSAWARE and /DYNAMICBASE /HIGHENTROPYVA to clear images out of the way",
    one_view: "publishing costs a call of VirtualProtect: views of an executable section are refused",
    no_code: "Arbitrary Code Guard is in force (ProcessDynamicCodePolicy): it cannot be lifted by the process; start it without that policy",
    static_tls: "loaded objects cannot have thread-local variables on Windows: compile without them, or keep them in the program and call for them",
    exact_claims: "VirtualAlloc at an address never replaces: this is no system that is known",
    low_claims: "VirtualAlloc2 is the last resort when draws fail; it needs Windows 10 1803",
    second_views: "sections that execute are refused: code is published by VirtualProtect",
    protect_to_execute: "a policy is in force: code takes two views",
    guard_in_place: "guards are pages of the reservation without access; that is all there is on Windows",
    seal: "nothing on Windows makes pages final: finalized pages can be unmapped",
};

#[cfg(target_os = "freebsd")]
pub(super) const ADVICE: Advice = Advice {
    chosen_by_kernel: "addresses are of the kernel's choice: MAP_EXCL is refused and hints move; set kern.elf64.aslr.enable=0, or use an emulator that knows MAP_EXCL",
    refused: "see `low2g map` for what holds the low 2 GiB; check `limits -v`",
    no_map: "the sysctl kern.proc.vmmap is refused: check security.bsd.unprivileged_proc_debug",
    crowded: "`low2g map` names what holds the rest; link the program as PIE to clear the executable out of the way",
    one_view: "publishing costs a system call: shm_open(SHM_ANON) is refused",
    no_code: "kern.elf64.allow_wx or proccontrol(1) forbid that written memory executes, and views are refused too: start the process without",
    static_tls: "the run-time linker's room for static thread-local storage is small and fixed: compile with -fPIC, whose thread-local variables need none",
    exact_claims: "MAP_FIXED|MAP_EXCL is refused: hints are verified instead",
    low_claims: "MAP_32BIT is the last resort when draws fail; this architecture lacks it",
    second_views: "shm_open(SHM_ANON) is refused: code is published by mprotect",
    protect_to_execute: "a policy is in force (kern.elf64.allow_wx, PROT_MAX): code takes two views",
    guard_in_place: "guards take mappings of their own on FreeBSD",
    seal: "nothing on FreeBSD makes pages final: finalized pages can be unmapped",
};

#[cfg(not(any(target_os = "linux", target_os = "freebsd", windows)))]
pub(super) const ADVICE: Advice = Advice {
    chosen_by_kernel: "addresses are of the kernel's choice: no address that was asked for was given",
    refused: "see `low2g map` for what holds the low 2 GiB; check ulimit -v",
    no_map: "mach_vm_region is refused for this very process",
    crowded: "`low2g map` names what holds the rest; link with -Wl,-pagezero_size,0x10000 so that the first 4 GiB are not reserved",
    one_view: "publishing costs a system call: mach_vm_remap is refused",
    no_code: "the hardened runtime forbids executable memory: sign with com.apple.security.cs.allow-jit",
    static_tls: "loaded objects cannot have thread-local variables here: compile without them, or keep them in the program and call for them",
    exact_claims: "claims at an address are refused: hints are verified instead",
    low_claims: "this system has no call for low memory: draws and surveys are all there is",
    second_views: "mach_vm_remap is refused: code is published by mprotect",
    protect_to_execute: "the hardened runtime is in force: code takes two views",
    guard_in_place: "guards take mappings of their own here",
    seal: "nothing here makes pages final: finalized pages can be unmapped",
};
