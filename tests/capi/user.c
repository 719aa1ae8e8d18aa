/* Uses what module.c defines. */
extern int counter;
extern int sum(int);
extern _Thread_local int own;
extern int maybe(void) __attribute__((weak));

int twice(int n) { return 2 * sum(n) + counter; }
int own_plus(int n) { return own + n; }
int has_maybe(void) { return maybe != 0; }
