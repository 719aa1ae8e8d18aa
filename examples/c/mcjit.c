/* MCJIT with static small code in low memory.
   cc mcjit.c $(llvm-config --cflags --ldflags --libs) $(pkg-config --cflags --libs low2g) */
#include <inttypes.h>
#include <llvm-c/Core.h>
#include <llvm-c/ExecutionEngine.h>
#include <llvm-c/Target.h>
#include <low2g.h>
#include <stdio.h>

/* int next(void) { return ++counter; } */
static LLVMModuleRef build_next(void)
{
    LLVMModuleRef module = LLVMModuleCreateWithName("example");
    LLVMTypeRef integer = LLVMInt32Type();
    LLVMValueRef counter = LLVMAddGlobal(module, integer, "counter");
    LLVMSetInitializer(counter, LLVMConstInt(integer, 41, 0));
    LLVMValueRef next = LLVMAddFunction(module, "next", LLVMFunctionType(integer, NULL, 0, 0));
    LLVMBuilderRef builder = LLVMCreateBuilder();
    LLVMPositionBuilderAtEnd(builder, LLVMAppendBasicBlock(next, ""));
    LLVMValueRef old = LLVMBuildLoad2(builder, integer, counter, "");
    LLVMValueRef new = LLVMBuildAdd(builder, old, LLVMConstInt(integer, 1, 0), "");
    LLVMBuildStore(builder, new, counter);
    LLVMBuildRet(builder, new);
    LLVMDisposeBuilder(builder);
    return module;
}

int main(void)
{
    LLVMLinkInMCJIT();
    LLVMInitializeNativeTarget();
    LLVMInitializeNativeAsmPrinter();

    char *error = NULL;
    low2g_allocator *low = low2g_allocator_new(NULL, &error);
    if (low == NULL) {
        fprintf(stderr, "%s\n", error);
        return 1;
    }
    /* What the engine compiles for, told to the memory manager: a reach that does not serve it is
       refused here. */
    low2g_llvm_memory *memory = low2g_llvm_memory_new(low, LOW2G_CODE_MODEL_SMALL);
    if (memory == NULL) {
        fprintf(stderr, "%s\n", low2g_last_error());
        return 1;
    }
    struct LLVMMCJITCompilerOptions options;
    LLVMInitializeMCJITCompilerOptions(&options, sizeof options);
    options.CodeModel = LLVMCodeModelSmall;
    options.MCJMM = LLVMCreateSimpleMCJITMemoryManager(
        memory, low2g_llvm_allocate_code_section, low2g_llvm_allocate_data_section,
        low2g_llvm_finalize_memory, low2g_llvm_destroy);
    LLVMExecutionEngineRef engine;
    if (LLVMCreateMCJITCompilerForModule(&engine, build_next(), &options, sizeof options, &error)) {
        fprintf(stderr, "%s\n", error);
        return 1;
    }
    uint64_t next = LLVMGetFunctionAddress(engine, "next");
    printf("next at %#" PRIx64 " returns %d\n", next, ((int (*)(void))next)());

    LLVMDisposeExecutionEngine(engine); /* frees the memory */
    low2g_allocator_free(low);
    return 0;
}
