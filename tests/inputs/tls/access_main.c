/* Prints picoseconds a call of `touch`, the least of some rounds; exits with 1 if calls are lost. */
#include <stdio.h>
#include <time.h>

long touch(void);
long touched(void);

static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000L + time.tv_nsec;
}

int main(void) {
    const long calls = 1000000;
    long least = 0;
    for (int round = 0; round < 8; round++) {
        long start = now();
        for (long i = 0; i < calls; i++) touch();
        long took = (now() - start) * 1000 / calls;
        if (round == 0 || took < least) least = took;
    }
    printf("%ld\n", least);
    return touched() == 8 * calls + 1 ? 0 : 1;
}
