/* A variable in local-exec: the link's block becomes static. */
static __thread int fixed;

int *fixed_address(void) { return &fixed; }
