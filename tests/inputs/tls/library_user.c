extern __thread int library_value;
int *user_address(void) { return &library_value; }
int user_add(int n) { return library_value += n; }
