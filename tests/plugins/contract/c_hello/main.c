/* Answers without reading its request: the gateway must survive the closed pipe. */
#include <stdio.h>
#include <unistd.h>

int main(void) {
  close(0);
  puts("{\"status\":\"ok\",\"result\":\"hello from C\"}");
  return 0;
}
