/* A shared library whose thread-local variable loaded objects use. */
__thread int library_value = 77;
int *library_address(void) { return &library_value; }
