//! A small shop that uses every block: an order takes its items from the stock, is written down with a receipt, and is
//! told to whoever subscribes; a job reminds of it. The tests run it, and its twins in the other languages.

use dhow_sdk::{
    App, Binding, Configuration, Due, Error, Event, Job, Lock, PubSub, Refusal, Secrets, SetOptions, State,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wstd::http::{Body, Request, Response};

/// What a customer asks for.
#[derive(Deserialize)]
struct Wish {
    item: String,
    quantity: u64,
}

/// What is kept, and told to subscribers.
#[derive(Serialize, Deserialize)]
struct Order {
    id: String,
    item: String,
    quantity: u64,
    total: String,
    signed: usize,
}

#[derive(Deserialize)]
struct Price {
    cents: u64,
}

#[derive(Deserialize)]
struct Stock {
    count: u64,
    etag: Option<String>,
}

#[wstd::http_server]
async fn main(request: Request<Body>) -> wstd::http::Result<Response<Body>> {
    let (head, mut body) = request.into_parts();
    let caller = head.headers.get("dapr-caller-app-id").and_then(|id| id.to_str().ok());
    let (status, answer) = match answer(head.method.as_str(), head.uri.path(), caller, body.contents().await?)
    {
        Ok(answer) => answer,
        Err(Error::Conflict(_)) => (409, json!({ "error": "conflict" })),
        Err(Error::Denied(_)) => (403, json!({ "error": "denied" })),
        Err(error) => (500, json!({ "error": error.to_string() })),
    };
    let response = Response::builder().status(status).header("content-type", "application/json");
    Ok(response.body(Body::from(answer.to_string()))?)
}

fn state() -> State {
    State::open("statestore")
}

fn answer(method: &str, path: &str, caller: Option<&str>, body: &[u8]) -> Result<(u16, Value), Error> {
    let (what, name) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    match (method, what) {
        // Asked for by the shop, in another app.
        ("GET", "prices") => Ok((200, json!({ "cents": 250, "for": caller }))),
        ("GET", "stock") => Ok(match state().get_item::<u64>(&format!("stock/{name}"))? {
            Some(item) => (200, json!({ "count": item.value, "etag": item.etag })),
            None => not_found(),
        }),
        ("PUT", "stock") => {
            let Stock { count, etag } = serde_json::from_slice(body)?;
            let options = SetOptions { etag, ..SetOptions::default() };
            state().set_with(&format!("stock/{name}"), &count, options)?;
            Ok((200, json!({})))
        }
        ("DELETE", "stock") => {
            state().delete(&format!("stock/{name}"))?;
            Ok((200, json!({})))
        }
        ("PUT", "orders") => order(name, serde_json::from_slice(body)?),
        ("GET", "orders") => {
            let Some(mut found) = state().get::<Value>(&format!("order/{name}"))? else {
                return Ok(not_found());
            };
            for event in ["shipped", "reminded"] {
                found[event] = state().get::<String>(&format!("{event}/{name}"))?.into();
            }
            Ok((200, found))
        }
        _ => Ok(not_found()),
    }
}

fn not_found() -> (u16, Value) {
    (404, json!({ "error": "not-found" }))
}

fn order(id: &str, Wish { item, quantity }: Wish) -> Result<(u16, Value), Error> {
    // One order of an item at a time; the lock ends with the function, however that ends.
    let Some(_held) = Lock::open("lockstore").try_hold(&format!("stock/{item}"), 10)? else {
        return Ok((423, json!({ "error": "locked" })));
    };
    let stock = state().get_item::<u64>(&format!("stock/{item}"))?;
    let Some((left, etag)) = stock.and_then(|stock| Some((stock.value.checked_sub(quantity)?, stock.etag)))
    else {
        return Ok((410, json!({ "error": "sold out" })));
    };

    let price: Price = App::new("prices").get(&format!("/prices/{item}"))?;
    let currency = Configuration::open("settings").value("currency")?.unwrap_or_default();
    let key = Secrets::open("secretstore").value("signing-key")?.unwrap_or_default();
    let total = format!("{} {currency}", (price.cents * quantity) as f64 / 100.0);
    let order = Order { id: id.to_owned(), item, quantity, total, signed: key.len() };

    // Both or none, and only if nobody else changed the stock.
    state()
        .transaction()
        .set_with(&format!("stock/{}", order.item), &left, SetOptions::etag(etag))
        .set_with(&format!("order/{id}"), &order, SetOptions::first_write())
        .commit()?;
    let receipt = serde_json::to_vec(&order)?;
    Binding::open("receipts").invoke("create", &receipt, &[("fileName", id)])?;
    PubSub::open("pubsub").publish("placed", &order)?;
    Job::new(format!("remind-{id}")).due("1ms").data(&json!({ "id": id }))?.keep()?;
    Ok((200, serde_json::to_value(&order)?))
}

fn ship(event: Event) -> Result<(), Refusal> {
    let order: Order = event.json()?;
    if order.quantity > 100 {
        return Err(Refusal::Drop(format!("nobody ships {} at once", order.quantity)));
    }
    state().set(&format!("shipped/{}", order.id), &event.topic)?;
    Ok(())
}

fn remind(due: Due) -> Result<(), Error> {
    let data: Value = due.json()?;
    let id = data["id"].as_str().unwrap_or_default();
    state().set(&format!("reminded/{id}"), &due.name)
}

dhow_sdk::on_message!(ship);
dhow_sdk::on_job!(remind);
