/* JSON Lines, a length before the object, chatter on stdout, an object without its end: each is a protocol error. */
#include <stdio.h>
#include <string.h>

int main(void) {
  static char request[65536];
  size_t n = fread(request, 1, sizeof request - 1, stdin);
  const char *one = "{\"status\":\"ok\",\"result\":\"one\"}";
  request[n] = 0;
  if (strstr(request, "\"command\":\"two\"")) printf("%s%s", one, one);
  else if (strstr(request, "\"command\":\"lines\"")) printf("%s\n%s\n", one, one);
  else if (strstr(request, "\"command\":\"prefixed\"")) printf("%zu\n%s", strlen(one), one);
  else if (strstr(request, "\"command\":\"chatter\"")) printf("starting ...\n%s\n", one);
  else if (strstr(request, "\"command\":\"cut\"")) printf("{\"status\":\"ok\",\"result\":\"on");
  else printf("%s\n", one);
  return 0;
}
