"""The sales report: revenue, copies and the best sellers, read from the shop's state through wasi:keyvalue.

The front asks for it, and so does a clock, the binding `nightly`: that report is kept."""

# collections.Counter loads it when it is first needed, and then there is no file system to load it from.
import heapq  # noqa: F401
import json
from collections import Counter

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import store
from wit_world.imports.types import Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        try:
            status, answer = 200, report()
            if request.path_with_query() == "/nightly":
                store.open("shop").set("report-nightly", json.dumps(answer).encode())
        except Err as error:
            status, answer = 500, {"error": f"the state store: {error.value}"}
        respond(response_out, status, answer)


def report() -> dict:
    shop = store.open("shop")
    books = {book["isbn"]: book for book in read(shop, "catalogue")}
    orders = read(shop, "orders")
    copies: Counter = Counter()
    for order in orders:
        copies[order["isbn"]] += order["quantity"]
    revenue = sum(books[isbn]["price_cents"] * sold for isbn, sold in copies.items() if isbn in books)
    return {
        "orders": len(orders),
        "copies": copies.total(),
        "revenue_cents": revenue,
        "best_sellers": [
            {"isbn": isbn, "title": books.get(isbn, {}).get("title"), "copies": sold}
            for isbn, sold in copies.most_common(3)
        ],
    }


def read(shop: store.Bucket, key: str) -> list:
    value = shop.get(key)
    return [] if value is None else json.loads(value)


def respond(response_out: ResponseOutparam, status: int, answer: dict) -> None:
    response = OutgoingResponse(Fields.from_list([("content-type", b"application/json")]))
    response.set_status_code(status)
    body = response.body()
    ResponseOutparam.set(response_out, Ok(response))
    with body.write() as stream:
        stream.blocking_write_and_flush(json.dumps(answer).encode())
    OutgoingBody.finish(body, None)
