//! Modules load where the process may not make written memory executable (`PR_SET_MDWE`).
//! In a test binary of its own: the setting is for good.

use low2g::link::{Input, Session};

#[test]
fn a_module_loads_under_mdwe() {
    const PR_SET_MDWE: libc::c_int = 65;
    const PR_MDWE_REFUSE_EXEC_GAIN: libc::c_ulong = 1;
    let none: libc::c_ulong = 0;
    // SAFETY: prctl with this option reads its integer arguments only.
    let set = unsafe { libc::prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, none, none, none) };
    if set != 0 {
        let error = std::io::Error::last_os_error();
        eprintln!("SKIP: prctl(PR_SET_MDWE) needs Linux 6.3: {error}");
        return;
    }
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/demo/demo.o");
    let session = Session::new().expect("low memory");
    for _ in 0..8 {
        let input = Input::from_file(demo).expect("part of the tree");
        // SAFETY: demo.o has no constructors.
        let module = unsafe { session.load(&[input]) }.expect("loads through two views");
        // SAFETY: `long demo_sum(int)`; the module is alive.
        let sum = unsafe { module.function::<extern "C" fn(i32) -> i64>("demo_sum") };
        assert_eq!(sum.expect("exported")(3), 14);
    }
}
