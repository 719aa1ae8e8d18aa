// Static objects, run-time type information against the C++ library's own types, streams,
// containers: data of libstdc++ (std::cout, type information, locale ids) is far data.
#include <algorithm>
#include <any>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iomanip>
#include <iostream>
#include <list>
#include <locale>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <typeindex>
#include <typeinfo>
#include <unordered_map>
#include <variant>
#include <vector>

struct Static {
    std::string name;
    explicit Static(const char *n) : name(n) { std::cout << "construct " << name << '\n'; }
    ~Static() { std::cout << "destroy " << name << std::endl; }
};

static Static first("first");
struct Early {
    ~Early() { std::puts("destroy early"); }
    Early() { std::puts("construct early"); }
};
__attribute__((init_priority(300))) static Early early;
Static second("second");
static std::map<std::string, int> table = {{"one", 1}, {"two", 2}, {"three", 3}};

static Static &local() {
    static Static object("local");
    return object;
}

inline Static &shared_with_other_file() {
    static Static object("shared");
    return object;
}
Static &from_other_file();

__attribute__((constructor)) static void constructor() { std::puts("constructor"); }
__attribute__((destructor)) static void destructor() { std::puts("destructor"); }

struct Shape {
    virtual ~Shape() = default;
    virtual double area() const = 0;
};
struct Square : Shape {
    double side;
    explicit Square(double s) : side(s) {}
    double area() const override { return side * side; }
};
struct Named {
    virtual ~Named() = default;
    std::string name = "named";
};
struct Tagged : Square, Named { Tagged() : Square(3) {} };

// Facets and buffers: library code calls back into classes of this file.
struct Comma : std::numpunct<char> {
    char do_thousands_sep() const override { return '_'; }
    std::string do_grouping() const override { return "\3"; }
};
struct Upper : std::streambuf {
    std::string text;
    int overflow(int c) override {
        text += static_cast<char>(std::toupper(c));
        return c;
    }
};

static void types() {
    std::unique_ptr<Shape> shape(new Tagged);
    std::cout << typeid(*shape).name() << ' ' << (typeid(*shape) == typeid(Tagged)) << '\n';
    Named *cross = dynamic_cast<Named *>(shape.get());
    std::cout << (cross ? cross->name : "null") << ' ' << (dynamic_cast<Tagged *>(cross) != nullptr) << '\n';
    std::ostream &out = std::cout;
    std::ios_base &base = out;
    std::cout << typeid(out).name() << ' ' << (dynamic_cast<std::istream *>(&base) == nullptr)
              << (dynamic_cast<std::ostream *>(&base) == &std::cout) << '\n';
    std::stringstream both;
    std::ios_base *abstract = &both;
    std::cout << (dynamic_cast<std::istream *>(abstract) != nullptr) << (typeid(*abstract) == typeid(std::stringstream)) << '\n';
    std::unordered_map<std::type_index, const char *> names = {{typeid(int), "int"}, {typeid(std::string), "string"},
                                                               {typeid(std::runtime_error), "runtime_error"}};
    try {
        throw std::runtime_error("x");
    } catch (const std::exception &error) {
        std::cout << names[typeid(error)] << '\n';
    }
    std::any any = std::string("any");
    std::cout << std::any_cast<std::string>(any) << ' ' << (any.type() == typeid(std::string)) << '\n';
    std::variant<int, std::string> variant = "variant";
    std::visit([](const auto &value) { std::cout << value << '\n'; }, variant);
}

static void containers() {
    std::vector<std::string> words;
    for (const auto &[word, number] : table) words.push_back(word + std::to_string(number));
    std::sort(words.rbegin(), words.rend());
    for (const auto &word : words) std::cout << word << ' ';
    std::unordered_map<std::string, std::vector<int>> map;
    for (int i = 0; i < 1000; i++) map[std::to_string(i % 37)].push_back(i);
    long sum = 0;
    for (const auto &[key, list] : map) sum += std::accumulate(list.begin(), list.end(), 0L) * std::stol(key);
    std::mt19937_64 random(5489);
    std::set<unsigned long> set;
    for (int i = 0; i < 1000; i++) set.insert(random() % 1000);
    std::list<std::shared_ptr<Shape>> shapes;
    for (int i = 0; i < 10; i++) shapes.push_back(std::make_shared<Square>(i));
    double area = 0;
    std::function<void(const Shape &)> add = [&](const Shape &shape) { area += shape.area(); };
    for (const auto &shape : shapes) add(*shape);
    std::atomic<long> counter{0};
    counter += 5;
    std::cout << sum << ' ' << set.size() << ' ' << area << ' ' << counter << '\n';
}

static void streams() {
    std::cout << std::hex << std::showbase << 255 << std::dec << ' ' << std::setw(8) << std::setfill('*')
              << 42 << ' ' << std::fixed << std::setprecision(3) << 3.14159 << ' ' << std::boolalpha << true << '\n';
    std::stringstream text("17 words 2.5");
    int number;
    std::string word;
    double real;
    text >> number >> word >> real;
    std::cout << number << word << real << '\n';
    std::ostringstream grouped;
    grouped.imbue(std::locale(std::locale::classic(), new Comma));
    grouped << 1234567;
    Upper upper;
    std::ostream out(&upper);
    out << "mixed Case " << 12;
    std::cout << grouped.str() << ' ' << upper.text << '\n';
    std::cout << &std::cout - &std::cout << (std::cout.rdbuf() != nullptr) << '\n';
    std::wcout << 5 << std::endl;
    std::clog << "log" << std::endl;
}

static void at_exit() { std::puts("at exit"); }

int main(int argc, char **argv) {
    std::atexit(at_exit);
    types();
    containers();
    streams();
    std::cout << &shared_with_other_file().name - &from_other_file().name << ' ' << local().name << '\n';
    std::string line;
    while (std::getline(std::cin, line)) std::cout << line.size() << ':' << line << '\n';
    std::cout << argc << (argv[argc] == nullptr) << '\n';
    return static_cast<int>(table["three"]);
}
