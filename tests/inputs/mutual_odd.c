int even(int n);
extern __thread __attribute__((tls_model("global-dynamic"))) int depth;
__attribute__((visibility("hidden"))) int shared_secret(void);
int never_defined(void) __attribute__((weak));
int odd_calls;
int odd(int n) { odd_calls++; return n == 0 ? 0 : even(n - 1); }
int deeper(void) { return ++depth; }
int secret(void) { return never_defined ? 0 : shared_secret(); }
