/* Answers one request and exits: the cheapest plugin there can be. Static, without the C library where the architecture
 * is known, so that the benchmark measures the gateway and not the loader. */
#if defined(__x86_64__)
static long call(long n, long a, long b, long c) {
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return r;
}
#define READ 0
#define WRITE 1
#define EXIT 60
#elif defined(__aarch64__)
static long call(long n, long a, long b, long c) {
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
}
#define READ 63
#define WRITE 64
#define EXIT 93
#else
#error "add the three system calls of this architecture"
#endif

static const char answer[] = "{\"status\":\"ok\",\"result\":\"tiny\"}";

void _start(void) {
    static char buffer[65536];
    while (call(READ, 0, (long)buffer, sizeof buffer) > 0) {
    }
    call(WRITE, 1, (long)answer, sizeof answer - 1);
    call(EXIT, 0, 0, 0);
}
