//! A system's error numbers, with what each means to the backend's callers.

/// Defines the type of one system's error numbers (`Errno` if no name is given) with their values.
macro_rules! errnos {
    ($($name:ident = $code:literal, $words:literal;)*) => {
        crate::errno::errnos! { Errno "errno"; $($name = $code, $words;)* }
    };
    ($type:ident $kind:literal; $($name:ident = $code:literal, $words:literal;)*) => {
        /// A raw error number of the kernel, positive.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $type(pub i32);

        impl $type {
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

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.words() {
                    "" => write!(f, concat!($kind, " {}"), self.0),
                    words => f.write_str(words),
                }
            }
        }
    };
}

pub(crate) use errnos;
