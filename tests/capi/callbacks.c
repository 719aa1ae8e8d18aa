/* LLVM's callbacks called as a confused or hostile JIT would, without LLVM. */
#include "check.h"

#include <pthread.h>

static char *error;

/* LLVM's callback types, as llvm-c/ExecutionEngine.h and llvm-c/OrcEE.h have them. */
typedef uint8_t *(*code_callback)(void *, uintptr_t, unsigned, unsigned, const char *);
typedef uint8_t *(*data_callback)(void *, uintptr_t, unsigned, unsigned, const char *, int);
typedef int (*finalize_callback)(void *, char **);
typedef void (*destroy_callback)(void *);
typedef void *(*create_callback)(void *);

static const code_callback code = low2g_llvm_allocate_code_section;
static const data_callback data = low2g_llvm_allocate_data_section;
static const finalize_callback finalize = low2g_llvm_finalize_memory;
static const destroy_callback destroy = low2g_llvm_destroy;
static const create_callback create_context = low2g_llvm_create_context;
static const destroy_callback terminating = low2g_llvm_notify_terminating;

static uint64_t live(low2g_allocator *low)
{
    struct low2g_statistics counted;
    CHECK(low2g_allocator_statistics(low, &counted, NULL) == LOW2G_STATUS_OK);
    return counted.live_bytes;
}

static void refused(const char *options, low2g_code_model model, const char *part)
{
    low2g_allocator *low = low2g_allocator_new(options, &error);
    CHECK(low != NULL);
    CHECK(low2g_llvm_memory_new(low, model) == NULL);
    CHECK(strstr(low2g_last_error(), part) != NULL);
    CHECK(low2g_allocator_free(low) == LOW2G_STATUS_OK);
}

static void models(void)
{
    refused("reach=4g", LOW2G_CODE_MODEL_SMALL, "small code model has absolute 32-bit addresses");
    refused("reach=4g", LOW2G_CODE_MODEL_MEDIUM, "medium code model");
    refused("reach=4g", LOW2G_CODE_MODEL_SMALL_PIC, "pc-relative");
    refused("reach=0x1800000000-0x1840000000", LOW2G_CODE_MODEL_SMALL, "reach 2g");
    refused(NULL, (low2g_code_model)77, "77");
    const char *const good[] = {"reach=2g", "reach=2g-full", "reach=0x20000000-0x40000000"};
    for (int i = 0; i < 3; i++) {
        low2g_allocator *low = low2g_allocator_new(good[i], &error);
        for (int model = LOW2G_CODE_MODEL_SMALL; model <= LOW2G_CODE_MODEL_SMALL_PIC; model++) {
            low2g_llvm_memory *memory = low2g_llvm_memory_new(low, (low2g_code_model)model);
            CHECK(memory != NULL);
            destroy(memory);
        }
        CHECK(low2g_allocator_free(low) == LOW2G_STATUS_OK);
    }
    low2g_allocator *low = low2g_allocator_new("reach=0x1800000000-0x1840000000", &error);
    low2g_llvm_memory *memory = low2g_llvm_memory_new(low, LOW2G_CODE_MODEL_SMALL_PIC);
    CHECK(memory != NULL && (uintptr_t)code(memory, 8, 8, 0, "") >= 0x1800000000);
    destroy(memory);
    memory = low2g_llvm_memory_new(low, LOW2G_CODE_MODEL_LARGE);
    CHECK(memory != NULL);
    destroy(memory);
    CHECK(low2g_allocator_free(low) == LOW2G_STATUS_OK);
    CHECK(low2g_llvm_memory_new(NULL, LOW2G_CODE_MODEL_SMALL) == NULL);
    CHECK(low2g_last_status() == LOW2G_STATUS_INVALID_ARGUMENT);
}

/* What can be had is as it was; what cannot is an error of finalize's. */
static void bad_requests(low2g_allocator *low)
{
    low2g_llvm_memory *memory = low2g_llvm_memory_new(low, LOW2G_CODE_MODEL_SMALL);
    /* mov eax, 42; ret */
    static const uint8_t bytes[] = {0xb8, 42, 0, 0, 0, 0xc3};
    uint8_t *good = code(memory, sizeof bytes, 16, 1, ".text");
    CHECK(good != NULL);
    memcpy(good, bytes, sizeof bytes);
    /* LLVM does ask for these. */
    CHECK(code(memory, 0, 0, 2, "") != NULL && data(memory, 0, 1, 3, NULL, 1) != NULL);
    CHECK(finalize(memory, &error) == 0 && error == NULL);
    CHECK(finalize(memory, &error) == 0 && error == NULL);

    const struct {
        uintptr_t size;
        unsigned align;
        const char *part;
    } bad[] = {
        {16, 3, "alignment 3 is not a power of two"},
        {16, 0xffffffff, "not a power of two"},
        {(uintptr_t)3 << 30, 16, "do not fit"},
        {UINTPTR_MAX, 16, "size 0xffffffffffffffff"},
        {16, 0x80000000, "do not fit"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint64_t before = live(low);
        CHECK(code(memory, bad[i].size, bad[i].align, 4, ".text.bad") == NULL);
        CHECK(strstr(low2g_last_error(), bad[i].part) != NULL);
        CHECK(finalize(memory, &error) == 1);
        CHECK(strstr(error, ".text.bad") != NULL);
        expect_text(&error, bad[i].part);
        CHECK(live(low) == before);
        /* The next round is judged by itself. */
        CHECK(finalize(memory, &error) == 0 && error == NULL);
        CHECK(data(memory, bad[i].size, bad[i].align, 4, NULL, 0) == NULL);
        CHECK(finalize(memory, NULL) == 1 && finalize(memory, NULL) == 0);
    }
    CHECK(((int (*)(void))(uintptr_t)good)() == 42);
    destroy(memory);
    CHECK(live(low) == 0);

    /* In the wrong order. */
    destroy(memory);
    CHECK(low2g_last_status() == LOW2G_STATUS_INVALID_HANDLE);
    destroy(NULL);
    destroy(low);
    CHECK(low2g_last_status() == LOW2G_STATUS_INVALID_HANDLE);
    CHECK(code(memory, 16, 16, 1, ".text") == NULL && data(NULL, 16, 16, 1, ".data", 0) == NULL);
    CHECK(finalize(memory, &error) == 1);
    expect_text(&error, "freed before");
    CHECK(finalize(NULL, &error) == 1);
    expect_text(&error, "LLVM memory is NULL");
    CHECK(create_context(NULL) == NULL && create_context(memory) == NULL);
    terminating(memory);
    terminating(NULL);
}

/* ORC asks finalize, so a context hands out memory that is never used. */
static void contexts(low2g_allocator *low)
{
    low2g_llvm_memory *memory = low2g_llvm_memory_new(low, LOW2G_CODE_MODEL_SMALL);
    void *first = create_context(memory), *second = create_context(memory);
    CHECK(first != NULL && second != NULL && first != second && first != memory);
    terminating(memory);
    CHECK(create_context(memory) == NULL);
    uint8_t *section = code(first, (uintptr_t)3 << 30, 16, 1, ".text");
    CHECK(section != NULL);
    memset(section, 0xcc, 1 << 20);
    section = data(first, 100, 3, 2, ".data", 0);
    CHECK(section != NULL);
    memset(section, 1, 100);
    CHECK((uintptr_t)data(first, 100, 8, 2, ".data", 0) < LOW_END);
    /* Lost as a whole. */
    for (int i = 0; i < 2; i++) {
        CHECK(finalize(first, &error) == 1);
        expect_text(&error, "section .text, 3221225472 bytes");
    }
    CHECK((uintptr_t)code(second, 100, 8, 1, ".text") < LOW_END);
    CHECK(finalize(second, &error) == 0);
    destroy(first);
    CHECK(live(low) > 0);
    destroy(second);
    CHECK(live(low) == 0);
}

static void *work(void *memory)
{
    for (unsigned i = 0; i < 200; i++) {
        uint8_t *one = code(memory, 1 + i * 7 % 500, 16, i, ".text");
        uint8_t *two = data(memory, 1 + i * 31 % 3000, 8, i, ".data", (int)(i & 1));
        if (one == NULL || two == NULL || (uintptr_t)one >= LOW_END || (uintptr_t)two >= LOW_END)
            return memory;
        if (low2g_owner_of(NULL, one, NULL, NULL) != LOW2G_STATUS_INVALID_ARGUMENT)
            return memory;
    }
    return NULL;
}

static void threads(low2g_allocator *low)
{
    low2g_llvm_memory *memory = low2g_llvm_memory_new(low, LOW2G_CODE_MODEL_SMALL);
    pthread_t all[4];
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&all[i], NULL, work, memory) == 0);
    for (int i = 0; i < 4; i++) {
        void *failed = memory;
        CHECK(pthread_join(all[i], &failed) == 0 && failed == NULL);
    }
    CHECK(finalize(memory, &error) == 0);
    destroy(memory);
    CHECK(live(low) == 0);
}

int main(void)
{
    low2g_allocator *low = low2g_allocator_new(NULL, &error);
    CHECK(low != NULL);
    models();
    bad_requests(low);
    contexts(low);
    threads(low);
    CHECK(low2g_allocator_free(low) == LOW2G_STATUS_OK);
    return 0;
}
