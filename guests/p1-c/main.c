/* A C command for WASI preview 1. Invoked by HTTP it answers as a CGI program: the body comes back behind one
   line of its own. Else it prints its arguments. */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
  const char *method = getenv("REQUEST_METHOD");
  if (method == NULL) {
    for (int i = 1; i < argc; i++) puts(argv[i]);
    return 0;
  }
  const char *path = getenv("PATH_INFO");
  printf("Content-Type: text/plain\r\n\r\n%s %s\n", method, path == NULL ? "" : path);
  char buffer[4096];
  size_t length;
  while ((length = fread(buffer, 1, sizeof buffer, stdin)) > 0) fwrite(buffer, 1, length, stdout);
  return ferror(stdin) ? 1 : 0;
}
