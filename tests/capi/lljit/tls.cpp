// Thread-local variables, with and without a destructor.
extern "C" void note(int what);

struct OfThread {
  int value = 3;
  ~OfThread() { note(0); }
};

thread_local int own = 7;
thread_local int zero;
thread_local OfThread noted_of_thread;

extern "C" {
int *address_of_own() { return &own; }
int next() { return own++ + zero++; }
int use_noted() { return noted_of_thread.value; }
}
