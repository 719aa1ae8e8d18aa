//! From options to the parts of a link: allocator, placer, resolvers, link options.

use std::path::PathBuf;

use low2g::alloc::{LowAllocator, Step};
use low2g::link::{
    Chain, Definitions, ExternalKind, ExternalSymbol, Input, Link, LinkOptions, Linked,
    ProcessSymbols,
};
use low2g::place::Placer;

use super::args::{Common, LinkArgs};
use super::{Failure, compile};

/// Everything that a link needs and that outlives it.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) options: LinkOptions,
    pub(crate) placer: Placer,
    definitions: Definitions,
    process: ProcessSymbols,
    /// Linker scripts given with -l: archives that they name take part in the link.
    scripts: Vec<Input>,
    seed: Option<u64>,
}

impl Setup {
    /// For `run`: the process's symbols, memory for real.
    pub(crate) fn for_run(common: &Common) -> Result<Self, Failure> {
        let mut process = ProcessSymbols::new().with_exit_functions();
        let scripts = open_libraries(&mut process, &common.libraries)?;
        Ok(Self {
            scripts,
            options: options(common),
            placer: mapped(common)?,
            definitions: Definitions::default(),
            process,
            seed: common.seed,
        })
    }

    /// For `link`.
    pub(crate) fn for_link(args: &LinkArgs) -> Result<Self, Failure> {
        let mut process = ProcessSymbols::new().with_exit_functions();
        if args.no_process_symbols {
            process = ProcessSymbols::new().libraries_only();
        }
        let scripts = open_libraries(&mut process, &args.common.libraries)?;
        let mut definitions = Definitions::default();
        for (name, addr) in &args.abs {
            definitions.insert(
                name.clone(),
                ExternalSymbol {
                    addr: *addr,
                    size: 0,
                    kind: ExternalKind::Unknown,
                },
            );
        }
        let placer = if args.dry_run {
            dry_run(&args.common)?
        } else {
            mapped(&args.common)?
        };
        Ok(Self {
            scripts,
            options: LinkOptions {
                base: args.base,
                pins: args.map_section.clone(),
                synthetic_tls: args.no_process_symbols,
                record: args.json,
                ..options(&args.common)
            },
            placer,
            definitions,
            process,
            seed: args.common.seed,
        })
    }

    /// The allocator of a link for real.
    pub(crate) const fn allocator(&self) -> Option<&LowAllocator> {
        match &self.placer {
            Placer::Mapped { allocator, .. } => Some(allocator),
            Placer::DryRun { .. } => None,
        }
    }

    /// Reads `files`, and opens the shared libraries that linker scripts among them name.
    pub(crate) fn read(&mut self, files: &[PathBuf]) -> Result<Vec<Input>, Failure> {
        let mut inputs = compile::inputs(files)?;
        for library in inputs.iter().flat_map(Input::libraries) {
            self.process.open(&library.to_string_lossy())?;
        }
        inputs.append(&mut self.scripts);
        Ok(inputs)
    }

    /// Links `inputs` up to executable memory.
    pub(crate) fn link<'d>(&'d self, inputs: &'d [Input]) -> Result<Linked<'d>, Failure> {
        let mut link = Link::read(inputs, &self.options)?;
        link.check_pins().map_err(Failure::Usage)?;
        let chain = Chain::default().then(&self.definitions);
        link.resolve(&chain.then(&self.process));
        let linked = link.place(&self.placer)?.relocate()?.protect()?;
        if let Some(seed) = self.seed
            && linked.regions().any(|region| {
                !matches!(
                    region.certificate.step,
                    Step::Draw | Step::FirstFit | Step::Fixed
                )
            })
        {
            eprintln!(
                "low2g: note: --seed {seed}: drawn addresses were taken by others; the placement differs from one where they are free"
            );
        }
        Ok(linked)
    }
}

/// Opens `names` as `dlopen` takes them, and what linker scripts among them name. Gives the scripts.
fn open_libraries(process: &mut ProcessSymbols, names: &[String]) -> Result<Vec<Input>, Failure> {
    let mut scripts = Vec::new();
    for name in names {
        match Input::script_at(name)? {
            Some(script) => {
                for library in script.libraries() {
                    process.open(&library.to_string_lossy())?;
                }
                scripts.push(script);
            }
            None => process.open(name)?,
        }
    }
    Ok(scripts)
}

fn options(common: &Common) -> LinkOptions {
    LinkOptions {
        model: common.model,
        relax: common.relax,
        far_data: common.far_data,
        entry: Some(common.entry.clone()),
        whole_archive: common.whole_archive,
        scatter: common.scatter,
        debugger: common.debugger,
        ..LinkOptions::default()
    }
}

/// The allocator that the options ask for.
pub(crate) fn allocator(common: &Common) -> Result<LowAllocator, Failure> {
    let builder = LowAllocator::builder()
        .reach(common.reach.clone())
        .placement(common.placement)
        .seed(common.seed)
        .min_entropy(common.min_entropy.unwrap_or(0.0));
    Ok(builder.build()?)
}

fn mapped(common: &Common) -> Result<Placer, Failure> {
    Ok(Placer::Mapped {
        allocator: allocator(common)?,
        reach: None,
        min_entropy: common.min_entropy,
    })
}

fn dry_run(common: &Common) -> Result<Placer, Failure> {
    let platform = native_platform()?;
    let window = common.reach.window(platform.config())?;
    Ok(Placer::DryRun {
        window,
        seed: common.seed.unwrap_or_else(|| {
            let mut bytes = [0; 8];
            platform.random(&mut bytes);
            u64::from_le_bytes(bytes)
        }),
    })
}

fn native_platform() -> Result<std::sync::Arc<dyn low2g::platform::Platform>, Failure> {
    low2g::platform::native().map_err(|error| Failure::Other(error.to_string()))
}
