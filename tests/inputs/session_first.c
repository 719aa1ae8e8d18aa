/* What a later module uses: a function, data, an ifunc, a common; and what it must not see. */
void host_log(long event);
long common_word;
long first_word = 5;
const long first_table[3] = {7, 8, 9};
__attribute__((visibility("hidden"))) long hidden_word = 1;
long overridden(void) { return 1; }
static long chosen(long value) { return value * 3; }
static long (*choose(void))(long) { return chosen; }
long first_ifunc(long) __attribute__((ifunc("choose")));
long first_call(long value) { return first_ifunc(value) + first_word + common_word; }
__attribute__((destructor)) static void gone(void) { host_log(-1); }
