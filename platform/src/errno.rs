//! A system's error numbers, with what each means to the backend's callers.

/// Defines `Errno` with the given numbers of one system.
macro_rules! errnos {
    ($($name:ident = $code:literal, $words:literal;)*) => {
        /// A raw error number of the kernel, positive.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct Errno(pub i32);

        impl Errno {
            $(#[doc = $words] pub const $name: Self = Self($code);)*

            /// The kernel's name for it and what it means; empty for a code not in the table.
            #[must_use]
            pub const fn words(self) -> &'static str {
                match self.0 {
                    $($code => concat!(stringify!($name), ", ", $words),)*
                    _ => "",
                }
            }
        }

        impl std::fmt::Display for Errno {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.words() {
                    "" => write!(f, "errno {}", self.0),
                    words => f.write_str(words),
                }
            }
        }
    };
}

pub(crate) use errnos;
