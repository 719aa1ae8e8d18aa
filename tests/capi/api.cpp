// The header from C++: an allocator of the standard library's kind over it, and objects that throw
// into the program.
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <vector>

#include "check.h"

extern "C" int host_events;
int host_events = 0;

namespace {

struct Low {
    low2g_allocator *handle = low2g_allocator_new("preset=hardened", nullptr);
    ~Low() { CHECK(low2g_allocator_free(handle) == LOW2G_STATUS_OK); }
};

template <class T> struct LowAllocator {
    using value_type = T;
    low2g_allocator *low;

    explicit LowAllocator(low2g_allocator *handle) : low(handle) {}
    template <class U> LowAllocator(const LowAllocator<U> &other) : low(other.low) {}

    T *allocate(std::size_t n)
    {
        void *block = low2g_data_allocate(low, n * sizeof(T), alignof(T), nullptr);
        if (block == nullptr)
            throw std::bad_alloc();
        CHECK(reinterpret_cast<std::uintptr_t>(block) < LOW_END);
        return static_cast<T *>(block);
    }

    void deallocate(T *block, std::size_t)
    {
        CHECK(low2g_data_free(low, block, nullptr) == LOW2G_STATUS_OK);
    }

    template <class U> bool operator==(const LowAllocator<U> &other) const
    {
        return low == other.low;
    }
    template <class U> bool operator!=(const LowAllocator<U> &other) const
    {
        return low != other.low;
    }
};

void containers(low2g_allocator *low)
{
    using Pair = std::pair<const int, int>;
    std::map<int, int, std::less<int>, LowAllocator<Pair>> map{std::less<int>(),
                                                               LowAllocator<Pair>(low)};
    std::vector<int, LowAllocator<int>> vector{LowAllocator<int>(low)};
    for (int i = 0; i < 2000; i++) {
        map[i * 7919 % 2003] = i;
        vector.push_back(i);
    }
    for (int i = 0; i < 2000; i += 2)
        map.erase(i * 7919 % 2003);
    CHECK(map.size() == 1000 && map.at(7919 % 2003) == 1 && vector.at(1999) == 1999);
    bool refused = false;
    try {
        vector.reserve(std::size_t{1} << 30);
    } catch (const std::bad_alloc &) {
        refused = true;
    }
    CHECK(refused && vector.at(1000) == 1000);
}

void exceptions(low2g_allocator *low, const char *object)
{
    std::unique_ptr<low2g_session, low2g_status (*)(low2g_session *)> session(
        low2g_session_new(low, nullptr, nullptr), low2g_session_free);
    char *error = nullptr;
    CHECK(low2g_session_define_data(session.get(), "host_events", &host_events,
                                    sizeof host_events, &error) == LOW2G_STATUS_OK);
    CHECK(low2g_session_open_library(session.get(), "libstdc++.so.6", &error) == LOW2G_STATUS_OK);
    CHECK(low2g_session_add_file(session.get(), object, &error) == LOW2G_STATUS_OK);
    low2g_module *module = nullptr;
    CHECK(low2g_session_load(session.get(), &module, &error) == LOW2G_STATUS_OK);
    CHECK(host_events == 1);
    auto checked =
        reinterpret_cast<int (*)(int)>(low2g_module_function(module, "checked", &error));
    CHECK(checked(0) == 7 && checked(123) == 126);
    bool caught = false;
    try {
        checked(-1);
    } catch (const std::out_of_range &negative) {
        caught = std::string(negative.what()) == "negative";
    }
    CHECK(caught);
    CHECK(low2g_module_unload(module, &error) == LOW2G_STATUS_OK);
    CHECK(low2g_allocator_trim(low, &error) == LOW2G_STATUS_OK);
}

} // namespace

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    Low low;
    containers(low.handle);
    exceptions(low.handle, argv[1]);
    return 0;
}
