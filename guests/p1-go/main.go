// A Go command for WASI preview 1. Invoked by HTTP it answers as a CGI program, else it prints its arguments.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
)

func main() {
	if os.Getenv("REQUEST_METHOD") == "" {
		out, _ := json.Marshal(map[string]any{"args": os.Args[1:]})
		fmt.Println(string(out))
		return
	}
	body, err := io.ReadAll(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "reading the body:", err)
		os.Exit(1)
	}
	out, _ := json.Marshal(map[string]any{
		"method": os.Getenv("REQUEST_METHOD"),
		"path":   os.Getenv("PATH_INFO"),
		"query":  os.Getenv("QUERY_STRING"),
		"body":   string(body),
	})
	fmt.Printf("Content-Type: application/json\n\n%s\n", out)
}
