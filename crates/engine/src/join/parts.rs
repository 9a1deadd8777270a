//! A component and its core modules, taken apart.
//!
//! Only what a join needs is looked into: core modules, core instances, and the items between them and the
//! component level. Everything else is a section to copy.

use super::Refusal;
use std::collections::HashMap;
use std::ops::Range;
use wasm_encoder::reencode::{Error, Reencode, ReencodeComponent};
use wasmparser::{
    CanonicalFunction, ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    ComponentType, ComponentTypeRef, ComponentTypeSectionReader, CompositeInnerType, Data, Element, Encoding,
    Export, ExternalKind, FunctionBody, Global, Import, Instance, KnownCustom, MemoryType, NameSectionReader,
    Parser, Payload, RecGroup, Table, TypeRef,
};

/// More core instances than this are more than a guest may have by default
/// ([`Limits`](crate::Limits)); bounds the work on a hostile component.
const MAX_INSTANCES: usize = 64;

/// What core code imports and exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Func,
    Table,
    Memory,
    Global,
    Tag,
}

/// Where an item of a core index space of the component comes from. Bundles (instances made of exports) are
/// looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin<'a> {
    /// A function that the canonical ABI makes, by the place of its definition.
    Canon(usize),
    /// An export of the instance of a core module.
    Export { instance: usize, name: &'a str },
}

/// A component, in order.
pub(super) struct Parts<'a> {
    pub(super) items: Vec<Item<'a>>,
    pub(super) modules: Vec<Outline<'a>>,
    pub(super) instances: Vec<CoreInstance<'a>>,
    spaces: Spaces<'a>,
    instantiated: usize,
}

/// One definition or section; its place is its index in [`Parts::items`].
pub(super) enum Item<'a> {
    /// A section that has nothing to do with core code.
    Copied { id: u8, content: &'a [u8] },
    /// The same, but it instantiates components, and so may run any code of this one.
    Running { id: u8, content: &'a [u8] },
    /// Types of which some name core functions (destructors of resources).
    Types(ComponentTypeSectionReader<'a>),
    /// An alias of something that is not core code.
    Alias(ComponentAlias<'a>),
    /// A step between core code and the component level.
    Canon(CanonicalFunction),
    /// A core module, by its index.
    Module { index: usize, content: &'a [u8] },
    /// A core instance of a module, by its index.
    Instance(usize),
}

/// A core instance.
pub(super) enum CoreInstance<'a> {
    /// Instantiates a module.
    Of { place: usize, module: usize, arguments: HashMap<&'a str, usize> },
    /// Bundles what other instances export.
    Bundle(HashMap<&'a str, Origin<'a>>),
}

/// A core module, taken apart.
#[derive(Default)]
pub(super) struct Outline<'a> {
    pub(super) types: Vec<RecGroup>,
    pub(super) imports: Vec<Import<'a>>,
    /// Types of the functions that it defines.
    pub(super) functions: Vec<u32>,
    pub(super) bodies: Vec<FunctionBody<'a>>,
    pub(super) tables: Vec<Table<'a>>,
    pub(super) memories: Vec<MemoryType>,
    pub(super) globals: Vec<Global<'a>>,
    pub(super) exports: Vec<Export<'a>>,
    pub(super) start: Option<u32>,
    pub(super) elements: Vec<Element<'a>>,
    pub(super) data: Vec<Data<'a>>,
    pub(super) names: Option<NameSectionReader<'a>>,
    /// What it has that a joined module cannot have.
    pub(super) unusual: Option<&'static str>,
}

#[derive(Default)]
struct Spaces<'a> {
    funcs: Vec<Origin<'a>>,
    tables: Vec<Origin<'a>>,
    memories: Vec<Origin<'a>>,
    globals: Vec<Origin<'a>>,
    tags: Vec<Origin<'a>>,
}

/// Notes which core items a definition mentions.
#[derive(Default)]
struct Mentions(Vec<(Kind, u32)>);

// === impl Kind ===

impl Kind {
    pub(super) fn of(kind: ExternalKind) -> Result<Kind, Refusal> {
        Ok(match kind {
            ExternalKind::Func => Kind::Func,
            ExternalKind::Table => Kind::Table,
            ExternalKind::Memory => Kind::Memory,
            ExternalKind::Global => Kind::Global,
            ExternalKind::Tag => Kind::Tag,
            ExternalKind::FuncExact => return Err(Refusal("functions of exact types")),
        })
    }

    pub(super) fn of_import(ty: TypeRef) -> Result<Kind, Refusal> {
        Ok(match ty {
            TypeRef::Func(_) => Kind::Func,
            TypeRef::Table(_) => Kind::Table,
            TypeRef::Memory(_) => Kind::Memory,
            TypeRef::Global(_) => Kind::Global,
            TypeRef::Tag(_) => Kind::Tag,
            TypeRef::FuncExact(_) => return Err(Refusal("functions of exact types")),
        })
    }

    pub(super) fn export(self) -> wasm_encoder::ExportKind {
        match self {
            Kind::Func => wasm_encoder::ExportKind::Func,
            Kind::Table => wasm_encoder::ExportKind::Table,
            Kind::Memory => wasm_encoder::ExportKind::Memory,
            Kind::Global => wasm_encoder::ExportKind::Global,
            Kind::Tag => wasm_encoder::ExportKind::Tag,
        }
    }
}

// === impl Parts ===

impl<'a> Parts<'a> {
    pub(super) fn of(wasm: &'a [u8]) -> Result<Parts<'a>, Refusal> {
        let mut parts = Parts {
            items: Vec::new(),
            modules: Vec::new(),
            instances: Vec::new(),
            spaces: Spaces::default(),
            instantiated: 0,
        };
        // What is being read: the component itself at depth 0, else a module or a component inside it.
        let mut depth = 0_u32;
        let mut outline: Option<Outline<'a>> = None;
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload?;
            match payload {
                Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                    return Err(Refusal("it is a module"));
                }
                Payload::ModuleSection { ref unchecked_range, .. } => {
                    if depth == 0 {
                        let index = parts.modules.len();
                        let content = slice(wasm, unchecked_range)?;
                        parts.items.push(Item::Module { index, content });
                        outline = Some(Outline::default());
                    }
                    depth += 1;
                }
                Payload::ComponentSection { ref unchecked_range, .. } => {
                    if depth == 0 {
                        let content = slice(wasm, unchecked_range)?;
                        parts.items.push(Item::Copied { id: COMPONENT_SECTION, content });
                    }
                    depth += 1;
                }
                Payload::End(_) => {
                    if depth == 1 {
                        parts.modules.extend(outline.take());
                    }
                    depth = depth.saturating_sub(1);
                }
                payload => match &mut outline {
                    Some(outline) => outline.read(payload)?,
                    None if depth == 0 => parts.read(payload, wasm)?,
                    None => nested(payload)?,
                },
            }
        }
        Ok(parts)
    }

    /// Where an item of a core index space comes from.
    pub(super) fn origin(&self, kind: Kind, index: u32) -> Result<Origin<'a>, Refusal> {
        self.spaces.get(kind).get(index as usize).copied().ok_or(Refusal("an index out of range"))
    }

    /// Where an export of a core instance comes from.
    pub(super) fn export(&self, instance: usize, name: &'a str) -> Result<Origin<'a>, Refusal> {
        match self.instances.get(instance) {
            Some(CoreInstance::Of { .. }) => Ok(Origin::Export { instance, name }),
            Some(CoreInstance::Bundle(exports)) => {
                exports.get(name).copied().ok_or(Refusal("an export that is not there"))
            }
            None => Err(Refusal("an instance that is not there")),
        }
    }

    /// The place from which on this can be used.
    pub(super) fn place(&self, origin: Origin<'_>) -> Result<usize, Refusal> {
        match origin {
            Origin::Canon(place) => Ok(place),
            Origin::Export { instance, .. } => match self.instances.get(instance) {
                Some(CoreInstance::Of { place, .. }) => Ok(*place),
                _ => Err(Refusal("an instance that is not there")),
            },
        }
    }

    fn read(&mut self, payload: Payload<'a>, wasm: &'a [u8]) -> Result<(), Refusal> {
        match payload {
            Payload::Version { .. } => {}
            Payload::InstanceSection(section) => {
                for instance in section {
                    self.instance(instance?)?;
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    match alias? {
                        ComponentAlias::CoreInstanceExport { kind, instance_index, name } => {
                            let origin = self.export(instance_index as usize, name)?;
                            self.spaces.get_mut(Kind::of(kind)?).push(origin);
                        }
                        ComponentAlias::InstanceExport { kind: ComponentExternalKind::Module, .. }
                        | ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, .. } => {
                            return Err(ALIEN_MODULE);
                        }
                        alias => self.items.push(Item::Alias(alias)),
                    }
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for canon in section {
                    let canon = canon?;
                    if !matches!(canon, CanonicalFunction::Lift { .. }) {
                        self.spaces.funcs.push(Origin::Canon(self.items.len()));
                    }
                    self.items.push(Item::Canon(canon));
                }
            }
            Payload::ComponentTypeSection(section) => {
                let mut destructors = false;
                for ty in section.clone() {
                    destructors |= matches!(ty?, ComponentType::Resource { dtor: Some(_), .. });
                }
                if destructors {
                    self.items.push(Item::Types(section));
                } else {
                    self.copy(&Payload::ComponentTypeSection(section), wasm)?;
                }
            }
            Payload::ComponentImportSection(ref section) => {
                for import in section.clone() {
                    if matches!(import?.ty, ComponentTypeRef::Module(_)) {
                        return Err(ALIEN_MODULE);
                    }
                }
                self.copy(&payload, wasm)?;
            }
            Payload::ComponentExportSection(ref section) => {
                for export in section.clone() {
                    if export?.kind == ComponentExternalKind::Module {
                        return Err(ALIEN_MODULE);
                    }
                }
                self.copy(&payload, wasm)?;
            }
            Payload::ComponentInstanceSection(ref section) => {
                let mut running = false;
                for instance in section.clone() {
                    let modules = match instance? {
                        ComponentInstance::Instantiate { args, .. } => {
                            running = true;
                            args.iter().any(|arg| arg.kind == ComponentExternalKind::Module)
                        }
                        ComponentInstance::FromExports(exports) => {
                            exports.iter().any(|export| export.kind == ComponentExternalKind::Module)
                        }
                    };
                    if modules {
                        return Err(ALIEN_MODULE);
                    }
                }
                self.copy(&payload, wasm)?;
                if running && let Some(Item::Copied { id, content }) = self.items.pop() {
                    self.items.push(Item::Running { id, content });
                }
            }
            Payload::CoreTypeSection(_) => self.copy(&payload, wasm)?,
            // Names of core items would name others afterwards.
            Payload::CustomSection(ref section) if section.name() == "component-name" => {}
            Payload::CustomSection(_) => self.copy(&payload, wasm)?,
            _ => return Err(Refusal("a section of the component that is not known")),
        }
        Ok(())
    }

    fn instance(&mut self, instance: Instance<'a>) -> Result<(), Refusal> {
        let instance = match instance {
            Instance::Instantiate { module_index, args } => {
                self.instantiated += 1;
                if self.instantiated > MAX_INSTANCES {
                    return Err(Refusal("too many instances"));
                }
                let place = self.items.len();
                self.items.push(Item::Instance(self.instances.len()));
                let arguments = args.iter().map(|arg| (arg.name, arg.index as usize)).collect();
                CoreInstance::Of { place, module: module_index as usize, arguments }
            }
            Instance::FromExports(exports) => {
                let mut bundle = HashMap::new();
                for export in &exports {
                    bundle.insert(export.name, self.origin(Kind::of(export.kind)?, export.index)?);
                }
                CoreInstance::Bundle(bundle)
            }
        };
        self.instances.push(instance);
        Ok(())
    }

    fn copy(&mut self, payload: &Payload<'a>, wasm: &'a [u8]) -> Result<(), Refusal> {
        let (id, range) = payload.as_section().ok_or(Refusal("not a section"))?;
        self.items.push(Item::Copied { id, content: slice(wasm, &range)? });
        Ok(())
    }
}

// === impl Item ===

impl Item<'_> {
    /// The core items that this one mentions, other than by instantiating a module.
    pub(super) fn mentions(&self) -> Result<Vec<(Kind, u32)>, Refusal> {
        let mut mentions = Mentions::default();
        match self {
            Item::Canon(canon) => {
                let mut section = wasm_encoder::CanonicalFunctionSection::new();
                mentions.parse_component_canonical(&mut section, canon.clone())?;
            }
            Item::Types(types) => {
                let mut section = wasm_encoder::ComponentTypeSection::new();
                mentions.parse_component_type_section(&mut section, types.clone())?;
            }
            _ => {}
        }
        Ok(mentions.0)
    }
}

// === impl Outline ===

impl<'a> Outline<'a> {
    fn read(&mut self, payload: Payload<'a>) -> Result<(), Refusal> {
        match payload {
            Payload::Version { .. } | Payload::DataCountSection { .. } | Payload::CodeSectionStart { .. } => {
            }
            Payload::TypeSection(section) => {
                for group in section {
                    let group = group?;
                    if !is_plain(&group) {
                        self.unusual = Some("types other than those of functions");
                    }
                    self.types.push(group);
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    if matches!(import.ty, TypeRef::Tag(_) | TypeRef::FuncExact(_)) {
                        self.unusual = Some("imported tags");
                    }
                    self.imports.push(import);
                }
            }
            Payload::FunctionSection(section) => self.functions = all(section)?,
            Payload::TableSection(section) => {
                self.tables = all(section)?;
                self.note_shared(self.tables.iter().any(|table| table.ty.shared));
            }
            Payload::MemorySection(section) => {
                self.memories = all(section)?;
                self.note_shared(self.memories.iter().any(|memory| memory.shared));
            }
            Payload::GlobalSection(section) => {
                self.globals = all(section)?;
                self.note_shared(self.globals.iter().any(|global| global.ty.shared));
            }
            Payload::ExportSection(section) => self.exports = all(section)?,
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::ElementSection(section) => self.elements = all(section)?,
            Payload::DataSection(section) => self.data = all(section)?,
            Payload::CodeSectionEntry(body) => self.bodies.push(body),
            Payload::CustomSection(section) => {
                if let KnownCustom::Name(names) = section.as_known() {
                    self.names = Some(names);
                }
            }
            Payload::TagSection(_) => self.unusual = Some("tags"),
            _ => self.unusual = Some("a section that is not known"),
        }
        Ok(())
    }

    fn note_shared(&mut self, shared: bool) {
        if shared {
            self.unusual = Some("state shared between threads");
        }
    }
}

// === impl Spaces ===

impl<'a> Spaces<'a> {
    fn get(&self, kind: Kind) -> &Vec<Origin<'a>> {
        match kind {
            Kind::Func => &self.funcs,
            Kind::Table => &self.tables,
            Kind::Memory => &self.memories,
            Kind::Global => &self.globals,
            Kind::Tag => &self.tags,
        }
    }

    fn get_mut(&mut self, kind: Kind) -> &mut Vec<Origin<'a>> {
        match kind {
            Kind::Func => &mut self.funcs,
            Kind::Table => &mut self.tables,
            Kind::Memory => &mut self.memories,
            Kind::Global => &mut self.globals,
            Kind::Tag => &mut self.tags,
        }
    }
}

// === impl Mentions ===

impl Reencode for Mentions {
    type Error = Refusal;

    fn function_index(&mut self, func: u32) -> Result<u32, Error<Refusal>> {
        self.0.push((Kind::Func, func));
        Ok(func)
    }

    fn table_index(&mut self, table: u32) -> Result<u32, Error<Refusal>> {
        self.0.push((Kind::Table, table));
        Ok(table)
    }

    fn memory_index(&mut self, memory: u32) -> Result<u32, Error<Refusal>> {
        self.0.push((Kind::Memory, memory));
        Ok(memory)
    }
}

impl ReencodeComponent for Mentions {}

const COMPONENT_SECTION: u8 = 4;
const ALIEN_MODULE: Refusal = Refusal("a core module that is not written out in the component");

/// A component inside must not reach for the core modules of the one around it.
fn nested(payload: Payload<'_>) -> Result<(), Refusal> {
    if let Payload::ComponentAliasSection(section) = payload {
        for alias in section {
            if matches!(alias?, ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, .. }) {
                return Err(ALIEN_MODULE);
            }
        }
    }
    Ok(())
}

fn is_plain(group: &RecGroup) -> bool {
    !group.is_explicit_rec_group()
        && group.types().all(|ty| {
            ty.is_final
                && ty.supertype_idx.is_none()
                && !ty.composite_type.shared
                && matches!(ty.composite_type.inner, CompositeInnerType::Func(_))
        })
}

fn all<'a, T: wasmparser::FromReader<'a>>(
    section: wasmparser::SectionLimited<'a, T>,
) -> Result<Vec<T>, Refusal> {
    Ok(section.into_iter().collect::<Result<Vec<T>, _>>()?)
}

fn slice<'a>(wasm: &'a [u8], range: &Range<usize>) -> Result<&'a [u8], Refusal> {
    wasm.get(range.clone()).ok_or(Refusal("it is cut off"))
}
