//! Orders in a MySQL or MariaDB database, over HTTP: create, list, update, delete.

use hyper::server::conn::Http;
use hyper::service::service_fn;
use hyper::{Body, Method, Request, Response, StatusCode};
use mysql_async::prelude::{Query, Queryable, WithParams};
use mysql_async::{Opts, OptsBuilder, Params, Pool, PoolConstraints, PoolOpts, params};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::net::SocketAddr;
use tokio::net::TcpListener;

const HELP: &str =
    "GET /init, /orders, /delete_order?id=N; POST /create_order, /create_orders, /update_order, /echo\n";

#[derive(Serialize, Deserialize)]
struct Order {
    order_id: i32,
    product_id: i32,
    quantity: i32,
    amount: f32,
    shipping: f32,
    tax: f32,
    shipping_address: String,
}

impl Order {
    fn params(&self) -> Params {
        params! {
            "order_id" => self.order_id,
            "product_id" => self.product_id,
            "quantity" => self.quantity,
            "amount" => self.amount,
            "shipping" => self.shipping,
            "tax" => self.tax,
            "shipping_address" => &self.shipping_address,
        }
    }
}

const INSERT: &str =
    "INSERT INTO orders (order_id, product_id, quantity, amount, shipping, tax, shipping_address)
    VALUES (:order_id, :product_id, :quantity, :amount, :shipping, :tax, :shipping_address)";

const UPDATE: &str = "UPDATE orders SET product_id = :product_id, quantity = :quantity, amount = :amount,
    shipping = :shipping, tax = :tax, shipping_address = :shipping_address WHERE order_id = :order_id";

const CREATE: &str =
    "CREATE TABLE orders (order_id INT, product_id INT, quantity INT, amount FLOAT, shipping FLOAT,
    tax FLOAT, shipping_address VARCHAR(256))";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url =
        std::env::var("DATABASE_URL").unwrap_or_else(|_| "mysql://root:pass@127.0.0.1:3306/mysql".to_owned());
    let connections = PoolConstraints::new(5, 10).ok_or("five are not more than ten")?;
    let options = OptsBuilder::from_opts(Opts::from_url(&url)?)
        .pool_opts(PoolOpts::default().with_constraints(connections));
    let pool = Pool::new(options);
    let address: SocketAddr =
        std::env::var("LISTEN").unwrap_or_else(|_| "0.0.0.0:8080".to_owned()).parse()?;
    let listener = TcpListener::bind(address).await?;
    println!("listening on port {}", listener.local_addr()?.port());
    loop {
        let (stream, _) = listener.accept().await?;
        let pool = pool.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, pool.clone()));
            if let Err(error) = Http::new().serve_connection(stream, service).await {
                eprintln!("a connection ended early: {error}");
            }
        });
    }
}

async fn answer(request: Request<Body>, pool: Pool) -> Result<Response<Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = hyper::body::to_bytes(body).await?;
    if (&head.method, head.uri.path()) == (&Method::POST, "/echo") {
        return Ok(Response::new(body.into()));
    }
    let done =
        handle(&head.method, head.uri.path(), head.uri.query().unwrap_or_default(), &body, &pool).await;
    let mut response = match done {
        Ok(Some(answer)) => Response::new(answer.into()),
        Ok(None) => status(StatusCode::NOT_FOUND, String::new()),
        Err(error) if error.is::<serde_json::Error>() => status(StatusCode::BAD_REQUEST, error.to_string()),
        Err(error) => status(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let headers = [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "GET, POST, OPTIONS"),
        ("access-control-allow-headers", "api,Keep-Alive,User-Agent,Content-Type"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, hyper::header::HeaderValue::from_static(value));
    }
    Ok(response)
}

fn status(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response
}

/// The answer; none for a path that is not there.
async fn handle(
    method: &Method,
    path: &str,
    query: &str,
    body: &[u8],
    pool: &Pool,
) -> Result<Option<String>, Box<dyn Error>> {
    const DONE: &str = r#"{"status":true}"#;
    let known = ["/init", "/create_order", "/create_orders", "/update_order", "/orders", "/delete_order"];
    if method == Method::OPTIONS && known.contains(&path) {
        return Ok(Some(String::new()));
    }
    if (method, path) == (&Method::GET, "/") {
        return Ok(Some(HELP.to_owned()));
    }
    if !known.contains(&path) {
        return Ok(None);
    }
    let mut connection = pool.get_conn().await?;
    let answer = match (method, path) {
        (&Method::GET, "/init") => {
            "DROP TABLE IF EXISTS orders".ignore(&mut connection).await?;
            CREATE.ignore(&mut connection).await?;
            DONE.to_owned()
        }
        (&Method::POST, "/create_order") => {
            let order: Order = serde_json::from_slice(body)?;
            INSERT.with(order.params()).ignore(&mut connection).await?;
            DONE.to_owned()
        }
        (&Method::POST, "/create_orders") => {
            let orders: Vec<Order> = serde_json::from_slice(body)?;
            connection.exec_batch(INSERT, orders.iter().map(Order::params)).await?;
            DONE.to_owned()
        }
        (&Method::POST, "/update_order") => {
            let order: Order = serde_json::from_slice(body)?;
            UPDATE.with(order.params()).ignore(&mut connection).await?;
            DONE.to_owned()
        }
        (&Method::GET, "/orders") => {
            let row = |(order_id, product_id, quantity, amount, shipping, tax, shipping_address)| Order {
                order_id,
                product_id,
                quantity,
                amount,
                shipping,
                tax,
                shipping_address,
            };
            serde_json::to_string(&connection.query_map("SELECT * FROM orders", row).await?)?
        }
        (&Method::GET, "/delete_order") => {
            let id = query.split('&').find_map(|pair| pair.strip_prefix("id="));
            let id: i32 = id.ok_or("the id is missing: /delete_order?id=N")?.parse()?;
            connection.exec_drop("DELETE FROM orders WHERE order_id = ?", (id,)).await?;
            DONE.to_owned()
        }
        _ => return Ok(None),
    };
    Ok(Some(answer))
}
