// A module that says what runs when, by numbers to the host: constructors positive,
// destructors negative.
#include <cstdlib>
#include <map>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <vector>

extern "C" {
void host_log(long event);
long host_call(long (*callback)(long), long argument);
}

struct Static {
    long number;
    explicit Static(long n) : number(n) { host_log(n); }
    ~Static() { host_log(-number); }
};

__attribute__((constructor)) static void constructor() { host_log(10); }
__attribute__((destructor)) static void destructor() { host_log(-10); }
static void at_last() { host_log(-12); }
__attribute__((destructor(200))) static void late_destructor() {
    host_log(-11);
    std::atexit(at_last);
}

static Static first(1);
static Static second(2);

static void at_exit() { host_log(-3); }
static void quick() { host_log(-30); }
static void before_fork() { host_log(40); }
static void after_fork() { host_log(41); }

struct Registers {
    Registers() {
        std::atexit(at_exit);
        std::at_quick_exit(quick);
        pthread_atfork(before_fork, after_fork, nullptr);
    }
};
static Registers registers;

static Static &local() {
    static Static object(4);
    return object;
}

static long throws(long value) {
    std::vector<std::string> held(3, std::string(100, 'x'));
    if (value < 0) throw std::out_of_range("negative " + std::to_string(value));
    return value + static_cast<long>(held.size());
}

struct Counted {
    ~Counted() { host_log(-50); }
};

extern "C" {
// An exception of ours through the host's frame.
long through_host(long value) {
    try {
        return host_call(throws, value);
    } catch (const std::out_of_range &error) {
        return static_cast<long>(std::string(error.what()).size());
    }
}

// Whatever the host throws passes here: the destructor runs.
long through_us(long (*callback)(long), long value) {
    Counted counted;
    return callback(value) + 1;
}

long work(long n) {
    std::map<std::string, long> map;
    for (long i = 0; i < n; i++) map["key" + std::to_string(i % 10)] += i;
    long sum = local().number;
    for (const auto &[key, value] : map) sum += value;
    for (long i = 0; i < n; i++) {
        try {
            sum += throws(i % 3 - 1);
        } catch (const std::exception &) {
            sum++;
        }
    }
    return sum;
}
}
