/* MCJIT with low2g's memory, through LLVM's C API: static small code runs, where LLVM's own memory
   manager, which maps above 2 GiB, cannot serve it. */
#include "llvm_host.h"

#include <llvm-c/ErrorHandling.h>
#include <sys/wait.h>
#include <unistd.h>

static char *error;

static uint64_t find(void *engine, const char *name)
{
    /* Functions and variables alike. */
    return LLVMGetGlobalValueAddress(engine, name);
}

static LLVMExecutionEngineRef engine_on(low2g_llvm_memory *memory, LLVMModuleRef module)
{
    struct LLVMMCJITCompilerOptions options;
    LLVMInitializeMCJITCompilerOptions(&options, sizeof options);
    options.OptLevel = 2;
    options.CodeModel = LLVMCodeModelSmall;
    options.MCJMM = LLVMCreateSimpleMCJITMemoryManager(
        memory, low2g_llvm_allocate_code_section, low2g_llvm_allocate_data_section,
        low2g_llvm_finalize_memory, low2g_llvm_destroy);
    CHECK(options.MCJMM != NULL);
    LLVMExecutionEngineRef engine;
    char *text = NULL;
    if (LLVMCreateMCJITCompilerForModule(&engine, module, &options, sizeof options, &text) != 0) {
        fprintf(stderr, "MCJIT: %s\n", text);
        exit(1);
    }
    return engine;
}

static void scenario(low2g_allocator *low, const char *path)
{
    low2g_llvm_memory *memory = low2g_llvm_memory_new(low, LOW2G_CODE_MODEL_SMALL);
    CHECK(memory != NULL);
    LLVMContextRef context = LLVMContextCreate();
    LLVMModuleRef module = read_module(context, path);
    LLVMExecutionEngineRef engine = engine_on(memory, module);
    LLVMAddGlobalMapping(engine, LLVMGetNamedFunction(module, "host_call"),
                         (void *)(uintptr_t)host_call);
    LLVMAddGlobalMapping(engine, LLVMGetNamedFunction(module, "host_frames"),
                         (void *)(uintptr_t)host_frames);
    exercise(engine, find);
    uint64_t add = find(engine, "add");
    struct low2g_certificate chosen;
    CHECK(low2g_llvm_certificate(memory, (void *)add, &chosen, &error) == LOW2G_STATUS_OK);
    /* Valgrind places mappings itself. */
    if (getenv("UNDER_VALGRIND") == NULL)
        CHECK(chosen.entropy_bits > 15 && chosen.step == LOW2G_STEP_DRAW);
    FAILS(low2g_llvm_certificate(memory, &chosen, &chosen, &error), LOW2G_STATUS_NOT_IN_USE,
          "no section");

    /* A second module in the same engine goes to pages of its own. */
    LLVMModuleRef second = LLVMModuleCreateWithNameInContext("second", context);
    LLVMTypeRef integer = LLVMInt32TypeInContext(context);
    LLVMValueRef function =
        LLVMAddFunction(second, "seven", LLVMFunctionType(integer, NULL, 0, 0));
    LLVMBuilderRef builder = LLVMCreateBuilderInContext(context);
    LLVMPositionBuilderAtEnd(builder, LLVMAppendBasicBlockInContext(context, function, ""));
    LLVMBuildRet(builder, LLVMConstInt(integer, 7, 0));
    LLVMDisposeBuilder(builder);
    LLVMAddModule(engine, second);
    uint64_t seven = find(engine, "seven");
    CHECK(seven < LOW_END && ((int (*)(void))seven)() == 7);
    CHECK(seven >> 12 != add >> 12);
    CHECK(((int (*)(int, int))add)(1, 2) == 3);

    LLVMDisposeExecutionEngine(engine);
    LLVMContextDispose(context);
    struct low2g_statistics counted;
    CHECK(low2g_allocator_statistics(low, &counted, &error) == LOW2G_STATUS_OK);
    CHECK(counted.live_bytes == 0);
}

static void fatal(const char *reason)
{
    CHECK(strstr(reason, "Unable to allocate section memory") != NULL);
    CHECK(strstr(low2g_last_error(), "allocator's limit of 8192") != NULL);
    _exit(42);
}

/* An allocator that is full: MCJIT's own form of that is its fatal error handler. */
static void full(const char *path)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        low2g_allocator *low = low2g_allocator_new("byte-limit=8192", &error);
        low2g_llvm_memory *memory = low2g_llvm_memory_new(low, LOW2G_CODE_MODEL_SMALL);
        CHECK(memory != NULL);
        LLVMInstallFatalErrorHandler(fatal);
        LLVMContextRef context = LLVMContextCreate();
        find(engine_on(memory, read_module(context, path)), "add");
        _exit(1);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    LLVMLinkInMCJIT();
    CHECK(LLVMInitializeNativeTarget() == 0 && LLVMInitializeNativeAsmPrinter() == 0);
    low2g_allocator *low = low2g_allocator_new(NULL, &error);
    CHECK(low != NULL);
    scenario(low, argv[1]);
    full(argv[1]);
    CHECK(low2g_allocator_free(low) == LOW2G_STATUS_OK);
    return 0;
}
