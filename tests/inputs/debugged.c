/* What a debugger is shown: lines, frames, variables; a callback from the C library; far data. */
#include <stdio.h>
#include <stdlib.h>

struct pair { int key, value; };

int deepest(int n);

volatile int global_state = 7;
const char *message = "sorted\n";

static int order(const void *a, const void *b) {
    const struct pair *x = a, *y = b;
    return deepest(x->key) - deepest(y->key); /* line 14 */
}

__attribute__((noinline)) int sort_them(int n) {
    struct pair pairs[3] = { { 3, n }, { 1, n }, { 2, n } };
    qsort(pairs, 3, sizeof pairs[0], order); /* line 19 */
    fputs(message, stdout); /* far data: line 20 */
    return pairs[0].key + global_state;
}

int main(int argc, char **argv) {
    (void)argv;
    return sort_them(argc) - 8; /* line 26 */
}
