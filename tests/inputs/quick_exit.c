/* Handlers of exit and of quick_exit, in the order in which C says they run. */
#include <stdio.h>
#include <stdlib.h>

static void one(void) { printf("one\n"); fflush(stdout); }
static void two(void) { printf("two\n"); fflush(stdout); }
static void nested(void) { printf("nested\n"); atexit(one); }

int main(int argc, char **argv) {
    (void)argv;
    at_quick_exit(one);
    at_quick_exit(two);
    atexit(two);
    atexit(nested);
    if (argc > 1) quick_exit(4);
    return 5;
}
