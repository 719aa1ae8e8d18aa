//! The allocator against its peers: they are Linux's.

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
criterion::criterion_main!(linux::benches);

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: mmap(MAP_32BIT) and glibc's malloc are Linux's");
}
