//! Options as text: `key=value`, joined by commas, in the words of the command line.

use std::ffi::{CStr, c_char};
use std::fmt::Display;
use std::str::FromStr;

use crate::alloc::LowAllocator;
use crate::link::LinkOptions;
use crate::place::CodeModel;

use super::status::Failure;

/// The string at `pointer`.
///
/// # Safety
/// NULL, or a string with its NUL that lives and stays as it is for `'t`.
pub(super) unsafe fn text<'t>(pointer: *const c_char, what: &str) -> Result<&'t str, Failure> {
    if pointer.is_null() {
        return Err(Failure::null(what));
    }
    // SAFETY: from_ptr needs a string that ends with NUL and lives: the caller says so.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|error| {
        Failure::invalid(format!(
            "{what} is not UTF-8 from byte {}",
            error.valid_up_to()
        ))
    })
}

/// As [`text`]; NULL stands for no options.
///
/// # Safety
/// As [`text`].
pub(super) unsafe fn optional_text<'t>(
    pointer: *const c_char,
    what: &str,
) -> Result<&'t str, Failure> {
    if pointer.is_null() {
        return Ok("");
    }
    // SAFETY: the caller says so.
    unsafe { text(pointer, what) }
}

/// The pairs of `options`; a key alone means yes.
fn pairs(options: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = options.split(',').map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "yes")))
}

fn value<T: FromStr<Err: Display>>(key: &str, text: &str) -> Result<T, Failure> {
    text.parse()
        .map_err(|error| Failure::invalid(format!("option {key}={text}: {error}")))
}

fn yes_or_no(key: &str, text: &str) -> Result<bool, Failure> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(Failure::invalid(format!(
            "option {key}={text}: neither yes nor no"
        ))),
    }
}

/// A number in decimal, or in hexadecimal after `0x`.
fn number(key: &str, text: &str) -> Result<u64, Failure> {
    crate::link::parse_addr(text).map_err(|_| {
        Failure::invalid(format!(
            "option {key}={text}: not a number (decimal, or 0x and hexadecimal digits)"
        ))
    })
}

/// The allocator that `options` describe.
pub(super) fn allocator(options: &str) -> Result<LowAllocator, Failure> {
    let mut builder = LowAllocator::builder();
    // A preset sets several at once, so it goes before the others wherever it stands.
    for (key, text) in pairs(options).filter(|(key, _)| *key == "preset") {
        builder = match text {
            "bare" => builder.bare(),
            "default" => builder,
            "hardened" => builder.hardened(),
            _ => {
                return Err(Failure::invalid(format!(
                    "option {key}={text}: none of bare, default, hardened"
                )));
            }
        };
    }
    for (key, text) in pairs(options) {
        builder = match key {
            "preset" => builder,
            "placement" => builder.placement(value(key, text)?),
            "reach" => builder.reach(value(key, text)?),
            "seed" => builder.seed(Some(number(key, text)?)),
            "min-entropy" => builder.min_entropy(value(key, text)?),
            "min-conditional-entropy" => builder.min_conditional_entropy(value(key, text)?),
            "floor" => builder.floor(number(key, text)?),
            "byte-limit" => builder.byte_limit(number(key, text)?),
            "keep-hole" => builder.keep_hole(number(key, text)?),
            "guards" => builder.guards(yes_or_no(key, text)?),
            "seal-code" => builder.seal_code(yes_or_no(key, text)?),
            _ => {
                return Err(Failure::invalid(format!(
                    "option {key} of an allocator is none of placement, reach, seed, min-entropy, \
                     min-conditional-entropy, preset, floor, byte-limit, keep-hole, guards, \
                     seal-code"
                )));
            }
        };
    }
    Ok(builder.build()?)
}

/// What a session is asked to do.
#[derive(Debug)]
pub(super) struct SessionOptions {
    pub(super) link: LinkOptions,
    pub(super) process_symbols: bool,
    /// The model of static code that was named: absolute addresses, which the reach must serve.
    pub(super) absolute: Option<CodeModel>,
}

/// The session that `options` describe.
pub(super) fn session(options: &str) -> Result<SessionOptions, Failure> {
    let mut all = LinkOptions::default();
    let mut process_symbols = true;
    let mut absolute = None;
    for (key, text) in pairs(options) {
        match key {
            "process-symbols" => process_symbols = yes_or_no(key, text)?,
            // A link keeps distances of 32 bits within any reach.
            "model" if text == "small-pic" => (all.model, absolute) = (CodeModel::Small, None),
            "model" => {
                all.model = value(key, text)?;
                absolute = Some(all.model);
            }
            "relax" => all.relax = value(key, text)?,
            "far-data" => all.far_data = value(key, text)?,
            "debugger" => all.debugger = value(key, text)?,
            "entry" => all.entry = Some(text.to_owned()),
            "whole-archive" => all.whole_archive = yes_or_no(key, text)?,
            "scatter" => all.scatter = yes_or_no(key, text)?,
            "share-hidden" => all.share_hidden = yes_or_no(key, text)?,
            _ => {
                return Err(Failure::invalid(format!(
                    "option {key} of a session is none of model, relax, far-data, debugger, entry, \
                     whole-archive, scatter, share-hidden, process-symbols"
                )));
            }
        }
    }
    Ok(SessionOptions {
        link: all,
        process_symbols,
        absolute,
    })
}
