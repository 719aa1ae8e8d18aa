/* Objects loaded in one call and in two steps, lookups, unloading, and misuse. */
#include "check.h"

#include <pthread.h>

static char *error;
static low2g_session *current;
static int host_table[4] = {1, 10, 100, 1000};
static int removed;

static int host_add(int a, int b)
{
    removed += a == -1;
    return a + b;
}

static int answered(int n) { return n + 1; }
static int other_weak(void) { return 22; }

static bool resolve(void *context, const char *name, low2g_symbol *out)
{
    ++*(int *)context;
    if (strcmp(name, "answered") != 0)
        return false;
    /* The session that is loading cannot be changed. */
    char *text = NULL;
    CHECK(low2g_session_define_data(current, "late", out, 1, &text) == LOW2G_STATUS_WRONG_ORDER);
    free(text);
    out->addr = (uintptr_t)answered;
    out->size = 0;
    out->kind = LOW2G_SYMBOL_KIND_FUNCTION;
    return true;
}

static void *of_thread(void *module)
{
    return low2g_module_thread_local(module, "own", NULL, NULL);
}

static int call(low2g_module *module, const char *name, int argument)
{
    void *found = low2g_module_function(module, name, &error);
    CHECK(found != NULL && (uintptr_t)found < LOW_END);
    int (*function)(int);
    memcpy(&function, &found, sizeof function);
    return function(argument);
}

static void count_symbols(void *context, const char *name, const low2g_symbol *symbol)
{
    if (strcmp(name, "sum") == 0)
        CHECK(symbol->kind == LOW2G_SYMBOL_KIND_FUNCTION && symbol->addr < LOW_END);
    if (strcmp(name, "counter") == 0)
        CHECK(symbol->kind == LOW2G_SYMBOL_KIND_DATA && symbol->size == sizeof(int));
    *(int *)context |= strcmp(name, "sum") == 0 ? 1 : strcmp(name, "counter") == 0 ? 2 : 0;
}

struct undefined {
    int sum, own, maybe;
};

static void note_undefined(void *context, const char *name, bool weak, bool is_thread_local)
{
    struct undefined *seen = context;
    if (strcmp(name, "sum") == 0)
        seen->sum += 1 + 10 * weak + 100 * is_thread_local;
    if (strcmp(name, "own") == 0)
        seen->own += 1 + 10 * weak + 100 * is_thread_local;
    if (strcmp(name, "maybe") == 0)
        seen->maybe += 1 + 10 * weak + 100 * is_thread_local;
}

static low2g_module *load(low2g_session *session)
{
    low2g_module *module = NULL;
    low2g_status status = low2g_session_load(session, &module, &error);
    if (status != LOW2G_STATUS_OK)
        fprintf(stderr, "%s\n", error);
    CHECK(status == LOW2G_STATUS_OK && module != NULL);
    return module;
}

static void lookups(low2g_module *module)
{
    CHECK(call(module, "sum", 4) == 1114);
    CHECK(call(module, "ask", 41) == 42);
    size_t size = 0;
    int *counter = low2g_module_data(module, "counter", &size, &error);
    CHECK(counter != NULL && *counter == 5 && size == sizeof *counter);
    low2g_symbol symbol;
    CHECK(low2g_module_symbol(module, "sum", &symbol, &error) == LOW2G_STATUS_OK);
    CHECK(symbol.kind == LOW2G_SYMBOL_KIND_FUNCTION && symbol.size > 0);
    CHECK(low2g_module_data(module, "sum", NULL, &error) == NULL);
    CHECK(low2g_last_status() == LOW2G_STATUS_NO_SYMBOL);
    expect_text(&error, "variable sum");
    CHECK(low2g_module_function(module, "counter", &error) == NULL);
    expect_text(&error, "function counter");
    CHECK(low2g_module_function(module, NULL, &error) == NULL);
    expect_text(&error, "name is NULL");
    FAILS(low2g_module_symbol(module, "constructed", &symbol, &error), LOW2G_STATUS_NO_SYMBOL,
          "constructed");
    int seen = 0;
    CHECK(low2g_module_symbols(module, count_symbols, &seen, &error) == LOW2G_STATUS_OK);
    CHECK(seen == 3);
    FAILS(low2g_module_symbols(module, NULL, NULL, &error), LOW2G_STATUS_INVALID_ARGUMENT,
          "visitor");

    int *own = low2g_module_thread_local(module, "own", &size, &error);
    CHECK(own != NULL && *own == 11 && size == sizeof *own);
    pthread_t thread;
    void *theirs = NULL;
    CHECK(pthread_create(&thread, NULL, of_thread, module) == 0);
    CHECK(pthread_join(thread, &theirs) == 0);
    CHECK(theirs != NULL && theirs != own);
    CHECK(low2g_module_thread_local(module, "counter", NULL, &error) == NULL);
    expect_text(&error, "thread-local variable counter");
}

static void two_steps(low2g_session *session, const char *user, low2g_module *first)
{
    CHECK(low2g_session_add_file(session, user, &error) == LOW2G_STATUS_OK);
    low2g_link *link = NULL;
    CHECK(low2g_session_begin(session, &link, &error) == LOW2G_STATUS_OK);
    struct undefined seen = {0};
    CHECK(low2g_link_undefined(link, note_undefined, &seen, &error) == LOW2G_STATUS_OK);
    CHECK(seen.sum == 1 && seen.own == 101 && seen.maybe == 11);
    FAILS(low2g_link_undefined(link, NULL, NULL, &error), LOW2G_STATUS_INVALID_ARGUMENT, "visitor");
    int symbols = 0;
    CHECK(low2g_link_symbols(link, count_symbols, &symbols, &error) == LOW2G_STATUS_OK);
    CHECK(symbols == 0);

    low2g_symbol symbol;
    CHECK(low2g_module_symbol(first, "sum", &symbol, &error) == LOW2G_STATUS_OK);
    CHECK(low2g_link_define(link, "sum", &symbol, &error) == LOW2G_STATUS_OK);
    CHECK(low2g_module_symbol(first, "counter", &symbol, &error) == LOW2G_STATUS_OK);
    CHECK(low2g_link_define(link, "counter", &symbol, &error) == LOW2G_STATUS_OK);
    symbol.kind = 9;
    FAILS(low2g_link_define(link, "counter", &symbol, &error), LOW2G_STATUS_INVALID_ARGUMENT,
          "kind 9");
    FAILS(low2g_link_define(link, "counter", NULL, &error), LOW2G_STATUS_INVALID_ARGUMENT,
          "symbol is NULL");
    FAILS(low2g_link_define_thread_local(link, "none", first, &error), LOW2G_STATUS_NO_SYMBOL,
          "none");
    CHECK(low2g_link_define_thread_local(link, "own", first, &error) == LOW2G_STATUS_OK);
    FAILS(low2g_link_replace_weak(link, "twice", &symbol, &error), LOW2G_STATUS_INVALID_ARGUMENT,
          "kind 9");
    symbol.kind = LOW2G_SYMBOL_KIND_UNKNOWN;
    FAILS(low2g_link_replace_weak(link, "twice", &symbol, &error), LOW2G_STATUS_NO_SYMBOL,
          "no weak definition of twice");
    low2g_module *module = NULL;
    FAILS(low2g_link_finish(link, NULL, &error), LOW2G_STATUS_INVALID_ARGUMENT, "module is NULL");
    CHECK(low2g_link_finish(link, &module, &error) == LOW2G_STATUS_OK);
    FAILS(low2g_link_finish(link, &module, &error), LOW2G_STATUS_INVALID_HANDLE, "freed before");
    CHECK(call(module, "twice", 2) == 2 * 14 + 5);
    CHECK(call(module, "own_plus", 1) == 12);
    CHECK(call(module, "has_maybe", 0) == 0);
    CHECK(low2g_module_unload(module, &error) == LOW2G_STATUS_OK);
    FAILS(low2g_module_unload(module, &error), LOW2G_STATUS_INVALID_HANDLE, "freed before");
}

static void weak(low2g_session *session, const char *object)
{
    CHECK(low2g_session_add_file(session, object, &error) == LOW2G_STATUS_OK);
    low2g_link *link = NULL;
    CHECK(low2g_session_begin(session, &link, &error) == LOW2G_STATUS_OK);
    int symbols = 0;
    CHECK(low2g_link_symbols(link, count_symbols, &symbols, &error) == LOW2G_STATUS_OK);
    CHECK(symbols == 3);
    low2g_symbol other = {(uintptr_t)other_weak, 0, LOW2G_SYMBOL_KIND_FUNCTION};
    CHECK(low2g_link_replace_weak(link, "weak_one", &other, &error) == LOW2G_STATUS_OK);
    low2g_module *module = NULL;
    CHECK(low2g_link_finish(link, &module, &error) == LOW2G_STATUS_OK);
    CHECK(call(module, "call_weak", 0) == 22);
    CHECK(low2g_module_unload(module, &error) == LOW2G_STATUS_OK);

    CHECK(low2g_session_add_file(session, object, &error) == LOW2G_STATUS_OK);
    CHECK(low2g_session_begin(session, &link, &error) == LOW2G_STATUS_OK);
    CHECK(low2g_link_abandon(link, &error) == LOW2G_STATUS_OK);
    FAILS(low2g_link_abandon(link, &error), LOW2G_STATUS_INVALID_HANDLE, "freed before");
    CHECK(low2g_link_abandon(NULL, &error) == LOW2G_STATUS_OK);
}

/* A file's bytes. */
static void *contents(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
    *size = (size_t)ftell(file);
    rewind(file);
    void *bytes = malloc(*size);
    CHECK(bytes != NULL && fread(bytes, 1, *size, file) == *size);
    fclose(file);
    return bytes;
}

/* An object and an archive from memory; of the archive only what is needed. */
static void from_memory(low2g_allocator *low, const char *object, const char *archive)
{
    low2g_session *session = low2g_session_new(low, "entry=twice", &error);
    CHECK(low2g_session_define_function(session, "host_add", (void *)(uintptr_t)host_add, NULL) ==
          LOW2G_STATUS_OK);
    CHECK(low2g_session_define_data(session, "host_table", host_table, sizeof host_table, NULL) ==
          LOW2G_STATUS_OK);
    CHECK(low2g_session_define_function(session, "answered", (void *)(uintptr_t)answered, NULL) ==
          LOW2G_STATUS_OK);
    size_t size = 0;
    void *bytes = contents(object, &size);
    CHECK(low2g_session_add_memory(session, "module.o", bytes, size, &error) == LOW2G_STATUS_OK);
    free(bytes);
    bytes = contents(archive, &size);
    CHECK(low2g_session_add_memory(session, "lib.a", bytes, size, &error) == LOW2G_STATUS_OK);
    free(bytes);
    low2g_module *module = load(session);
    CHECK(call(module, "twice", 2) == 2 * 14 + 5);
    CHECK(low2g_module_unload(module, &error) == LOW2G_STATUS_OK);

    /* Half of an archive is an error, not a crash. */
    bytes = contents(archive, &size);
    CHECK(low2g_session_add_memory(session, "half.a", bytes, size / 2, &error) == LOW2G_STATUS_OK);
    free(bytes);
    module = NULL;
    FAILS(low2g_session_load(session, &module, &error), LOW2G_STATUS_LINK, "half.a");
    CHECK(module == NULL && low2g_session_free(session) == LOW2G_STATUS_OK);
}

static void misuse(low2g_session *session)
{
    low2g_module *module = NULL;
    FAILS(low2g_session_load(session, &module, &error), LOW2G_STATUS_WRONG_ORDER, "nothing was added");
    FAILS(low2g_session_load(session, NULL, &error), LOW2G_STATUS_INVALID_ARGUMENT, "module is NULL");
    FAILS(low2g_session_load(NULL, &module, &error), LOW2G_STATUS_INVALID_ARGUMENT,
          "session is NULL");
    FAILS(low2g_session_add_file(session, "/none/such.o", &error), LOW2G_STATUS_FILE,
          "/none/such.o");
    FAILS(low2g_session_open_library(session, "libnonesuch.so.9", &error), LOW2G_STATUS_FILE,
          "libnonesuch.so.9");
    FAILS(low2g_session_add_memory(session, "x.o", NULL, 3, &error), LOW2G_STATUS_INVALID_ARGUMENT,
          "data is NULL");
    CHECK(low2g_session_add_memory(session, "x.o", "not an object", 13, &error) == LOW2G_STATUS_OK);
    FAILS(low2g_session_load(session, &module, &error), LOW2G_STATUS_LINK, "x.o");
    /* What failed is gone. */
    FAILS(low2g_session_load(session, &module, &error), LOW2G_STATUS_WRONG_ORDER, "nothing was added");
    CHECK(low2g_session_new(NULL, "model=tiny", &error) == NULL);
    expect_text(&error, "model=tiny");
    low2g_allocator *wide = low2g_allocator_new("reach=4g", &error);
    CHECK(low2g_session_new(wide, "model=small", &error) == NULL);
    CHECK(low2g_last_status() == LOW2G_STATUS_REACH_TOO_WIDE);
    expect_text(&error, "small code model has absolute 32-bit addresses");
    CHECK(low2g_session_new(wide, "relax=all,model=medium", &error) == NULL);
    expect_text(&error, "medium code model");
    const char *const served[] = {NULL, "model=large", "model=small-pic", "model=small,model=small-pic"};
    for (size_t i = 0; i < sizeof served / sizeof *served; i++) {
        low2g_session *any = low2g_session_new(wide, served[i], &error);
        CHECK(any != NULL && low2g_session_free(any) == LOW2G_STATUS_OK);
    }
    CHECK(low2g_allocator_free(wide) == LOW2G_STATUS_OK);
    CHECK(low2g_session_new(NULL, "speed=high", &error) == NULL);
    expect_text(&error, "option speed");
}

int main(int argc, char **argv)
{
    CHECK(argc == 4);
    low2g_allocator *low = low2g_allocator_new("placement=randomized", &error);
    CHECK(low != NULL);
    low2g_session *session = low2g_session_new(low, "model=small,relax=all", &error);
    CHECK(session != NULL);
    current = session;
    misuse(session);

    /* Undefined without definitions: the text names what is missing. */
    low2g_module *module = NULL;
    CHECK(low2g_session_add_file(session, argv[1], &error) == LOW2G_STATUS_OK);
    FAILS(low2g_session_load(session, &module, &error), LOW2G_STATUS_LINK,
          "undefined_symbol: host_add");

    int asked = 0;
    CHECK(low2g_session_define_function(session, "host_add", (void *)(uintptr_t)host_add, &error) ==
          LOW2G_STATUS_OK);
    CHECK(low2g_session_define_data(session, "host_table", host_table, sizeof host_table, &error) ==
          LOW2G_STATUS_OK);
    CHECK(low2g_session_set_resolver(session, resolve, &asked, &error) == LOW2G_STATUS_OK);
    CHECK(low2g_session_add_file(session, argv[1], &error) == LOW2G_STATUS_OK);
    low2g_module *first = load(session);
    CHECK(asked > 0);
    lookups(first);
    two_steps(session, argv[2], first);
    weak(session, argv[1]);
    CHECK(removed == 1);

    /* The second module keeps the first. */
    CHECK(low2g_session_add_file(session, argv[2], &error) == LOW2G_STATUS_OK);
    low2g_module *second = load(session);
    CHECK(low2g_session_free(session) == LOW2G_STATUS_OK);
    CHECK(low2g_session_free(session) == LOW2G_STATUS_INVALID_HANDLE);
    CHECK(low2g_module_unload(first, &error) == LOW2G_STATUS_OK);
    CHECK(removed == 1);
    CHECK(call(second, "twice", 1) == 2 * 4 + 5);
    CHECK(low2g_module_unload(second, &error) == LOW2G_STATUS_OK);
    CHECK(removed == 2);
    from_memory(low, argv[1], argv[3]);
    CHECK(removed == 3);

    CHECK(low2g_allocator_trim(low, &error) == LOW2G_STATUS_OK);
    struct low2g_statistics counted;
    CHECK(low2g_allocator_statistics(low, &counted, &error) == LOW2G_STATUS_OK);
    CHECK(counted.live_bytes == 0);
    CHECK(low2g_allocator_free(low) == LOW2G_STATUS_OK);
    return 0;
}
