/* ORC with RuntimeDyld on low2g's memory, through LLVM's C API (16 and later). */
#include "llvm_host.h"

#include <llvm-c/LLJIT.h>
#include <llvm-c/Orc.h>
#include <llvm-c/OrcEE.h>

static char *error;

static void must(LLVMErrorRef problem)
{
    if (problem != NULL) {
        fprintf(stderr, "ORC: %s\n", LLVMGetErrorMessage(problem));
        exit(1);
    }
}

static LLVMOrcObjectLayerRef layer_on(void *memory, LLVMOrcExecutionSessionRef session,
                                      const char *triple)
{
    (void)triple;
    return LLVMOrcCreateRTDyldObjectLinkingLayerWithMCJITMemoryManagerLikeCallbacks(
        session, memory, low2g_llvm_create_context, low2g_llvm_notify_terminating,
        low2g_llvm_allocate_code_section, low2g_llvm_allocate_data_section,
        low2g_llvm_finalize_memory, low2g_llvm_destroy);
}

static LLVMOrcLLJITRef jit_on(low2g_llvm_memory *memory)
{
    char *triple = LLVMGetDefaultTargetTriple();
    LLVMTargetRef target;
    CHECK(LLVMGetTargetFromTriple(triple, &target, NULL) == 0);
    LLVMTargetMachineRef machine =
        LLVMCreateTargetMachine(target, triple, "", "", LLVMCodeGenLevelDefault, LLVMRelocStatic,
                                LLVMCodeModelSmall);
    LLVMDisposeMessage(triple);
    LLVMOrcLLJITBuilderRef builder = LLVMOrcCreateLLJITBuilder();
    LLVMOrcLLJITBuilderSetJITTargetMachineBuilder(
        builder, LLVMOrcJITTargetMachineBuilderCreateFromTargetMachine(machine));
    LLVMOrcLLJITBuilderSetObjectLinkingLayerCreator(builder, layer_on, memory);
    LLVMOrcLLJITRef jit;
    must(LLVMOrcCreateLLJIT(&jit, builder));
    return jit;
}

static void define(LLVMOrcLLJITRef jit, const char *name, uintptr_t addr)
{
    LLVMOrcCSymbolMapPair pair = {
        LLVMOrcLLJITMangleAndIntern(jit, name),
        {addr, {LLVMJITSymbolGenericFlagsExported | LLVMJITSymbolGenericFlagsCallable, 0}}};
    must(LLVMOrcJITDylibDefine(LLVMOrcLLJITGetMainJITDylib(jit),
                               LLVMOrcAbsoluteSymbols(&pair, 1)));
}

static uint64_t find(void *jit, const char *name)
{
    LLVMOrcExecutorAddress addr = 0;
    must(LLVMOrcLLJITLookup(jit, &addr, name));
    return addr;
}

static void add_module(LLVMOrcLLJITRef jit, const char *path, LLVMOrcResourceTrackerRef tracker)
{
    LLVMOrcThreadSafeContextRef context = LLVMOrcCreateNewThreadSafeContext();
    LLVMModuleRef module = read_module(LLVMOrcThreadSafeContextGetContext(context), path);
    LLVMOrcThreadSafeModuleRef safe = LLVMOrcCreateNewThreadSafeModule(module, context);
    LLVMOrcDisposeThreadSafeContext(context);
    must(LLVMOrcLLJITAddLLVMIRModuleWithRT(jit, tracker, safe));
}

static uint64_t live(low2g_allocator *low)
{
    struct low2g_statistics counted;
    CHECK(low2g_allocator_statistics(low, &counted, &error) == LOW2G_STATUS_OK);
    return counted.live_bytes;
}

static LLVMOrcLLJITRef with_host(low2g_allocator *low)
{
    low2g_llvm_memory *memory = low2g_llvm_memory_new(low, LOW2G_CODE_MODEL_SMALL);
    CHECK(memory != NULL);
    LLVMOrcLLJITRef jit = jit_on(memory);
    define(jit, "host_call", (uintptr_t)host_call);
    define(jit, "host_frames", (uintptr_t)host_frames);
    return jit;
}

static void scenario(low2g_allocator *low, const char *path)
{
    LLVMOrcLLJITRef jit = with_host(low);
    LLVMOrcJITDylibRef dylib = LLVMOrcLLJITGetMainJITDylib(jit);
    LLVMOrcResourceTrackerRef tracker = LLVMOrcJITDylibCreateResourceTracker(dylib);
    add_module(jit, path, tracker);
    exercise(jit, find);
    CHECK(live(low) > 0);
    /* One object's memory goes alone. */
    must(LLVMOrcResourceTrackerRemove(tracker));
    LLVMOrcReleaseResourceTracker(tracker);
    CHECK(live(low) == 0);
    tracker = LLVMOrcJITDylibCreateResourceTracker(dylib);
    add_module(jit, path, tracker);
    LLVMOrcReleaseResourceTracker(tracker);
    CHECK(find(jit, "add") < LOW_END);
    must(LLVMOrcDisposeLLJIT(jit));
    CHECK(live(low) == 0);
}

/* Whether LLVM reported low2g's reason. */
static bool reason_told;

static void report(void *context, LLVMErrorRef problem)
{
    (void)context;
    char *text = LLVMGetErrorMessage(problem);
    reason_told |= strstr(text, "allocator's limit of 8192") != NULL;
    LLVMDisposeErrorMessage(text);
}

/* An allocator that is full: ORC gets the reason as an error of its own, and nothing is lost. */
static void full(const char *path)
{
    low2g_allocator *low = low2g_allocator_new("byte-limit=8192,guards=no", &error);
    CHECK(low != NULL);
    LLVMOrcLLJITRef jit = with_host(low);
    LLVMOrcExecutionSessionSetErrorReporter(LLVMOrcLLJITGetExecutionSession(jit), report, NULL);
    LLVMOrcJITDylibRef dylib = LLVMOrcLLJITGetMainJITDylib(jit);
    add_module(jit, path, LLVMOrcJITDylibGetDefaultResourceTracker(dylib));
    LLVMOrcExecutorAddress addr = 0;
    LLVMErrorRef problem = LLVMOrcLLJITLookup(jit, &addr, "add");
    CHECK(problem != NULL && reason_told);
    LLVMConsumeError(problem);
    must(LLVMOrcDisposeLLJIT(jit));
    CHECK(live(low) == 0);
    CHECK(low2g_allocator_free(low) == LOW2G_STATUS_OK);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    CHECK(LLVMInitializeNativeTarget() == 0 && LLVMInitializeNativeAsmPrinter() == 0);
    low2g_allocator *low = low2g_allocator_new(NULL, &error);
    CHECK(low != NULL);
    scenario(low, argv[1]);
    full(argv[1]);
    CHECK(low2g_allocator_free(low) == LOW2G_STATUS_OK);
    return 0;
}
