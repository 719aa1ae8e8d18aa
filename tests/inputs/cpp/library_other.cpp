// The other file of library.cpp: the same inline function, static object and templates.
#include <iostream>
#include <map>
#include <string>

struct Static {
    std::string name;
    explicit Static(const char *n) : name(n) { std::cout << "construct " << name << '\n'; }
    ~Static() { std::cout << "destroy " << name << std::endl; }
};

static Static first("other first");

inline Static &shared_with_other_file() {
    static Static object("shared");
    return object;
}

Static &from_other_file() {
    std::map<std::string, int> table{{"a", 1}};
    table["b"] = 2;
    if (table.size() != 2) throw 1;
    return shared_with_other_file();
}
