/* Writes its answer byte by byte; or leaves a child behind that holds its output open. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(void) {
  static char request[65536];
  const char *answer = "\n {\"status\":\"ok\",\n\"result\":\"dr\\u00fcp\"} \n";
  size_t n = fread(request, 1, sizeof request - 1, stdin);
  request[n] = 0;
  if (strstr(request, "\"command\":\"orphan\"") && fork() == 0) {
    signal(SIGTERM, SIG_IGN);
    sleep(600);
    return 0;
  }
  for (; *answer; answer++) {
    if (write(1, answer, 1) != 1) return 1;
    usleep(1000);
  }
  return 0;
}
