// A thread_local object of another translation unit, made on first use through its wrapper.
struct Shared {
    int number;
    Shared();
    ~Shared();
};
extern thread_local Shared shared;
extern thread_local int plain;

extern "C" int touch_shared() { return shared.number + plain; }
