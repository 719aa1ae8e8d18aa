/* Data and executable blocks, statistics, certificates, and every misuse that can be told. */
#include "check.h"

static char *error;

static void data(low2g_allocator *low)
{
    uint64_t start = 0, end = 0;
    CHECK(low2g_allocator_window(low, &start, &end, &error) == LOW2G_STATUS_OK);
    CHECK(start > 0 && start < end && end < LOW_END);
    const size_t sizes[] = {1, 16, 100, 4096, 70000, 3 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t size = sizes[i];
        unsigned char *block = low2g_data_allocate(low, size, 64, &error);
        CHECK(block != NULL && error == NULL);
        CHECK((uintptr_t)block >= start && (uintptr_t)block + size <= end);
        CHECK((uintptr_t)block % 64 == 0);
        memset(block, 0xa5, size);
        CHECK(low2g_data_usable_size(low, block) >= size);
        struct low2g_owned owned;
        CHECK(low2g_owner_of(low, block + size - 1, &owned, &error) == LOW2G_STATUS_OK);
        CHECK(owned.in_use && !owned.executable);
        CHECK(owned.start <= (uintptr_t)block && owned.size >= size);
        CHECK(low2g_data_free(low, block, &error) == LOW2G_STATUS_OK);
        FAILS(low2g_data_free(low, block, &error), LOW2G_STATUS_NOT_IN_USE, "is freed, but");
        CHECK(low2g_data_usable_size(low, block) == 0);

        struct low2g_certificate chosen;
        block = low2g_data_allocate_zeroed(low, size, 16, &chosen, &error);
        CHECK(block != NULL && chosen.entropy_bits > 5 && !chosen.seeded);
        CHECK(chosen.free_slots > 0);
        for (size_t at = 0; at < size; at++)
            CHECK(block[at] == 0);
        CHECK(low2g_data_free(low, block, NULL) == LOW2G_STATUS_OK);
    }
    CHECK(low2g_data_free(low, NULL, &error) == LOW2G_STATUS_OK && error == NULL);
}

/* What a block holds stays, however often it is made larger and smaller. */
static void reallocation(low2g_allocator *low)
{
    const size_t sizes[] = {1, 5000, 100, 200000, 70000, 3 << 20, 64, 150000};
    unsigned char *block = NULL;
    size_t before = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t size = sizes[i], align = (size_t)16 << 2 * (i % 5);
        block = low2g_data_reallocate(low, block, size, align, &error);
        CHECK(block != NULL && error == NULL && (uintptr_t)block % align == 0);
        CHECK(low2g_data_usable_size(low, block) >= size);
        for (size_t at = 0; at < before && at < size; at++)
            CHECK(block[at] == (unsigned char)(at * 7));
        for (size_t at = 0; at < size; at++)
            block[at] = (unsigned char)(at * 7);
        before = size;
    }
    CHECK(low2g_data_reallocate(low, block, (size_t)3 << 30, 16, &error) == NULL);
    expect_text(&error, "do not fit");
    CHECK(low2g_data_reallocate(low, block, 0, 16, &error) == NULL);
    expect_text(&error, "size");
    CHECK(low2g_data_reallocate(low, block, 16, 3, &error) == NULL);
    expect_text(&error, "alignment");
    CHECK(low2g_data_reallocate(low, block + 16, 16, 16, &error) == NULL);
    CHECK(low2g_last_status() == LOW2G_STATUS_NOT_IN_USE);
    expect_text(&error, "no block");
    for (size_t at = 0; at < before; at++)
        CHECK(block[at] == (unsigned char)(at * 7));
    CHECK(low2g_data_free(low, block, &error) == LOW2G_STATUS_OK);
}

static void code(low2g_allocator *low)
{
    /* mov eax, edi; add eax, 7; ret */
    static const unsigned char bytes[] = {0x89, 0xf8, 0x83, 0xc0, 0x07, 0xc3};
    void *write = NULL, *exec = NULL;
    struct low2g_certificate chosen;
    CHECK(low2g_code_allocate(low, sizeof bytes, 16, &write, &exec, &chosen, &error) ==
          LOW2G_STATUS_OK);
    CHECK((uintptr_t)exec + sizeof bytes <= LOW_END && chosen.entropy_bits > 5);
    memcpy(write, bytes, sizeof bytes);
    CHECK(low2g_code_publish(low, exec, &error) == LOW2G_STATUS_OK);
    int (*add)(int);
    memcpy(&add, &exec, sizeof add);
    CHECK(add(35) == 42);
    struct low2g_owned owned;
    CHECK(low2g_owner_of(low, exec, &owned, &error) == LOW2G_STATUS_OK && owned.executable);
    FAILS(low2g_code_publish(low, exec, &error), LOW2G_STATUS_WRONG_ORDER, "published already");
    CHECK(add(1) == 8);
    CHECK(low2g_code_free(low, exec, &error) == LOW2G_STATUS_OK);
    FAILS(low2g_code_free(low, exec, &error), LOW2G_STATUS_NOT_IN_USE, "no executable block");
    FAILS(low2g_code_publish(low, exec, &error), LOW2G_STATUS_NOT_IN_USE, "no executable block");
    FAILS(low2g_code_free(low, &owned, &error), LOW2G_STATUS_NOT_IN_USE, "foreign");
    FAILS(low2g_code_allocate(low, 16, 16, NULL, &exec, NULL, &error),
          LOW2G_STATUS_INVALID_ARGUMENT, "NULL");
    FAILS(low2g_code_allocate(low, 0, 16, &write, &exec, NULL, &error),
          LOW2G_STATUS_INVALID_ARGUMENT, "size 0x0");
    /* One that is never published, and one that goes with the allocator. */
    CHECK(low2g_code_allocate(low, 9000, 1, &write, &exec, NULL, &error) == LOW2G_STATUS_OK);
    CHECK(low2g_code_free(low, exec, &error) == LOW2G_STATUS_OK);
    CHECK(low2g_code_allocate(low, 10, 1, &write, &exec, NULL, &error) == LOW2G_STATUS_OK);
}

static void refuses(const char *options, low2g_status status, const char *part)
{
    CHECK(low2g_allocator_new(options, &error) == NULL);
    CHECK(low2g_last_status() == status);
    expect_text(&error, part);
    CHECK(low2g_allocator_new(options, NULL) == NULL);
}

static void bad_options(void)
{
    refuses("placement=sideways", LOW2G_STATUS_INVALID_ARGUMENT, "placement=sideways");
    refuses("reach=3g", LOW2G_STATUS_INVALID_ARGUMENT, "reach=3g");
    refuses("seed=x", LOW2G_STATUS_INVALID_ARGUMENT, "seed=x");
    refuses("min-entropy=much", LOW2G_STATUS_INVALID_ARGUMENT, "min-entropy=much");
    refuses("preset=soft", LOW2G_STATUS_INVALID_ARGUMENT, "bare, default, hardened");
    refuses("guards=maybe", LOW2G_STATUS_INVALID_ARGUMENT, "yes nor no");
    refuses("colour=red", LOW2G_STATUS_INVALID_ARGUMENT, "option colour");
    refuses("reach=0x1000-0x2000", LOW2G_STATUS_INVALID_ARGUMENT, "no usable address");
    refuses("\xff", LOW2G_STATUS_INVALID_ARGUMENT, "not UTF-8");
    low2g_allocator *low = low2g_allocator_new(
        " preset=hardened , placement=first-fit,reach=4g,guards=yes,,byte-limit=0x1000000,keep-hole=65536", &error);
    CHECK(low != NULL && error == NULL);
    CHECK(low2g_data_allocate(low, 32 << 20, 16, &error) == NULL);
    CHECK(low2g_last_status() == LOW2G_STATUS_NO_MEMORY);
    expect_text(&error, "limit");
    CHECK(low2g_allocator_free(low) == LOW2G_STATUS_OK);
    low = low2g_allocator_new("min-entropy=60", &error);
    CHECK(low2g_data_allocate(low, 100, 16, &error) == NULL);
    CHECK(low2g_last_status() == LOW2G_STATUS_ENTROPY_TOO_LOW);
    expect_text(&error, "entropy");
    CHECK(low2g_allocator_free(low) == LOW2G_STATUS_OK);
}

static void *seeded(void)
{
    low2g_allocator *low = low2g_allocator_new("seed=77", &error);
    struct low2g_certificate chosen;
    void *block = low2g_data_allocate_zeroed(low, 100000, 16, &chosen, &error);
    CHECK(block != NULL && chosen.seeded && chosen.entropy_bits == 0);
    CHECK(low2g_allocator_free(low) == LOW2G_STATUS_OK);
    return block;
}

static void misuse(low2g_allocator *low)
{
    CHECK(low2g_data_allocate(low, 0, 16, &error) == NULL);
    expect_text(&error, "size 0x0");
    CHECK(low2g_data_allocate(low, 16, 3, &error) == NULL);
    expect_text(&error, "alignment 0x3");
    CHECK(low2g_data_allocate(low, 16, 0, &error) == NULL);
    expect_text(&error, "alignment 0x0");
    CHECK(low2g_data_allocate(low, 16, (size_t)1 << 62, &error) == NULL);
    expect_text(&error, "do not fit");
    CHECK(low2g_data_allocate(low, SIZE_MAX, 16, &error) == NULL);
    expect_text(&error, "size 0xffffffffffffffff");
    CHECK(low2g_data_allocate(low, (size_t)3 << 30, 16, &error) == NULL);
    CHECK(low2g_last_status() == LOW2G_STATUS_NO_MEMORY);
    expect_text(&error, "do not fit");
    CHECK(low2g_data_allocate(NULL, 16, 16, &error) == NULL);
    expect_text(&error, "allocator is NULL");
    char *block = low2g_data_allocate(low, 200, 16, &error);
    FAILS(low2g_data_free(low, block + 16, &error), LOW2G_STATUS_NOT_IN_USE, "inside the block");
    FAILS(low2g_data_free(low, &block, &error), LOW2G_STATUS_NOT_IN_USE, "no block");
    CHECK(low2g_data_usable_size(low, block) >= 200);
    CHECK(low2g_data_free(low, block, &error) == LOW2G_STATUS_OK);
    FAILS(low2g_owner_of(low, &error, NULL, &error), LOW2G_STATUS_NOT_IN_USE, "no block");
    FAILS(low2g_allocator_statistics(low, NULL, &error), LOW2G_STATUS_INVALID_ARGUMENT, "out is");
    FAILS(low2g_allocator_trim(NULL, &error), LOW2G_STATUS_INVALID_ARGUMENT, "NULL");
}

int main(void)
{
    CHECK(strchr(low2g_version(), '.') != NULL);
    low2g_allocator *low = low2g_allocator_new(NULL, &error);
    CHECK(low != NULL && error == NULL && low2g_last_status() == LOW2G_STATUS_OK);
    data(low);
    reallocation(low);
    code(low);
    misuse(low);
    bad_options();
    CHECK(seeded() == seeded());

    /* What an allocator with a quarantine held is given back, and what was in use goes with it. */
    CHECK(low2g_allocator_trim(low, &error) == LOW2G_STATUS_OK);
    struct low2g_statistics counted;
    CHECK(low2g_allocator_statistics(low, &counted, &error) == LOW2G_STATUS_OK);
    CHECK(counted.live_bytes > 0 && counted.data_slot_bytes == 0);
    CHECK(counted.code_slot_bytes > 0 && counted.stuck_bytes == 0);
    void *block = low2g_data_allocate(low, 5 << 20, 4096, &error);
    CHECK(block != NULL);

    low2g_session *session = low2g_session_new(low, NULL, &error);
    CHECK(session != NULL);
    FAILS(low2g_allocator_trim((low2g_allocator *)session, &error), LOW2G_STATUS_INVALID_HANDLE,
          "another kind");
    FAILS(low2g_allocator_trim((low2g_allocator *)((char *)low + 1), &error),
          LOW2G_STATUS_INVALID_HANDLE, "not aligned");
    CHECK(low2g_session_free(session) == LOW2G_STATUS_OK);

    CHECK(low2g_allocator_free(low) == LOW2G_STATUS_OK);
    CHECK(low2g_allocator_free(low) == LOW2G_STATUS_INVALID_HANDLE);
    CHECK(strstr(low2g_last_error(), "freed before") != NULL);
    FAILS(low2g_allocator_trim(low, &error), LOW2G_STATUS_INVALID_HANDLE, "freed before");
    CHECK(low2g_allocator_free(NULL) == LOW2G_STATUS_OK);
    return 0;
}
