//go:build wasip1

package dhow

import (
	"errors"
	"runtime"
	"strings"
	"unsafe"
)

// The two functions of dhow:runtime/api: ask, and read one part of the last answer.

//go:wasmimport dhow:runtime/api@0.1.0 request
func hostRequest(method unsafe.Pointer, methodLen uint32, target unsafe.Pointer, targetLen uint32, headers unsafe.Pointer, headersLen uint32, body unsafe.Pointer, bodyLen uint32) int32

//go:wasmimport dhow:runtime/api@0.1.0 answer
func hostAnswer(part uint32, buffer unsafe.Pointer, length uint32) int32

const (
	partHeaders = 0
	partBody    = 1
)

func call(method, target string, header map[string]string, body []byte) (Answer, error) {
	var lines strings.Builder
	for name, value := range header {
		if strings.ContainsAny(name+value, "\r\n") {
			return Answer{}, &Error{Kind: Invalid, Text: "a header has a line break"}
		}
		lines.WriteString(name + ": " + value + "\n")
	}
	given := [][]byte{[]byte(method), []byte(target), []byte(lines.String()), body}
	status := hostRequest(
		unsafe.Pointer(unsafe.SliceData(given[0])), uint32(len(given[0])),
		unsafe.Pointer(unsafe.SliceData(given[1])), uint32(len(given[1])),
		unsafe.Pointer(unsafe.SliceData(given[2])), uint32(len(given[2])),
		unsafe.Pointer(unsafe.SliceData(given[3])), uint32(len(given[3])),
	)
	runtime.KeepAlive(given)
	text := read(partBody)
	if status < 0 {
		return Answer{}, errors.New("dhow: " + string(text))
	}
	answer := Answer{Status: int(status), Header: map[string]string{}, Body: text}
	for _, line := range strings.Split(string(read(partHeaders)), "\n") {
		if name, value, found := strings.Cut(line, ": "); found {
			answer.Header[name] = value
		}
	}
	return answer, nil
}

func read(part uint32) []byte {
	buffer := make([]byte, hostAnswer(part, nil, 0))
	if len(buffer) > 0 {
		hostAnswer(part, unsafe.Pointer(unsafe.SliceData(buffer)), uint32(len(buffer)))
	}
	return buffer
}
