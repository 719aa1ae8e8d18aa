/* What session.c loads. */
extern int host_add(int, int);
extern const int host_table[4];
extern int answered(int);

int counter = 5;
_Thread_local int own = 11;
static int constructed;

__attribute__((constructor)) static void construct(void) { constructed = 3; }
__attribute__((destructor)) static void destruct(void) { counter = host_add(-1, 0); }

int sum(int n)
{
    int total = constructed;
    for (int i = 0; i < n; i++)
        total = host_add(total, host_table[i & 3]);
    return total;
}

int ask(int n) { return answered(n); }
int *own_here(void) { return &own; }
__attribute__((weak)) int weak_one(void) { return 1; }
int call_weak(void) { return weak_one(); }
