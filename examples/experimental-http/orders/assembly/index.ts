// Keeps two values in the state store through Dapr's HTTP API, and looks whether they come back as they were.

import { Console } from "as-wasi/assembly";
import { JSON } from "assemblyscript-json/assembly";
import { send } from "./http";

const STATE = "http://127.0.0.1:3500/v1.0/state/statestore";

function save(key: string, value: JSON.Value): bool {
  const one = new JSON.Obj();
  one.set("key", key);
  one.set("value", value);
  const saved = send("POST", STATE, "Content-Type: application/json\n", "[" + one.stringify() + "]");
  return saved.status == 204;
}

function get(key: string): JSON.Value | null {
  const found = send("GET", STATE + "/" + key);
  return found.status == 200 ? JSON.parse(found.body) : null;
}

function test(): bool {
  const order = new JSON.Obj();
  order.set("item", "desk lamp");
  order.set("count", <i64>123);
  if (!save("motto", JSON.from('"light", he said')) || !save("order", order)) return false;

  const motto = get("motto");
  if (!motto || !motto.isString || (<JSON.Str>motto).valueOf() != '"light", he said') return false;
  const found = get("order");
  if (!found || !found.isObj) return false;
  const item = (<JSON.Obj>found).getString("item"), count = (<JSON.Obj>found).getInteger("count");
  if (!item || item.valueOf() != "desk lamp" || !count || count.valueOf() != 123) return false;

  if (send("DELETE", STATE + "/motto").status != 204) return false;
  return send("GET", STATE + "/motto").status == 204;
}

Console.log(test() ? "Test successfully!" : "Test failed!");
