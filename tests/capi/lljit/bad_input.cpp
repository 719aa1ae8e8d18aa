// What a JIT, or who writes its objects, does wrong: `bad_input jitlink|layer CYCLE CXX`, bitcode of the
// sources beside this. Each is an error in ORC's form, and nothing is lost by it.

#include "support.hpp"

#include "llvm/ExecutionEngine/Orc/CompileUtils.h"
#include "llvm/Object/ELFObjectFile.h"

#include <random>

extern "C" void note(int) {}
// Where CXX is not loaded.
extern "C" int doubled(int Value) { return 2 * Value; }

static uint64_t liveBytes() {
  low2g_statistics Statistics;
  CHECK(low2g_allocator_trim(Allocator, nullptr) == LOW2G_STATUS_OK);
  CHECK(low2g_allocator_statistics(Allocator, &Statistics, nullptr) == LOW2G_STATUS_OK);
  return Statistics.live_bytes;
}

#if LLVM_VERSION_MAJOR < 16
using jitlink::AllocGroup;
using jitlink::MemProt;
#endif
using jitlink::SimpleSegmentAlloc;
using Memory = low2g::llvm_jit::JITLinkMemoryManager;
using Finalized = jitlink::JITLinkMemoryManager::FinalizedAlloc;

static Expected<SimpleSegmentAlloc> ask(Memory &Manager, MemProt Access, size_t Size, uint64_t Align) {
  SimpleSegmentAlloc::SegmentMap Segments;
  Segments[AllocGroup(Access)] = {Size, llvm::Align(Align)};
  return SimpleSegmentAlloc::Create(Manager, nullptr, std::move(Segments));
}

static std::string refusal(Memory &Manager, MemProt Access, size_t Size, uint64_t Align) {
  auto Made = ask(Manager, Access, Size, Align);
  if (Made)
    std::fprintf(stderr, "%zu bytes at a multiple of %llu are not refused\n", Size, (unsigned long long)Align);
  CHECK(!Made);
  return toString(Made.takeError());
}

static bool has(const std::string &Text, const char *Part) {
  return Text.find(Part) != std::string::npos;
}

static void memory() {
  auto Nothing = Memory::Create(nullptr, LOW2G_CODE_MODEL_SMALL_PIC);
  CHECK(!Nothing && has(toString(Nothing.takeError()), "NULL"));
  auto Wrong = Memory::Create(Allocator, low2g_code_model(77));
  CHECK(!Wrong && has(toString(Wrong.takeError()), "77"));
  uint64_t Before = liveBytes();
  {
    auto Manager = Exit(Memory::Create(Allocator, LOW2G_CODE_MODEL_SMALL_PIC));
    auto Data = MemProt::Read | MemProt::Write, Code = MemProt::Read | MemProt::Exec;
    // More than there is, alignments too great, both rights at once.
    CHECK(has(refusal(*Manager, Data, size_t(3) << 30, 16), "low2g"));
    CHECK(has(refusal(*Manager, Code, size_t(3) << 30, 16), "low2g"));
    CHECK(has(refusal(*Manager, Data, 64, uint64_t(1) << 31), "low2g"));
    CHECK(has(refusal(*Manager, Code | MemProt::Write, 64, 16), "writable and executable"));
    // Nothing at all.
    auto Empty = Exit(ask(*Manager, Data, 0, 1));
    std::vector<Finalized> Kept;
    Kept.push_back(Exit(Empty.finalize()));
    // Begun and never finished.
    { auto Abandoned = Exit(ask(*Manager, Code, 4096, 64)); }
    // Eight threads, freed in another order than made.
    std::mutex Mutex;
    std::vector<std::thread> Threads;
    for (int Thread = 0; Thread < 8; ++Thread)
      Threads.emplace_back([&, Thread] {
        for (int Round = 0; Round < 20; ++Round) {
          auto Made = Exit(ask(*Manager, Round % 2 ? Data : Code, 100 + Round, 32));
          auto Where = Made.getSegInfo(AllocGroup(Round % 2 ? Data : Code));
          CHECK(Where.Addr.getValue() < uint64_t(1) << 31);
          std::memset(Where.WorkingMem.data(), Thread, Where.WorkingMem.size());
          auto Done = Exit(Made.finalize());
          std::lock_guard<std::mutex> Lock(Mutex);
          Kept.push_back(std::move(Done));
        }
      });
    for (std::thread &Thread : Threads)
      Thread.join();
    std::shuffle(Kept.begin(), Kept.end(), std::minstd_rand(7));
    std::vector<Finalized> Half;
    for (size_t Index = 0; Index < 60; ++Index) {
      Half.push_back(std::move(Kept.back()));
      Kept.pop_back();
    }
    Exit(Manager->deallocate(std::move(Half)));
    Exit(Manager->deallocate(std::move(Kept)));
  }
  CHECK(liveBytes() == Before);
}

// The object that LLVM makes of the bitcode at `Path`.
static std::string compiled(const char *Path, bool Pic) {
  auto Target = Exit(JITTargetMachineBuilder::detectHost());
  Target.setRelocationModel(Pic ? Reloc::PIC_ : Reloc::Static);
  Target.setCodeModel(CodeModel::Small);
  auto Machine = Exit(Target.createTargetMachine());
  LLVMContext Context;
  SMDiagnostic Diagnostic;
  auto Module = parseIRFile(Path, Diagnostic, Context);
  CHECK(Module);
  Module->setDataLayout(Machine->createDataLayout());
  auto Object = Exit(SimpleCompiler(*Machine)(*Module));
  return Object->getBuffer().str();
}

// What stands where relocations do, for damage that LLVM's own readers let pass.
static std::vector<std::pair<size_t, size_t>> relocations(const std::string &Object) {
  auto File = Exit(object::ObjectFile::createELFObjectFile(MemoryBufferRef(Object, "o")));
  std::vector<std::pair<size_t, size_t>> Found;
  for (const object::SectionRef &Section : File->sections()) {
    if (object::ELFSectionRef(Section).getType() != ELF::SHT_RELA)
      continue;
    StringRef Contents = Exit(Section.getContents());
    Found.emplace_back(Contents.data() - Object.data(), Contents.size());
  }
  CHECK(!Found.empty());
  return Found;
}

static std::unique_ptr<MemoryBuffer> buffer(const std::string &Bytes, const char *Name) {
  return MemoryBuffer::getMemBufferCopy(Bytes, Name);
}

// Adds `Object`, looks `Name` up, and takes it out again; gives what was said.
static std::string tryObject(LLJIT &J, const std::string &Object, const char *Name) {
  Reported.clear();
  auto Tracker = J.getMainJITDylib().createResourceTracker();
  std::string Said;
  if (Error Err = J.addObjectFile(Tracker, buffer(Object, "damaged.o")))
    Said = toString(std::move(Err));
  else if (auto Found = J.lookup(Name))
    ;
  else
    Said = toString(Found.takeError());
  Exit(Tracker->remove());
  return Said + Reported;
}

// Without threads of its own: LLVM's blocking lookup (ErrorAsOutParameter) still looks at the stack of
// whoever waits when that one has gone on with an error.
static std::unique_ptr<LLJIT> makeQuietJit(const std::string &Kind) {
  return makeJit(Kind, true, 0);
}

static void damagedObjects(const std::string &Kind, const std::string &Cycle) {
  auto J = makeQuietJit(Kind);
  uint64_t Before = liveBytes();
  // What it needs is not there.
  std::string Alone = Cycle;
  for (size_t At; (At = Alone.find("doubled")) != std::string::npos;)
    Alone[At] = 'b';
  for (int Round = 0; Round < 3; ++Round)
    CHECK(has(tryObject(*J, Alone, "sum"), "boubled"));
  CHECK(liveBytes() == Before);
  // No object, not of this machine, cut short.
  CHECK(!tryObject(*J, "MZ\x90 and more that is no ELF", "sum").empty());
  std::string Foreign = Cycle;
  Foreign[18] = char(ELF::EM_AARCH64), Foreign[19] = 0;
  CHECK(!tryObject(*J, Foreign, "sum").empty());
  for (size_t Length = 0; Length < Cycle.size(); Length += 97)
    CHECK(!tryObject(*J, Cycle.substr(0, Length), "sum").empty());
  // Relocations of a type that there is not, past the end, of a symbol that there is not.
  if (Kind == "layer") {
    auto Tables = relocations(Cycle);
    for (size_t Field = 0; Field < 3; ++Field) {
      std::string Damaged = Cycle;
      std::memset(&Damaged[Tables[0].first + 8 * Field], Field == 1 ? 0xee : 0x7f, 8);
      std::string Said = tryObject(*J, Damaged, "sum");
// The addend is only too large.
      CHECK(has(Said, "damaged.o") && has(Said, Field == 2 ? "overflow" : "relocation") == (Field > 0));
    }
    std::minstd_rand Random(20261127);
    for (int Round = 0; Round < 300; ++Round) {
      std::string Damaged = Cycle;
      auto Table = Tables[Random() % Tables.size()];
      for (int Byte = 0; Byte < 4; ++Byte)
        Damaged[Table.first + Random() % Table.second] = char(Random());
      tryObject(*J, Damaged, "sum");
    }
  }
  Reported.clear();
  CHECK(liveBytes() == Before);
}

static void order(const std::string &Kind, const std::string &Cycle, const std::string &Cxx) {
  auto J = makeQuietJit(Kind);
  auto &Main = J->getMainJITDylib();
  uint64_t Before = liveBytes();
  // One that others need goes first: nothing is run, so nothing breaks; what is new does not find it.
  auto One = Main.createResourceTracker(), Two = Main.createResourceTracker();
  Exit(J->addObjectFile(One, buffer(Cycle, "cycle.o")));
  Exit(J->addObjectFile(Two, buffer(Cxx, "cxx.o")));
  CHECK(function<int()>(*J, "sum")() == 10);
  // A second definition, while it is there.
  CHECK(has(toString(J->addObjectFile(buffer(Cycle, "again.o"))), "uplicate"));
  Exit(One->remove());
  auto Gone = J->lookup("sum");
  CHECK(!Gone);
  consumeError(Gone.takeError());
  // Twice is once.
  Exit(One->remove());
  Exit(Two->remove());
  CHECK(liveBytes() == Before);
  // And all works as at first.
  Exit(J->addObjectFile(buffer(Cycle, "cycle.o")));
  Exit(J->addObjectFile(buffer(Cxx, "cxx.o")));
  CHECK(function<int()>(*J, "sum")() == 10);
}

int main(int argc, char **argv) {
  CHECK(argc == 4);
  std::string Kind = argv[1];
  InitializeNativeTarget();
  InitializeNativeTargetAsmPrinter();
  char *Text = nullptr;
  Allocator = low2g_allocator_new(nullptr, &Text);
  CHECK(Allocator != nullptr);
  uint64_t Before = liveBytes();
  if (Kind == "jitlink")
    memory();
  else {
    auto J = makeJit("rtdyld");
    using Layer = low2g::llvm_jit::ObjectLayer;
    auto Wrong = Layer::Create(J->getExecutionSession(), Allocator, "colour=red");
    CHECK(!Wrong && has(toString(Wrong.takeError()), "colour"));
  }
  bool Pic = Kind == "jitlink";
  std::string Cycle = compiled(argv[2], Pic), Cxx = compiled(argv[3], Pic);
  damagedObjects(Kind, Cycle);
  order(Kind, Cycle, Cxx);
  CHECK(liveBytes() == Before);
  CHECK(low2g_allocator_free(Allocator) == LOW2G_STATUS_OK);
  return 0;
}
