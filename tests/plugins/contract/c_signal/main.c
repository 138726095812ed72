/* Ends by a signal after it has answered: the answer is kept, and the attempt failed. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

int main(void) {
  static char request[65536];
  struct rlimit none = {0, 0};
  size_t n = fread(request, 1, sizeof request - 1, stdin);
  request[n] = 0;
  setrlimit(RLIMIT_CORE, &none);
  puts("{\"status\":\"ok\",\"result\":\"alive\"}");
  fflush(stdout);
  if (strstr(request, "\"command\":\"poll\"")) raise(SIGSEGV);
  if (strstr(request, "\"command\":\"abort\"")) abort();
  return 0;
}
