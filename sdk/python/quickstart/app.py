"""Counts visits by name: `GET /ann`."""

from dhow_sdk import PubSub, Request, Response, State, on_request

state = State("statestore")


def answer(request: Request) -> Response:
    name = request.path.removeprefix("/")
    # Reads, changes and writes again, guarded by an etag: no visit is lost.
    visits = state.update(f"visits/{name}", lambda before: before + 1, default=0)
    if visits == 1:
        PubSub("pubsub").publish("welcome", {"name": name})
    return Response.of({"name": name, "visits": visits})


IncomingHandler = on_request(answer)
