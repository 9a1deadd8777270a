//! The shop's front: a page for people, JSON for programs. The state is in [`dapr`], the shop itself in [`shop`].

mod dapr;
mod shop;

use serde_json::{Value, json};
use wstd::http::{Body, Method, Request, Response};

use crate::shop::{Failure, Order};

mod bindings {
    wit_bindgen::generate!({ path: "../../../wit/config", world: "imports" });
}

#[wstd::http_server]
async fn main(request: Request<Body>) -> wstd::http::Result<Response<Body>> {
    let (head, mut body) = request.into_parts();
    let path = head.uri.path();
    if head.method == Method::GET && path == "/" {
        let page = Response::builder().header("content-type", "text/html; charset=utf-8");
        return Ok(page.body(Body::from(include_str!("page.html")))?);
    }
    let (status, answer) = match answer(&head.method, path, body.contents().await?).await {
        Ok(answer) => (200, answer),
        Err(failure) => (failure.status(), json!({"error": failure.to_string()})),
    };
    let response = Response::builder().status(status).header("content-type", "application/json");
    Ok(response.body(Body::from(answer.to_string()))?)
}

async fn answer(method: &Method, path: &str, body: &[u8]) -> Result<Value, Failure> {
    if *method == Method::GET && path == "/books" {
        let books = shop::books().await?;
        return Ok(json!({"greeting": setting("greeting"), "currency": setting("currency"), "books": books}));
    }
    if *method == Method::POST && path == "/orders" {
        let order: Order = serde_json::from_slice(body).map_err(|e| Failure::BadRequest(e.to_string()))?;
        return shop::order(order).await;
    }
    if *method == Method::GET
        && let Some(isbn) = path.strip_prefix("/recommend/")
    {
        shop::books().await?; // so that the state holds a catalogue to recommend from
        return dapr::invoke("recommend", &format!("recommend/{isbn}")).await;
    }
    if *method == Method::GET && path == "/report" {
        return dapr::invoke("report", "report").await;
    }
    // What other apps left in the state: the letters of the mail, the report of the clock.
    if *method == Method::GET
        && let "/letters" | "/report/nightly" = path
    {
        let found = dapr::read::<Value>(&path[1..].replace('/', "-")).await?;
        return found.map(|(value, _)| value).ok_or_else(|| Failure::NotFound(path.to_owned()));
    }
    Err(Failure::NotFound(format!("{method} {path}")))
}

/// A value of `config` in the manifest.
fn setting(name: &str) -> Option<String> {
    bindings::wasi::config::store::get(name).ok().flatten()
}
