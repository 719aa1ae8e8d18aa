/* Uses thread-local variables of the program that loads it. */
extern _Thread_local int host_value;
extern _Thread_local char host_zeroed[100];

int *address(void) { return &host_value; }
int bump(int by) { return host_value += by; }
char *zeroed(void) { return host_zeroed; }
