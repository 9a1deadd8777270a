//! A joined component answers what the component answers as it came.

use super::{attempt, join};
use wasmparser::{
    ConstExpr, DataKind, ElementKind, Instance, Operator, Parser, Payload, Validator, WasmFeatures,
};
use wasmtime::component::{Component, Linker, ResourceAny, Val};
use wasmtime::{Engine, Store};

/// A program that has memory, table and addresses, and two libraries.
const LIBRARIES: &str = r#"(component
    (core module $main
        (memory (export "memory") 1)
        (table (export "table") 8 funcref)
        (global (export "memory_base_a") i32 (i32.const 1024))
        (global (export "memory_base_b") i32 (i32.const 2048))
        (global (export "table_base_a") i32 (i32.const 1))
        (global (export "table_base_b") i32 (i32.const 3))
        (global (export "answer_of_a") (mut i32) (i32.const 1028))
        (global (export "twice_of_a") (mut i32) (i32.const 2))
        (global (export "stack") (mut i32) (i32.const 4096)))
    (core module $a
        (type $unary (func (param i32) (result i32)))
        (import "env" "memory" (memory 0))
        (import "env" "table" (table 0 funcref))
        (import "env" "memory_base" (global $memory_base i32))
        (import "env" "table_base" (global $table_base i32))
        (import "env" "stack" (global $stack (mut i32)))
        (global (export "end") i32 (i32.add (global.get $memory_base) (i32.const 8)))
        (data (global.get $memory_base) "\05\00\00\00\2a\00\00\00")
        (elem (global.get $table_base) func $add $twice)
        (func $add (type $unary)
            (i32.add (local.get 0) (i32.load (global.get $memory_base))))
        (func $twice (type $unary) (i32.mul (local.get 0) (i32.const 2)))
        (func $unused (export "unused") (type $unary) (global.set $stack (i32.const 0)) (local.get 0))
        (func (export "push") (result i32)
            (global.set $stack (i32.sub (global.get $stack) (i32.const 16)))
            (global.get $stack)))
    (core module $b
        (type $void (func))
        (type $unary (func (param i32) (result i32)))
        (import "env" "memory" (memory 0))
        (import "env" "table" (table 0 funcref))
        (import "env" "memory_base" (global $memory_base i32))
        (import "env" "table_base" (global $table_base i32))
        (import "env" "push" (func $push (result i32)))
        (import "env" "end" (global $end i32))
        (import "GOT.mem" "answer" (global $answer (mut i32)))
        (import "GOT.func" "twice" (global $twice (mut i32)))
        (data (i32.sub (global.get $memory_base) (i32.const 4)) "\09\00\00\00")
        (data $passive "\64\00\00\00")
        (elem (global.get $table_base) func $negate)
        (elem $later func $square)
        (start $begin)
        (func $begin (type $void)
            (i32.store (i32.const 0) (i32.load (global.get $answer)))
            (memory.init $passive (i32.const 4) (i32.const 0) (i32.const 4))
            (data.drop $passive)
            (table.init $later (i32.const 4) (i32.const 0) (i32.const 1))
            (elem.drop $later))
        (func $negate (type $unary) (i32.sub (i32.const 0) (local.get 0)))
        (func $square (type $unary) (i32.mul (local.get 0) (local.get 0)))
        (func $other (export "other") (type $unary) (i32.const 77))
        (func (export "run") (param $what i32) (result i32)
            (block (block (block (block (block (block (block (block
                (br_table 0 1 2 3 4 5 6 7 (local.get $what)))
                (return (i32.load (i32.const 0))))
                (return (i32.load (i32.const 4))))
                (return (call_indirect (type $unary) (i32.const 21) (global.get $twice))))
                (return (call_indirect (type $unary) (i32.const 9) (i32.const 4))))
                (return (i32.add (call $push) (call $push))))
                (return (i32.add (global.get $end) (i32.load (i32.const 2044)))))
                (return (call_ref_of_other)))
            (call_indirect (type $unary) (i32.const 7) (local.get $what))))
    (core instance $main (instantiate $main))
    (alias core export $main "memory" (core memory $memory))
    (core instance $env_a
        (export "memory" (memory $main "memory")) (export "table" (table $main "table"))
        (export "memory_base" (global $main "memory_base_a"))
        (export "table_base" (global $main "table_base_a"))
        (export "stack" (global $main "stack")))
    (core instance $a (instantiate $a (with "env" (instance $env_a))))
    (core instance $env_b
        (export "memory" (memory $memory)) (export "table" (table $main "table"))
        (export "memory_base" (global $main "memory_base_b"))
        (export "table_base" (global $main "table_base_b"))
        (export "push" (func $a "push")) (export "end" (global $a "end")))
    (core instance $b (instantiate $b
        (with "env" (instance $env_b))
        (with "GOT.mem" (instance (export "answer" (global $main "answer_of_a"))))
        (with "GOT.func" (instance (export "twice" (global $main "twice_of_a"))))))
    (func (export "run") (param "what" u32) (result u32) (canon lift (core func $b "run"))))"#;

/// The shape that `wit-component` writes: a host function needs the memory, and the memory's module needs
/// the host function.
const ROUND_TRIP: &str = r#"(component
    (import "host" (func $host (param "text" string) (result u32)))
    (core module $shim
        (table (export "$imports") 1 funcref)
        (func (export "0") (param i32 i32) (result i32)
            (call_indirect (param i32 i32) (result i32) (local.get 0) (local.get 1) (i32.const 0))))
    (core module $main
        (import "host" "call" (func $call (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (table (export "table") 3 funcref)
        (data (i32.const 16) "hello")
        (global (export "base") i32 (i32.const 1))
        (func (export "call") (result i32) (call $call (i32.const 16) (i32.const 5))))
    (core module $library
        (import "env" "memory" (memory 0))
        (import "env" "table" (table 0 funcref))
        (import "env" "base" (global $base i32))
        (import "env" "call" (func $call (result i32)))
        (elem (global.get $base) func $call)
        (func (export "run") (param i32) (result i32) (call_indirect (result i32) (local.get 0))))
    (core module $fixup
        (import "" "$imports" (table 1 funcref))
        (import "" "0" (func $0 (param i32 i32) (result i32)))
        (elem (i32.const 0) func $0))
    (core module $init
        (import "env" "table" (table 0 funcref))
        (import "env" "run" (func $run (param i32) (result i32)))
        (import "env" "memory" (memory 0))
        (elem (i32.const 2) func $called)
        (func $called (result i32) (i32.load (i32.const 0)))
        (start $begin)
        (func $begin (i32.store (i32.const 0) (i32.add (call $run (i32.const 1)) (i32.const 100)))))
    (core instance $shim (instantiate $shim))
    (core instance $main (instantiate $main (with "host" (instance (export "call" (func $shim "0"))))))
    (core instance $library (instantiate $library (with "env" (instance $main))))
    (core func $lowered (canon lower (func $host) (memory (core memory $main "memory"))))
    (core instance $fixup (instantiate $fixup
        (with "" (instance (export "$imports" (table $shim "$imports")) (export "0" (func $lowered))))))
    (core instance $init (instantiate $init (with "env" (instance
        (export "table" (table $main "table")) (export "run" (func $library "run"))
        (export "memory" (memory $main "memory"))))))
    (func (export "run") (param "what" u32) (result u32) (canon lift (core func $library "run"))))"#;

#[test]
fn libraries_become_one_module_that_answers_the_same() {
    // 7 calls nothing in the table; 8 and 100 are beyond it.
    let text = LIBRARIES.replace("(call_ref_of_other)", "(i32.load8_u (i32.const 1024))");
    let (before, after) = both(&text);
    assert_eq!(instances(&before), 3);
    // The second is the start function's.
    assert_eq!(instances(&after), 2);
    assert!(offsets_are_constant(&after));
    for what in [0, 1, 2, 3, 4, 5, 6, 7, 8, 100] {
        assert_eq!(run(&after, what), run(&before, what), "{what}");
    }
    assert_eq!(run(&before, 0), Ok(42));
    assert_eq!(run(&before, 3), Ok(81));
}

#[test]
fn what_cannot_be_reached_is_not_written() {
    let text = LIBRARIES.replace("(call_ref_of_other)", "(i32.const 1)");
    let (_, after) = both(&text);
    let text = content(&after);
    assert!(text.functions < 10, "{}", text.functions);
    assert!(!text.names.iter().any(|name| name == "unused"), "{:?}", text.names);
    assert!(text.names.iter().any(|name| name == "square"), "{:?}", text.names);
    // The stack pointer stays; the addresses in GOT.mem and GOT.func are constants now.
    assert_eq!(text.variables, 1);
}

#[test]
fn a_reference_that_an_export_allowed_is_still_allowed() {
    let text = LIBRARIES
        .replace("(call_ref_of_other)", "(table.set (i32.const 0) (ref.func $other)) (return (i32.const 5))");
    let (before, after) = both(&text);
    assert_eq!(run(&after, 6), Ok(5));
    assert_eq!(run(&after, 6), run(&before, 6));
}

#[test]
fn what_needs_the_memory_and_start_functions_keep_their_order() {
    let (before, after) = both(ROUND_TRIP);
    assert_eq!(instances(&before), 5);
    // The joined one, the one that fills the table of imports, the start function's.
    assert_eq!(instances(&after), 3);
    for what in [0, 1, 2, 3] {
        assert_eq!(run(&after, what), run(&before, what), "{what}");
    }
    assert_eq!(run(&after, 2), Ok(105));
}

#[test]
fn overlapping_segments_are_written_in_the_same_order() {
    let library = |name: &str, value: u32| {
        format!(
            r#"(core module ${name}
                (import "env" "memory" (memory 1)) (import "env" "table" (table 2 funcref))
                (data (i32.const 0) "\0{value}")
                (elem (i32.const 1) func $f)
                (func $f (result i32) (i32.add (i32.load (i32.const 0)) (i32.const {value}0))))
            (core instance ${name} (instantiate ${name} (with "env" (instance $main))))"#
        )
    };
    let text = format!(
        r#"(component
            (core module $main (memory (export "memory") 1) (table (export "table") 2 funcref)
                (func (export "run") (param i32) (result i32) (call_indirect (result i32) (local.get 0))))
            (core instance $main (instantiate $main))
            {} {}
            (func (export "run") (param "what" u32) (result u32) (canon lift (core func $main "run"))))"#,
        library("a", 1),
        library("b", 2)
    );
    let (before, after) = both(&text);
    assert_eq!(instances(&after), 1);
    assert_eq!(run(&after, 1), Ok(22));
    assert_eq!(run(&before, 1), Ok(22));
}

#[test]
fn a_library_after_a_start_function_stays_apart() {
    // What the start function sees differs from what is there when the later library's data is written.
    let text = r#"(component
        (core module $main (memory (export "memory") 1) (table (export "table") 1 funcref)
            (func (export "run") (param i32) (result i32) (i32.load (local.get 0))))
        (core module $starts (import "env" "memory" (memory 1)) (start $begin)
            (func $begin (i32.store (i32.const 4) (i32.load (i32.const 0)))))
        (core module $later (import "env" "memory" (memory 1)) (data (i32.const 0) "\07"))
        (core instance $main (instantiate $main))
        (core instance (instantiate $starts (with "env" (instance $main))))
        (core instance (instantiate $later (with "env" (instance $main))))
        (func (export "run") (param "what" u32) (result u32) (canon lift (core func $main "run"))))"#;
    let (before, after) = both(text);
    for what in [0, 4] {
        assert_eq!(run(&after, what), run(&before, what), "{what}");
    }
    assert_eq!((run(&after, 0), run(&after, 4)), (Ok(7), Ok(0)));
}

#[test]
fn a_destructor_that_is_joined_is_called() {
    let text = r#"(component
        (core module $main (memory (export "memory") 1)
            (func (export "destroy") (param i32) (i32.store (i32.const 0) (local.get 0)))
            (func (export "run") (param i32) (result i32) (i32.load (i32.const 0))))
        (core module $library (import "env" "memory" (memory 1)) (data (i32.const 0) "\07"))
        (core instance $main (instantiate $main))
        (core instance (instantiate $library (with "env" (instance $main))))
        (type $thing' (resource (rep i32) (dtor (core func $main "destroy"))))
        (export $thing "thing" (type $thing'))
        (core func $new (canon resource.new $thing'))
        (core module $makes (import "" "new" (func $new (param i32) (result i32)))
            (func (export "make") (result i32) (call $new (i32.const 33))))
        (core instance $makes (instantiate $makes (with "" (instance (export "new" (func $new))))))
        (func (export "make") (result (own $thing)) (canon lift (core func $makes "make")))
        (func (export "run") (param "what" u32) (result u32) (canon lift (core func $main "run"))))"#;
    let (before, after) = both(text);
    for wasm in [before, after] {
        let engine = Engine::default();
        let mut store = Store::new(&engine, ());
        let component = Component::from_binary(&engine, &wasm).unwrap();
        let instance = Linker::new(&engine).instantiate(&mut store, &component).unwrap();
        let make = instance.get_typed_func::<(), (ResourceAny,)>(&mut store, "make").unwrap();
        let (thing,) = make.call(&mut store, ()).unwrap();
        thing.resource_drop(&mut store).unwrap();
        let run = instance.get_typed_func::<(u32,), (u32,)>(&mut store, "run").unwrap();
        assert_eq!(run.call(&mut store, (0,)).unwrap(), (33,));
    }
}

#[test]
fn other_shapes_stay_as_they_are() {
    let main = r#"(core module $main (memory (export "memory") 1) (table (export "table") 1 funcref)
            (global (export "base") i32 (i32.const 0)) (global (export "moving") (mut i32) (i32.const 0))
            (func (export "run")))
        (core instance $main (instantiate $main))
        (func (export "run") (canon lift (core func $main "run")))"#;
    let with_library = |library: &str| {
        format!(
            "{main} (core module $a {library}) (core instance (instantiate $a (with \"env\" (instance $main))))"
        )
    };
    let memory = r#"(import "env" "memory" (memory 1))"#;
    let cases = [
        ("", "no modules that share"),
        (main, "no modules that share"),
        // Written after it can be used; that is no reason.
        (&with_library(memory), ""),
        (&with_library(&format!(r#"{memory} (data (i32.const 65536) "x")"#)), "no modules that share"),
        (&with_library(&format!("{memory} (tag)")), "no modules that share"),
        (&with_library(r#"(import "env" "base" (global i32))"#), "no modules that share"),
        (
            &format!(
                "{} (core instance (instantiate $a (with \"env\" (instance $main))))",
                with_library(memory)
            ),
            "no modules that share",
        ),
        (
            &format!("{} (component (alias outer 1 $a (core module)))", with_library(memory)),
            "a core module that is not written out",
        ),
        (
            &format!("(import \"m\" (core module)) {}", with_library(memory)),
            "a core module that is not written out",
        ),
        (
            &format!("{} (export \"m\" (core module $a))", with_library(memory)),
            "a core module that is not written out",
        ),
    ];
    for (text, reason) in cases {
        let wasm = wat::parse_str(format!("(component {text})")).unwrap();
        match attempt(&wasm) {
            Ok(joined) => {
                assert_eq!(reason, "", "{text}");
                Validator::new_with_features(WasmFeatures::all()).validate_all(&joined).unwrap();
            }
            Err(refusal) => assert!(
                !reason.is_empty() && refusal.to_string().starts_with(reason),
                "{text}: {refusal}, not {reason}"
            ),
        }
    }
    assert!(join(&wat::parse_str("(module)").unwrap()).is_none());
    assert!(join(b"").is_none());
}

#[test]
fn damage_is_refused_or_leaves_something_valid() {
    for text in [LIBRARIES.replace("(call_ref_of_other)", "(i32.const 1)"), ROUND_TRIP.to_owned()] {
        let whole = wat::parse_str(&text).unwrap();
        for length in 0..whole.len() {
            if let Some(joined) = join(&whole[..length]) {
                Validator::new_with_features(WasmFeatures::all()).validate_all(&joined).unwrap();
            }
        }
        let mut damaged = whole.clone();
        for place in 0..whole.len() {
            for bits in [0x01, 0x02, 0x07, 0x40, 0x80, 0xff] {
                damaged[place] = whole[place] ^ bits;
                if let Some(joined) = join(&damaged) {
                    Validator::new_with_features(WasmFeatures::all())
                        .validate_all(&joined)
                        .unwrap_or_else(|error| panic!("byte {place} ^ {bits:#x}: {error}"));
                }
            }
            damaged[place] = whole[place];
        }
    }
}

/// The component as it came and joined.
fn both(text: &str) -> (Vec<u8>, Vec<u8>) {
    let before = wat::parse_str(text).unwrap();
    let after = attempt(&before).unwrap();
    (before, after)
}

/// What `run` answers, in a fresh instance; an error without its backtrace.
fn run(wasm: &[u8], what: u32) -> Result<u32, String> {
    let engine = Engine::default();
    let mut store = Store::new(&engine, ());
    let component = Component::from_binary(&engine, wasm).unwrap();
    let mut linker = Linker::new(&engine);
    linker
        .root()
        .func_new("host", |_, _, arguments, results| {
            let [Val::String(text)] = arguments else { panic!("{arguments:?}") };
            assert_eq!(text, "hello");
            results[0] = Val::U32(text.len() as u32);
            Ok(())
        })
        .unwrap();
    let instance = linker.instantiate(&mut store, &component).unwrap();
    let run = instance.get_typed_func::<(u32,), (u32,)>(&mut store, "run").unwrap();
    run.call(&mut store, (what,)).map(|(answer,)| answer).map_err(|error| error.root_cause().to_string())
}

/// Core modules that are instantiated.
fn instances(wasm: &[u8]) -> usize {
    let mut count = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        if let Payload::InstanceSection(section) = payload.unwrap() {
            count += section
                .into_iter()
                .filter(|instance| matches!(instance, Ok(Instance::Instantiate { .. })))
                .count();
        }
    }
    count
}

/// What Wasmtime needs to fill tables lazily and to map memories.
fn offsets_are_constant(wasm: &[u8]) -> bool {
    let constant =
        |offset: ConstExpr<'_>| matches!(offset.get_operators_reader().read(), Ok(Operator::I32Const { .. }));
    Parser::new(0).parse_all(wasm).all(|payload| match payload.unwrap() {
        Payload::ElementSection(section) => section.into_iter().all(|element| match element.unwrap().kind {
            ElementKind::Active { offset_expr, .. } => constant(offset_expr),
            _ => true,
        }),
        Payload::DataSection(section) => section.into_iter().all(|data| match data.unwrap().kind {
            DataKind::Active { offset_expr, .. } => constant(offset_expr),
            DataKind::Passive => true,
        }),
        _ => true,
    })
}

/// What is in the core modules of a component.
#[derive(Default)]
struct Content {
    functions: usize,
    variables: usize,
    names: Vec<String>,
}

fn content(wasm: &[u8]) -> Content {
    let mut content = Content::default();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.unwrap() {
            Payload::FunctionSection(section) => content.functions += section.count() as usize,
            Payload::GlobalSection(section) => {
                content.variables +=
                    section.into_iter().filter(|global| global.as_ref().unwrap().ty.mutable).count();
            }
            Payload::CustomSection(section) => {
                if let wasmparser::KnownCustom::Name(names) = section.as_known() {
                    for subsection in names {
                        if let Ok(wasmparser::Name::Function(names)) = subsection {
                            content.names.extend(names.into_iter().map(|name| name.unwrap().name.to_owned()));
                        }
                    }
                }
            }
            _ => {}
        }
    }
    content
}
