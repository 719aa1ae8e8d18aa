// Ways to end that unwind beyond main, where nobody catches: an exception, a thread's end, a forced
// unwind. The argument chooses.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <pthread.h>
#include <stdexcept>
#include <unwind.h>

struct Told {
  const char *name;
  ~Told() { std::printf("~%s\n", name), std::fflush(stdout); }
};

static Told global{"global"};

static void *later(void *argument) {
  pthread_join(*static_cast<pthread_t *>(argument), nullptr);
  std::printf("main has ended\n");
  return nullptr;
}

static _Unwind_Reason_Code stop(int, _Unwind_Action actions, _Unwind_Exception_Class,
                                _Unwind_Exception *, _Unwind_Context *, void *) {
  if (actions & _UA_END_OF_STACK)
    std::exit(5);
  return _URC_NO_REASON;
}

__attribute__((noinline)) static void end(char how) {
  Told local{"local"};
  static pthread_t self = pthread_self();
  static _Unwind_Exception forced;
  pthread_t thread;
  switch (how) {
  case 'u': // nobody catches
    throw std::runtime_error("nobody's");
  case 'n': // out of a function that promises not to
    [&]() noexcept { throw 1; }();
    break;
  case 'c': // caught by another type only
    try {
      throw 1;
    } catch (const char *) {
    }
    break;
  case 'h': // the program's own terminate handler
    std::set_terminate([] { std::printf("handled\n"), std::fflush(stdout), std::_Exit(6); });
    throw 1;
  case 'p': // main's thread ends, another goes on
    pthread_create(&thread, nullptr, later, &self);
    pthread_exit(nullptr);
  case 'l': // the last thread ends
    pthread_exit(nullptr);
  case 'f':
    _Unwind_ForcedUnwind(&forced, stop, nullptr);
    break;
  }
  std::abort();
}

int main(int, char **argv) {
  Told local{"of main"};
  end(argv[1][0]);
  return 7;
}
