/* Data and functions of other objects, used in every way that compilers have forms for. */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define EACH(X) X(u8) X(signed char) X(u16) X(short) X(u32) X(int) X(u64) X(long) X(float) X(double)
#define EACH_INT(X) X(u8) X(u16) X(short) X(u32) X(int) X(u64) X(long)
#define N(a, b) N_(a, b)
#define N_(a, b) a##b
typedef signed char schar;

#define NUMBER(T, n)                                                                               \
    extern T far_##n;                                                                              \
    extern T far_table_##n[];                                                                      \
    extern T *far_pointer_##n;                                                                     \
    T load_##n(void) { return far_##n; }                                                           \
    void store_##n(T x) { far_##n = x; }                                                           \
    void constant_##n(void) { far_##n = 42; }                                                      \
    T index_##n(long i) { return far_table_##n[i]; }                                               \
    T index_at_##n(u32 i) { return far_table_##n[i + 3]; }                                         \
    void put_##n(long i, T x) { far_table_##n[i] = x; }                                            \
    void add_##n(T x) { far_##n += x; }                                                            \
    void add_at_##n(long i, T x) { far_table_##n[i] += x; }                                        \
    void next_##n(void) { far_##n++; }                                                             \
    int less_##n(T x) { return far_##n < x; }                                                      \
    int zero_##n(void) { return far_##n == 0; }                                                    \
    T choose_##n(int c, T x) { return c ? far_##n : x; }                                           \
    T *address_##n(void) { return &far_##n; }                                                      \
    T *element_##n(long i) { return &far_table_##n[i]; }                                           \
    int is_##n(T *p) { return p == &far_##n; }                                                     \
    long distance_##n(T *p) { return p - far_table_##n; }                                          \
    void keep_##n(T **p) { *p = &far_##n; }                                                        \
    int kept_##n(T **p) { return *p == far_table_##n; }                                            \
    void point_##n(void) { far_pointer_##n = &far_##n; }                                           \
    T through_##n(void) { return *far_pointer_##n; }                                               \
    T sum_##n(int k) { T s = 0; for (int i = 0; i < k; i++) s += far_table_##n[i]; return s; }     \
    void copy_##n(T *to) { for (int i = 0; i < 64; i++) to[i] = far_table_##n[i]; }                \
    void fill_##n(T x) { for (int i = 0; i < 64; i++) far_table_##n[i] = x; }                      \
    double mixed_##n(double x) { return x * far_##n + far_table_##n[2]; }

#define INTEGER(T, n)                                                                              \
    void mask_##n(T x) { far_##n &= x; }                                                           \
    void set_##n(void) { far_##n |= 4; }                                                           \
    void flip_##n(T x) { far_##n ^= x; }                                                           \
    void shift_##n(int k) { far_##n <<= k; }                                                       \
    void negate_##n(void) { far_##n = -far_##n; }                                                  \
    void invert_##n(void) { far_##n = ~far_##n; }                                                  \
    int bit_##n(long i) { return (far_table_##n[i] & 16) != 0; }                                   \
    T divide_##n(T x) { return x / far_##n; }                                                      \
    T times_##n(T x) { return x * far_##n; }                                                       \
    T old_##n(T x) { return __atomic_fetch_add(&far_##n, x, 5); }                                  \
    T swap_##n(T x) { return __atomic_exchange_n(&far_##n, x, 5); }                                \
    void both_##n(void) { __atomic_fetch_or(&far_##n, 1, 5); }                                     \
    int same_##n(T a, T b) { return __sync_bool_compare_and_swap(&far_##n, a, b); }

NUMBER(u8, u8) NUMBER(schar, schar) NUMBER(u16, u16) NUMBER(short, short)
NUMBER(u32, u32) NUMBER(int, int) NUMBER(u64, u64) NUMBER(long, long)
NUMBER(float, float) NUMBER(double, double) NUMBER(long double, ld)
INTEGER(u8, u8) INTEGER(schar, schar) INTEGER(u16, u16) INTEGER(short, short)
INTEGER(u32, u32) INTEGER(int, int) INTEGER(u64, u64) INTEGER(long, long)

struct pair { long a; double b; void *c; char d[40]; };
extern struct pair far_pair, far_pairs[];
struct pair whole(void) { return far_pair; }
void assign(struct pair *p) { far_pair = *p; }
void *member(long i) { return far_pairs[i].c; }
char letter(long i, long j) { return far_pairs[i].d[j]; }

extern int far_function(const char *, ...);
extern int (*far_hook)(int);
extern int (*far_hooks[])(int);
extern char far_text[];
void *function(void) { return (void *)far_function; }
int is_function(void *p) { return p == (void *)far_function; }
int call(int x) { return far_hook(x) + 1; }
int tail(int x) { return far_hook(x); }
int call_index(long i) { return far_hooks[i](3) + 1; }
int tail_index(long i) { return far_hooks[i](3); }
void pass(void (*f)(int, int, int, int, int, int, void *, void *)) {
    f(1, 2, 3, 4, 5, 6, far_text, &far_pair);
}
void table(void **to) {
    to[0] = far_text; to[1] = &far_pair; to[2] = (void *)far_function; to[3] = &far_hook;
}
int local(void (*f)(void **)) {
    void *v[4] = { far_text, &far_pair, far_text + 9, (void *)far_function };
    f(v);
    return v[1] == &far_pair && v[0] != far_text;
}
int red_zone(int x) { volatile int a[8]; a[x & 7] = far_int; return a[3] + far_table_int[x]; }
void narrow(u32 *p) { *p += far_u8 + far_table_u16[*p]; }
