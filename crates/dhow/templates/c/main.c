/* A WASI preview 1 command. dhow runs it once a request as a CGI program (RFC 3875): the request is in the
   environment and on standard input, the answer goes to standard output. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
  const char *path = getenv("PATH_INFO");
  if (path == NULL || *path == '\0' || strcmp(path, "/") == 0) {
    puts("Content-Type: text/plain\n\nHello from {{name}}!");
  } else {
    puts("Status: 404 Not Found\nContent-Type: text/plain\n\nnot found");
  }
  return 0;
}
