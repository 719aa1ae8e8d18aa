// Part of low2g/llvm.hpp: section memory for RuntimeDyld.

#ifndef LOW2G_LLVM_RTDYLD_MEMORY_HPP
#define LOW2G_LLVM_RTDYLD_MEMORY_HPP

#include "llvm/ADT/StringRef.h"
#include "llvm/ExecutionEngine/RTDyldMemoryManager.h"
#include "llvm/Support/Alignment.h"
#include "llvm/Support/ErrorHandling.h"

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace low2g {
namespace llvm_jit {

// Low memory at random addresses for MCJIT (`EngineBuilder::setMCJITMemoryManager`) and for
// `RTDyldObjectLinkingLayer`. It unmaps what it gave when it is destroyed; frames are registered with
// the unwinder by its base class, as for LLVM's own managers.
class RTDyldMemoryManager : public llvm::RTDyldMemoryManager {
public:
  // How sections are spread: each by itself, or all of an object that are of one kind together, which
  // takes fewer pages and gives an attacker who knows one of them the others.
  enum class Spread { Sections, Objects };

  // Memory from `Allocator` for code of `Model`. The allocator's handle may be freed meanwhile.
  static llvm::Expected<std::unique_ptr<RTDyldMemoryManager>>
  Create(const low2g_allocator *Allocator, low2g_code_model Model,
         Spread Spread = Spread::Sections) {
    low2g_llvm_memory *Memory = low2g_llvm_memory_new(Allocator, Model);
    if (Memory == nullptr)
      return takeError("memory for RuntimeDyld", nullptr);
    return std::unique_ptr<RTDyldMemoryManager>(
        new RTDyldMemoryManager(Memory, Spread));
  }

  RTDyldMemoryManager(const RTDyldMemoryManager &) = delete;
  RTDyldMemoryManager &operator=(const RTDyldMemoryManager &) = delete;

  ~RTDyldMemoryManager() override { low2g_llvm_destroy(Memory); }

  uint8_t *allocateCodeSection(uintptr_t Size, unsigned Alignment,
                               unsigned SectionID,
                               llvm::StringRef SectionName) override {
    if (uint8_t *Taken = Code.take(Size, Alignment))
      return Taken;
    return orRefuse(low2g_llvm_allocate_code_section(Memory, Size, Alignment,
                                                     SectionID,
                                                     SectionName.str().c_str()),
                    Size, Alignment);
  }

  uint8_t *allocateDataSection(uintptr_t Size, unsigned Alignment,
                               unsigned SectionID, llvm::StringRef SectionName,
                               bool IsReadOnly) override {
    if (uint8_t *Taken =
            (IsReadOnly ? ReadOnly : ReadWrite).take(Size, Alignment))
      return Taken;
    return orRefuse(low2g_llvm_allocate_data_section(
                        Memory, Size, Alignment, SectionID,
                        SectionName.str().c_str(), IsReadOnly),
                    Size, Alignment);
  }

  // Refused when memory is finalized: RuntimeDyld asks for one offset in all threads before it has the
  // initial values, so the threads that exist could not be given theirs.
  TLSSection allocateTLSSection(uintptr_t Size, unsigned Alignment, unsigned,
                                llvm::StringRef SectionName) override {
    TLSSection Section;
    Section.InitializationImage =
        refuse(Size, Alignment,
               "section " + SectionName.str() + " of " + std::to_string(Size) +
                   " bytes is thread-local: RuntimeDyld would initialise it for "
                   "one thread only; use low2g::llvm_jit::ObjectLayer, or "
                   "emulated TLS");
    Section.Offset = 0;
    return Section;
  }

  bool needsToReserveAllocationSpace() override {
    return How == Spread::Objects;
  }

#if LLVM_VERSION_MAJOR >= 16
  void reserveAllocationSpace(uintptr_t CodeSize, llvm::Align CodeAlign,
                              uintptr_t RODataSize, llvm::Align RODataAlign,
                              uintptr_t RWDataSize,
                              llvm::Align RWDataAlign) override {
    reserve(CodeSize, CodeAlign.value(), RODataSize, RODataAlign.value(),
            RWDataSize, RWDataAlign.value());
  }
#else
  void reserveAllocationSpace(uintptr_t CodeSize, uint32_t CodeAlign,
                              uintptr_t RODataSize, uint32_t RODataAlign,
                              uintptr_t RWDataSize,
                              uint32_t RWDataAlign) override {
    reserve(CodeSize, CodeAlign, RODataSize, RODataAlign, RWDataSize,
            RWDataAlign);
  }
#endif

  // Whether it failed, as LLVM has it. Pages that are final stay so: an object that is loaded later
  // gets others. MCJIT asks without `ErrMsg` and goes on whatever the answer: it is stopped here.
  bool finalizeMemory(std::string *ErrMsg = nullptr) override {
    Code = ReadOnly = ReadWrite = Slab();
    char *Text = nullptr;
    bool Failed = low2g_llvm_finalize_memory(Memory, &Text) != 0;
    std::string Why = std::exchange(Refused, std::string());
    if (Why.empty() && Failed)
      Why = Text != nullptr ? Text : "memory cannot be finalized";
    std::free(Text);
    if (Why.empty())
      return false;
    Why = "low2g: " + Why;
    if (ErrMsg == nullptr)
      llvm::report_fatal_error(llvm::StringRef(Why));
    *ErrMsg = std::move(Why);
    return true;
  }

  // How the address of the section around `Address` was chosen.
  llvm::Expected<low2g_certificate> certificate(const void *Address) const {
    low2g_certificate Out;
    char *Text = nullptr;
    if (low2g_llvm_certificate(Memory, Address, &Out, &Text) != LOW2G_STATUS_OK)
      return takeError("certificate", Text);
    return Out;
  }

private:
  struct Free {
    void operator()(uint8_t *Start) const { std::free(Start); }
  };
  using Unused = std::unique_ptr<uint8_t, Free>;

  // One section for several of LLVM's.
  struct Slab {
    uintptr_t Next = 0;
    uintptr_t End = 0;

    uint8_t *take(uintptr_t Size, unsigned Alignment) {
      uintptr_t Align = Alignment == 0 ? 1 : Alignment;
      if ((Align & (Align - 1)) != 0 || Next == 0)
        return nullptr;
      uintptr_t Start = (Next + Align - 1) & ~(Align - 1);
      if (Start < Next || Start > End || Size > End - Start)
        return nullptr;
      Next = Start + Size;
      return reinterpret_cast<uint8_t *>(Start);
    }
  };

  RTDyldMemoryManager(low2g_llvm_memory *Memory, Spread How)
      : Memory(Memory), How(How) {}

  uint8_t *orRefuse(uint8_t *Start, uintptr_t Size, unsigned Alignment) {
    return Start != nullptr ? Start
                            : refuse(Size, Alignment, low2g_last_error());
  }

  // Memory that is never run, so that RuntimeDyld goes on to where it can be told of a failure: here
  // it would end the process. NULL, which does that, if there is not even so much.
  uint8_t *refuse(uintptr_t Size, unsigned Alignment, std::string Why) {
    uintptr_t Align = Alignment == 0 ? 1 : Alignment;
    if (Refused.empty())
      Refused = std::move(Why);
    if ((Align & (Align - 1)) != 0 || Size > UINTPTR_MAX / 4 ||
        Align > UINTPTR_MAX / 4)
      return nullptr;
    // Fresh pages, of which only those take memory that RuntimeDyld writes.
    Unused Bytes(static_cast<uint8_t *>(std::calloc(Size + Align, 1)));
    if (Bytes == nullptr)
      return nullptr;
    auto Start = reinterpret_cast<uintptr_t>(Bytes.get());
    NeverRun.push_back(std::move(Bytes));
    return reinterpret_cast<uint8_t *>((Start + Align - 1) & ~(Align - 1));
  }

  static Slab slab(uint8_t *Start, uintptr_t Size) {
    Slab S;
    if (Start != nullptr) {
      S.Next = reinterpret_cast<uintptr_t>(Start);
      S.End = S.Next + Size;
    }
    return S;
  }

  void reserve(uintptr_t CodeSize, uint64_t CodeAlign, uintptr_t ROSize,
               uint64_t ROAlign, uintptr_t RWSize, uint64_t RWAlign) {
    Code = ReadOnly = ReadWrite = Slab();
    if (CodeSize != 0)
      Code = slab(low2g_llvm_allocate_code_section(
                      Memory, CodeSize, unsigned(CodeAlign), 0, "code"),
                  CodeSize);
    if (ROSize != 0)
      ReadOnly = slab(low2g_llvm_allocate_data_section(
                          Memory, ROSize, unsigned(ROAlign), 0, "constants", 1),
                      ROSize);
    if (RWSize != 0)
      ReadWrite = slab(low2g_llvm_allocate_data_section(
                           Memory, RWSize, unsigned(RWAlign), 0, "data", 0),
                       RWSize);
  }

  low2g_llvm_memory *Memory;
  Spread How;
  Slab Code, ReadOnly, ReadWrite;
  std::string Refused; // Why, if something was.
  std::vector<Unused> NeverRun;
};

} // namespace llvm_jit
} // namespace low2g

#endif // LOW2G_LLVM_RTDYLD_MEMORY_HPP
