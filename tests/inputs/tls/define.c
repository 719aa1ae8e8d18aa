/* Thread-local variables of one alignment, with and without initial values. */
#ifndef ALIGN
#define ALIGN 16
#endif
#ifndef SIZE
#define SIZE 24
#endif
#define ALIGNED __attribute__((aligned(ALIGN)))

__thread unsigned char filled[SIZE] ALIGNED = {1, 2, 3, 5, 8, 13};
__thread unsigned char zeroed[SIZE] ALIGNED;
static __thread unsigned char kept_filled[SIZE] ALIGNED = {21, 34, 55};
static __thread unsigned char kept_zeroed[SIZE] ALIGNED;

unsigned char *define_filled(void) { return filled; }
unsigned char *define_zeroed(void) { return zeroed; }
unsigned char *static_filled(void) { return kept_filled; }
unsigned char *static_zeroed(void) { return kept_zeroed; }

/* Each access through a register of its own, and more than one at a time. */
int mix(int a, int b) {
    filled[1] = (unsigned char)(filled[1] + a);
    zeroed[2] = (unsigned char)(zeroed[2] + b);
    kept_filled[1] = (unsigned char)(kept_filled[1] + a);
    kept_zeroed[2] = (unsigned char)(kept_zeroed[2] + b);
    return filled[1] * 1 + zeroed[2] * 3 + kept_filled[1] * 5 + kept_zeroed[2] * 7;
}
