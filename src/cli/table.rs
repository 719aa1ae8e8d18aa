//! Tables for people.

use std::fmt::Write as _;

use low2g::link::Linked;

/// Bytes with a binary unit.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (unit, name) in UNITS {
        // 2047.9 MiB says more than 1.9 GiB.
        if count >= unit && (count >= 4 * unit || unit < 1 << 30) {
            let tenths = u128::from(count) * 10 / u128::from(unit);
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
    }
    format!("{count} B")
}

/// Sections with bytes, by address, and a summary.
pub(crate) fn sections(linked: &Linked<'_>) -> String {
    let mut sections = linked.sections();
    sections.retain(|section| section.region.is_some());
    sections.sort_by_key(|section| section.addr);
    let width = sections
        .iter()
        .map(|section| section.object.len() + section.section.len() + 2)
        .max()
        .unwrap_or(0);
    let mut text = format!(
        "{:<width$}  {:>12}  {:>10}  access  bits  step\n",
        "section", "address", "size"
    );
    for section in &sections {
        let Some(region) = &section.region else {
            continue;
        };
        let name = format!("{}({})", section.object, section.section);
        let step = region.step();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{name:<width$}  {:>#12x}  {:>10}  {:<6}  {:>4.1}  {step}",
            section.addr,
            section.size,
            region.kind.access(),
            region.certificate.entropy_bits,
        );
    }
    let total: u64 = linked.regions().map(|region| region.range.len()).sum();
    let _ = writeln!(
        text,
        "{} objects, {} sections, {} in {} mappings",
        linked.object_count(),
        sections.len(),
        bytes(total),
        linked.regions().count()
    );
    text
}
