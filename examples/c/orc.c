/* ORC with RuntimeDyld and static small code in low memory (LLVM 16 and later).
   cc orc.c $(llvm-config --cflags --ldflags --libs) $(pkg-config --cflags --libs low2g) */
#include <inttypes.h>
#include <llvm-c/Core.h>
#include <llvm-c/LLJIT.h>
#include <llvm-c/OrcEE.h>
#include <llvm-c/Target.h>
#include <low2g.h>
#include <stdio.h>
#include <stdlib.h>

static void check(LLVMErrorRef error)
{
    if (error != NULL) {
        fprintf(stderr, "%s\n", LLVMGetErrorMessage(error));
        exit(1);
    }
}

/* An object layer whose objects lie in low memory; `memory` makes one more memory for each. */
static LLVMOrcObjectLayerRef low_layer(void *memory, LLVMOrcExecutionSessionRef session,
                                       const char *triple)
{
    (void)triple;
    return LLVMOrcCreateRTDyldObjectLinkingLayerWithMCJITMemoryManagerLikeCallbacks(
        session, memory, low2g_llvm_create_context, low2g_llvm_notify_terminating,
        low2g_llvm_allocate_code_section, low2g_llvm_allocate_data_section,
        low2g_llvm_finalize_memory, low2g_llvm_destroy);
}

/* int triple(int n) { return 3 * n; } */
static LLVMOrcThreadSafeModuleRef build_triple(void)
{
    LLVMOrcThreadSafeContextRef owner = LLVMOrcCreateNewThreadSafeContext();
    LLVMContextRef context = LLVMOrcThreadSafeContextGetContext(owner);
    LLVMModuleRef module = LLVMModuleCreateWithNameInContext("example", context);
    LLVMTypeRef integer = LLVMInt32TypeInContext(context);
    LLVMValueRef function =
        LLVMAddFunction(module, "triple", LLVMFunctionType(integer, &integer, 1, 0));
    LLVMBuilderRef builder = LLVMCreateBuilderInContext(context);
    LLVMPositionBuilderAtEnd(builder, LLVMAppendBasicBlockInContext(context, function, ""));
    LLVMValueRef three = LLVMConstInt(integer, 3, 0);
    LLVMBuildRet(builder, LLVMBuildMul(builder, LLVMGetParam(function, 0), three, ""));
    LLVMDisposeBuilder(builder);
    LLVMOrcThreadSafeModuleRef safe = LLVMOrcCreateNewThreadSafeModule(module, owner);
    LLVMOrcDisposeThreadSafeContext(owner);
    return safe;
}

int main(void)
{
    LLVMInitializeNativeTarget();
    LLVMInitializeNativeAsmPrinter();
    low2g_allocator *low = low2g_allocator_new(NULL, NULL);
    low2g_llvm_memory *memory = low2g_llvm_memory_new(low, LOW2G_CODE_MODEL_SMALL);
    if (memory == NULL) {
        fprintf(stderr, "%s\n", low2g_last_error());
        return 1;
    }
    char *triple = LLVMGetDefaultTargetTriple();
    LLVMTargetRef target;
    LLVMGetTargetFromTriple(triple, &target, NULL);
    LLVMTargetMachineRef machine =
        LLVMCreateTargetMachine(target, triple, "", "", LLVMCodeGenLevelDefault, LLVMRelocStatic,
                                LLVMCodeModelSmall);
    LLVMDisposeMessage(triple);
    LLVMOrcLLJITBuilderRef builder = LLVMOrcCreateLLJITBuilder();
    LLVMOrcLLJITBuilderSetJITTargetMachineBuilder(
        builder, LLVMOrcJITTargetMachineBuilderCreateFromTargetMachine(machine));
    LLVMOrcLLJITBuilderSetObjectLinkingLayerCreator(builder, low_layer, memory);
    LLVMOrcLLJITRef jit;
    check(LLVMOrcCreateLLJIT(&jit, builder));
    check(LLVMOrcLLJITAddLLVMIRModule(jit, LLVMOrcLLJITGetMainJITDylib(jit), build_triple()));
    LLVMOrcExecutorAddress function;
    check(LLVMOrcLLJITLookup(jit, &function, "triple"));
    printf("triple at %#" PRIx64 " returns %d\n", function, ((int (*)(int))function)(14));
    check(LLVMOrcDisposeLLJIT(jit)); /* ends the layer, its objects' memory, and `memory` */
    low2g_allocator_free(low);
    return 0;
}
