//! link

pub mod island;
