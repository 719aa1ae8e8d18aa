// Another object: the inline function of cxx.cpp, its exceptions.
extern "C" void throws(int value);

inline int *shared_counter() {
  static int counter = 40;
  return &counter;
}

extern "C" {
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
