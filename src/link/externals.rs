//! What the objects need from elsewhere: asking for it, and what nobody knew.

use hashbrown::HashMap;

use super::apply::fields;
use super::engine::Tables;
use super::error::{LinkError, LinkFailure, Place};
use super::far::Key;
use super::resolve::SymbolResolver;
use super::symbols::{Definition, to_index};

impl Tables<'_> {
    /// Asks `resolver` for every name that is still undefined. Returns those that are needed and
    /// still are. Hidden names are asked for only if the link shares them with others.
    pub(crate) fn resolve(
        &mut self,
        resolver: &dyn SymbolResolver,
        share_hidden: bool,
    ) -> Vec<String> {
        let mut missing = Vec::new();
        for global in &mut self.symbols.list {
            if global.definition != Definition::Undefined {
                continue;
            }
            // A hidden or internal reference is for this link alone (gABI, visibility).
            let local = global.is_local() && !share_hidden;
            let name = String::from_utf8_lossy(global.name);
            let found = if global.thread_local {
                resolver.resolve_thread_local(&name)
            } else {
                resolver.resolve(&name)
            };
            match found.filter(|_| !local) {
                Some(external) => global.definition = Definition::External(external),
                None if global.needed => missing.push(name.into_owned()),
                None => {}
            }
        }
        missing
    }

    /// Lets `resolver` put another definition in the place of each weak one of the objects.
    pub(crate) fn replace_weak(&mut self, resolver: &dyn SymbolResolver) {
        for global in &mut self.symbols.list {
            let ours = matches!(global.definition, Definition::Object { .. });
            if !(ours && global.weak) || global.thread_local {
                continue;
            }
            if let Some(external) = resolver.resolve(&String::from_utf8_lossy(global.name)) {
                global.definition = Definition::External(external);
            }
        }
    }

    /// Settles what nobody defined: weak references become 0, needed ones are errors, each
    /// listed once with its first use. A name that no loaded relocation uses is no error.
    pub(crate) fn settle(&mut self) -> Result<(), LinkFailure> {
        let mut unresolved = false;
        for global in &mut self.symbols.list {
            if global.definition == Definition::Undefined {
                if global.needed {
                    unresolved = true;
                } else {
                    global.definition = Definition::WeakZero;
                }
            }
        }
        if !unresolved {
            return Ok(());
        }
        let mut uses: HashMap<u32, (Place, u64)> = HashMap::new();
        let mut order = Vec::new();
        for object in &self.objects {
            for section in &object.sections {
                if !section.is_loaded() && !section.is_thread_local() {
                    continue;
                }
                for rela in &*section.relas {
                    let f = fields(rela);
                    let Key::Global(id) = Key::of(0, object, f.symbol) else {
                        continue;
                    };
                    if self.symbols.list[to_index(id)].definition != Definition::Undefined {
                        continue;
                    }
                    let entry = uses.entry(id).or_insert_with(|| {
                        order.push(id);
                        let at = Place {
                            object: object.name.clone(),
                            section: section.display_name(),
                            offset: f.offset,
                        };
                        (at, 0)
                    });
                    entry.1 += 1;
                }
            }
        }
        let errors: Vec<LinkError> = order
            .iter()
            .enumerate()
            .filter_map(|(number, id)| {
                let (first_use, uses) = uses.remove(id)?;
                let global = &self.symbols.list[to_index(*id)];
                let symbol = String::from_utf8_lossy(global.name);
                let suggest = number < SUGGESTIONS;
                Some(LinkError::UndefinedSymbol {
                    hidden: global.is_local(),
                    nearest: suggest.then(|| self.nearest(&symbol)).flatten(),
                    symbol: symbol.into_owned(),
                    first_use,
                    uses,
                })
            })
            .collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(LinkFailure::new(errors))
        }
    }

    /// A defined name at an edit distance of at most 2, the least first.
    fn nearest(&self, symbol: &str) -> Option<String> {
        let candidates = self.symbols.list.iter().filter_map(|global| {
            let defined = matches!(
                global.definition,
                Definition::Object { .. } | Definition::Common { .. }
            );
            let name = std::str::from_utf8(global.name).ok().filter(|_| defined)?;
            let distance = edit_distance(symbol, name, 2)?;
            Some((distance, name))
        });
        candidates.min().map(|(_, name)| name.to_owned())
    }
}

/// Undefined symbols for which a similar name is looked for, among all defined ones; where
/// more are missing, it is a library rather than a letter.
const SUGGESTIONS: usize = 16;

/// Levenshtein distance if at most `limit`, and less than half of the shorter name.
fn edit_distance(a: &str, b: &str, limit: usize) -> Option<usize> {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len().abs_diff(b.len()) > limit || a.len().min(b.len()) < 3 {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
        if row.iter().all(|&distance| distance > limit) {
            return None;
        }
    }
    row.last()
        .copied()
        .filter(|&distance| distance <= limit && distance * 2 < a.len().min(b.len()))
}
