// The catalogue: a WASI preview 1 command that dhow runs as a CGI program, once a request.
// It answers with the books of the folder that the manifest grants it, and can see no other file.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

type book struct {
	ISBN       string `json:"isbn"`
	Title      string `json:"title"`
	Author     string `json:"author"`
	PriceCents int    `json:"price_cents"`
	Stock      int    `json:"stock"`
}

func main() {
	books, err := load("/catalogue/books.json")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		fmt.Print("Status: 500 Internal Server Error\nContent-Type: text/plain\n\nthe catalogue cannot be read\n")
		return
	}
	fmt.Print("Content-Type: application/json\n\n")
	if err := json.NewEncoder(os.Stdout).Encode(books); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func load(file string) ([]book, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var books []book
	if err := json.Unmarshal(text, &books); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return books, nil
}
