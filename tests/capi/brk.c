/* A program that is not position-independent: its heap lies low, and grows while low memory is
 * allocated and after it is exhausted. Argument: options of the allocator. */
#include <stdint.h>
#include <unistd.h>

#include "check.h"

#define MIB ((size_t)1 << 20)
/* What the platform keeps clear from where the heap begins, less what malloc takes of it. */
#define ROOM (128 - 4)

static char *error;
/* Where each MiB lies: malloc moves brk too. */
static unsigned char *heap[ROOM + 8];
static size_t heap_mib;

/* Grows brk by `mib`, and writes a number into each MiB. */
static void grow(size_t mib)
{
    for (size_t end = heap_mib + mib; heap_mib < end; heap_mib++) {
        unsigned char *at = sbrk(MIB);
        if (at == (void *)-1) {
            fprintf(stderr, "brk refuses MiB %zu\n", heap_mib);
            exit(1);
        }
        CHECK(heap_mib == 0 || at >= heap[heap_mib - 1] + MIB);
        heap[heap_mib] = at;
        for (size_t byte = 0; byte < MIB; byte++)
            CHECK(at[byte] == 0);
        memset(at, (int)(heap_mib % 250 + 1), MIB);
    }
}

static void check_heap(void)
{
    for (size_t mib = 0; mib < heap_mib; mib++)
        for (size_t byte = 0; byte < MIB; byte += 61)
            CHECK(heap[mib][byte] == mib % 250 + 1);
}

int main(int count, char **options)
{
    CHECK(count == 2);
    CHECK((uintptr_t)main < LOW_END && (uintptr_t)&heap < LOW_END);
    low2g_allocator *low = low2g_allocator_new(options[1], &error);
    CHECK(low != NULL);
    CHECK((uintptr_t)sbrk(0) < LOW_END);
    static unsigned char *blocks[4096];
    size_t live = 0;
    /* In turn, so that the allocator's knowledge of brk grows old between its surveys. */
    for (int turn = 0; turn < 40; turn++) {
        grow(1);
        for (int block = 0; block < 8; block++, live++) {
            blocks[live] = low2g_data_allocate(low, 256 << 10, 16, &error);
            CHECK(blocks[live] != NULL);
            memset(blocks[live], (int)(live % 251), 256 << 10);
        }
    }
    check_heap();
    /* All that there is; what brk may need is not there. */
    size_t large = 0;
    static unsigned char *rest[4096];
    while ((rest[large] = low2g_data_allocate(low, 2 * MIB, 16, &error)) != NULL)
        rest[large++][MIB] = 77;
    CHECK(low2g_last_status() == LOW2G_STATUS_NO_MEMORY);
    free(error);
    error = NULL;
    CHECK(large > 300);
    grow(ROOM - 40);
    check_heap();
    for (size_t block = 0; block < live; block++)
        for (size_t byte = 0; byte < 256 << 10; byte += 509)
            CHECK(blocks[block][byte] == block % 251);
    for (size_t block = 0; block < large; block++)
        CHECK(rest[block][MIB] == 77);
    for (size_t block = 0; block < live; block++)
        CHECK(low2g_data_free(low, blocks[block], &error) == LOW2G_STATUS_OK);
    for (size_t block = 0; block < large; block++)
        CHECK(low2g_data_free(low, rest[block], &error) == LOW2G_STATUS_OK);
    CHECK(low2g_allocator_free(low) == LOW2G_STATUS_OK);
    grow(8);
    check_heap();
    return 0;
}
