/* A process that may not make written memory executable: LLVM's memory is refused by name, code with
   two views and whole modules work. Prints "skip" where the kernel has no such policy. */
#include "check.h"

#include <sys/prctl.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

static int host_add(int a, int b) { return a + b; }
static int answered(int n) { return n; }

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    if (prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0L, 0L, 0L) != 0) {
        puts("skip");
        return 0;
    }
    char *error = NULL;
    low2g_allocator *low = low2g_allocator_new(NULL, &error);
    CHECK(low != NULL);
    CHECK(low2g_llvm_memory_new(low, LOW2G_CODE_MODEL_SMALL) == NULL);
    CHECK(low2g_last_status() == LOW2G_STATUS_REFUSED);
    CHECK(strstr(low2g_last_error(), "PR_SET_MDWE") != NULL);

    static const unsigned char ret42[] = {0xb8, 42, 0, 0, 0, 0xc3};
    void *write = NULL, *exec = NULL;
    CHECK(low2g_code_allocate(low, sizeof ret42, 16, &write, &exec, NULL, &error) ==
          LOW2G_STATUS_OK);
    CHECK(write != exec);
    memcpy(write, ret42, sizeof ret42);
    CHECK(low2g_code_publish(low, exec, &error) == LOW2G_STATUS_OK);
    CHECK(((int (*)(void))(uintptr_t)exec)() == 42);

    static int host_table[4] = {1, 2, 3, 4};
    low2g_session *session = low2g_session_new(low, NULL, &error);
    low2g_module *module = NULL;
    CHECK(low2g_session_define_function(session, "host_add", (void *)(uintptr_t)host_add, &error) ==
          LOW2G_STATUS_OK);
    CHECK(low2g_session_define_function(session, "answered", (void *)(uintptr_t)answered, &error) ==
          LOW2G_STATUS_OK);
    CHECK(low2g_session_define_data(session, "host_table", host_table, sizeof host_table, &error) ==
          LOW2G_STATUS_OK);
    CHECK(low2g_session_add_file(session, argv[1], &error) == LOW2G_STATUS_OK);
    CHECK(low2g_session_load(session, &module, &error) == LOW2G_STATUS_OK);
    void *sum = low2g_module_function(module, "sum", &error);
    CHECK(((int (*)(int))(uintptr_t)sum)(4) == 13);
    CHECK(low2g_module_unload(module, &error) == LOW2G_STATUS_OK);
    CHECK(low2g_session_free(session) == LOW2G_STATUS_OK);
    CHECK(low2g_allocator_free(low) == LOW2G_STATUS_OK);
    return 0;
}
