//! Which instances are joined, and what their imports are.
//!
//! The joined module is instantiated just before the first item that uses any export of it ("the first
//! use"). So instances before it are delayed and instances after it are brought forward, and a module may
//! only join where nobody can tell:
//!
//! - It imports memories, tables and globals from joined modules only, and functions from anywhere, as long
//!   as they are there before the first use. Until then nothing else has reached any joined state.
//! - Its active segments are in bounds, so that it cannot fail half-way.
//! - If it has active segments and comes after the first use, then nothing between ran code or wrote to the
//!   same tables and memories.
//! - Its start function stays where it was: a module of its own calls it ([`Member::start`]). Start
//!   functions run code, see above.

use super::Refusal;
use super::parts::{CoreInstance, Item, Kind, Origin, Outline, Parts};
use std::collections::{BTreeSet, HashMap, HashSet};
use wasmparser::{ConstExpr, DataKind, ElementItems, ElementKind, MemoryType, Operator, Table, TypeRef};

/// The engine pools modules of so many memories and tables.
const MAX_MEMORIES: usize = 4;
const MAX_TABLES: usize = 8;

/// The instances that are joined.
pub(super) struct Group<'p, 'a> {
    /// In order of instantiation.
    pub(super) members: Vec<Member<'p, 'a>>,
    pub(super) functions: Vec<Function<'a>>,
    pub(super) tables: Vec<Owned<Table<'a>>>,
    pub(super) memories: Vec<MemoryType>,
    pub(super) globals: Vec<Owned<wasmparser::Global<'a>>>,
    /// What the rest of the component uses.
    pub(super) exports: BTreeSet<Joined>,
    member_of_instance: HashMap<usize, usize>,
    externals: HashMap<Origin<'a>, u32>,
}

/// An item of the joined module: its kind and its index in the list of that kind in [`Group`].
pub(super) type Joined = (Kind, u32);

/// One joined instance: where its own indices lead in the joined module.
pub(super) struct Member<'p, 'a> {
    pub(super) outline: &'p Outline<'a>,
    /// Which module of the component it was.
    pub(super) module: usize,
    pub(super) functions: Vec<u32>,
    pub(super) tables: Vec<u32>,
    pub(super) memories: Vec<u32>,
    pub(super) globals: Vec<u32>,
    pub(super) types: u32,
    pub(super) elements: u32,
    pub(super) data: u32,
    /// Constants that its globals are.
    pub(super) values: Vec<Option<Constant>>,
    /// Its start function.
    pub(super) start: Option<u32>,
    exports: HashMap<&'a str, Joined>,
}

/// Something that a member defines.
pub(super) struct Owned<T> {
    pub(super) member: usize,
    pub(super) definition: T,
}

/// A function of the joined module.
pub(super) enum Function<'a> {
    /// Imported from the rest of the component; its type is one of that member's.
    External { origin: Origin<'a>, member: usize, ty: u32 },
    /// Defined by that member, by its index among those that it defines.
    Defined { member: usize, index: usize },
}

/// The value of a constant expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Constant {
    I32(i32),
    I64(i64),
}

/// What has happened since the first use, in the original order.
#[derive(Default)]
struct Since {
    first_use: Option<usize>,
    /// Code ran that may have looked at anything.
    ran: bool,
    /// These were written to.
    touched: HashSet<Joined>,
}

/// A module's imports, resolved.
enum Resolved<'a> {
    Inside(Joined),
    Outside(Origin<'a>, u32),
}

// === impl Group ===

impl<'p, 'a> Group<'p, 'a> {
    /// Walks the component in order.
    pub(super) fn of(parts: &'p Parts<'a>) -> Result<Group<'p, 'a>, Refusal> {
        let mut group = Group {
            members: Vec::new(),
            functions: Vec::new(),
            tables: Vec::new(),
            memories: Vec::new(),
            globals: Vec::new(),
            exports: BTreeSet::new(),
            member_of_instance: HashMap::new(),
            externals: HashMap::new(),
        };
        let mut uses = vec![0_usize; parts.modules.len()];
        for instance in &parts.instances {
            if let CoreInstance::Of { module, .. } = instance {
                *uses.get_mut(*module).ok_or(Refusal("a module that is not there"))? += 1;
            }
        }
        let mut since = Since::default();
        let mut shares_state = false;
        for (place, item) in parts.items.iter().enumerate() {
            match item {
                Item::Running { .. } => since.ran |= since.first_use.is_some(),
                Item::Instance(instance) => {
                    let Some(CoreInstance::Of { module, arguments, .. }) = parts.instances.get(*instance)
                    else {
                        return Err(Refusal("an instance that is not there"));
                    };
                    let outline = parts.modules.get(*module).ok_or(Refusal("a module that is not there"))?;
                    let imports = group.resolve(parts, outline, arguments);
                    let joins = match &imports {
                        Ok(imports) if uses.get(*module) == Some(&1) => {
                            group.may_join(parts, outline, imports, &since)
                        }
                        Ok(_) => Err(Refusal("instantiated more than once")),
                        Err(_) => Err(Refusal("imports that are not understood")),
                    };
                    match (joins, imports) {
                        (Ok(values), Ok(imports)) => {
                            shares_state |= imports.iter().any(|import| {
                                matches!(import, Resolved::Inside((Kind::Memory | Kind::Table, _)))
                            });
                            group.add(*instance, *module, outline, imports, values)?;
                            if let Some(start) = group.members.last().and_then(|member| member.start) {
                                group.exports.insert((Kind::Func, start));
                                since.first_use.get_or_insert(place);
                                since.ran = true;
                            }
                        }
                        (Err(reason), _) => {
                            tracing::trace!("core instance {instance} stays apart: {reason}");
                            for (kind, origin) in imports_of(parts, outline, arguments)? {
                                if let Some(item) = group.joined(kind, origin)? {
                                    group.exports.insert(item);
                                    since.first_use.get_or_insert(place);
                                    if matches!(kind, Kind::Memory | Kind::Table) {
                                        since.touched.insert(item);
                                    }
                                }
                            }
                            since.ran |= since.first_use.is_some() && outline.start.is_some();
                        }
                        (_, Err(reason)) => return Err(reason),
                    }
                }
                item => {
                    for (kind, index) in item.mentions()? {
                        if let Some(item) = group.joined(kind, parts.origin(kind, index)?)? {
                            group.exports.insert(item);
                            since.first_use.get_or_insert(place);
                        }
                    }
                }
            }
        }
        if group.members.len() < 2 || !shares_state {
            return Err(Refusal("no modules that share a memory or a table"));
        }
        if group.memories.len() > MAX_MEMORIES || group.tables.len() > MAX_TABLES {
            return Err(Refusal("more memories or tables than a module may have"));
        }
        Ok(group)
    }

    /// What an origin is in the joined module; `None` if it is outside.
    pub(super) fn joined(&self, kind: Kind, origin: Origin<'a>) -> Result<Option<Joined>, Refusal> {
        let Origin::Export { instance, name } = origin else { return Ok(None) };
        let Some(member) = self.member_of_instance.get(&instance).and_then(|i| self.members.get(*i)) else {
            return Ok(None);
        };
        match member.exports.get(name) {
            Some(item) if item.0 == kind => Ok(Some(*item)),
            _ => Err(Refusal("an export that is not there")),
        }
    }

    /// The member that an instance became.
    pub(super) fn member(&self, instance: usize) -> Option<&Member<'p, 'a>> {
        self.member_of_instance.get(&instance).and_then(|i| self.members.get(*i))
    }

    /// Where an imported function of the joined module comes from.
    pub(super) fn external(&self, function: u32) -> Option<Origin<'a>> {
        match self.functions.get(function as usize) {
            Some(Function::External { origin, .. }) => Some(*origin),
            _ => None,
        }
    }

    fn resolve(
        &self,
        parts: &Parts<'a>,
        outline: &Outline<'a>,
        arguments: &HashMap<&'a str, usize>,
    ) -> Result<Vec<Resolved<'a>>, Refusal> {
        let origins = imports_of(parts, outline, arguments)?;
        let mut resolved = Vec::with_capacity(origins.len());
        for (import, (kind, origin)) in outline.imports.iter().zip(origins) {
            resolved.push(match (self.joined(kind, origin)?, import.ty) {
                (Some(item), _) => Resolved::Inside(item),
                (None, TypeRef::Func(ty)) => Resolved::Outside(origin, ty),
                (None, _) => return Err(Refusal("state from outside")),
            });
        }
        Ok(resolved)
    }

    /// Answers with the values of its globals.
    fn may_join(
        &self,
        parts: &Parts<'a>,
        outline: &Outline<'a>,
        imports: &[Resolved<'a>],
        since: &Since,
    ) -> Result<Vec<Option<Constant>>, Refusal> {
        if let Some(unusual) = outline.unusual {
            return Err(Refusal(unusual));
        }
        let (mut tables, mut memories, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for import in imports {
            match import {
                Resolved::Inside((Kind::Table, index)) => {
                    let table = self.tables.get(*index as usize).ok_or(BROKEN)?;
                    tables.push((table.definition.ty.initial, Some((Kind::Table, *index))));
                }
                Resolved::Inside((Kind::Memory, index)) => {
                    let memory = self.memories.get(*index as usize).ok_or(BROKEN)?;
                    memories.push((bytes(memory), Some((Kind::Memory, *index))));
                }
                Resolved::Inside((Kind::Global, index)) => {
                    let global = self.globals.get(*index as usize).ok_or(BROKEN)?;
                    values.push(self.value(global)?);
                }
                Resolved::Inside(_) => {}
                Resolved::Outside(origin, _) => {
                    if since
                        .first_use
                        .is_some_and(|first_use| parts.place(*origin).is_ok_and(|p| p >= first_use))
                    {
                        return Err(Refusal("it needs what needs the joined modules"));
                    }
                }
            }
        }
        tables.extend(outline.tables.iter().map(|table| (table.ty.initial, None)));
        memories.extend(outline.memories.iter().map(|memory| (bytes(memory), None)));
        for global in &outline.globals {
            let value = if global.ty.mutable { None } else { Constant::of(&global.init_expr, &values) };
            values.push(value);
        }
        let mut written = Vec::new();
        for element in &outline.elements {
            if let ElementKind::Active { table_index, offset_expr } = &element.kind {
                let length = match &element.items {
                    ElementItems::Functions(items) => items.count(),
                    ElementItems::Expressions(_, items) => items.count(),
                };
                let (size, item) = tables.get(table_index.unwrap_or(0) as usize).ok_or(BROKEN)?;
                fits(Constant::of(offset_expr, &values), u64::from(length), *size)?;
                written.push(*item);
            }
        }
        for data in &outline.data {
            if let DataKind::Active { memory_index, offset_expr } = &data.kind {
                let (size, item) = memories.get(*memory_index as usize).ok_or(BROKEN)?;
                fits(Constant::of(offset_expr, &values), data.data.len() as u64, *size)?;
                written.push(*item);
            }
        }
        if since.ran && !written.is_empty() {
            return Err(Refusal("code ran before its segments are written"));
        }
        if written.iter().flatten().any(|item| since.touched.contains(item)) {
            return Err(Refusal("others wrote before its segments are written"));
        }
        Ok(values)
    }

    fn value(&self, global: &Owned<wasmparser::Global<'a>>) -> Result<Option<Constant>, Refusal> {
        let member = self.members.get(global.member).ok_or(BROKEN)?;
        Ok(if global.definition.ty.mutable {
            None
        } else {
            Constant::of(&global.definition.init_expr, &member.values)
        })
    }

    fn add(
        &mut self,
        instance: usize,
        module: usize,
        outline: &'p Outline<'a>,
        imports: Vec<Resolved<'a>>,
        values: Vec<Option<Constant>>,
    ) -> Result<(), Refusal> {
        let number = self.members.len();
        let (types, elements, data) = match self.members.last() {
            None => (0, 0, 0),
            Some(last) => (
                after(last.types, last.outline.types.len())?,
                after(last.elements, last.outline.elements.len())?,
                after(last.data, last.outline.data.len())?,
            ),
        };
        let mut member = Member {
            outline,
            module,
            functions: Vec::new(),
            tables: Vec::new(),
            memories: Vec::new(),
            globals: Vec::new(),
            types,
            elements,
            data,
            values,
            start: None,
            exports: HashMap::new(),
        };
        for import in imports {
            match import {
                Resolved::Inside((kind, index)) => member.space_mut(kind)?.push(index),
                Resolved::Outside(origin, ty) => {
                    let index = match self.externals.get(&origin) {
                        Some(index) => *index,
                        None => {
                            let function = Function::External { origin, member: number, ty };
                            let index = push(&mut self.functions, function)?;
                            self.externals.insert(origin, index);
                            index
                        }
                    };
                    member.functions.push(index);
                }
            }
        }
        for index in 0..outline.functions.len() {
            member.functions.push(push(&mut self.functions, Function::Defined { member: number, index })?);
        }
        for table in &outline.tables {
            member.tables.push(push(&mut self.tables, Owned { member: number, definition: table.clone() })?);
        }
        for memory in &outline.memories {
            member.memories.push(push(&mut self.memories, *memory)?);
        }
        for global in &outline.globals {
            member
                .globals
                .push(push(&mut self.globals, Owned { member: number, definition: global.clone() })?);
        }
        for export in &outline.exports {
            let kind = Kind::of(export.kind)?;
            let index = member.space(kind)?.get(export.index as usize).copied().ok_or(BROKEN)?;
            member.exports.insert(export.name, (kind, index));
        }
        if let Some(start) = outline.start {
            member.start = Some(member.functions.get(start as usize).copied().ok_or(BROKEN)?);
        }
        self.members.push(member);
        self.member_of_instance.insert(instance, number);
        Ok(())
    }
}

// === impl Member ===

impl Member<'_, '_> {
    fn space(&self, kind: Kind) -> Result<&Vec<u32>, Refusal> {
        match kind {
            Kind::Func => Ok(&self.functions),
            Kind::Table => Ok(&self.tables),
            Kind::Memory => Ok(&self.memories),
            Kind::Global => Ok(&self.globals),
            Kind::Tag => Err(BROKEN),
        }
    }

    fn space_mut(&mut self, kind: Kind) -> Result<&mut Vec<u32>, Refusal> {
        match kind {
            Kind::Func => Ok(&mut self.functions),
            Kind::Table => Ok(&mut self.tables),
            Kind::Memory => Ok(&mut self.memories),
            Kind::Global => Ok(&mut self.globals),
            Kind::Tag => Err(BROKEN),
        }
    }
}

// === impl Constant ===

impl Constant {
    /// The value of an expression, given those of the module's globals. `None` when it is not a plain
    /// number.
    pub(super) fn of(expression: &ConstExpr<'_>, globals: &[Option<Constant>]) -> Option<Constant> {
        let mut stack: Vec<Constant> = Vec::new();
        for operator in expression.get_operators_reader() {
            let value = match operator.ok()? {
                Operator::I32Const { value } => Constant::I32(value),
                Operator::I64Const { value } => Constant::I64(value),
                Operator::GlobalGet { global_index } => (*globals.get(global_index as usize)?)?,
                Operator::I32Add => binary(&mut stack, i32::wrapping_add, i64::wrapping_add)?,
                Operator::I32Sub => binary(&mut stack, i32::wrapping_sub, i64::wrapping_sub)?,
                Operator::I32Mul => binary(&mut stack, i32::wrapping_mul, i64::wrapping_mul)?,
                Operator::I64Add => binary(&mut stack, i32::wrapping_add, i64::wrapping_add)?,
                Operator::I64Sub => binary(&mut stack, i32::wrapping_sub, i64::wrapping_sub)?,
                Operator::I64Mul => binary(&mut stack, i32::wrapping_mul, i64::wrapping_mul)?,
                Operator::End => break,
                _ => return None,
            };
            stack.push(value);
        }
        if stack.len() == 1 { stack.pop() } else { None }
    }

    fn unsigned(self) -> u64 {
        match self {
            Constant::I32(value) => u64::from(value.cast_unsigned()),
            Constant::I64(value) => value.cast_unsigned(),
        }
    }
}

const BROKEN: Refusal = Refusal("an index out of range");

/// Where a module's imports come from, in order.
pub(super) fn imports_of<'a>(
    parts: &Parts<'a>,
    outline: &Outline<'a>,
    arguments: &HashMap<&'a str, usize>,
) -> Result<Vec<(Kind, Origin<'a>)>, Refusal> {
    let mut origins = Vec::with_capacity(outline.imports.len());
    for import in &outline.imports {
        let instance = arguments.get(import.module).ok_or(Refusal("an import without an argument"))?;
        origins.push((Kind::of_import(import.ty)?, parts.export(*instance, import.name)?));
    }
    Ok(origins)
}

fn binary(
    stack: &mut Vec<Constant>,
    narrow: fn(i32, i32) -> i32,
    wide: fn(i64, i64) -> i64,
) -> Option<Constant> {
    match (stack.pop()?, stack.pop()?) {
        (Constant::I32(right), Constant::I32(left)) => Some(Constant::I32(narrow(left, right))),
        (Constant::I64(right), Constant::I64(left)) => Some(Constant::I64(wide(left, right))),
        _ => None,
    }
}

fn bytes(memory: &MemoryType) -> u64 {
    1_u64
        .checked_shl(memory.page_size_log2.unwrap_or(16))
        .map_or(0, |page| memory.initial.saturating_mul(page))
}

fn fits(offset: Option<Constant>, length: u64, size: u64) -> Result<(), Refusal> {
    match offset.and_then(|offset| offset.unsigned().checked_add(length)) {
        Some(end) if end <= size => Ok(()),
        Some(_) => Err(Refusal("a segment out of bounds")),
        None => Err(Refusal("a segment at an unknown offset")),
    }
}

fn push<T>(list: &mut Vec<T>, item: T) -> Result<u32, Refusal> {
    let index = u32::try_from(list.len()).map_err(|_| BROKEN)?;
    list.push(item);
    Ok(index)
}

fn after(base: u32, count: usize) -> Result<u32, Refusal> {
    u32::try_from(count).ok().and_then(|count| base.checked_add(count)).ok_or(BROKEN)
}
