//! Steps of a link with memory: copy, apply, second pass, protect.

use std::sync::Arc;
use std::time::Instant;

use crate::place::{InFlight, PlaceError, Placer};

use super::apply::{Outcome, Row, apply};
use super::engine::{Link, Phases, Tables, View};
use super::error::{LinkError, LinkFailure, Place};
use super::far::Plan;
use super::layout::Layout;
use super::linked::Linked;
use super::mirrors::{Mirrors, Shared};
use super::options::LinkOptions;
use super::site::input_error;
use super::symbols::to_index;
use super::tls;
use super::value::{self, Addresses, Value};

/// Addresses and requests of what the link adds itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Own {
    pub(crate) got: (usize, u64),
    pub(crate) stubs: (usize, u64),
    pub(crate) islands: (usize, u64),
    pub(crate) mirrors: (usize, u64),
}

/// A link whose sections have memory.
#[derive(Debug)]
pub struct Placed<'d> {
    pub(crate) tables: Tables<'d>,
    pub(crate) options: &'d LinkOptions,
    pub(crate) phases: Phases,
    pub(crate) layout: Layout,
    pub(crate) memory: InFlight,
    /// Address of each loaded section.
    pub(crate) addrs: Vec<u64>,
    pub(crate) globals: Vec<Value>,
    pub(crate) plan: Plan,
    pub(crate) own: Own,
    pub(crate) rows: Vec<Row>,
    pub(crate) tls: tls::State,
    /// Where mirrors are if links share them.
    pub(crate) mirrors: Option<Arc<Mirrors>>,
    pub(crate) shared: Shared,
    /// Whether this process's dynamic linker is asked for thread-local storage.
    pub(crate) process: bool,
}

impl<'d> Link<'d> {
    /// Places all sections, all or nothing.
    ///
    /// # Errors
    /// Undefined symbols, sections that cannot be placed.
    pub fn place(mut self, placer: &Placer) -> Result<Placed<'d>, LinkFailure> {
        self.tables.settle()?;
        self.place_unresolved(placer)
    }

    /// As [`Link::place`], while symbols may still be undefined: the addresses of the objects' own
    /// are known then ([`Placed::exports`]), and [`Placed::resolve`] takes the rest.
    ///
    /// # Errors
    /// Sections that cannot be placed.
    pub fn place_unresolved(mut self, placer: &Placer) -> Result<Placed<'d>, LinkFailure> {
        let start = Instant::now();
        let dry_run = matches!(placer, Placer::DryRun { .. });
        let layout = Layout::new(&mut self.tables, &self.clusters, self.options, dry_run)?;
        let memory = if self.options.scatter {
            placer.place_scattered(&layout.requests)
        } else {
            placer.place(&layout.requests)
        };
        let memory = memory.map_err(|error| memory_error(&self.tables, &layout, error))?;
        let addrs: Vec<u64> = layout
            .loaded
            .iter()
            .map(|loaded| memory.slot(loaded.request).addr + loaded.offset)
            .collect();
        let process = !dry_run && !self.options.synthetic_tls;
        self.phases.place = start.elapsed();
        Ok(Placed {
            tables: self.tables,
            options: self.options,
            phases: self.phases,
            layout,
            memory,
            addrs,
            globals: Vec::new(),
            plan: Plan::default(),
            own: Own::default(),
            rows: Vec::new(),
            tls: tls::State::default(),
            mirrors: self.mirrors.filter(|_| is_below_2g(placer)),
            shared: Shared::default(),
            process,
        })
    }
}

/// Whether all that `placer` places fits 32-bit words of either kind, also what another link placed.
fn is_below_2g(placer: &Placer) -> bool {
    match placer {
        Placer::Mapped { allocator, .. } => allocator.window().end() <= 1 << 31,
        Placer::DryRun { .. } => false,
    }
}

/// Names the section that a placer's error is about.
pub(super) fn memory_error(tables: &Tables<'_>, layout: &Layout, error: PlaceError) -> LinkFailure {
    let mut at = Place {
        object: "low2g".to_owned(),
        section: String::new(),
        offset: 0,
    };
    if let Some(index) = error.index() {
        let loaded = layout.loaded.iter().find(|loaded| loaded.request == index);
        let common = layout.commons.iter().find(|(_, request)| *request == index);
        if let Some(loaded) = loaded {
            let object = &tables.objects[to_index(loaded.object)];
            at.object.clone_from(&object.name);
            at.section = object.sections[to_index(loaded.section)].display_name();
        } else if let Some((id, _)) = common {
            let name = String::from_utf8_lossy(tables.symbols.list[to_index(*id)].name);
            at.section = format!("COMMON {name}");
        }
    }
    LinkError::Memory {
        at,
        source: Box::new(error),
    }
    .into()
}

impl<'d> Placed<'d> {
    /// Copies contents and applies every relocation, or says which do not fit.
    ///
    /// # Errors
    /// Relocations that do not fit or have no meaning here.
    pub fn relocate(mut self) -> Result<Self, LinkFailure> {
        self.tables.settle()?;
        let start = Instant::now();
        self.copy();
        let copied = Instant::now();
        self.phases.copy = copied - start;
        let mut out = Outcome::default();
        self.apply_direct(&mut out)?;
        let mut plan = Plan::default();
        let view = View {
            tables: &self.tables,
            options: self.options,
            addrs: &self.addrs,
        };
        let thread_local = tls::Plan::decide(&view, &mut out, &mut plan, self.process);
        plan.decide(&view, &out.deferred, &mut out.errors);
        if !out.errors.is_empty() {
            return Err(LinkFailure::new(out.errors));
        }
        self.plan = plan;
        self.place_own()?;
        self.fill_own()?;
        self.apply_deferred(&mut out);
        if !out.errors.is_empty() {
            return Err(LinkFailure::new(out.errors));
        }
        self.finish_thread_local(thread_local, &mut out)?;
        self.build_islands(&mut out);
        if !out.errors.is_empty() {
            return Err(LinkFailure::new(out.errors));
        }
        self.rows = out.rows;
        self.phases.relocate = copied.elapsed();
        Ok(self)
    }

    fn copy(&mut self) {
        self.tls.copy(&self.tables, &self.layout.tls);
        for loaded in &self.layout.loaded {
            let object = &self.tables.objects[to_index(loaded.object)];
            let section = &object.sections[to_index(loaded.section)];
            if !section.data.is_empty() {
                let memory = self.memory.working_mem(loaded.request);
                let offset = usize::try_from(loaded.offset).unwrap_or(usize::MAX);
                memory[offset..offset + section.data.len()].copy_from_slice(section.data);
            }
        }
    }

    fn apply_direct(&mut self, out: &mut Outcome) -> Result<(), LinkFailure> {
        let known = self.known();
        self.tls.dso_handle = known.dso_handle;
        let addresses = Addresses {
            loaded: &self.addrs,
            commons: &known.commons,
            clusters: &known.clusters,
            tls_commons: &self.layout.tls.commons,
            dso_handle: known.dso_handle,
        };
        self.globals = value::globals(&self.tables.symbols, &self.tables.objects, &addresses)?;
        let mut values = Vec::new();
        let mut values_of = None;
        let view = View {
            tables: &self.tables,
            options: self.options,
            addrs: &self.addrs,
        };
        let placed = self
            .layout
            .loaded
            .iter()
            .map(|loaded| (loaded.object, loaded.section));
        for (object, section) in placed.chain(self.layout.tls.numbers()) {
            let target = view.target(object, section);
            if target.section.relas.is_empty() {
                continue;
            }
            if target.section.is_zero_fill() {
                let reason = "relocations in a section without contents (SHT_NOBITS)".to_owned();
                out.errors.push(input_error(&target, 0, reason));
                continue;
            }
            if values_of != Some(object) {
                value::of_object(target.object, &self.globals, &addresses, &mut values)?;
                values_of = Some(object);
            }
            let bytes = section_bytes(
                &mut self.memory,
                &self.layout,
                &mut self.tls,
                target.section,
            );
            // Initial values have no one place that a row could give.
            if target.section.is_thread_local() {
                target.check_image(&mut out.errors);
            }
            if self.options.record && !target.section.is_thread_local() {
                apply::<true>(&target, bytes, &values, out);
            } else {
                apply::<false>(&target, bytes, &values, out);
            }
        }
        Ok(())
    }

    /// Gives pages their final access. Nothing of the objects has run yet.
    ///
    /// # Errors
    /// The system refuses; everything is then given back.
    pub fn protect(self) -> Result<Linked<'d>, LinkFailure> {
        let start = Instant::now();
        let Self {
            tables,
            options,
            mut phases,
            layout,
            memory,
            addrs,
            globals,
            plan,
            own,
            rows,
            tls,
            mirrors: _,
            shared,
            process: _,
        } = self;
        let memory = memory
            .finalize()
            .map_err(|error| memory_error(&tables, &layout, error))?;
        phases.protect = start.elapsed();
        Ok(Linked {
            tables,
            phases,
            layout,
            memory,
            addrs,
            globals,
            plan,
            own,
            rows,
            tls,
            mirrors: shared,
            debugger: options.debugger,
            options,
        })
    }
}

/// The memory of an input section.
pub(crate) fn section_bytes<'m>(
    memory: &'m mut InFlight,
    layout: &Layout,
    tls: &'m mut tls::State,
    section: &super::object::Section<'_>,
) -> &'m mut [u8] {
    let Some(placed) = section.placed else {
        return tls.section_bytes(section);
    };
    let loaded = &layout.loaded[to_index(placed)];
    let offset = usize::try_from(loaded.offset).unwrap_or(usize::MAX);
    &mut memory.working_mem(loaded.request)[offset..offset + section.data.len()]
}
