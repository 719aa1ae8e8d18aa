//! The tool's own pool of static thread-local storage: the feature `tls-pool`.

/// Bytes of the pool, as the tool was built: `LOW2G_TLS_POOL=BYTES cargo build --features
/// tls-pool`.
#[cfg(feature = "tls-pool")]
const BYTES: usize = match option_env!("LOW2G_TLS_POOL") {
    Some(text) => decimal(text.as_bytes()),
    None => 64 << 10,
};

#[cfg(feature = "tls-pool")]
const fn decimal(text: &[u8]) -> usize {
    let (mut value, mut index) = (0_usize, 0);
    while index < text.len() {
        assert!(
            text[index].is_ascii_digit(),
            "LOW2G_TLS_POOL is a number of bytes"
        );
        value = value * 10 + (text[index] - b'0') as usize;
        index += 1;
    }
    value
}

/// Makes the pool known to the library.
///
/// # Errors
/// It is not in the program's block.
#[cfg(feature = "tls-pool")]
pub(crate) fn reserve() -> Result<(), low2g::link::tls::PoolError> {
    low2g::tls_pool!(BYTES)
}

/// The tool has no pool.
///
/// # Errors
/// Never.
#[cfg(not(feature = "tls-pool"))]
pub(crate) fn reserve() -> Result<(), low2g::link::tls::PoolError> {
    Ok(())
}
