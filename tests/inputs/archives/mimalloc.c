/* Threads allocate, resize, hand over and free through mimalloc, whose heaps are thread-local;
 * what they find in the blocks is printed. argv[1] is the seed. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mimalloc.h"

enum { THREADS = 4, BLOCKS = 2000, ROUNDS = 20 };

struct block {
    unsigned char *bytes;
    size_t size;
    unsigned char mark;
};

/* Filled by one thread, emptied by the next: blocks are freed far from where they came from. */
static struct block handed[THREADS][BLOCKS];
static pthread_barrier_t barrier;
static uint64_t seed;

static unsigned next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(*state >> 33);
}

static unsigned long check_and_free(struct block *block)
{
    unsigned long sum = 0;
    for (size_t i = 0; i < block->size; i++)
        sum += block->bytes[i] == block->mark ? block->mark : 1000000;
    mi_free(block->bytes);
    block->bytes = NULL;
    return sum;
}

static void *work(void *argument)
{
    size_t me = (size_t)argument;
    uint64_t state = seed + me;
    unsigned long sum = 0;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < BLOCKS; i++) {
            struct block *block = &handed[me][i];
            block->size = 1 + next_random(&state) % (i % 100 ? 600 : 70000);
            block->mark = (unsigned char)next_random(&state);
            block->bytes = mi_malloc_aligned(block->size, 1u << (3 + next_random(&state) % 6));
            memset(block->bytes, block->mark, block->size);
            if (i % 7 == 0) {
                size_t more = block->size + next_random(&state) % 500;
                block->bytes = mi_realloc(block->bytes, more);
                memset(block->bytes + block->size, block->mark, more - block->size);
                block->size = more;
            }
        }
        pthread_barrier_wait(&barrier);
        for (int i = 0; i < BLOCKS; i++)
            sum += check_and_free(&handed[(me + 1) % THREADS][i]);
        pthread_barrier_wait(&barrier);
    }
    mi_heap_t *heap = mi_heap_new();
    for (int i = 0; i < 100; i++)
        sum += strlen(mi_heap_strdup(heap, "on a heap of its own"));
    mi_heap_destroy(heap);
    return (void *)sum;
}

int main(int argc, char **argv)
{
    seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    pthread_t threads[THREADS];
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (size_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, work, (void *)i);
    for (size_t i = 0; i < THREADS; i++) {
        void *sum;
        pthread_join(threads[i], &sum);
        printf("thread %zu found %lu\n", i, (unsigned long)sum);
    }
    printf("mimalloc %d\n", mi_version());
    return 0;
}
