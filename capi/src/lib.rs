//! The C libraries liblow2g.so and liblow2g.a: the functions of `low2g::capi`, and nothing else.

pub use engine::capi;
