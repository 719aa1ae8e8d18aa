// Part of low2g/llvm.hpp: an object layer that links with low2g.

#ifndef LOW2G_LLVM_OBJECT_LAYER_HPP
#define LOW2G_LLVM_OBJECT_LAYER_HPP

#include "orc_versions.hpp"

#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/DenseSet.h"
#include "llvm/ExecutionEngine/Orc/Core.h"
#include "llvm/ExecutionEngine/Orc/Layer.h"
#include "llvm/Object/ELFObjectFile.h"
#include "llvm/Support/DynamicLibrary.h"
#include "llvm/Support/MemoryBuffer.h"

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace low2g {
namespace llvm_jit {

// An ORC object layer whose linker is low2g, in place of RuntimeDyld or JITLink. For LLJIT:
//
//   Builder.setObjectLinkingLayerCreator([](ExecutionSession &ES, const Triple &) {
//     return low2g::llvm_jit::ObjectLayer::Create(ES);
//   });
//
// An object is linked in two steps, so that objects may need each other: its addresses are told to ORC
// at once, what it needs is looked up through ORC, and when all is there it is relocated, its frames
// are registered and its .init_array runs. It is unloaded when its resource tracker is removed, or the
// session ends: what it registered with atexit and __cxa_atexit (destructors of static objects) runs
// then, last first, and its .fini_array, as at dlclose; not yet in LLJIT::deinitialize.
//
// A thread-local variable has no one address: the one that ORC has for it is a token for
// `threadLocal`. Code that names it reaches its own thread's copy, natively, in any model and from
// any object.
class ObjectLayer : public llvm::orc::ObjectLayer,
                    private llvm::orc::ResourceManager {
public:
  // A layer with memory from `Allocator` (NULL: an allocator of its own with the default settings).
  // `Options` are those of low2g_session_new: "model=small" (static code; an allocator that does not
  // serve it is refused here), "model=small-pic", "relax=all" and so on.
  static llvm::Expected<std::unique_ptr<ObjectLayer>>
  Create(llvm::orc::ExecutionSession &ES,
         const low2g_allocator *Allocator = nullptr,
         const char *Options = nullptr) {
    // ORC names hidden symbols too: initialisers, parts of a module that it split.
    std::string All = "share-hidden=yes";
    if (Options != nullptr && *Options != 0)
      All += std::string(",") + Options;
    char *Text = nullptr;
    low2g_session *Session = low2g_session_new(Allocator, All.c_str(), &Text);
    if (Session == nullptr)
      return takeError("object layer", Text);
    return std::unique_ptr<ObjectLayer>(new ObjectLayer(ES, Session));
  }

  ~ObjectLayer() override {
    getExecutionSession().deregisterResourceManager(*this);
    low2g_session_free(Session);
  }

  using llvm::orc::ObjectLayer::add;

  void emit(std::unique_ptr<llvm::orc::MaterializationResponsibility> R,
            std::unique_ptr<llvm::MemoryBuffer> O) override {
    auto J = std::make_shared<Job>();
    J->R = std::move(R);
    if (llvm::Error Err = begin(*J, *O))
      return fail(*J, std::move(Err));
    lookUp(std::move(J));
  }

  // The calling thread's copy of the thread-local variable that ORC's lookup gave `Token` for.
  llvm::Expected<void *> threadLocal(uint64_t Token) {
    const low2g_module *Module = nullptr;
    std::string Name;
    {
      std::lock_guard<std::mutex> Lock(Mutex);
      auto It = ThreadLocals.find(Token);
      if (It != ThreadLocals.end()) {
        Module = It->second->Module;
        Name = It->second->Name;
      }
    }
    if (Module == nullptr)
      return error("no thread-local variable has this token");
    char *Text = nullptr;
    void *Copy = low2g_module_thread_local(Module, Name.c_str(), nullptr, &Text);
    if (Copy == nullptr)
      return takeError(Name.c_str(), Text);
    return Copy;
  }

private:
  using Names = std::set<std::string>;

  // A thread-local variable; its address is ORC's token for it.
  struct ThreadLocal {
    std::string Name;
    low2g_module *Module = nullptr; // NULL until it is linked.
    bool Failed = false;
  };
  using ThreadLocalRef = std::shared_ptr<ThreadLocal>;

  // An object on its way.
  struct Job {
    ~Job() { low2g_link_abandon(Link, nullptr); }

    std::unique_ptr<llvm::orc::MaterializationResponsibility> R;
    low2g_link *Link = nullptr;
    llvm::orc::SymbolMap Resolved;
    Names Weak;                      // Its own weak definitions that another one beats.
    std::map<std::string, bool> Needed; // Name, and whether it may be missing.
    Names NeededThreadLocals;
    std::vector<ThreadLocalRef> Own, Others;
    std::map<std::string, ThreadLocalRef> Used;
    llvm::orc::SymbolNameSet Late; // Have an address when linked only: ifuncs.
    llvm::orc::SymbolDependenceMap Dependencies;
  };
  using JobRef = std::shared_ptr<Job>;

  // What a resource key owns.
  struct Owned {
    low2g_module *Module;
    std::vector<ThreadLocalRef> ThreadLocals;
  };

  ObjectLayer(llvm::orc::ExecutionSession &ES, low2g_session *Session)
      : llvm::orc::ObjectLayer(ES), Session(Session) {
    ES.registerResourceManager(*this);
  }

  static llvm::Error error(const std::string &Text) {
    return llvm::make_error<llvm::StringError>("low2g: " + Text,
                                               llvm::inconvertibleErrorCode());
  }

  static uint64_t token(const ThreadLocalRef &Variable) {
    return uint64_t(reinterpret_cast<uintptr_t>(Variable.get()));
  }

  // Reads the object, gives it addresses and tells ORC of them.
  llvm::Error begin(Job &J, const llvm::MemoryBuffer &O) {
    {
      // What is added goes to the next link that begins.
      std::lock_guard<std::mutex> Lock(BeginMutex);
      std::string Name = O.getBufferIdentifier().str();
      char *Text = nullptr;
      if (low2g_session_add_memory(Session, Name.c_str(), O.getBufferStart(),
                                   O.getBufferSize(),
                                   &Text) != LOW2G_STATUS_OK ||
          low2g_session_begin(Session, &J.Link, &Text) != LOW2G_STATUS_OK)
        return takeError(Name.c_str(), Text);
    }
    std::map<std::string, uint64_t> Defined;
    char *Text = nullptr;
    if (low2g_link_symbols(J.Link, &defined, &Defined, &Text) !=
            LOW2G_STATUS_OK ||
        low2g_link_undefined(J.Link, &undefined, &J, &Text) != LOW2G_STATUS_OK)
      return takeError("symbols", Text);
    if (llvm::Error Err = readDefinitions(J, O, Defined))
      return Err;
    return J.R->notifyResolved(J.Resolved);
  }

  static void defined(void *Context, const char *Name,
                      const low2g_symbol *Symbol) {
    auto &All = *static_cast<std::map<std::string, uint64_t> *>(Context);
    All[Name] = Symbol->addr;
  }

  static void undefined(void *Context, const char *Name, bool Weak,
                        bool IsThreadLocal) {
    auto &J = *static_cast<Job *>(Context);
    // Versions are the dynamic linker's affair.
    if (std::string(Name).find('@') != std::string::npos)
      return;
    // Exit handlers are bound to the module, so that they run before its code goes.
    if (isBoundToModule(Name))
      return;
    if (IsThreadLocal)
      J.NeededThreadLocals.insert(Name);
    // Those of low2g's own, and thread-local ones of the process, need not be ORC's.
    J.Needed[Name] = Weak || IsThreadLocal || isSupplied(Name);
  }

  static bool isBoundToModule(const std::string &Name) {
    static const Names All = {"atexit",         "at_quick_exit",
                              "pthread_atfork", "__cxa_atexit",
                              "__cxa_finalize", "__cxa_thread_atexit",
                              "__dso_handle",   "__cxa_thread_atexit_impl"};
    return All.count(Name) != 0;
  }

  // What low2g has where ORC has none: in no shared library.
  static bool isSupplied(const std::string &Name) {
    static const Names All = {
        "stat",   "fstat",   "lstat",   "fstatat",        "stat64",
        "fstat64", "lstat64", "fstatat64", "mknod",        "mknodat",
        "__tls_get_addr", "_GLOBAL_OFFSET_TABLE_"};
    return All.count(Name) != 0;
  }

  // Sorts the object's definitions by what ORC wants of them.
  llvm::Error readDefinitions(Job &J, const llvm::MemoryBuffer &O,
                              const std::map<std::string, uint64_t> &Defined) {
    auto Object =
        llvm::object::ObjectFile::createELFObjectFile(O.getMemBufferRef());
    if (!Object)
      return Object.takeError();
    const llvm::orc::SymbolFlagsMap &Wanted = J.R->getSymbols();
    auto &ES = getExecutionSession();
    for (const llvm::object::SymbolRef &Symbol : (*Object)->symbols()) {
      auto Flags = Symbol.getFlags();
      if (!Flags)
        return Flags.takeError();
      if ((*Flags & llvm::object::SymbolRef::SF_Global) == 0 ||
          (*Flags & llvm::object::SymbolRef::SF_Undefined) != 0)
        continue;
      auto Name = Symbol.getName();
      if (!Name)
        return Name.takeError();
      auto Interned = ES.intern(*Name);
      auto It = Wanted.find(Interned);
      auto Found = Defined.find(Name->str());
      bool IsThreadLocal = llvm::object::ELFSymbolRef(Symbol).getELFType() ==
                           llvm::ELF::STT_TLS;
      if (It == Wanted.end()) {
        if ((*Flags & llvm::object::SymbolRef::SF_Weak) != 0 &&
            !IsThreadLocal && Found != Defined.end())
          J.Weak.insert(Name->str());
      } else if (IsThreadLocal) {
        auto Variable = std::make_shared<ThreadLocal>();
        Variable->Name = Name->str();
        J.Own.push_back(Variable);
        J.Resolved[Interned] = detail::at(token(Variable), It->second);
      } else if (Found != Defined.end()) {
        J.Resolved[Interned] = detail::at(Found->second, It->second);
      } else {
        J.Late.insert(Interned);
      }
    }
    if (const auto &Init = J.R->getInitializerSymbol()) {
      auto It = Wanted.find(Init);
      if (It != Wanted.end() && J.Resolved.count(Init) == 0)
        J.Resolved[Init] = detail::at(0, It->second);
    }
    for (const auto &KV : Wanted)
      if (J.Resolved.count(KV.first) == 0 && J.Late.count(KV.first) == 0)
        return error((*KV.first).str() + " is not defined by " +
                     O.getBufferIdentifier().str());
    std::lock_guard<std::mutex> Lock(Mutex);
    for (const ThreadLocalRef &Variable : J.Own)
      ThreadLocals[token(Variable)] = Variable;
    return llvm::Error::success();
  }

  // Asks ORC for what the object needs.
  void lookUp(JobRef J) {
    auto &ES = getExecutionSession();
    llvm::orc::SymbolLookupSet Symbols;
    using Flags = llvm::orc::SymbolLookupFlags;
    for (const auto &KV : J->Needed)
      Symbols.add(ES.intern(KV.first), KV.second
                                           ? Flags::WeaklyReferencedSymbol
                                           : Flags::RequiredSymbol);
    for (const std::string &Name : J->Weak)
      Symbols.add(ES.intern(Name), Flags::WeaklyReferencedSymbol);
    llvm::orc::JITDylibSearchOrder Order;
    J->R->getTargetJITDylib().withLinkOrderDo(
        [&](const llvm::orc::JITDylibSearchOrder &All) { Order = All; });
    Job *Raw = J.get();
    ES.lookup(
        llvm::orc::LookupKind::Static, Order, std::move(Symbols),
        llvm::orc::SymbolState::Resolved,
        [this, J](llvm::Expected<llvm::orc::SymbolMap> Found) {
          if (!Found)
            return fail(*J, Found.takeError());
          if (llvm::Error Err = define(*J, *Found))
            return fail(*J, std::move(Err));
          finishWhenReady(J);
        },
        // Before the one above.
        [Raw](const llvm::orc::SymbolDependenceMap &Dependencies) {
          detail::depend(*Raw->R, Raw->Dependencies, Dependencies,
                         detail::Preferred());
        });
  }

  // Tells low2g what ORC found.
  llvm::Error define(Job &J, const llvm::orc::SymbolMap &Found) {
    for (const auto &KV : Found) {
      std::string Name = (*KV.first).str();
      uint64_t Address = detail::addressOf(KV.second);
      if (J.NeededThreadLocals.count(Name) != 0) {
        std::lock_guard<std::mutex> Lock(Mutex);
        auto It = ThreadLocals.find(Address);
        if (It != ThreadLocals.end())
          J.Used[Name] = It->second;
        continue; // Else the process's.
      }
      // low2g knows more of the process's symbols than an address: type, size, what is constant.
      if (J.Weak.count(Name) == 0 && isOfProcess(Name, Address))
        continue;
      low2g_symbol Symbol = {};
      Symbol.addr = Address;
      Symbol.kind = KV.second.getFlags().isCallable()
                        ? LOW2G_SYMBOL_KIND_FUNCTION
                        : LOW2G_SYMBOL_KIND_UNKNOWN;
      char *Text = nullptr;
      auto Define =
          J.Weak.count(Name) != 0 ? low2g_link_replace_weak : low2g_link_define;
      if (Define(J.Link, Name.c_str(), &Symbol, &Text) != LOW2G_STATUS_OK)
        return takeError(Name.c_str(), Text);
    }
    return llvm::Error::success();
  }

  static bool isOfProcess(const std::string &Name, uint64_t Address) {
    void *Found =
        llvm::sys::DynamicLibrary::SearchForAddressOfSymbol(Name.c_str());
    return Found != nullptr &&
           uint64_t(reinterpret_cast<uintptr_t>(Found)) == Address;
  }

  // Links, unless a thread-local variable that is used stands in an object that is not linked yet.
  void finishWhenReady(JobRef J) {
    {
      std::lock_guard<std::mutex> Lock(Mutex);
      for (const auto &KV : J->Used)
        if (KV.second->Module == nullptr && !KV.second->Failed) {
          Waiting.push_back(std::move(J));
          return;
        }
    }
    if (llvm::Error Err = finish(*J))
      return fail(*J, std::move(Err));
    wake();
  }

  // Those that waited go on, as far as they can.
  void wake() {
    std::vector<JobRef> Again;
    {
      std::lock_guard<std::mutex> Lock(Mutex);
      Again.swap(Waiting);
    }
    for (JobRef &J : Again)
      finishWhenReady(std::move(J));
  }

  llvm::Error finish(Job &J) {
    char *Text = nullptr;
    for (const auto &KV : J.Used) {
      if (KV.second->Failed)
        return error("the object that defines the thread-local variable " +
                     KV.first + " did not link");
      if (low2g_link_define_thread_local(J.Link, KV.first.c_str(),
                                         KV.second->Module,
                                         &Text) != LOW2G_STATUS_OK)
        return takeError(KV.first.c_str(), Text);
    }
    low2g_module *Module = nullptr;
    auto Status = low2g_link_finish(std::exchange(J.Link, nullptr), &Module, &Text);
    if (Status != LOW2G_STATUS_OK)
      return takeError("link", Text);
    if (llvm::Error Err = resolveLate(J, Module))
      return llvm::joinErrors(std::move(Err), unload(Module));
    llvm::Error Err = J.R->withResourceKeyDo([&](llvm::orc::ResourceKey K) {
      std::lock_guard<std::mutex> Lock(Mutex);
      for (const ThreadLocalRef &Variable : J.Own)
        Variable->Module = Module;
      Modules[K].push_back(Owned{Module, J.Own});
    });
    // Its tracker was removed meanwhile.
    if (Err)
      return llvm::joinErrors(std::move(Err), unload(Module));
    return detail::notifyEmitted(*J.R, J.Dependencies, detail::Preferred());
  }

  // ifuncs have an address now.
  llvm::Error resolveLate(Job &J, const low2g_module *Module) {
    llvm::orc::SymbolMap Resolved;
    for (const auto &Name : J.Late) {
      low2g_symbol Symbol;
      char *Text = nullptr;
      if (low2g_module_symbol(Module, (*Name).str().c_str(), &Symbol, &Text) !=
          LOW2G_STATUS_OK)
        return takeError((*Name).str().c_str(), Text);
      Resolved[Name] = detail::at(Symbol.addr, J.R->getSymbols().lookup(Name));
    }
    return Resolved.empty() ? llvm::Error::success()
                            : J.R->notifyResolved(Resolved);
  }

  void fail(Job &J, llvm::Error Err) {
    // Whoever hears of the failure finds the memory free.
    low2g_link_abandon(std::exchange(J.Link, nullptr), nullptr);
    getExecutionSession().reportError(std::move(Err));
    {
      std::lock_guard<std::mutex> Lock(Mutex);
      for (const ThreadLocalRef &Variable : J.Own) {
        Variable->Failed = true;
        ThreadLocals.erase(token(Variable));
      }
    }
    J.R->failMaterialization();
    if (!J.Own.empty())
      wake();
  }

  static llvm::Error unload(low2g_module *Module) {
    char *Text = nullptr;
    if (low2g_module_unload(Module, &Text) != LOW2G_STATUS_OK)
      return takeError("unload", Text);
    return llvm::Error::success();
  }

#if LLVM_VERSION_MAJOR >= 16
  llvm::Error handleRemoveResources(llvm::orc::JITDylib &,
                                    llvm::orc::ResourceKey K) override {
    return remove(K);
  }
  void handleTransferResources(llvm::orc::JITDylib &,
                               llvm::orc::ResourceKey DstK,
                               llvm::orc::ResourceKey SrcK) override {
    transfer(DstK, SrcK);
  }
#else
  llvm::Error handleRemoveResources(llvm::orc::ResourceKey K) override {
    return remove(K);
  }
  void handleTransferResources(llvm::orc::ResourceKey DstK,
                               llvm::orc::ResourceKey SrcK) override {
    transfer(DstK, SrcK);
  }
#endif

  // The last object goes first, as a process unloads its libraries.
  llvm::Error remove(llvm::orc::ResourceKey K) {
    std::vector<Owned> Gone;
    {
      std::lock_guard<std::mutex> Lock(Mutex);
      auto It = Modules.find(K);
      if (It == Modules.end())
        return llvm::Error::success();
      Gone = std::move(It->second);
      Modules.erase(It);
      for (const Owned &One : Gone)
        for (const ThreadLocalRef &Variable : One.ThreadLocals) {
          Variable->Module = nullptr;
          Variable->Failed = true;
          ThreadLocals.erase(token(Variable));
        }
    }
    llvm::Error Err = llvm::Error::success();
    for (auto One = Gone.rbegin(); One != Gone.rend(); ++One)
      Err = llvm::joinErrors(std::move(Err), unload(One->Module));
    return Err;
  }

  void transfer(llvm::orc::ResourceKey DstK, llvm::orc::ResourceKey SrcK) {
    std::lock_guard<std::mutex> Lock(Mutex);
    auto It = Modules.find(SrcK);
    if (It == Modules.end())
      return;
    std::vector<Owned> Moved = std::move(It->second);
    Modules.erase(It);
    auto &Into = Modules[DstK];
    Into.insert(Into.end(), Moved.begin(), Moved.end());
  }

  low2g_session *Session;
  std::mutex BeginMutex;
  std::mutex Mutex; // Of all below.
  std::map<llvm::orc::ResourceKey, std::vector<Owned>> Modules;
  std::map<uint64_t, ThreadLocalRef> ThreadLocals;
  std::vector<JobRef> Waiting;
};

} // namespace llvm_jit
} // namespace low2g

#endif // LOW2G_LLVM_OBJECT_LAYER_HPP
