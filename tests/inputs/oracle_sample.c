/* For the oracle's own test: relocations of every kind that its hand-made dump needs. */
extern int far_function(int);
extern int near_function(int);
extern int near_datum;
int common_datum;
static int table[4] = {1, 2, 3, 4};
int *pointer = &table[2];
unsigned int low_pointer_user(void) { return (unsigned int)(unsigned long)&table[1]; }
const char *text(int i) { static const char *const words[] = {"abc", "xabc"}; return words[i & 1]; }

int entry(int x)
{
    return far_function(x) + near_function(near_datum) + table[x & 3] + common_datum + *pointer;
}
