void host_log(long event);
extern long first_word, common_word;
extern const long first_table[];
extern long first_call(long), first_ifunc(long), overridden(void);
extern long hidden_word __attribute__((weak));
long (*kept)(long) = first_ifunc;
long second(long value) {
    first_word++;
    common_word = 100;
    return first_call(value) + first_table[2] + kept(1) + overridden();
}
long sees_hidden(void) { return &hidden_word != 0; }
__attribute__((destructor)) static void gone(void) { host_log(-2); first_word = 0; }
