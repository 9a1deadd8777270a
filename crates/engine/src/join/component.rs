//! Writing the component around the joined module.
//!
//! The items keep their order, so indices at the component level stay. The core index spaces are made anew:
//! core items are given an index when they are first needed.

use super::Refusal;
use super::group::{Group, Joined, imports_of};
use super::module::{self, OUTSIDE};
use super::parts::{CoreInstance, Item, Kind, Origin, Parts};
use std::collections::{BTreeMap, HashMap, HashSet};
use wasm_encoder::reencode::{Error, Reencode, ReencodeComponent, RoundtripReencoder};
use wasm_encoder::{
    Alias, CanonicalFunctionSection, Component, ComponentAliasSection, ComponentSectionId,
    ComponentTypeSection, EntityType, ExportKind, ImportSection, InstanceSection, Module, ModuleArg,
    ModuleSection, RawSection, StartSection, TypeSection,
};
use wasmparser::CanonicalFunction;

pub(super) fn write(parts: &Parts<'_>, group: &Group<'_, '_>) -> Result<Vec<u8>, Refusal> {
    let mut writer = Writer {
        parts,
        group,
        component: Component::new(),
        modules: 0,
        instances: 0,
        next: HashMap::new(),
        joined: None,
        module_indices: HashMap::new(),
        instance_indices: HashMap::new(),
        indices: HashMap::new(),
    };
    let gone: HashSet<usize> = group.members.iter().map(|member| member.module).collect();
    for (place, item) in parts.items.iter().enumerate() {
        writer.item(place, item, &gone)?;
    }
    Ok(writer.component.finish())
}

struct Writer<'w, 'p, 'a> {
    parts: &'w Parts<'a>,
    group: &'w Group<'p, 'a>,
    component: Component,
    modules: u32,
    instances: u32,
    /// The next index of each core index space.
    next: HashMap<Kind, u32>,
    /// The instance of the joined module, once it is written.
    joined: Option<u32>,
    module_indices: HashMap<usize, u32>,
    instance_indices: HashMap<usize, u32>,
    indices: HashMap<Source<'a>, u32>,
}

/// What has an index in a core index space.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Source<'a> {
    Joined(Joined),
    Apart(Kind, Origin<'a>),
}

/// Writes an item with other core indices.
struct Renumber(HashMap<(Kind, u32), u32>);

// === impl Writer ===

impl<'a> Writer<'_, '_, 'a> {
    fn item(&mut self, place: usize, item: &Item<'a>, gone: &HashSet<usize>) -> Result<(), Refusal> {
        match item {
            Item::Copied { id, content } | Item::Running { id, content } => {
                self.component.section(&RawSection { id: *id, data: content });
            }
            Item::Module { index, .. } if gone.contains(index) => {}
            Item::Module { index, content } => {
                self.component
                    .section(&RawSection { id: ComponentSectionId::CoreModule.into(), data: content });
                self.module_indices.insert(*index, self.modules);
                self.modules += 1;
            }
            Item::Alias(alias) => {
                let alias = RoundtripReencoder.component_alias(alias.clone()).map_err(|_| UNWRITTEN)?;
                let mut section = ComponentAliasSection::new();
                section.alias(alias);
                self.component.section(&section);
            }
            Item::Types(types) => {
                let mut section = ComponentTypeSection::new();
                self.renumber(item)?.parse_component_type_section(&mut section, types.clone())?;
                self.component.section(&section);
            }
            Item::Canon(canon) => {
                let mut section = CanonicalFunctionSection::new();
                self.renumber(item)?.parse_component_canonical(&mut section, canon.clone())?;
                self.component.section(&section);
                if !matches!(canon, CanonicalFunction::Lift { .. }) {
                    self.define(Source::Apart(Kind::Func, Origin::Canon(place)));
                }
            }
            Item::Instance(instance) => match self.group.member(*instance) {
                Some(member) => {
                    if let Some(start) = member.start {
                        self.start((Kind::Func, start))?;
                    }
                }
                None => self.apart(*instance)?,
            },
        }
        Ok(())
    }

    /// An instance that is not joined, with what its module imports.
    fn apart(&mut self, instance: usize) -> Result<(), Refusal> {
        let Some(CoreInstance::Of { module, arguments, .. }) = self.parts.instances.get(instance) else {
            return Err(BROKEN);
        };
        let outline = self.parts.modules.get(*module).ok_or(BROKEN)?;
        let mut bundles: BTreeMap<&str, BTreeMap<&str, (Kind, u32)>> = BTreeMap::new();
        for (import, (kind, origin)) in
            outline.imports.iter().zip(imports_of(self.parts, outline, arguments)?)
        {
            let index = self.index(kind, origin)?;
            bundles.entry(import.module).or_default().insert(import.name, (kind, index));
        }
        let mut given = Vec::new();
        for (name, bundle) in bundles {
            let exports = bundle.into_iter().map(|(name, (kind, index))| (name, kind.export(), index));
            given.push((name, self.bundle(exports)));
        }
        let module = *self.module_indices.get(module).ok_or(BROKEN)?;
        let index = self.instantiate(module, given);
        self.instance_indices.insert(instance, index);
        Ok(())
    }

    /// The index of a core item; writes the alias of it, and the joined module, if they are not there yet.
    fn index(&mut self, kind: Kind, origin: Origin<'a>) -> Result<u32, Refusal> {
        let joined = self.group.joined(kind, origin)?;
        let source = joined.map_or(Source::Apart(kind, origin), Source::Joined);
        if let Some(index) = self.indices.get(&source) {
            return Ok(*index);
        }
        match (joined, origin) {
            (Some(item), _) => self.export(item),
            (None, Origin::Export { instance, name }) => {
                let instance = *self.instance_indices.get(&instance).ok_or(BROKEN)?;
                Ok(self.alias(source, instance, kind, name))
            }
            (None, Origin::Canon(_)) => Err(BROKEN),
        }
    }

    fn export(&mut self, item: Joined) -> Result<u32, Refusal> {
        let source = Source::Joined(item);
        if let Some(index) = self.indices.get(&source) {
            return Ok(*index);
        }
        let instance = match self.joined {
            Some(instance) => instance,
            None => self.join()?,
        };
        Ok(self.alias(source, instance, item.0, &module::export_name(item)))
    }

    fn join(&mut self) -> Result<u32, Refusal> {
        let written = module::write(self.group)?;
        let mut names = Vec::new();
        for (number, function) in written.imports.iter().enumerate() {
            let origin = self.group.external(*function).ok_or(BROKEN)?;
            names.push((number.to_string(), self.index(Kind::Func, origin)?));
        }
        let mut given = Vec::new();
        if !names.is_empty() {
            let exports = names.iter().map(|(name, index)| (name.as_str(), ExportKind::Func, *index));
            given.push((OUTSIDE, self.bundle(exports)));
        }
        let module = self.module(&written.module);
        let instance = self.instantiate(module, given);
        self.joined = Some(instance);
        Ok(instance)
    }

    /// Calls a start function of the joined module, by a module whose start function it is.
    fn start(&mut self, function: Joined) -> Result<(), Refusal> {
        let index = self.export(function)?;
        let mut types = TypeSection::new();
        types.ty().function([], []);
        let mut imports = ImportSection::new();
        imports.import(OUTSIDE, "0", EntityType::Function(0));
        let mut module = Module::new();
        module.section(&types).section(&imports).section(&StartSection { function_index: 0 });
        let bundle = self.bundle([("0", ExportKind::Func, index)]);
        let module = self.module(&module);
        self.instantiate(module, vec![(OUTSIDE, bundle)]);
        Ok(())
    }

    fn renumber(&mut self, item: &Item<'a>) -> Result<Renumber, Refusal> {
        let mut indices = HashMap::new();
        for (kind, index) in item.mentions()? {
            let origin = self.parts.origin(kind, index)?;
            indices.insert((kind, index), self.index(kind, origin)?);
        }
        Ok(Renumber(indices))
    }

    fn alias(&mut self, source: Source<'a>, instance: u32, kind: Kind, name: &str) -> u32 {
        let mut section = ComponentAliasSection::new();
        section.alias(Alias::CoreInstanceExport { instance, kind: kind.export(), name });
        self.component.section(&section);
        self.define(source)
    }

    fn bundle<'n>(&mut self, exports: impl IntoIterator<Item = (&'n str, ExportKind, u32)>) -> u32 {
        let exports: Vec<_> = exports.into_iter().collect();
        let mut section = InstanceSection::new();
        section.export_items(exports);
        self.component.section(&section);
        self.instances += 1;
        self.instances - 1
    }

    fn module(&mut self, module: &Module) -> u32 {
        self.component.section(&ModuleSection(module));
        self.modules += 1;
        self.modules - 1
    }

    fn instantiate(&mut self, module: u32, given: Vec<(&str, u32)>) -> u32 {
        let mut section = InstanceSection::new();
        section
            .instantiate(module, given.into_iter().map(|(name, bundle)| (name, ModuleArg::Instance(bundle))));
        self.component.section(&section);
        self.instances += 1;
        self.instances - 1
    }

    fn define(&mut self, source: Source<'a>) -> u32 {
        let kind = match source {
            Source::Joined((kind, _)) | Source::Apart(kind, _) => kind,
        };
        let next = self.next.entry(kind).or_default();
        let index = *next;
        *next += 1;
        self.indices.insert(source, index);
        index
    }
}

// === impl Renumber ===

impl Renumber {
    fn get(&self, kind: Kind, index: u32) -> Result<u32, Error<Refusal>> {
        self.0.get(&(kind, index)).copied().ok_or(Error::UserError(BROKEN))
    }
}

impl Reencode for Renumber {
    type Error = Refusal;

    fn function_index(&mut self, function: u32) -> Result<u32, Error<Refusal>> {
        self.get(Kind::Func, function)
    }

    fn table_index(&mut self, table: u32) -> Result<u32, Error<Refusal>> {
        self.get(Kind::Table, table)
    }

    fn memory_index(&mut self, memory: u32) -> Result<u32, Error<Refusal>> {
        self.get(Kind::Memory, memory)
    }
}

impl ReencodeComponent for Renumber {}

const BROKEN: Refusal = Refusal("an index out of range");
const UNWRITTEN: Refusal = Refusal("a part of it cannot be written again");
