// LLJIT with low2g: `lljit KIND CYCLE CXX OTHER MISSING [FAR TLS TLS_OTHER]`, bitcode or objects of the
// sources beside this. KIND is jitlink, rtdyld, rtdyld-objects or rtdyld-pic: low2g's memory under LLVM's linkers;
// or layer: low2g's own linker, for which the last three are. Prints the addresses of what it loaded.

#include "support.hpp"

extern "C" char **environ;

static std::atomic<int> Notes[3];
extern "C" void note(int What) { Notes[What]++; }

// What /proc/self/maps says of `Address`: its access, empty if nothing is there. No line may be
// writable and executable.
static std::string accessOf(uint64_t Address) {
  std::FILE *Maps = std::fopen("/proc/self/maps", "r");
  CHECK(Maps != nullptr);
  char Line[512];
  std::string Found;
  while (std::fgets(Line, sizeof Line, Maps) != nullptr) {
    unsigned long Start, End;
    char Access[8];
    CHECK(std::sscanf(Line, "%lx-%lx %4s", &Start, &End, Access) == 3);
    CHECK(!(Access[1] == 'w' && Access[2] == 'x'));
    if (Start <= Address && Address < End)
      Found = Access;
  }
  std::fclose(Maps);
  return Found;
}

static void throwsLogicError() { throw std::logic_error("the host's"); }

static void farData(LLJIT &J) {
  auto *Far = function<int(void *, void *, char **)>(J, "far_is_the_process_s");
  CHECK(Far(stdout, reinterpret_cast<void *>(&puts), environ));
}

static void cycle(LLJIT &J) {
  CHECK(function<int()>(J, "sum")() == 10);
  // A cycle of two objects.
  CHECK(function<int(int)>(J, "step")(1) == 156);
  CHECK(accessOf(find(J, "step")).substr(0, 3) == "r-x");
  CHECK(accessOf(find(J, "table")).substr(0, 3) == "rw-");
}

static void exceptions(LLJIT &J) {
  CHECK(function<int(int)>(J, "catches")(3) == 3);
  CHECK(function<int(int)>(J, "catches")(4) == 13);
  CHECK(function<int(void (*)())>(J, "catches_the_host_s")(throwsLogicError));
  CHECK(function<int(int)>(J, "catches_the_other_s")(5) == 5);
  int Caught = 0;
  try {
    function<void(int)>(J, "throws")(6);
  } catch (int Thrown) {
    Caught = Thrown;
  }
  CHECK(Caught == 6);
}

static void inlineFunctions(LLJIT &J) {
  int *Cxx = function<int *()>(J, "counter_of_cxx")();
  int *Other = function<int *()>(J, "counter_of_other")();
  CHECK(Cxx == Other && *Cxx == 40);
}

// `Early` was started before anything was loaded.
static void threadLocals(LLJIT &J, std::atomic<int (*)()> &Go, std::thread &Early) {
  auto *Next = function<int()>(J, "next");
  auto *Own = function<int *()>(J, "address_of_own");
  auto *Outside = function<int *()>(J, "own_from_outside");
  CHECK(Next() == 7 && Next() == 9 && Own() == Outside() && *Own() == 9);
  auto *Noted = function<int()>(J, "use_noted");
  std::thread Later([=] {
    CHECK(Next() == 7 && Own() == Outside());
    CHECK(Noted() == 3 && Notes[0] == 0);
  });
  Later.join();
  CHECK(Notes[0] == 1);
  Go = Next;
  Early.join();
  uint64_t Token = find(J, "own");
  CHECK(Exit(Layer->threadLocal(Token)) == Own());
  auto None = Layer->threadLocal(1);
  CHECK(!None);
  consumeError(None.takeError());
}

static void errors(LLJIT &J, const char *Missing, const char *Twice) {
  add(J, J.getMainJITDylib().getDefaultResourceTracker(), Missing);
  auto Needs = J.lookup("needs");
  CHECK(!Needs);
  std::string Text = toString(Needs.takeError());
  CHECK(Text.find("needs") != std::string::npos || Text.find("nowhere") != std::string::npos);
  auto Buffer = MemoryBuffer::getFile(Twice);
  CHECK(Buffer);
  if ((*Buffer)->getBuffer().substr(1, 3) != "ELF")
    return;
  Text = toString(J.addObjectFile(std::move(*Buffer)));
  CHECK(Text.find("uplicate") != std::string::npos);
}

static void badObject(LLJIT &J) {
  // A header and nothing behind it.
  std::string Cut("\177ELF\2\1\1\0\0\0\0\0\0\0\0\0\1\0\76\0", 20);
  auto Error = J.addObjectFile(MemoryBuffer::getMemBufferCopy(Cut, "cut.o"));
  CHECK(bool(Error));
  consumeError(std::move(Error));
}

// What RuntimeDyld's memory cannot have is an error of the lookup, and the next object is served.
static void refusals(const std::string &Kind, const char *Cycle, const char *Cxx,
                     const char *ThreadLocal) {
  char *Text = nullptr;
  low2g_allocator *Usual = Allocator;
  Allocator = low2g_allocator_new("byte-limit=65536", &Text);
  CHECK(Allocator != nullptr);
  auto J = makeJit(Kind, false);
  auto Ask = [&](std::unique_ptr<Module> Made, std::unique_ptr<LLVMContext> Context,
                 const char *Name) {
    auto Tracker = J->getMainJITDylib().createResourceTracker();
    Exit(J->addIRModule(Tracker, ThreadSafeModule(std::move(Made), std::move(Context))));
    auto Found = J->lookup(Name);
    std::string Said = Found ? "" : toString(Found.takeError());
    Exit(Tracker->remove());
    return Said;
  };
  auto Context = std::make_unique<LLVMContext>();
  auto Large = std::make_unique<Module>("large", *Context);
  Large->setDataLayout(J->getDataLayout());
  auto *Type = ArrayType::get(Type::getInt8Ty(*Context), 1 << 20);
  new GlobalVariable(*Large, Type, false, GlobalValue::ExternalLinkage,
                     ConstantAggregateZero::get(Type), "large");
  CHECK(!Ask(std::move(Large), std::move(Context), "large").empty());
  CHECK(Reported.find("byte") != std::string::npos);
  Reported.clear();
  SMDiagnostic Diagnostic;
  Context = std::make_unique<LLVMContext>();
  auto Threads = parseIRFile(ThreadLocal, Diagnostic, *Context);
  CHECK(Threads);
  CHECK(!Ask(std::move(Threads), std::move(Context), "address_of_own").empty());
  CHECK(Reported.find("thread-local") != std::string::npos);
  auto Tracker = J->getMainJITDylib().createResourceTracker();
  add(*J, Tracker, Cycle);
  add(*J, Tracker, Cxx);
  CHECK(function<int()>(*J, "sum")() == 10);
  Exit(Tracker->remove());
  Tracker = nullptr;
  J.reset();
  CHECK(low2g_allocator_free(Allocator) == LOW2G_STATUS_OK);
  Allocator = Usual;
}

// A JIT that asks for what makes no sense gets its own kind of error, and loses nothing.
static void badRequests() {
  using Manager = low2g::llvm_jit::RTDyldMemoryManager;
  auto Nothing = Manager::Create(nullptr, LOW2G_CODE_MODEL_SMALL);
  CHECK(!Nothing);
  CHECK(toString(Nothing.takeError()).find("NULL") != std::string::npos);
  auto Wrong = Manager::Create(Allocator, low2g_code_model(77));
  CHECK(!Wrong);
  CHECK(toString(Wrong.takeError()).find("77") != std::string::npos);
  auto Memory = Exit(Manager::Create(Allocator, LOW2G_CODE_MODEL_SMALL));
  std::string Text;
  uint8_t *Good = Memory->allocateCodeSection(64, 16, 1, "good");
  CHECK(Good != nullptr && uintptr_t(Good) < (uint64_t(1) << 31));
  Good[0] = 0xc3;
  CHECK(Memory->allocateDataSection(0, 0, 2, "nothing", true) != nullptr);
  CHECK(!Memory->finalizeMemory(&Text) && !Memory->finalizeMemory(&Text));
  reinterpret_cast<void (*)()>(uintptr_t(Good))();
  // More than there is below 2 GiB, and alignments that are none or too great.
  CHECK(Memory->allocateDataSection(uintptr_t(3) << 30, 16, 3, "large", false) != nullptr);
  CHECK(Memory->finalizeMemory(&Text) && !Text.empty());
  CHECK(Memory->allocateCodeSection(UINTPTR_MAX, 16, 4, "endless") == nullptr);
  CHECK(Memory->finalizeMemory(&Text));
  CHECK(Memory->allocateCodeSection(16, 24, 5, "crooked") == nullptr);
  CHECK(Memory->finalizeMemory(&Text));
  CHECK(Memory->allocateDataSection(16, 1u << 31, 6, "far apart", false) != nullptr);
  CHECK(Memory->finalizeMemory(&Text));
  CHECK(!Memory->finalizeMemory(&Text));
  reinterpret_cast<void (*)()>(uintptr_t(Good))();
  std::vector<std::thread> Threads;
  std::atomic<int> Low{0};
  for (unsigned Thread = 0; Thread < 8; ++Thread)
    Threads.emplace_back([&, Thread] {
      for (unsigned Round = 0; Round < 20; ++Round) {
        uint8_t *Data = Memory->allocateDataSection(256, 8, Thread * 20 + Round, "d", false);
        std::memset(Data, int(Thread), 256);
        Low += uintptr_t(Data) < (uint64_t(1) << 31);
      }
    });
  for (std::thread &Thread : Threads)
    Thread.join();
  CHECK(Low == 160);
}

template <typename T> static void refused(Expected<T> Made) {
  CHECK(!Made);
  std::string Reason = toString(Made.takeError());
  CHECK(Reason.find("code model") != std::string::npos);
  CHECK(Reason.find("0x100000000") != std::string::npos);
}

int main(int argc, char **argv) {
  CHECK(argc >= 6);
  std::string Kind = argv[1];
  bool IsLayer = Kind == "layer";
  InitializeNativeTarget();
  InitializeNativeTargetAsmPrinter();
  char *Text = nullptr;
  Allocator = low2g_allocator_new(nullptr, &Text);
  CHECK(Allocator != nullptr);

  std::atomic<int (*)()> Go{nullptr};
  std::thread Early([&] {
    while (Go == nullptr)
      std::this_thread::yield();
    CHECK(Go.load()() == 7);
  });

  uint64_t Removed;
  {
    auto J = makeJit(Kind);
    auto &Main = J->getMainJITDylib();
    auto Tracker = Main.createResourceTracker();
    add(*J, Tracker, argv[2]);
    add(*J, Tracker, argv[3]);
    add(*J, Main.getDefaultResourceTracker(), argv[4]);
    if (IsLayer)
      for (int Index = 6; Index < 9; ++Index)
        add(*J, Main.getDefaultResourceTracker(), argv[Index]);
    // Eight threads ask at once; one of RuntimeDyld's layer, which in LLVM 19 races with itself here,
    // with LLVM's own memory managers as well.
    std::vector<std::thread> Threads;
    for (int Thread = 0; Thread < (isRuntimeDyld(Kind) ? 1 : 8); ++Thread)
      Threads.emplace_back([&, Thread] {
        const char *const Names[] = {"sum", "catches", "counter_of_other", "step"};
        function<void()>(*J, Names[Thread % 4]);
      });
    for (std::thread &Thread : Threads)
      Thread.join();
    Exit(J->initialize(Main));
    CHECK(Notes[1] == 1 && Notes[2] == 0);
    cycle(*J);
    // RuntimeDyld cuts the 32-bit address of a far personality routine off, without a word.
    if (Kind != "rtdyld" && Kind != "rtdyld-objects")
      exceptions(*J);
    inlineFunctions(*J);
    if (IsLayer) {
      farData(*J);
      threadLocals(*J, Go, Early);
    } else {
      Go = [] { return 7; };
      Early.join();
    }
    std::printf("step 0x%llx\ncatches 0x%llx\n", (unsigned long long)find(*J, "step"),
                (unsigned long long)find(*J, "catches"));
    errors(*J, argv[5], argv[2]);
    badObject(*J);
    Exit(J->deinitialize(Main));
    // LLVM's layers run destructors here, low2g's at the removal.
    CHECK(Notes[2] == (IsLayer ? 0 : 1));
    Removed = find(*J, "step");
    Exit(Tracker->remove());
    CHECK(accessOf(Removed).empty() && Notes[2] == 1);
    auto Gone = J->lookup("step");
    CHECK(!Gone);
    consumeError(Gone.takeError());
  }
  CHECK(Notes[1] == 1 && Notes[2] == 1);
  if (Kind == "rtdyld" || Kind == "rtdyld-objects")
    badRequests(), refusals(Kind, argv[2], argv[3], argv[6]);
  low2g_statistics Statistics;
  CHECK(low2g_allocator_statistics(Allocator, &Statistics, nullptr) == LOW2G_STATUS_OK);
  CHECK(low2g_allocator_free(Allocator) == LOW2G_STATUS_OK);
  // A reach that does not serve the model is refused when memory is made, by each.
  Allocator = low2g_allocator_new("reach=4g", &Text);
  namespace jit = low2g::llvm_jit;
  for (auto Model : {LOW2G_CODE_MODEL_SMALL, LOW2G_CODE_MODEL_MEDIUM, LOW2G_CODE_MODEL_SMALL_PIC}) {
    refused(jit::RTDyldMemoryManager::Create(Allocator, Model));
    refused(jit::JITLinkMemoryManager::Create(Allocator, Model));
  }
  auto Other = makeJit("rtdyld-any");
  refused(jit::ObjectLayer::Create(Other->getExecutionSession(), Allocator, "model=small"));
  Exit(jit::RTDyldMemoryManager::Create(Allocator, LOW2G_CODE_MODEL_LARGE).takeError());
  Exit(jit::JITLinkMemoryManager::Create(Allocator, LOW2G_CODE_MODEL_LARGE).takeError());
  CHECK(low2g_allocator_free(Allocator) == LOW2G_STATUS_OK);
  return 0;
}
