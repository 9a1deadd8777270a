// A WASI preview 1 command. dhow runs it once a request as a CGI program (RFC 3875): the request is in the
// environment and on standard input, the answer goes to standard output.
package main

import (
	"fmt"
	"os"
)

func main() {
	switch os.Getenv("PATH_INFO") {
	case "", "/":
		fmt.Print("Content-Type: text/plain\n\nHello from {{name}}!\n")
	default:
		fmt.Print("Status: 404 Not Found\nContent-Type: text/plain\n\nnot found\n")
	}
}
