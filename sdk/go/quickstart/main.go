// Counts visits by name: GET /ann.
package main

import (
	"strings"

	dhow "github.com/dhow-dev/dhow/sdk/go"
)

func main() {
	app := dhow.App{}
	app.OnRequest(func(request dhow.Request) dhow.Response {
		name := strings.TrimPrefix(request.Path, "/")
		// Reads, changes and writes again, guarded by an etag: no visit is lost.
		count := func(before int) int { return before + 1 }
		visits, err := dhow.Update(dhow.OpenState("statestore"), "visits/"+name, count)
		if err == nil && visits == 1 {
			err = dhow.OpenPubSub("pubsub").Publish("welcome", map[string]string{"name": name})
		}
		if err != nil {
			return dhow.JSON(500, map[string]string{"error": err.Error()})
		}
		return dhow.JSON(200, map[string]any{"name": name, "visits": visits})
	})
	app.Run()
}
