//! `low2g doctor`: what this system allows, and why low memory or W^X would fail here.

use std::io::Write as _;

use low2g::alloc::{AllocError, CodeViews, LowAllocator, MapRequest, Step};
use low2g::link::tls::{static_space, static_use};
use low2g::platform::{AddrRange, Platform};
use serde::Serialize;

use super::advice::ADVICE;
use super::args::DoctorArgs;
use super::{Failure, map, table};

/// One check.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    id: &'static str,
    status: Status,
    value: String,
    advice: String,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Degraded,
    Missing,
}

impl Finding {
    fn ok(id: &'static str, value: impl Into<String>) -> Self {
        Self {
            id,
            status: Status::Ok,
            value: value.into(),
            advice: String::new(),
        }
    }

    fn bad(
        id: &'static str,
        status: Status,
        value: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            id,
            status,
            value: value.into(),
            advice: advice.into(),
        }
    }

    /// A power that the system has or has not.
    fn power(id: &'static str, has: bool, advice: &str) -> Self {
        if has {
            Self::ok(id, "yes")
        } else {
            Self::bad(id, Status::Degraded, "no", advice)
        }
    }
}

pub(crate) fn doctor(args: &DoctorArgs) -> Result<(), Failure> {
    let platform = low2g::platform::native().map_err(|error| Failure::Other(error.to_string()))?;
    let mut findings = vec![window(&*platform)];
    findings.push(low_memory());
    findings.push(free_space());
    findings.push(code());
    findings.push(static_tls());
    powers(&*platform, &mut findings);
    let mut out = std::io::stdout().lock();
    if args.json {
        let document = serde_json::json!({"format": "low2g-doctor/1", "checks": findings});
        writeln!(out, "{document}")?;
    } else {
        for finding in &findings {
            let status = match finding.status {
                Status::Ok => "ok",
                Status::Degraded => "degraded",
                Status::Missing => "missing",
            };
            writeln!(out, "{status:<9} {:<20} {}", finding.id, finding.value)?;
            if !finding.advice.is_empty() {
                writeln!(out, "{:<30} -> {}", "", finding.advice)?;
            }
        }
    }
    let lacks = findings
        .iter()
        .any(|finding| finding.id == "low-memory" && finding.status == Status::Missing);
    if lacks {
        Err(Failure::Silent(3))
    } else {
        Ok(())
    }
}

/// Where user mappings may lie at all.
fn window(platform: &dyn Platform) -> Finding {
    match &platform.config().low_window {
        Ok(window) => Finding::ok("low-window", window.to_string()),
        Err(error) => Finding::bad(
            "low-window",
            Status::Missing,
            error.to_string(),
            "use a reach near an address instead",
        ),
    }
}

/// A 64 KiB mapping below 2 GiB, taken for real and given back.
fn low_memory() -> Finding {
    let attempt = LowAllocator::new().and_then(|low| low.map(&MapRequest::new(64 << 10)));
    match attempt {
        Ok(mapping) => {
            let certificate = mapping.certificate();
            let value = format!(
                "64 KiB at {:#x}, {:.1} bits by {}, {} free starts",
                mapping.range().start(),
                certificate.entropy_bits,
                certificate.step,
                certificate.free_slots
            );
            if matches!(certificate.step, Step::Draw | Step::Survey) {
                Finding::ok("low-memory", value)
            } else {
                Finding::bad(
                    "low-memory",
                    Status::Degraded,
                    value,
                    ADVICE.chosen_by_kernel,
                )
            }
        }
        Err(error @ AllocError::NoLowWindow { .. }) => Finding::bad(
            "low-memory",
            Status::Missing,
            error.to_string(),
            "use a reach near an address instead",
        ),
        Err(error) => Finding::bad(
            "low-memory",
            Status::Missing,
            error.to_string(),
            ADVICE.refused,
        ),
    }
}

/// How much is free below 2 GiB.
fn free_space() -> Finding {
    let rows = LowAllocator::new()
        .map_err(Failure::from)
        .and_then(|low| map::own(&low));
    let rows = match rows {
        Ok(rows) => rows,
        Err(error) => {
            return Finding::bad(
                "free-space",
                Status::Missing,
                error.to_string(),
                ADVICE.no_map,
            );
        }
    };
    let free: Vec<AddrRange> = rows
        .iter()
        .filter(|row| row.kind == "free")
        .map(|row| row.range)
        .collect();
    let total: u64 = free.iter().map(|range| range.len()).sum();
    let largest = free.iter().map(|range| range.len()).max().unwrap_or(0);
    let value = format!(
        "{} free below 2 GiB, largest hole {}",
        table::bytes(total),
        table::bytes(largest)
    );
    if total >= 1 << 30 {
        Finding::ok("free-space", value)
    } else {
        Finding::bad("free-space", Status::Degraded, value, ADVICE.crowded)
    }
}

/// Executable memory without a page that is writable at the same address.
fn code() -> Finding {
    let attempt = LowAllocator::new()
        .and_then(|low| low.allocate_code(64, 16))
        .and_then(low2g::alloc::CodeBlock::publish);
    match attempt {
        Ok(code) if code.views() == CodeViews::Two => Finding::ok("executable-memory", "two views"),
        Ok(_) => Finding::bad(
            "executable-memory",
            Status::Degraded,
            "one view, switched by mprotect",
            ADVICE.one_view,
        ),
        Err(error) => Finding::bad(
            "executable-memory",
            Status::Missing,
            error.to_string(),
            ADVICE.no_code,
        ),
    }
}

/// Static thread-local storage that loaded objects can have, measured by taking it.
fn static_tls() -> Finding {
    /// More than any default; the search stops there.
    const LIMIT: u64 = 1 << 20;
    /// glibc's default is 1664, of which the process's own libraries may have taken some.
    const ENOUGH: u64 = 1024;
    let space = static_space(LIMIT);
    let used = static_use();
    let value = format!(
        "{space} bytes left for local-exec and initial-exec variables, {} lost to unloaded modules, {} of {} in the pool",
        used.waiting,
        used.pool - used.pool_used,
        used.pool
    );
    if space.max(used.pool - used.pool_used) >= ENOUGH {
        Finding::ok("static-tls", value)
    } else {
        Finding::bad("static-tls", Status::Degraded, value, ADVICE.static_tls)
    }
}

fn powers(platform: &dyn Platform, findings: &mut Vec<Finding>) {
    let powers = platform.config().capabilities;
    findings.extend([
        Finding::power("exact-claims", powers.exact_claims, ADVICE.exact_claims),
        Finding::power("low-claims", powers.low_claims, ADVICE.low_claims),
        Finding::power("second-views", powers.second_views, ADVICE.second_views),
        Finding::power(
            "protect-to-execute",
            powers.protect_to_execute,
            ADVICE.protect_to_execute,
        ),
        Finding::power(
            "guard-in-place",
            powers.guard_in_place,
            ADVICE.guard_in_place,
        ),
        Finding::power("seal", powers.seal, ADVICE.seal),
    ]);
}
