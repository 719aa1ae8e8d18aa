// What api.cpp loads: exceptions, static objects, a thread-local one.
#include <stdexcept>
#include <string>

extern int host_events;

namespace {
struct Counted {
    Counted() { ++host_events; }
    ~Counted() { host_events += 100; }
};
Counted counted;
thread_local std::string last = "none";
} // namespace

extern "C" int checked(int n)
{
    try {
        if (n < 0)
            throw std::out_of_range("negative");
        if (n == 0)
            throw 7;
    } catch (int code) {
        return code;
    }
    last = std::to_string(n);
    return n + static_cast<int>(last.size());
}
