// LLJIT with low2g, for the programs beside this.

#ifndef LLJIT_SUPPORT_HPP
#define LLJIT_SUPPORT_HPP

#include "low2g/llvm.hpp"

#include "llvm/ExecutionEngine/JITLink/EHFrameSupport.h"
#include "llvm/ExecutionEngine/Orc/ExecutionUtils.h"
#include "llvm/ExecutionEngine/Orc/LLJIT.h"
#include "llvm/ExecutionEngine/Orc/ObjectLinkingLayer.h"
#include "llvm/ExecutionEngine/Orc/RTDyldObjectLinkingLayer.h"
#include "llvm/IRReader/IRReader.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/SourceMgr.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Support/raw_ostream.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <thread>

using namespace llvm;
using namespace llvm::orc;

#define CHECK(what)                                                            \
  do {                                                                         \
    if (!(what)) {                                                             \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);          \
      std::exit(1);                                                            \
    }                                                                          \
  } while (0)

static low2g_allocator *Allocator;
static low2g::llvm_jit::ObjectLayer *Layer;
static ExitOnError Exit("lljit: ");

inline Expected<std::unique_ptr<orc::ObjectLayer>>
makeLayer(const std::string &Kind, ExecutionSession &ES) {
  if (Kind == "layer") {
    auto Made = low2g::llvm_jit::ObjectLayer::Create(ES, Allocator);
    if (!Made)
      return Made.takeError();
    Layer = Made->get();
    return std::move(*Made);
  }
  if (Kind == "jitlink") {
    auto Memory = low2g::llvm_jit::JITLinkMemoryManager::Create(
        Allocator, LOW2G_CODE_MODEL_SMALL_PIC);
    if (!Memory)
      return Memory.takeError();
    auto Made = std::make_unique<ObjectLinkingLayer>(ES, std::move(*Memory));
    Made->addPlugin(std::make_unique<EHFrameRegistrationPlugin>(
        ES, std::make_unique<jitlink::InProcessEHFrameRegistrar>()));
    return Made;
  }
  auto Spread = Kind == "rtdyld-objects"
                    ? low2g::llvm_jit::RTDyldMemoryManager::Spread::Objects
                    : low2g::llvm_jit::RTDyldMemoryManager::Spread::Sections;
  auto Made = std::make_unique<RTDyldObjectLinkingLayer>(ES, [Spread] {
    return Exit(low2g::llvm_jit::RTDyldMemoryManager::Create(
        Allocator, LOW2G_CODE_MODEL_SMALL, Spread));
  });
  // For DW.ref.__gxx_personality_v0, which every object has and the IR has not.
  if (Kind == "rtdyld-pic")
    Made->setAutoClaimResponsibilityForObjectSymbols(true);
  return Made;
}

inline bool isRuntimeDyld(const std::string &Kind) {
  return Kind.compare(0, 6, "rtdyld") == 0;
}

static std::string Reported;

inline std::unique_ptr<LLJIT> makeJit(const std::string &Kind, bool Emulated = true,
                                      unsigned Threads = 2) {
  // A compiler for each thread that asks.
  if (isRuntimeDyld(Kind))
    Threads = 0;
  auto Machine = Exit(JITTargetMachineBuilder::detectHost());
  bool IsPic = Kind == "jitlink" || Kind == "rtdyld-pic";
  Machine.setRelocationModel(IsPic ? Reloc::PIC_ : Reloc::Static);
  Machine.setCodeModel(CodeModel::Small);
  // LLVM's default for JITs; low2g has the real thing.
  Machine.getOptions().EmulatedTLS = Emulated && Kind != "layer";
  auto J = Exit(LLJITBuilder()
                    .setNumCompileThreads(Threads)
                    .setJITTargetMachineBuilder(std::move(Machine))
                    .setObjectLinkingLayerCreator(
                        [Kind](ExecutionSession &ES, const Triple &) {
                          return makeLayer(Kind, ES);
                        })
                    .create());
  J->getExecutionSession().setErrorReporter([](Error Err) {
    Reported += toString(std::move(Err)) + "\n";
  });
#if LLVM_VERSION_MAJOR < 17
  // Later ones do so by themselves, behind their own __cxa_atexit.
  J->getMainJITDylib().addGenerator(
      Exit(DynamicLibrarySearchGenerator::GetForCurrentProcess(
          J->getDataLayout().getGlobalPrefix())));
#endif
  return J;
}

inline void add(LLJIT &J, ResourceTrackerSP Tracker, const char *Path) {
  auto Buffer = MemoryBuffer::getFile(Path);
  CHECK(Buffer);
  if ((*Buffer)->getBuffer().substr(1, 3) == "ELF")
    return Exit(J.addObjectFile(Tracker, std::move(*Buffer)));
  auto Context = std::make_unique<LLVMContext>();
  SMDiagnostic Diagnostic;
  auto Module = parseIR((*Buffer)->getMemBufferRef(), Diagnostic, *Context);
  CHECK(Module);
  Exit(J.addIRModule(Tracker,
                     ThreadSafeModule(std::move(Module), std::move(Context))));
}

template <typename T> inline auto valueOf(const T &Symbol) -> decltype(Symbol.getAddress()) {
  return Symbol.getAddress();
}
template <typename T> inline auto valueOf(const T &Address) -> decltype(Address.getValue()) {
  return Address.getValue();
}

inline uint64_t find(LLJIT &J, const char *Name) {
  return valueOf(Exit(J.lookup(Name)));
}

template <typename F> inline F *function(LLJIT &J, const char *Name) {
  uint64_t Address = find(J, Name);
  CHECK(Address < (uint64_t(1) << 31));
  return reinterpret_cast<F *>(uintptr_t(Address));
}

#endif // LLJIT_SUPPORT_HPP
