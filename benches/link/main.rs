//! Linking against a floor: with the process's own libraries, as Linux has them.

#[cfg(target_os = "linux")]
mod linux;

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    println!("skipped: the programs that are linked need Linux's libraries");
}
