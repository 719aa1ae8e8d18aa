// Part of low2g/llvm.hpp: memory for JITLink.

#ifndef LOW2G_LLVM_JITLINK_MEMORY_HPP
#define LOW2G_LLVM_JITLINK_MEMORY_HPP

#include "llvm/ExecutionEngine/JITLink/JITLink.h"
#include "llvm/ExecutionEngine/JITLink/JITLinkMemoryManager.h"
#include "llvm/ExecutionEngine/Orc/Shared/AllocationActions.h"

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

namespace low2g {
namespace llvm_jit {

// Low memory at random addresses for `ObjectLinkingLayer`. Each segment of a graph is placed by
// itself. Several threads may use it.
class JITLinkMemoryManager : public llvm::jitlink::JITLinkMemoryManager {
public:
  // Memory from `Allocator`, which outlives this, for code of `Model`. LLVM's default for a JIT is
  // LOW2G_CODE_MODEL_SMALL_PIC.
  static llvm::Expected<std::unique_ptr<JITLinkMemoryManager>>
  Create(const low2g_allocator *Allocator, low2g_code_model Model) {
    // The check of reach and model, once.
    low2g_llvm_memory *Memory = low2g_llvm_memory_new(Allocator, Model);
    if (Memory == nullptr)
      return takeError("memory for JITLink", nullptr);
    low2g_llvm_destroy(Memory);
    return std::unique_ptr<JITLinkMemoryManager>(
        new JITLinkMemoryManager(Allocator, Model));
  }

  using llvm::jitlink::JITLinkMemoryManager::allocate;
  using llvm::jitlink::JITLinkMemoryManager::deallocate;

  void allocate(const llvm::jitlink::JITLinkDylib *,
                llvm::jitlink::LinkGraph &G,
                OnAllocatedFunction OnAllocated) override {
    llvm::jitlink::BasicLayout Layout(G);
    Region Standard, Finalize;
    for (auto &KV : Layout.segments()) {
      auto &Group = KV.first;
      auto &Segment = KV.second;
      Region &Into = isForFinalizeOnly(Group, Newest()) ? Finalize : Standard;
      if (llvm::Error Err = place(Into, Group.getMemProt(), Segment))
        return OnAllocated(std::move(Err));
    }
    if (llvm::Error Err = Layout.apply())
      return OnAllocated(std::move(Err));
    OnAllocated(std::make_unique<InFlight>(G, std::move(Standard),
                                           std::move(Finalize)));
  }

  void deallocate(std::vector<FinalizedAlloc> Allocs,
                  OnDeallocatedFunction OnDeallocated) override {
    llvm::Error Err = llvm::Error::success();
    for (auto &Alloc : Allocs) {
      std::unique_ptr<Finalized> Done(
          Alloc.release().template toPtr<Finalized *>());
      Err = llvm::joinErrors(
          std::move(Err),
          llvm::orc::shared::runDeallocActions(Done->DeallocActions));
    }
    OnDeallocated(std::move(Err));
  }

private:
  // What is finalized and freed at once.
  class Region {
  public:
    Region() = default;
    Region(Region &&Other) : Memory(std::exchange(Other.Memory, nullptr)) {}
    Region &operator=(Region &&Other) {
      std::swap(Memory, Other.Memory);
      return *this;
    }
    ~Region() { low2g_llvm_destroy(Memory); }

    // The region's memory, made when first asked for.
    low2g_llvm_memory *get(const low2g_allocator *Allocator,
                           low2g_code_model Model) {
      if (Memory == nullptr)
        Memory = low2g_llvm_memory_new(Allocator, Model);
      return Memory;
    }

    llvm::Error finalize() {
      char *Text = nullptr;
      if (Memory == nullptr || low2g_llvm_finalize_memory(Memory, &Text) == 0)
        return llvm::Error::success();
      return takeError("finalize", Text);
    }

  private:
    low2g_llvm_memory *Memory = nullptr;
  };

  struct Finalized {
    Region Memory;
    std::vector<llvm::orc::shared::WrapperFunctionCall> DeallocActions;
  };

  class InFlight : public InFlightAlloc {
  public:
    InFlight(llvm::jitlink::LinkGraph &G, Region Standard, Region Finalize)
        : G(G), Standard(std::move(Standard)), Finalize(std::move(Finalize)) {}

    void abandon(OnAbandonedFunction OnAbandoned) override {
      Standard = Region();
      Finalize = Region();
      OnAbandoned(llvm::Error::success());
    }

    void finalize(OnFinalizedFunction OnFinalized) override {
      if (llvm::Error Err = Standard.finalize())
        return OnFinalized(std::move(Err));
      if (llvm::Error Err = Finalize.finalize())
        return OnFinalized(std::move(Err));
      auto Actions = llvm::orc::shared::runFinalizeActions(G.allocActions());
      if (!Actions)
        return OnFinalized(Actions.takeError());
      Finalize = Region();
      auto Done = std::make_unique<Finalized>();
      Done->Memory = std::move(Standard);
      Done->DeallocActions = std::move(*Actions);
      OnFinalized(FinalizedAlloc(
          llvm::orc::ExecutorAddr::fromPtr(Done.release())));
    }

  private:
    llvm::jitlink::LinkGraph &G;
    Region Standard, Finalize;
  };

  // The name of a group's lifetime changed from version to version: the newest that there is.
  struct Oldest {};
  struct Newer : Oldest {};
  struct Newest : Newer {};

  template <typename T>
  static auto isForFinalizeOnly(const T &Group, Newest)
      -> decltype(Group.getMemLifetime(), bool()) {
    return Group.getMemLifetime() == decltype(Group.getMemLifetime())::Finalize;
  }
  template <typename T>
  static auto isForFinalizeOnly(const T &Group, Newer)
      -> decltype(Group.getMemLifetimePolicy(), bool()) {
    return Group.getMemLifetimePolicy() ==
           decltype(Group.getMemLifetimePolicy())::Finalize;
  }
  template <typename T>
  static auto isForFinalizeOnly(const T &Group, Oldest)
      -> decltype(Group.getMemDeallocPolicy(), bool()) {
    return Group.getMemDeallocPolicy() ==
           decltype(Group.getMemDeallocPolicy())::Finalize;
  }

  JITLinkMemoryManager(const low2g_allocator *Allocator, low2g_code_model Model)
      : Allocator(Allocator), Model(Model) {}

  template <typename Prot>
  llvm::Error place(Region &Into, Prot P,
                    llvm::jitlink::BasicLayout::Segment &Segment) {
    bool Executes = (unsigned(P) & unsigned(Prot::Exec)) != 0;
    bool Writes = (unsigned(P) & unsigned(Prot::Write)) != 0;
    if (Executes && Writes)
      return llvm::make_error<llvm::StringError>(
          "low2g: a segment is writable and executable, which no memory is "
          "here: compile data and code to sections of their own",
          llvm::inconvertibleErrorCode());
    low2g_llvm_memory *Memory = Into.get(Allocator, Model);
    if (Memory == nullptr)
      return takeError("memory for a graph", nullptr);
    uint64_t Size = Segment.ContentSize + Segment.ZeroFillSize;
    unsigned Align = unsigned(Segment.Alignment.value());
    uint8_t *At =
        Executes ? low2g_llvm_allocate_code_section(Memory, Size, Align, 0,
                                                    "segment")
                 : low2g_llvm_allocate_data_section(Memory, Size, Align, 0,
                                                    "segment", !Writes);
    if (At == nullptr) {
      char *Text = nullptr;
      low2g_llvm_finalize_memory(Memory, &Text);
      return takeError("segment", Text);
    }
    std::memset(At + Segment.ContentSize, 0, Segment.ZeroFillSize);
    Segment.WorkingMem = reinterpret_cast<char *>(At);
    Segment.Addr = llvm::orc::ExecutorAddr::fromPtr(At);
    return llvm::Error::success();
  }

  const low2g_allocator *Allocator;
  low2g_code_model Model;
};

} // namespace llvm_jit
} // namespace low2g

#endif // LOW2G_LLVM_JITLINK_MEMORY_HPP
