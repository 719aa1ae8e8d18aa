extern "C" void record(int event);

struct Shared {
    int number;
    Shared();
    ~Shared();
};
Shared::Shared() : number(7) { record(number); }
Shared::~Shared() { record(-number); }
thread_local Shared shared;
thread_local int plain = 30;
