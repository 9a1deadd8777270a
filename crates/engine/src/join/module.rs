//! Writing the joined module.
//!
//! Only what can be reached is written: a program uses a small part of its libraries, and most of what a
//! library exports is not needed once the importers are known. A variable global that nobody sets becomes a
//! constant, so the addresses that libraries look up for each other (`GOT.mem`, `GOT.func`) cost nothing.

use super::Refusal;
use super::group::{Constant, Function, Group, Joined, Member};
use super::parts::Kind;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use wasm_encoder::reencode::{Error, Reencode};
use wasm_encoder::{
    CodeSection, ConstExpr, DataCountSection, DataSection, ElementSection, Elements, EntityType,
    ExportSection, FunctionSection, GlobalSection, ImportSection, MemorySection, Module, NameMap,
    NameSection, TableSection, TypeSection,
};
use wasmparser::{ElementItems, Name, Operator, TableInit};

/// The name of the instance that the joined module imports from; the functions in it are named by number.
pub(super) const OUTSIDE: &str = "";

/// The engine pools instances of 4 MiB; a function that can be referred to or is imported takes 32 bytes of
/// that, a global 16.
const MAX_STATE: usize = 2 << 20;

/// The joined module.
pub(super) struct JoinedModule {
    pub(super) module: Module,
    /// The functions that it imports, in order, by their index in [`Group::functions`].
    pub(super) imports: Vec<u32>,
}

/// What can be reached from the exports and the segments.
#[derive(Default)]
struct Reach {
    functions: BTreeSet<u32>,
    /// Functions that code takes a reference of.
    referred: BTreeSet<u32>,
    /// Globals that code sets.
    set: BTreeSet<u32>,
    /// Functions in segments, each as often as it is there.
    listed: usize,
    waiting: Vec<u32>,
}

/// Writes one member's definitions with the indices of the joined module.
struct Renumber<'g, 'p, 'a> {
    member: &'g Member<'p, 'a>,
    /// Final index of each of [`Group::functions`], if it is written at all.
    functions: &'g [Option<u32>],
}

/// What an export of the joined module is called.
pub(super) fn export_name((kind, index): Joined) -> String {
    let kind = match kind {
        Kind::Func => "f",
        Kind::Table => "t",
        Kind::Memory => "m",
        Kind::Global => "g",
        Kind::Tag => "e",
    };
    format!("{kind}{index}")
}

pub(super) fn write(group: &Group<'_, '_>) -> Result<JoinedModule, Refusal> {
    let reach = Reach::of(group)?;
    let (imported, defined): (Vec<u32>, Vec<u32>) = reach
        .functions
        .iter()
        .partition(|index| matches!(group.functions.get(**index as usize), Some(Function::External { .. })));
    let escaping = [reach.listed, reach.referred.len(), group.exports.len(), imported.len()];
    let escaping = escaping.into_iter().fold(0, usize::saturating_add);
    if escaping.saturating_mul(32).saturating_add(group.globals.len().saturating_mul(16)) > MAX_STATE {
        return Err(Refusal("more functions and globals than an instance may have"));
    }
    let mut functions = vec![None; group.functions.len()];
    for (number, index) in (0_u32..).zip(imported.iter().chain(&defined)) {
        *functions.get_mut(*index as usize).ok_or(BROKEN)? = Some(number);
    }
    let renumber = |member: usize| -> Result<Renumber<'_, '_, '_>, Refusal> {
        Ok(Renumber { member: group.members.get(member).ok_or(BROKEN)?, functions: &functions })
    };

    let mut types = TypeSection::new();
    for member in 0..group.members.len() {
        let mut renumber = renumber(member)?;
        for ty in &renumber.member.outline.types {
            renumber.parse_recursive_type_group(types.ty(), ty.clone())?;
        }
    }

    let (mut imports, mut declarations, mut code) =
        (ImportSection::new(), FunctionSection::new(), CodeSection::new());
    for (number, index) in imported.iter().enumerate() {
        if let Some(Function::External { member, ty, .. }) = group.functions.get(*index as usize) {
            let ty = renumber(*member)?.type_index(*ty)?;
            imports.import(OUTSIDE, &number.to_string(), EntityType::Function(ty));
        }
    }
    for index in &defined {
        if let Some(Function::Defined { member, index }) = group.functions.get(*index as usize) {
            let mut renumber = renumber(*member)?;
            let outline = renumber.member.outline;
            declarations.function(renumber.type_index(*outline.functions.get(*index).ok_or(BROKEN)?)?);
            renumber.parse_function_body(&mut code, outline.bodies.get(*index).ok_or(BROKEN)?.clone())?;
        }
    }

    let (mut tables, mut memories, mut globals) =
        (TableSection::new(), MemorySection::new(), GlobalSection::new());
    for table in &group.tables {
        renumber(table.member)?.parse_table(&mut tables, table.definition.clone())?;
    }
    for memory in &group.memories {
        memories.memory((*memory).into());
    }
    for (index, global) in (0_u32..).zip(&group.globals) {
        let mut renumber = renumber(global.member)?;
        let mut ty = renumber.global_type(global.definition.ty)?;
        ty.mutable &= reach.set.contains(&index) || group.exports.contains(&(Kind::Global, index));
        globals.global(ty, &renumber.const_expr(global.definition.init_expr.clone())?);
    }

    let mut exports = ExportSection::new();
    for item in &group.exports {
        let index = match item {
            (Kind::Func, index) => functions.get(*index as usize).copied().flatten().ok_or(BROKEN)?,
            (_, index) => *index,
        };
        exports.export(&export_name(*item), item.0.export(), index);
    }

    let (mut elements, mut data) = (ElementSection::new(), DataSection::new());
    for member in 0..group.members.len() {
        let mut renumber = renumber(member)?;
        for element in &renumber.member.outline.elements {
            renumber.parse_element(&mut elements, element.clone())?;
        }
        for datum in &renumber.member.outline.data {
            renumber.parse_data(&mut data, datum.clone())?;
        }
    }
    // An export of a member may have been what allowed its code to refer to the function.
    if !reach.referred.is_empty() {
        let referred: Vec<u32> = reach
            .referred
            .iter()
            .filter_map(|index| functions.get(*index as usize).copied().flatten())
            .collect();
        elements.declared(Elements::Functions(Cow::Owned(referred)));
    }

    let mut module = Module::new();
    module
        .section(&types)
        .section(&imports)
        .section(&declarations)
        .section(&tables)
        .section(&memories)
        .section(&globals)
        .section(&exports)
        .section(&elements)
        .section(&DataCountSection { count: data.len() })
        .section(&code)
        .section(&data)
        .section(&names(group, &functions));
    Ok(JoinedModule { module, imports: imported })
}

// === impl Reach ===

impl Reach {
    fn of(group: &Group<'_, '_>) -> Result<Reach, Refusal> {
        let mut reach = Reach::default();
        for item in &group.exports {
            if let (Kind::Func, index) = item {
                reach.function(*index);
            }
        }
        for member in &group.members {
            for element in &member.outline.elements {
                match &element.items {
                    ElementItems::Functions(functions) => {
                        reach.listed = reach.listed.saturating_add(functions.count() as usize);
                        for function in functions.clone() {
                            reach.function(local(&member.functions, function?)?);
                        }
                    }
                    ElementItems::Expressions(_, expressions) => {
                        reach.listed = reach.listed.saturating_add(expressions.count() as usize);
                        for expression in expressions.clone() {
                            reach.expression(member, &expression?)?;
                        }
                    }
                }
            }
            for global in &member.outline.globals {
                reach.expression(member, &global.init_expr)?;
            }
            for table in &member.outline.tables {
                if let TableInit::Expr(expression) = &table.init {
                    reach.expression(member, expression)?;
                }
            }
        }
        while let Some(index) = reach.waiting.pop() {
            let Some(Function::Defined { member, index }) = group.functions.get(index as usize) else {
                continue;
            };
            let member = group.members.get(*member).ok_or(BROKEN)?;
            for operator in member.outline.bodies.get(*index).ok_or(BROKEN)?.get_operators_reader()? {
                match operator? {
                    Operator::Call { function_index } | Operator::ReturnCall { function_index } => {
                        reach.function(local(&member.functions, function_index)?);
                    }
                    Operator::RefFunc { function_index } => {
                        let function = local(&member.functions, function_index)?;
                        reach.function(function);
                        reach.referred.insert(function);
                    }
                    Operator::GlobalSet { global_index } => {
                        reach.set.insert(local(&member.globals, global_index)?);
                    }
                    _ => {}
                }
            }
        }
        Ok(reach)
    }

    fn function(&mut self, index: u32) {
        if self.functions.insert(index) {
            self.waiting.push(index);
        }
    }

    fn expression(
        &mut self,
        member: &Member<'_, '_>,
        expression: &wasmparser::ConstExpr<'_>,
    ) -> Result<(), Refusal> {
        for operator in expression.get_operators_reader() {
            if let Operator::RefFunc { function_index } = operator? {
                self.function(local(&member.functions, function_index)?);
            }
        }
        Ok(())
    }
}

// === impl Renumber ===

impl Reencode for Renumber<'_, '_, '_> {
    type Error = Refusal;

    fn type_index(&mut self, ty: u32) -> Result<u32, Error<Refusal>> {
        self.member.types.checked_add(ty).ok_or(Error::UserError(BROKEN))
    }

    fn function_index(&mut self, function: u32) -> Result<u32, Error<Refusal>> {
        let function = local(&self.member.functions, function).map_err(Error::UserError)?;
        self.functions.get(function as usize).copied().flatten().ok_or(Error::UserError(BROKEN))
    }

    fn table_index(&mut self, table: u32) -> Result<u32, Error<Refusal>> {
        local(&self.member.tables, table).map_err(Error::UserError)
    }

    fn memory_index(&mut self, memory: u32) -> Result<u32, Error<Refusal>> {
        local(&self.member.memories, memory).map_err(Error::UserError)
    }

    fn global_index(&mut self, global: u32) -> Result<u32, Error<Refusal>> {
        local(&self.member.globals, global).map_err(Error::UserError)
    }

    fn element_index(&mut self, element: u32) -> Result<u32, Error<Refusal>> {
        self.member.elements.checked_add(element).ok_or(Error::UserError(BROKEN))
    }

    fn data_index(&mut self, data: u32) -> Result<u32, Error<Refusal>> {
        self.member.data.checked_add(data).ok_or(Error::UserError(BROKEN))
    }

    fn tag_index(&mut self, _: u32) -> Result<u32, Error<Refusal>> {
        Err(Error::UserError(BROKEN))
    }

    fn const_expr(&mut self, expression: wasmparser::ConstExpr<'_>) -> Result<ConstExpr, Error<Refusal>> {
        match Constant::of(&expression, &self.member.values) {
            Some(Constant::I32(value)) => Ok(ConstExpr::i32_const(value)),
            Some(Constant::I64(value)) => Ok(ConstExpr::i64_const(value)),
            None => wasm_encoder::reencode::utils::const_expr(self, expression),
        }
    }
}

const BROKEN: Refusal = Refusal("an index out of range");

fn local(space: &[u32], index: u32) -> Result<u32, Refusal> {
    space.get(index as usize).copied().ok_or(BROKEN)
}

/// Function names, for backtraces.
fn names(group: &Group<'_, '_>, functions: &[Option<u32>]) -> NameSection {
    let mut by_index = BTreeMap::new();
    for member in &group.members {
        for subsection in member.outline.names.clone().into_iter().flatten() {
            let Ok(Name::Function(names)) = subsection else { continue };
            for name in names.into_iter().map_while(Result::ok) {
                let function = member.functions.get(name.index as usize);
                if let Some(Some(index)) = function.and_then(|index| functions.get(*index as usize)) {
                    by_index.entry(*index).or_insert(name.name);
                }
            }
        }
    }
    let mut map = NameMap::new();
    for (index, name) in by_index {
        map.append(index, name);
    }
    let mut section = NameSection::new();
    section.functions(&map);
    section
}
