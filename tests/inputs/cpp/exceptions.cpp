// Exceptions thrown and caught inside of loaded code, thrown by the C++ library and caught
// here, thrown here through the library's frames, and those that nobody here catches by type.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <locale>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <typeinfo>
#include <vector>

struct Noisy {
    const char *name;
    explicit Noisy(const char *n) : name(n) { std::printf("+%s\n", name); }
    ~Noisy() { std::printf("-%s\n", name); }
};

struct Base { virtual ~Base() {} virtual const char *who() const { return "base"; } };
struct Derived : Base { const char *who() const override { return "derived"; } };
struct Other { virtual ~Other() {} int other = 7; };
struct Both : virtual Derived, Other { const char *who() const override { return "both"; } };
struct Own : std::runtime_error {
    int code;
    Own(int c) : std::runtime_error("own " + std::to_string(c)), code(c) {}
};

__attribute__((noinline)) static int thrower(int what) {
    Noisy local("thrower");
    switch (what) {
    case 0: throw 42;
    case 1: throw std::string("text");
    case 2: throw Derived();
    case 3: throw new Derived();
    case 4: throw Own(9);
    case 5: throw "literal";
    case 6: throw 2.5;
    case 7: throw static_cast<void *>(nullptr);
    case 8: throw Both();
    case 9: return std::vector<int>(3).at(static_cast<size_t>(what));
    case 10: std::string("short").substr(99); break;
    case 11: { Base base; dynamic_cast<Derived &>(base).who(); break; }
    case 12: { Base *null = nullptr; std::printf("%s\n", typeid(*null).name()); break; }
    case 13: std::function<void()>()(); break;
    case 14: throw std::system_error(std::make_error_code(std::errc::no_such_file_or_directory));
    case 15: { volatile size_t huge = ~size_t(0) / 4; delete[] new char[huge]; break; }
    case 16: std::stoi("no number"); break;
    case 17: (void)std::map<int, int>{{1, 2}}.at(3); break;
    case 18: throw 42L;
    case 19: throw nullptr;
    }
    return 0;
}

__attribute__((noinline)) static void caught(int what) {
    Noisy outer("caught");
    try {
        Noisy inner("try");
        thrower(what);
        std::puts("nothing thrown");
    } catch (int value) {
        std::printf("int %d\n", value);
    } catch (const std::string &text) {
        std::printf("string %s\n", text.c_str());
    } catch (const Other &other) {
        std::printf("other %d %s\n", other.other, dynamic_cast<const Base &>(other).who());
    } catch (const Base &base) {
        std::printf("base %s\n", base.who());
    } catch (const Base *base) {
        std::printf("pointer %s\n", base ? base->who() : "null");
        delete base;
    } catch (const Own &own) {
        std::printf("own %d %s\n", own.code, own.what());
    } catch (const std::out_of_range &) {
        std::puts("out of range");
    } catch (const std::bad_cast &error) {
        std::printf("bad cast %s\n", error.what());
    } catch (const std::bad_typeid &error) {
        std::printf("bad typeid %s\n", error.what());
    } catch (const std::bad_alloc &error) {
        std::printf("bad alloc %s\n", error.what());
    } catch (const std::system_error &error) {
        std::printf("system %d %s\n", error.code().value(), error.code().category().name());
    } catch (const std::exception &error) {
        std::printf("exception %s %s\n", typeid(error).name(), error.what());
    } catch (const char *text) {
        std::printf("literal %s\n", text);
    } catch (double value) {
        std::printf("double %g\n", value);
    } catch (void *pointer) {
        std::printf("void pointer %d\n", pointer == nullptr);
    } catch (...) {
        std::puts("something");
        try {
            throw;
        } catch (long value) {
            std::printf("long %ld\n", value);
        } catch (decltype(nullptr)) {
            std::puts("nullptr");
        }
    }
}

static int compare(const void *, const void *) { throw Own(11); }

struct ThrowingBuffer : std::streambuf {
    int overflow(int) override { throw Own(13); }
};

static void callback(std::ios_base::event event, std::ios_base &, int index) {
    std::printf("callback %d %d\n", static_cast<int>(event), index);
    if (event == std::ios_base::imbue_event) throw Own(17);
}

// Exceptions of this file that pass the frames of the C and C++ libraries.
static void through_libraries() {
    int numbers[4] = {4, 3, 2, 1};
    try {
        std::qsort(numbers, 4, sizeof *numbers, compare);
    } catch (const Own &own) {
        std::printf("through qsort %d\n", own.code);
    }
    ThrowingBuffer buffer;
    std::ostream stream(&buffer);
    stream << "x";
    std::printf("swallowed: bad %d\n", stream.bad());
    stream.clear();
    try {
        stream.exceptions(std::ios::badbit);
        stream << "x";
    } catch (const Own &own) {
        std::printf("through ostream %d\n", own.code);
    }
    std::ios plain(nullptr);
    plain.register_callback(callback, 5);
    try {
        plain.imbue(std::locale::classic());
    } catch (const Own &own) {
        std::printf("through imbue %d\n", own.code);
    }
    try {
        std::ios failing(nullptr);
        failing.exceptions(std::ios::badbit);
    } catch (const std::ios_base::failure &failure) {
        std::printf("failure %s\n", typeid(failure).name());
    }
}

static void nested() {
    try {
        try {
            throw Own(1);
        } catch (...) {
            std::throw_with_nested(std::logic_error("outer"));
        }
    } catch (const std::exception &outer) {
        std::printf("%s\n", outer.what());
        try {
            std::rethrow_if_nested(outer);
        } catch (const Own &inner) {
            std::printf("inner %d\n", inner.code);
        }
    }
    std::exception_ptr kept;
    try {
        throw Own(2);
    } catch (...) {
        kept = std::current_exception();
    }
    try {
        std::rethrow_exception(kept);
    } catch (const Own &own) {
        std::printf("kept %d\n", own.code);
    }
}

int main() {
    for (int what = 0; what <= 19; what++) {
        std::cout << "case " << what << std::endl;
        caught(what);
    }
    through_libraries();
    nested();
    std::function<int(int)> deep = [&](int depth) -> int {
        Noisy *heap = depth % 50 ? nullptr : new Noisy("deep");
        std::unique_ptr<Noisy> owner(heap);
        if (depth == 0) throw Own(100);
        return deep(depth - 1) + 1;
    };
    try {
        deep(200);
    } catch (const std::runtime_error &error) {
        std::cerr << error.what() << '\n';
    }
    return 3;
}
