// low2g for LLVM's JITs, versions 14 to 19: header only, over low2g.h.
//
//   MCJIT, ORC with RuntimeDyld    low2g::llvm_jit::RTDyldMemoryManager   low, random section memory
//   ORC with JITLink               low2g::llvm_jit::JITLinkMemoryManager  the same
//   ORC                            low2g::llvm_jit::ObjectLayer           low2g links, in place of both:
//                                  far data, native thread-local storage
//
// All memory is writable until it is finalized and executable afterwards, never both. The code model is
// said where memory is made; an allocator whose addresses do not serve it is refused there. Nothing here
// throws; compile with or without -fno-exceptions and -fno-rtti, as LLVM itself was.

#ifndef LOW2G_LLVM_HPP
#define LOW2G_LLVM_HPP

#include "../low2g.h"

#include "llvm/Config/llvm-config.h"

#if LLVM_VERSION_MAJOR < 14 || LLVM_VERSION_MAJOR > 19
#warning "low2g/llvm.hpp is tested with LLVM 14, 15, 16 and 19"
#endif

#include "llvm/Support/Error.h"

#include <cstdlib>
#include <string>

namespace low2g {
namespace llvm_jit {

// The text of a call's `char **error`, freed. `What` says what was tried.
inline llvm::Error takeError(const char *What, char *Text) {
  std::string Message = std::string("low2g: ") + What + ": " +
                        (Text != nullptr ? Text : low2g_last_error());
  std::free(Text);
  return llvm::make_error<llvm::StringError>(std::move(Message),
                                             llvm::inconvertibleErrorCode());
}

} // namespace llvm_jit
} // namespace low2g

#include "llvm_jit/jitlink_memory.hpp"
#include "llvm_jit/object_layer.hpp"
#include "llvm_jit/rtdyld_memory.hpp"

#endif // LOW2G_LLVM_HPP
