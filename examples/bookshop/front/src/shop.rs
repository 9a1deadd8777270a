//! Books, stock and orders. Nothing is locked: every change is guarded by the etag of what it read.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::dapr;

/// A book of the catalogue. `stock` is what is left.
#[derive(Clone, Serialize, Deserialize)]
pub struct Book {
    isbn: String,
    title: String,
    author: String,
    price_cents: u64,
    stock: u64,
}

/// What a customer sends, and what is kept.
#[derive(Clone, Serialize, Deserialize)]
pub struct Order {
    isbn: String,
    quantity: u64,
}

/// Why a request failed.
pub enum Failure {
    /// The request cannot be read.
    BadRequest(String),
    /// There is no such thing.
    NotFound(String),
    /// So many are left, fewer than ordered.
    SoldOut(u64),
    /// Too many writers of one key.
    Busy(String),
    /// State or another app failed.
    Upstream(String),
}

/// The catalogue: from state, and on the first day from the app that knows it.
pub async fn books() -> Result<Vec<Book>, Failure> {
    if let Some((books, _)) = dapr::read("catalogue").await? {
        return Ok(books);
    }
    let fresh: Vec<Book> = serde_json::from_value(dapr::invoke("catalogue", "books").await?)
        .map_err(|e| Failure::Upstream(format!("the catalogue: {e}")))?;
    // Whoever loads it first wins; a later loader must not bring sold books back.
    dapr::update("catalogue", |kept: Option<Vec<Book>>| {
        let books = kept.unwrap_or_else(|| fresh.clone());
        Ok((books.clone(), books))
    })
    .await
}

/// Takes the copies from the stock, writes the order down, and tells the mail and the warehouse.
pub async fn order(order: Order) -> Result<Value, Failure> {
    if order.quantity == 0 {
        return Err(Failure::BadRequest("quantity must be at least 1".to_owned()));
    }
    books().await?;
    let book = dapr::update("catalogue", |books: Option<Vec<Book>>| {
        let mut books = books.unwrap_or_default();
        let wanted = books.iter_mut().find(|book| book.isbn == order.isbn);
        let book = wanted.ok_or_else(|| Failure::NotFound(order.isbn.clone()))?;
        book.stock = book.stock.checked_sub(order.quantity).ok_or(Failure::SoldOut(book.stock))?;
        let book = book.clone();
        Ok((books, book))
    })
    .await?;
    let number = dapr::update("orders", |orders: Option<Vec<Order>>| {
        let mut orders = orders.unwrap_or_default();
        orders.push(order.clone());
        let number = orders.len();
        Ok((orders, number))
    })
    .await?;
    let total = book.price_cents.saturating_mul(order.quantity);
    let placed = json!({
        "order": number,
        "isbn": book.isbn,
        "title": book.title,
        "quantity": order.quantity,
        "total_cents": total,
        "left": book.stock,
    });
    dapr::publish("orders", &placed).await?;
    Ok(placed)
}

// === impl Failure ===

impl Failure {
    /// The status of HTTP.
    pub fn status(&self) -> u16 {
        match self {
            Failure::BadRequest(_) => 400,
            Failure::NotFound(_) => 404,
            Failure::SoldOut(_) => 409,
            Failure::Busy(_) => 503,
            Failure::Upstream(_) => 502,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::BadRequest(why) => write!(f, "the request cannot be read: {why}"),
            Failure::NotFound(what) => write!(f, "no {what} here"),
            Failure::SoldOut(left) => write!(f, "only {left} left"),
            Failure::Busy(key) => write!(f, "{key} is being written by many; try again"),
            Failure::Upstream(what) => f.write_str(what),
        }
    }
}
