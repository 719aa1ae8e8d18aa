// ORC's LLJIT with low2g's own linker: far data and native thread-local storage in static small code.
// c++ orc_layer.cpp $(llvm-config --cxxflags --ldflags --libs) $(pkg-config --cflags --libs low2g)
#include <low2g/llvm.hpp>

#include <llvm/AsmParser/Parser.h>
#include <llvm/ExecutionEngine/Orc/LLJIT.h>
#include <llvm/Support/SourceMgr.h>
#include <llvm/Support/TargetSelect.h>
#include <llvm/Support/raw_ostream.h>

#include <cstdint>
#include <cstdio>

using namespace llvm;
using namespace llvm::orc;

// What clang -fno-pic makes of: extern FILE *stdout; thread_local int calls;
// int greet(void) { fputs("hello from low memory\n", stdout); return ++calls; }
static const char Source[] = R"(
@stdout = external global ptr
@calls = thread_local global i32 0
@text = private constant [23 x i8] c"hello from low memory\0A\00"
declare i32 @fputs(ptr, ptr)
define i32 @greet() {
  %out = load ptr, ptr @stdout
  %written = call i32 @fputs(ptr @text, ptr %out)
  %before = load i32, ptr @calls
  %after = add i32 %before, 1
  store i32 %after, ptr @calls
  ret i32 %after
}
)";

int main() {
  ExitOnError Exit("orc_layer: ");
  InitializeNativeTarget();
  InitializeNativeTargetAsmPrinter();
  auto Machine = Exit(JITTargetMachineBuilder::detectHost());
  Machine.setRelocationModel(Reloc::Static).setCodeModel(CodeModel::Small);
  Machine.getOptions().EmulatedTLS = false; // LLVM's default for JITs; low2g has the real thing.
  auto J = Exit(
      LLJITBuilder()
          .setJITTargetMachineBuilder(std::move(Machine))
          .setObjectLinkingLayerCreator([](ExecutionSession &ES, auto &&...) {
            return low2g::llvm_jit::ObjectLayer::Create(ES); // The one line.
          })
          .create());
  J->getMainJITDylib().addGenerator(
      Exit(DynamicLibrarySearchGenerator::GetForCurrentProcess(
          J->getDataLayout().getGlobalPrefix())));

  SMDiagnostic Wrong;
  auto Context = std::make_unique<LLVMContext>();
#if LLVM_VERSION_MAJOR < 15
  Context->enableOpaquePointers();
#endif
  auto Made = parseAssemblyString(Source, Wrong, *Context);
  if (!Made) {
    Wrong.print("orc_layer", errs());
    return 1;
  }
  Exit(J->addIRModule(ThreadSafeModule(std::move(Made), std::move(Context))));
  auto Found = Exit(J->lookup("greet"));
#if LLVM_VERSION_MAJOR < 15
  uint64_t Address = Found.getAddress();
#else
  uint64_t Address = Found.getValue();
#endif
  auto *Greet = reinterpret_cast<int (*)()>(uintptr_t(Address));
  Greet();
  std::printf("greet at %#llx returns %d\n", (unsigned long long)Address, Greet());
  return Address < (uint64_t(1) << 31) ? 0 : 1;
}
