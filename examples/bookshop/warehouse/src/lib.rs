//! The warehouse: hears of every order and orders again what becomes scarce. A component that does nothing but take
//! messages, with dhow's SDK for Rust.

use dhow_sdk::{Event, Lock, Refusal, State};
use serde::Deserialize;
use serde_json::Value;

/// A book of which fewer are left is ordered again.
const SCARCE: u64 = 10;

/// So many come at a time.
const PARCEL: u64 = 50;

/// What the shop tells of an order.
#[derive(Deserialize)]
struct Order {
    isbn: String,
    left: u64,
}

dhow_sdk::on_message!(restock);

fn restock(event: Event) -> Result<(), Refusal> {
    let order: Order = event.json().map_err(|error| Refusal::Drop(error.to_string()))?;
    if order.left >= SCARCE {
        return Ok(());
    }
    // Two orders of the last copies come at once: one parcel is enough. Whoever finds the lock taken has nothing to do.
    let Some(_held) = Lock::open("lockstore").try_hold(&order.isbn, 30)? else { return Ok(()) };
    let mut came = false;
    State::open("shop").update("catalogue", |books: Option<Value>| {
        let mut books = books.unwrap_or_default();
        let book = books.as_array_mut().into_iter().flatten().find(|book| book["isbn"] == order.isbn);
        // The message may be old, and the parcel here already.
        if let Some(book) = book
            && let Some(left) = book["stock"].as_u64().filter(|left| *left < SCARCE)
        {
            book["stock"] = (left + PARCEL).into();
            came = true;
        }
        books
    })?;
    if came {
        println!("a parcel of {PARCEL} copies of {} came", order.isbn);
    }
    Ok(())
}
