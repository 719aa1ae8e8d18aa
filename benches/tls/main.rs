//! Access to thread-local variables against a program's own: they are native on Linux.

#[cfg(target_os = "linux")]
mod linux;

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    println!("skipped: loaded objects have thread-local variables on Linux");
}
