// Thread-local objects with constructors and destructors; the log is the host's.
extern "C" void record(int event);

namespace {
struct Noted {
    int number;
    explicit Noted(int n) : number(n) { record(number); }
    ~Noted() { record(-number); }
};
thread_local Noted first(1);
thread_local Noted second(2);
}

extern "C" int touch() { return first.number + second.number; }
extern "C" __attribute__((destructor)) void unloaded() { record(1000); }
