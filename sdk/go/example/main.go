// A small shop that uses every block: an order takes its items from the stock, is written down with a receipt, and is
// told to whoever subscribes; a job reminds of it. The tests run it, and its twins in the other languages.
package main

import (
	"fmt"
	"strings"

	dhow "github.com/dhow-dev/dhow/sdk/go"
)

var state = dhow.OpenState("statestore")

type stock struct {
	Count int    `json:"count"`
	ETag  string `json:"etag"`
}

type wish struct {
	Item     string `json:"item"`
	Quantity int    `json:"quantity"`
}

type order struct {
	ID       string `json:"id"`
	Item     string `json:"item"`
	Quantity int    `json:"quantity"`
	Total    string `json:"total"`
	Signed   int    `json:"signed"`
	Shipped  string `json:"shipped,omitempty"`
	Reminded string `json:"reminded,omitempty"`
}

func main() {
	app := dhow.App{}
	app.OnRequest(func(request dhow.Request) dhow.Response {
		response, err := answer(request)
		switch {
		case err == nil:
			return response
		case dhow.Is(err, dhow.Conflict):
			return dhow.JSON(409, map[string]string{"error": "conflict"})
		case dhow.Is(err, dhow.Denied):
			return dhow.JSON(403, map[string]string{"error": "denied"})
		default:
			return dhow.JSON(500, map[string]string{"error": err.Error()})
		}
	})
	app.OnMessage("pubsub", "placed", ship)
	app.OnJob(remind)
	app.Run()
}

func answer(request dhow.Request) (dhow.Response, error) {
	what, name, _ := strings.Cut(strings.TrimPrefix(request.Path, "/"), "/")
	switch request.Method + " " + what {
	case "GET prices": // asked for by the shop, in another app
		return dhow.JSON(200, map[string]any{"cents": 250, "for": request.Header["dapr-caller-app-id"]}), nil
	case "GET stock":
		var found stock
		etag, err := state.Get("stock/"+name, &found.Count)
		if err != nil || etag == "" {
			return notFound(), err
		}
		found.ETag = etag
		return dhow.JSON(200, found), nil
	case "PUT stock":
		var given stock
		if err := request.JSON(&given); err != nil {
			return dhow.Response{}, err
		}
		err := state.SetWith("stock/"+name, given.Count, dhow.SetOptions{ETag: given.ETag})
		return dhow.JSON(200, map[string]any{}), err
	case "DELETE stock":
		return dhow.JSON(200, map[string]any{}), state.Delete("stock/"+name, "")
	case "PUT orders":
		var given wish
		if err := request.JSON(&given); err != nil {
			return dhow.Response{}, err
		}
		return place(name, given)
	case "GET orders":
		var found order
		if etag, err := state.Get("order/"+name, &found); err != nil || etag == "" {
			return notFound(), err
		}
		if _, err := state.Get("shipped/"+name, &found.Shipped); err != nil {
			return dhow.Response{}, err
		}
		_, err := state.Get("reminded/"+name, &found.Reminded)
		return dhow.JSON(200, found), err
	default:
		return notFound(), nil
	}
}

func notFound() dhow.Response { return dhow.JSON(404, map[string]string{"error": "not-found"}) }

func place(id string, wish wish) (dhow.Response, error) {
	// One order of an item at a time; the lock ends with the function, however that ends.
	unlock, err := dhow.OpenLock("lockstore").TryHold("stock/"+wish.Item, 10)
	if err != nil {
		return dhow.Response{}, err
	}
	if unlock == nil {
		return dhow.JSON(423, map[string]string{"error": "locked"}), nil
	}
	defer unlock()

	var count int
	etag, err := state.Get("stock/"+wish.Item, &count)
	if err != nil {
		return dhow.Response{}, err
	}
	if etag == "" || count < wish.Quantity {
		return dhow.JSON(410, map[string]string{"error": "sold out"}), nil
	}
	var price struct{ Cents int }
	if err := dhow.InvokeJSON("prices", "/prices/"+wish.Item, nil, &price); err != nil {
		return dhow.Response{}, err
	}
	currency, err := dhow.OpenConfiguration("settings").Value("currency")
	if err != nil {
		return dhow.Response{}, err
	}
	key, err := dhow.OpenSecrets("secretstore").Value("signing-key")
	if err != nil {
		return dhow.Response{}, err
	}
	total := fmt.Sprintf("%g %s", float64(price.Cents*wish.Quantity)/100, currency)
	placed := order{ID: id, Item: wish.Item, Quantity: wish.Quantity, Total: total, Signed: len(key)}

	// Both or none, and only if nobody else changed the stock.
	err = state.Transaction().
		Set("stock/"+wish.Item, count-wish.Quantity, dhow.SetOptions{ETag: etag}).
		Set("order/"+id, placed, dhow.SetOptions{FirstWrite: true}).
		Commit()
	if err != nil {
		return dhow.Response{}, err
	}
	if _, err := dhow.OpenBinding("receipts").Invoke("create", placed, map[string]string{"fileName": id}); err != nil {
		return dhow.Response{}, err
	}
	if err := dhow.OpenPubSub("pubsub").Publish("placed", placed); err != nil {
		return dhow.Response{}, err
	}
	err = dhow.ScheduleJob("remind-"+id, dhow.Job{DueTime: "1ms", Data: map[string]string{"id": id}})
	return dhow.JSON(200, placed), err
}

func ship(event dhow.Event) error {
	var placed order
	if err := event.JSON(&placed); err != nil {
		return err
	}
	if placed.Quantity > 100 {
		return dhow.Drop(fmt.Sprintf("nobody ships %d at once", placed.Quantity))
	}
	return state.Set("shipped/"+placed.ID, event.Topic)
}

func remind(due dhow.Due) error {
	var data struct{ ID string }
	if err := due.JSON(&data); err != nil {
		return err
	}
	return state.Set("reminded/"+data.ID, due.Name)
}
