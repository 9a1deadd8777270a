// The mail: hears of every order and writes a letter to the customer. A WASI preview 1 command with dhow's SDK for Go.
package main

import (
	"fmt"
	"os"

	dhow "github.com/dhow-dev/dhow/sdk/go"
)

// What the shop tells of an order.
type order struct {
	Number   int    `json:"order"`
	Title    string `json:"title"`
	Quantity int    `json:"quantity"`
}

func main() {
	app := dhow.App{}
	app.OnMessage("pubsub", "orders", write)
	app.Run()
}

func write(event dhow.Event) error {
	var placed order
	if err := event.JSON(&placed); err != nil {
		// It will not become readable by itself.
		return dhow.Drop(err.Error())
	}
	letter := fmt.Sprintf("Order %d: thank you for %d × %s.", placed.Number, placed.Quantity, placed.Title)
	letters, err := dhow.Update(dhow.OpenState("shop"), "letters", func(before []string) []string {
		for _, written := range before {
			// A message may come twice; a letter goes out once.
			if written == letter {
				return before
			}
		}
		return append(before, letter)
	})
	fmt.Fprintf(os.Stderr, "%d letters written\n", len(letters))
	return err
}
