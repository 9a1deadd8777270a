//! A state store that does what a component must not: the end of a key says what.
//!
//! | key ends with | `get` |
//! |---|---|
//! | `calls` | how many calls this instance has served |
//! | `trap`, `exit`, `loop`, `recurse`, `memory` | just that |
//! | `large` | a value of 65 MiB |
//! | `long-error` | an error whose text has a MiB |
//!
//! What `set` writes is gone when the instance is. `list-keys` answers keys of others. Metadata `init`: `trap`, `loop`,
//! `refuse`.

mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit/provider",
        world: "dhow:provider/state-provider",
    });
}

use bindings::exports::dhow::provider::state::{
    Error, FeatureSet, Guest, Item, KeyPage, Metadata, Operation, Removal, Write,
};
use std::cell::RefCell;
use std::collections::HashMap;

thread_local! {
    static CALLS: RefCell<u32> = const { RefCell::new(0) };
    static VALUES: RefCell<HashMap<String, Vec<u8>>> = RefCell::default();
}

struct Misbehave;

bindings::export!(Misbehave with_types_in bindings);

impl Guest for Misbehave {
    fn init(metadata: Metadata) -> Result<(), Error> {
        match metadata.iter().find(|(name, _)| name == "init").map(|(_, what)| what.as_str()) {
            Some("trap") => panic!("as told"),
            Some("loop") => forever(),
            Some("refuse") => Err(Error::Unavailable("it does not want to".to_owned())),
            _ => Ok(()),
        }
    }

    fn features() -> FeatureSet {
        FeatureSet::empty()
    }

    fn get(key: String) -> Result<Option<Item>, Error> {
        let calls = CALLS.with_borrow_mut(|calls| {
            *calls += 1;
            *calls
        });
        let value = match key.rsplit('|').next().unwrap_or_default() {
            "calls" => calls.to_string().into_bytes(),
            "trap" => panic!("as told"),
            "exit" => std::process::exit(3),
            "loop" => forever(),
            "recurse" => vec![deeper(1) as u8],
            "memory" => loop {
                std::hint::black_box(Vec::<u8>::with_capacity(1 << 20).leak());
            },
            "large" => vec![1; 65 << 20],
            "long-error" => return Err(Error::Failed("long ".repeat(200_000))),
            _ => match VALUES.with_borrow(|values| values.get(&key).cloned()) {
                Some(value) => value,
                None => return Ok(None),
            },
        };
        Ok(Some(Item { value, etag: String::new(), expires_at: None }))
    }

    fn get_many(_: Vec<String>) -> Result<Vec<Option<Item>>, Error> {
        Err(Error::Unsupported)
    }

    fn set(write: Write) -> Result<(), Error> {
        VALUES.with_borrow_mut(|values| values.insert(write.key, write.value));
        Ok(())
    }

    fn delete(_: Removal) -> Result<(), Error> {
        Err(Error::Unsupported)
    }

    fn transact(_: Vec<Operation>) -> Result<(), Error> {
        Err(Error::Unsupported)
    }

    fn list_keys(_: String, _: Option<String>, _: u32) -> Result<KeyPage, Error> {
        Ok(KeyPage { keys: vec!["key of another app".to_owned()], more: false })
    }

    fn increment(_: String, _: i64) -> Result<i64, Error> {
        Err(Error::Unsupported)
    }

    fn ping() -> Result<(), Error> {
        Ok(())
    }
}

fn forever() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

fn deeper(depth: u64) -> u64 {
    std::hint::black_box(deeper(std::hint::black_box(depth + 1))) + depth
}
