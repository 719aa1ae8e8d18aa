/* The object of `low2g demo`. Made beside this file by
 *   cc -O2 -fno-pic -fno-pie -mcmodel=small -fno-asynchronous-unwind-tables -c demo.c -o demo.o
 * Position-dependent small-model code: addresses of its own data are 32-bit fields
 * (R_X86_64_32, R_X86_64_32S), printf is a far function, stdout is far data. */
#include <stdio.h>

int squares[8] = {1, 4, 9, 16, 25, 36, 49, 64};
static const char *const names[] = {"one", "two", "three", "four"};
static long calls;

/* The sum of the squares of 1 to n, with a table lookup that takes R_X86_64_32S. */
long demo_sum(int n)
{
    long sum = 0;
    for (int i = 0; i < n && i < 8; i++)
        sum += squares[i];
    calls++;
    return sum;
}

/* Takes the table's address as an immediate: R_X86_64_32. */
__attribute__((noinline)) int *demo_table(void) { return squares; }

/* Indexes by a symbol in the displacement: R_X86_64_32S. */
__attribute__((noinline)) int demo_square(unsigned long i) { return squares[i & 7]; }

int main(int argc, char **argv)
{
    fprintf(stdout, "  hello from main at %p: squares at %p\n", (void *)main, (void *)demo_table());
    for (int i = 1; i <= 4; i++)
        printf("  %-5s squared is %2d, squares up to it add up to %2ld\n", names[i - 1],
               demo_square((unsigned long)i - 1), demo_sum(i));
    fflush(stdout);
    return calls == 4 && argc == 1 && argv[1] == 0 ? 0 : 1;
}
