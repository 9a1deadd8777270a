"""A small shop that uses every block: an order takes its items from the stock, is written down with a receipt, and is
told to whoever subscribes; a job reminds of it. The tests run it, and its twins in the other languages."""

import json

from dhow_sdk import (
    Binding, Configuration, Conflict, Denied, Drop, Due, Event, Lock, PubSub, Request, Response, Secrets, State,
    invoke, on_job, on_message, on_request, schedule_job,
)

state = State("statestore")


def answer(request: Request) -> Response:
    try:
        return route(request)
    except Conflict:
        return Response.of({"error": "conflict"}, 409)
    except Denied:
        return Response.of({"error": "denied"}, 403)


def route(request: Request) -> Response:
    what, _, name = request.path.removeprefix("/").partition("/")
    match request.method, what:
        case "GET", "prices":  # asked for by the shop, in another app
            return Response.of({"cents": 250, "for": request.headers.get("dapr-caller-app-id")})
        case "GET", "stock":
            item = state.get_item(f"stock/{name}")
            return Response.of({"count": item.value, "etag": item.etag}) if item else not_found()
        case "PUT", "stock":
            stock = request.json()
            state.set(f"stock/{name}", stock["count"], etag=stock.get("etag"))
            return Response.of({})
        case "DELETE", "stock":
            state.delete(f"stock/{name}")
            return Response.of({})
        case "PUT", "orders":
            return order(name, **request.json())
        case "GET", "orders":
            found = state.get(f"order/{name}")
            events = {"shipped": state.get(f"shipped/{name}"), "reminded": state.get(f"reminded/{name}")}
            return Response.of(found | events) if found else not_found()
        case _:
            return not_found()


def not_found() -> Response:
    return Response.of({"error": "not-found"}, 404)


def order(id: str, item: str, quantity: int) -> Response:
    # One order of an item at a time; the lock ends with the block, however that ends.
    with Lock("lockstore").hold(f"stock/{item}", expiry_seconds=10) as held:
        if not held:
            return Response.of({"error": "locked"}, 423)
        stock = state.get_item(f"stock/{item}")
        if stock is None or stock.value < quantity:
            return Response.of({"error": "sold out"}, 410)

        cents = invoke("prices", f"/prices/{item}").json()["cents"]
        currency = Configuration("settings").value("currency")
        key = Secrets("secretstore").value("signing-key")
        total = f"{cents * quantity / 100:g} {currency}"
        placed = {"id": id, "item": item, "quantity": quantity, "total": total, "signed": len(key)}

        # Both or none, and only if nobody else changed the stock.
        with state.transaction() as transaction:
            transaction.set(f"stock/{item}", stock.value - quantity, etag=stock.etag)
            transaction.set(f"order/{id}", placed, first_write=True)
        Binding("receipts").invoke("create", json.dumps(placed).encode(), {"fileName": id})
        PubSub("pubsub").publish("placed", placed)
        schedule_job(f"remind-{id}", due_time="1ms", data={"id": id})
        return Response.of(placed)


def ship(event: Event) -> None:
    placed = event.json()
    if placed["quantity"] > 100:
        raise Drop(f"nobody ships {placed['quantity']} at once")
    state.set(f"shipped/{placed['id']}", event.topic)


def remind(due: Due) -> None:
    state.set(f"reminded/{due.json()['id']}", due.name)


IncomingHandler = on_request(answer)
TopicHandler = on_message(ship)
JobHandler = on_job(remind)
