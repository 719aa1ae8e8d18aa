//! Executable blocks on the running kernel: what the two views may and may not do, at every step
//! of a block's life, and in a process with limits.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "alloc_support/alone.rs"]
mod alone;
#[path = "support/needs.rs"]
mod needs;

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use alone::alone;
use low2g::alloc::{Builder, CodeViews, LowAllocator, Placement, PublishedCode};
use low2g::platform::{to_u64, to_usize};

const PAGE: u64 = 4096;

/// The map and the descriptors are the process's: one test at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn presets() -> [(&'static str, Builder); 3] {
    let new = LowAllocator::builder;
    [
        ("bare", new().bare()),
        ("default", new()),
        ("hardened", new().hardened()),
    ]
}

/// The access of the page at `addr` (`r-xs`), or nothing. No page may be writable and executable.
fn access(addr: u64, step: &str) -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("this is Linux");
    let mut found = None;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, access) = (
            words.next().expect("a range"),
            words.next().expect("access"),
        );
        assert!(
            !(access.contains('w') && access.contains('x')),
            "{step}: {line}"
        );
        let (start, end) = range.split_once('-').expect("two addresses");
        let number = |text| u64::from_str_radix(text, 16).expect("hexadecimal");
        if (number(start)..number(end)).contains(&addr) {
            found = Some(access.to_owned());
        }
    }
    found
}

/// Open files of this process, by what they are.
fn descriptors() -> BTreeSet<String> {
    let entries = std::fs::read_dir("/proc/self/fd").expect("this is Linux");
    let names = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| !name.starts_with("/proc/"))
        .collect()
}

/// `mov $value, %eax; ret`
fn text(value: u32) -> Vec<u8> {
    let mut text = vec![0xb8];
    text.extend(value.to_le_bytes());
    text.push(0xc3);
    text
}

fn call(code: &PublishedCode) -> u32 {
    let entry = std::ptr::with_exposed_provenance::<()>(to_usize(code.exec_addr()));
    // SAFETY: transmute needs a function of that type there: `text` was published at the address.
    let function = unsafe { std::mem::transmute::<*const (), extern "C" fn() -> u32>(entry) };
    function()
}

fn publish(low: &LowAllocator, value: u32, size: u64) -> PublishedCode {
    let mut code = low.allocate_code(size, 16).expect("room");
    let bytes = text(value);
    code.working_mem()[..bytes.len()].copy_from_slice(&bytes);
    code.publish().expect("published")
}

/// What the kernel says to a change of the page at `addr`.
fn protect(addr: u64, access: i32) -> Result<(), i32> {
    let page = std::ptr::with_exposed_provenance_mut(to_usize(addr & !(PAGE - 1)));
    // SAFETY: mprotect needs a mapping of this process: the block's. Where it should succeed, all
    // that read or run the page still may.
    if unsafe { libc::mprotect(page, to_usize(PAGE), access) } == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error()
            .raw_os_error()
            .expect("a code"))
    }
}

#[test]
fn no_step_makes_a_page_writable_and_executable() {
    let _turn = turn();
    for (preset, builder) in presets() {
        let low = builder.build().expect("low memory");
        for size in [6, 100, 5_000, 300_000] {
            let step = |what: &str| format!("{preset}, {size} bytes: {what}");
            let mut code = low.allocate_code(size, 16).expect("room");
            let exec = code.exec_addr();
            assert_eq!(code.views(), CodeViews::Two, "{preset}");
            assert!(exec < 1 << 31);
            let write = to_u64(code.working_mem().as_ptr().addr());
            let look = |what: &str| (access(exec, &step(what)), access(write, &step(what)));
            assert_eq!(
                look("allocated"),
                (Some("r-xs".into()), Some("rw-s".into())),
                "{preset}"
            );
            let bytes = text(7);
            code.working_mem()[..bytes.len()].copy_from_slice(&bytes);
            look("written");
            let code = code.publish().expect("two views need no call");
            assert_eq!(
                look("published").0.as_deref(),
                Some("r-xs"),
                "{}",
                step("published")
            );
            assert_eq!(call(&code), 7);
            drop(code);
            look("freed");
            let again = publish(&low, 8, size);
            look("used again");
            assert_eq!(call(&again), 8);
            drop(again);
            low.trim();
            look("trimmed");
        }
        drop(low);
        access(0, preset);
    }
}

/// The execute view comes from a descriptor that cannot write, so nothing makes it writable.
#[test]
fn the_execute_view_cannot_regain_write() {
    let _turn = turn();
    for (preset, builder) in presets() {
        let low = builder.build().expect("low memory");
        for size in [64, 20_000] {
            let code = publish(&low, 9, size);
            let exec = code.exec_addr();
            for wanted in [
                libc::PROT_READ | libc::PROT_WRITE,
                libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
                libc::PROT_WRITE,
            ] {
                assert_eq!(
                    protect(exec, wanted),
                    Err(libc::EACCES),
                    "{preset}, {size} bytes, access {wanted}"
                );
            }
            // What it has it may be given again.
            assert_eq!(protect(exec, libc::PROT_READ | libc::PROT_EXEC), Ok(()));
            assert_eq!(call(&code), 9);
        }
    }
}

#[test]
fn no_descriptor_stays_open() {
    let _turn = turn();
    let before = descriptors();
    for (preset, builder) in presets() {
        let low = builder.build().expect("low memory");
        let codes: Vec<_> = (0..200)
            .map(|value| publish(&low, value, 16 + u64::from(value) * 50))
            .collect();
        assert_eq!(descriptors(), before, "{preset}");
        drop(codes);
        drop(low);
        assert_eq!(descriptors(), before, "{preset}");
    }
}

/// Between blocks, and where one was, stands `int3`: a jump there stops.
#[test]
fn what_is_no_code_stops_who_runs_it() {
    let _turn = turn();
    for (preset, builder) in presets() {
        stops_who_runs_it(preset, &builder.build().expect("low memory"));
    }
}

fn stops_who_runs_it(preset: &str, low: &LowAllocator) {
    let codes: Vec<_> = (0..40).map(|value| publish(low, value, 16)).collect();
    assert!(codes.iter().all(|code| code.views() == CodeViews::Two));
    let used: BTreeSet<u64> = codes.iter().map(PublishedCode::exec_addr).collect();
    let pages: BTreeSet<u64> = used.iter().map(|addr| addr & !(PAGE - 1)).collect();
    let read = |page: u64| {
        let at = std::ptr::with_exposed_provenance::<u8>(to_usize(page));
        // SAFETY: from_raw_parts needs that many readable bytes that nobody writes meanwhile: a
        // page of the arena, and this test is the only user of its allocator.
        unsafe { std::slice::from_raw_parts(at, to_usize(PAGE)) }.to_vec()
    };
    let mut gaps = 0;
    for &page in &pages {
        for (slot, bytes) in (page..).step_by(16).zip(read(page).chunks(16)) {
            if !used.contains(&slot) {
                assert_eq!(bytes, [0xcc; 16], "{preset}: {slot:#x}");
                gaps += 1;
            }
        }
    }
    assert!(gaps > 0, "{preset}: some slots of these pages are free");
    // One stays, so that its page does.
    let (kept, freed) = codes.split_at(1);
    let kept_at = kept[0].exec_addr();
    let same_page: Vec<u64> = freed
        .iter()
        .map(PublishedCode::exec_addr)
        .filter(|addr| addr & !(PAGE - 1) == kept_at & !(PAGE - 1))
        .collect();
    let mut codes = codes;
    let kept = codes.swap_remove(0);
    drop(codes);
    let page = kept_at & !(PAGE - 1);
    let bytes = read(page);
    for addr in same_page {
        let at = to_usize(addr - page);
        assert_eq!(
            bytes[at..at + 16],
            [0xcc; 16],
            "{preset}: {addr:#x} was freed"
        );
    }
    assert_eq!(call(&kept), 0);
}

/// A file in memory obeys RLIMIT_FSIZE; code is then written in one view, and executed there later.
#[test]
fn a_small_limit_of_file_size_is_no_obstacle() {
    let _turn = turn();
    alone("a_small_limit_of_file_size_is_no_obstacle", || {
        for limit in [0, 1, 4096, 100_000, 1 << 20] {
            let limits = libc::rlimit {
                rlim_cur: limit,
                rlim_max: libc::RLIM_INFINITY,
            };
            // SAFETY: setrlimit reads the structure that the pointer names.
            let result = unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limits) };
            assert_eq!(result, 0);
            for (preset, builder) in presets() {
                let low = builder.build().expect("low memory");
                for size in [16, 5_000, 300_000] {
                    let code = publish(&low, 11, size);
                    access(code.exec_addr(), "under a limit");
                    if limit <= 4096 {
                        assert_eq!(code.views(), CodeViews::One, "{preset}, limit {limit}");
                    }
                    assert_eq!(call(&code), 11);
                }
            }
        }
    });
}

/// A memfd that may be executed is refused then (`vm.memfd_noexec` of a pid namespace, Linux 6.3);
/// mappings of one that may not be executed itself still are.
#[test]
fn a_kernel_that_refuses_executable_files_in_memory_is_no_obstacle() {
    const NAME: &str = "a_kernel_that_refuses_executable_files_in_memory_is_no_obstacle";
    const INSIDE: &str = "LOW2G_TEST_MEMFD_NOEXEC";
    const SETTING: &str = "/proc/sys/vm/memfd_noexec";
    if let Ok(value) = std::env::var(INSIDE) {
        let setting = std::fs::read_to_string(SETTING).expect("it was written");
        assert_eq!(setting.trim(), value);
        for (preset, builder) in presets() {
            let low = builder.build().expect("low memory");
            for size in [16, 5_000, 300_000] {
                let code = publish(&low, 13, size);
                assert_eq!(code.views(), CodeViews::Two, "{preset}, {size} bytes");
                assert_eq!(call(&code), 13);
                access(code.exec_addr(), preset);
            }
        }
        return;
    }
    let _turn = turn();
    let unshare = |script: &str| {
        let mut command = std::process::Command::new("unshare");
        command.args([
            "--map-root-user",
            "--fork",
            "--pid",
            "--mount",
            "--mount-proc",
        ]);
        command.args(["sh", "-ec", script]);
        command
    };
    let probe = needs::program("unshare").and_then(|()| {
        let output = unshare(&format!("echo 1 > {SETTING}")).output();
        let output = output.map_err(|error| format!("unshare does not start: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let lacks = || format!("no pid namespace with its own {SETTING} (Linux 6.3): {said}");
        output.status.success().then_some(()).ok_or_else(lacks)
    });
    if needs::require(probe).is_none() {
        return;
    }
    let program = std::env::current_exe().expect("a program has a path");
    for value in ["1", "2"] {
        let output = unshare(&format!("echo {value} > {SETTING}; exec \"$0\" \"$@\""))
            .arg(&program)
            .args([NAME, "--exact", "--nocapture", "--test-threads=1"])
            .env(INSIDE, value)
            .output()
            .expect("the probe started");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "memfd_noexec {value}: {}\n{said}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// From here on, asking for a megabyte or more to be backed by memory fails as with a full file in memory.
fn refuse_large_populations() -> Result<(), String> {
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const FULL: u32 = libc::SECCOMP_RET_ERRNO | libc::EFAULT.unsigned_abs();
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let load = |offset: usize| (LOAD, 0, 0, u32::try_from(offset).expect("small"));
    let unless_equal =
        |value: u32, skip| (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, skip, value);
    let unless_more = |value, skip| (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, skip, value);
    let argument = |number: usize| std::mem::offset_of!(libc::seccomp_data, args) + 8 * number;
    let madvise = u32::try_from(libc::SYS_madvise).expect("small");
    let populate = libc::MADV_POPULATE_WRITE.unsigned_abs();
    let program = [
        load(std::mem::offset_of!(libc::seccomp_data, nr)),
        unless_equal(madvise, 5),
        load(argument(2)),
        unless_equal(populate, 3),
        load(argument(1)),
        unless_more(1 << 20, 1),
        (libc::BPF_RET | libc::BPF_K, 0, 0, FULL),
        (libc::BPF_RET | libc::BPF_K, 0, 0, ALLOW),
    ];
    let mut program = program.map(|(code, jt, jf, k)| libc::sock_filter {
        code: u16::try_from(code).expect("16 bits"),
        jt,
        jf,
        k,
    });
    let filter = libc::sock_fprog {
        len: 8,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: prctl of this option reads no memory.
    let private = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: prctl of this option reads the program, which is there until it returns.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter) };
    let refused = || format!("no seccomp filter: {}", std::io::Error::last_os_error());
    (private == 0 && set == 0).then_some(()).ok_or_else(refused)
}

/// A file in memory that is full: an error that says so, and all else stays as it was.
#[test]
fn a_full_file_in_memory_is_an_error() {
    alone("a_full_file_in_memory_is_an_error", || {
        let lows = presets().map(|(_, builder)| builder.build().expect("low memory"));
        let codes: Vec<_> = lows.iter().map(|low| publish(low, 17, 16)).collect();
        if needs::require(refuse_large_populations()).is_none() {
            return;
        }
        for (low, code) in lows.iter().zip(&codes) {
            let before = low.statistics().live_bytes;
            let open = descriptors();
            let error = low.allocate_code(3 << 20, 16).expect_err("it is full");
            let text = error.to_string();
            assert!(text.contains("MADV_POPULATE_WRITE"), "{text}");
            assert!(text.contains("is full"), "{text}");
            low.trim();
            assert!(low.statistics().live_bytes <= before, "{text}");
            assert_eq!(descriptors(), open);
            assert_eq!(call(code), 17);
            assert_eq!(call(&publish(low, 18, 300)), 18);
        }
    });
}

/// A freed slot is used again only after all cores were made to serialize, once for many of them.
#[test]
fn slots_are_used_again_after_all_cores_have_serialized() {
    const BATCH: usize = 64;
    let _turn = turn();
    let builder = LowAllocator::builder().bare();
    let builder = builder.placement(Placement::FirstFit);
    let low = builder.build().expect("low memory");
    let batches = || low.statistics().code_batches_serialized;
    let mut codes: Vec<_> = (0..1_000).map(|value| publish(&low, value, 64)).collect();
    assert_eq!(
        batches(),
        0,
        "fresh slots hold no code that a core may have seen"
    );
    // Less than a batch waits.
    let free = |codes: &mut Vec<PublishedCode>, count: usize| -> BTreeSet<u64> {
        let freed = codes.drain(..count);
        freed.map(|code| code.exec_addr()).collect()
    };
    let waiting = free(&mut codes, BATCH - 1);
    assert_eq!(batches(), 0);
    // A whole batch does not.
    let mut ready = free(&mut codes, 1);
    ready.extend(&waiting);
    if needs::require(match low.statistics().code_batches_unserialized {
        0 => Ok(()),
        _ => Err("no membarrier(SYNC_CORE): Linux 4.16 has it".to_owned()),
    })
    .is_none()
    {
        return;
    }
    assert_eq!(batches(), 1);
    for value in 0..BATCH {
        let value = u32::try_from(value).expect("small");
        let code = publish(&low, value, 64);
        assert!(
            ready.remove(&code.exec_addr()),
            "the slot freed last comes first"
        );
        assert_eq!((call(&code), batches()), (value, 1));
        codes.push(code);
    }
    // Where no fresh slot is left, a part of a batch is enough.
    let mut waiting = free(&mut codes, 10);
    while !waiting.is_empty() {
        let before = batches();
        let code = publish(&low, 5, 64);
        let reused = waiting.remove(&code.exec_addr());
        assert_eq!(batches(), if reused || before == 2 { 2 } else { 1 });
        assert!(codes.len() < 20_000, "never used again: {waiting:x?}");
        codes.push(code);
    }
    assert!(codes.iter().all(|code| call(code) < 1_000));
    assert_eq!(batches(), 2);
}
