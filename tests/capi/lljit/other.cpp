// Another object: thread-local variables of cxx.cpp, its inline function, its exceptions.
extern thread_local int own;
extern "C" void throws(int value);

inline int *shared_counter() {
  static int counter = 40;
  return &counter;
}

extern "C" {
int *own_from_outside() { return &own; }
int *counter_of_other() { return shared_counter(); }

int catches_the_other_s(int value) {
  try {
    throws(value);
  } catch (int thrown) {
    return thrown;
  }
  return -1;
}
}
