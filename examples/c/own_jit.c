/* A JIT of one's own: a function is written through one view and runs, low, through another.
   cc own_jit.c $(pkg-config --cflags --libs low2g) */
#include <low2g.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    char *error = NULL;
    low2g_allocator *low = low2g_allocator_new("min-entropy=12", &error);
    if (low == NULL) {
        fprintf(stderr, "%s\n", error);
        return 1;
    }
    /* A table of the generated code's: its address fits 32 bits. */
    int *table = low2g_data_allocate_zeroed(low, 16 * sizeof *table, 16, NULL, &error);
    /* mov eax, [table + 4 * rdi]; ret */
    unsigned char code[] = {0x8b, 0x04, 0xbd, 0, 0, 0, 0, 0xc3};
    void *write = NULL, *exec = NULL;
    struct low2g_certificate chosen;
    if (table == NULL ||
        low2g_code_allocate(low, sizeof code, 16, &write, &exec, &chosen, &error)) {
        fprintf(stderr, "%s\n", error);
        return 1;
    }
    uint32_t address = (uint32_t)(uintptr_t)table;
    memcpy(code + 3, &address, sizeof address);
    memcpy(write, code, sizeof code);
    if (low2g_code_publish(low, exec, &error)) {
        fprintf(stderr, "%s\n", error);
        return 1;
    }
    table[5] = 42;
    int (*load)(long);
    memcpy(&load, &exec, sizeof load);
    printf("load at %p (%.1f bits) returns %d\n", exec, chosen.entropy_bits, load(5));
    low2g_code_free(low, exec, NULL);
    low2g_data_free(low, table, NULL);
    low2g_allocator_free(low);
    return 0;
}
