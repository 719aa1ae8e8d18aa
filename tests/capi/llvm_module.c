/* What mcjit.c and orc.c compile by LLVM with the static relocation model and the small code model:
   its own data by absolute 32-bit address, host functions by call. */
extern int host_call(int (*back)(int), int);
extern int host_frames(void);

static const int primes[8] = {2, 3, 5, 7, 11, 13, 17, 19};
static const char *const words[3] = {"zero", "one", "two"};
int calls = 100;
static int zeroed[5000];

static int triple(int n) { return 3 * n; }
static int (*const table[2])(int) = {triple, 0};

int add(int a, int b)
{
    calls++;
    return a + b;
}

int use_data(int n)
{
    zeroed[n & 4095] += n;
    return primes[n & 7] + words[n % 3][0] + zeroed[n & 4095] + calls;
}

int back(int n) { return host_call(table[0], n) + 1; }

/* Frames between here and the host's main. */
int frames(void) { return host_frames() + 0 * calls++; }

int pick(int n)
{
    switch (n) {
    case 0: return calls;
    case 1: return 17;
    case 2: return 29;
    case 3: return primes[3];
    case 4: return 41;
    case 5: return 59;
    default: return -1;
    }
}
