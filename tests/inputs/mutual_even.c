/* With mutual_odd.c: two objects that need each other. */
int odd(int n);
extern int odd_calls;
__thread int depth = 40;
int even(int n) { return n == 0 ? 1 : odd(n - 1); }
int both_calls(void) { return odd_calls; }
__attribute__((visibility("hidden"))) int shared_secret(void) { return 77; }
__attribute__((weak)) int replaceable(void) { return 1; }
int replaced(void) { return replaceable(); }
