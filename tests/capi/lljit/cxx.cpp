// Exceptions, constructors and an inline function, under the small static model.
#include <stdexcept>
#include <string>

extern "C" int step(int value);
extern "C" void note(int what);

inline int *shared_counter() {
  static int counter = 40;
  return &counter;
}

struct Noted {
  Noted() { note(1); }
  ~Noted() { note(2); }
};
Noted noted;

extern "C" {
int doubled(int value) { return step(2 * value); }

int *counter_of_cxx() { return shared_counter(); }

int catches(int value) {
  try {
    if (value > 3)
      throw std::runtime_error("larger than " + std::to_string(3));
    return value;
  } catch (const std::exception &error) {
    return int(std::string(error.what()).size());
  }
}

void throws(int value) { throw value; }

int catches_the_host_s(void (*function)()) {
  try {
    function();
  } catch (const std::logic_error &) {
    return 1;
  }
  return 0;
}
}
