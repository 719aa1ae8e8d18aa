#include <iostream>
#include <sstream>
#include <map>
#include <string>
#include <stdexcept>
#include <algorithm>
#include <vector>
#include <locale>
#include <thread>
#include <regex>
struct S { ~S() { std::cout << "static object gone" << std::endl; } } s;
thread_local std::string local = "main thread";
int main() {
  std::map<std::string, int> words; std::istringstream in("the quick brown fox jumps over the lazy dog the end");
  for (std::string w; in >> w;) words[w]++;
  for (auto &[w, n] : words) std::cout << w << '=' << n << ' ';
  std::cout << std::endl;
  try { std::vector<int> v(3); v.at(7); } catch (const std::out_of_range &e) { std::cout << e.what() << std::endl; }
  try { throw std::make_pair(1, std::string("two")); } catch (const std::pair<int, std::string> &p) { std::cout << p.first << p.second << std::endl; }
  std::thread t([] { local = "other"; try { throw 5; } catch (int i) { std::cout << local << i << std::endl; } }); t.join();
  std::cout << local << ' ' << std::regex_replace("a1b22", std::regex("[0-9]+"), "#") << std::endl;
  std::cout.precision(17); std::cout << 0.1 << ' ' << std::hex << 255 << std::endl;
  return 3;
}
