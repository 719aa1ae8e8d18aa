// Part of low2g/llvm.hpp: what differs between the ORCs of LLVM 14 to 19.

#ifndef LOW2G_LLVM_ORC_VERSIONS_HPP
#define LOW2G_LLVM_ORC_VERSIONS_HPP

#include "llvm/Config/llvm-config.h"
#include "llvm/ExecutionEngine/Orc/Core.h"

#include <cstdint>
#include <utility>

#if LLVM_VERSION_MAJOR > 17
namespace llvm {
namespace orc {
struct SymbolDependenceGroup;
}
} // namespace llvm
#endif

namespace low2g {
namespace llvm_jit {
namespace detail {

#if LLVM_VERSION_MAJOR >= 17
inline llvm::orc::ExecutorSymbolDef at(uint64_t Address,
                                       llvm::JITSymbolFlags Flags) {
  return {llvm::orc::ExecutorAddr(Address), Flags};
}
inline uint64_t addressOf(const llvm::orc::ExecutorSymbolDef &Symbol) {
  return Symbol.getAddress().getValue();
}
#else
inline llvm::JITEvaluatedSymbol at(uint64_t Address,
                                   llvm::JITSymbolFlags Flags) {
  return {Address, Flags};
}
inline uint64_t addressOf(const llvm::JITEvaluatedSymbol &Symbol) {
  return Symbol.getAddress();
}
#endif

// Dependences went from the responsibility's methods to an argument of notifyEmitted in LLVM 18 or 19.
struct Former {};
struct Preferred : Former {};

template <typename MR>
auto depend(MR &R, llvm::orc::SymbolDependenceMap &,
            const llvm::orc::SymbolDependenceMap &Dependencies, Preferred)
    -> decltype(R.addDependenciesForAll(Dependencies)) {
  R.addDependenciesForAll(Dependencies);
}
template <typename MR>
void depend(MR &, llvm::orc::SymbolDependenceMap &Noted,
            const llvm::orc::SymbolDependenceMap &Dependencies, Former) {
  Noted = Dependencies;
}

template <typename MR>
auto notifyEmitted(MR &R, llvm::orc::SymbolDependenceMap &, Preferred)
    -> decltype(R.notifyEmitted()) {
  return R.notifyEmitted();
}
#if LLVM_VERSION_MAJOR > 17
template <typename MR, typename Group = llvm::orc::SymbolDependenceGroup>
llvm::Error notifyEmitted(MR &R, llvm::orc::SymbolDependenceMap &Noted, Former) {
  Group All;
  for (const auto &KV : R.getSymbols())
    All.Symbols.insert(KV.first);
  All.Dependencies = std::move(Noted);
  if (All.Dependencies.empty())
    return R.notifyEmitted({});
  return R.notifyEmitted(llvm::ArrayRef<Group>(All));
}
#endif

} // namespace detail
} // namespace llvm_jit
} // namespace low2g

#endif // LOW2G_LLVM_ORC_VERSIONS_HPP
