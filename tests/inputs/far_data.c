/* References to data and functions of the C library in every form that compilers make of them:
 * loads, stores, arithmetic, comparisons, address-taken, tables, floating point. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <getopt.h>
#include <time.h>
#include <errno.h>
#include <signal.h>
extern char **environ;
extern char *program_invocation_short_name;
static FILE **streams[] = { &stdin, &stdout, &stderr };
static int (*fns[])(const char *) = { puts };
static int cmp(const void *a, const void *b) { return *(const int*)a - *(const int*)b; }
typedef int (*cmpf)(const void*, const void*);
static void *sym_table[] = { (void*)&environ, (void*)qsort, (void*)&optind };
int twice(int x) { optind += x; opterr |= 4; optopt ^= 1; return optind * 2; }
int testnull(void) { return stdout != NULL && environ && *environ && optarg == NULL; }
int isputs(int (*f)(const char*)) { return f == puts; }
char first(int i) { return environ[i][0]; }
double cvt(void) { return (double)optind * 1.5; }
long tz(void) { return timezone + daylight; }
void setopt(int i) { optind = i; optarg = 0; optind++; optind--; optind <<= 1; optind = -optind; optind = ~optind; }
int sw(FILE *f) { if (f == stdout) return 1; if (f == stderr) return 2; return 3; }
int main(int argc, char **argv) {
  setvbuf(stdout, 0, _IOFBF, 4096);
  fprintf(stdout, "%d %d %d\n", sw(stdout), sw(stderr), sw(stdin));
  fputs("puts\n", stdout); fns[0]("fns");
  printf("%d %d\n", twice(3), optind);
  printf("%d %d\n", testnull(), isputs(puts));
  int v[] = {3,1,2}; ((void(*)(void*,size_t,size_t,cmpf))sym_table[1])(v,3,4,cmp);
  printf("%d%d%d\n", v[0],v[1],v[2]);
  setopt(5); printf("%d %g\n", optind, cvt());
  optind = 1; int c; while ((c = getopt(argc, argv, "ab:")) != -1) printf("%c %s\n", c, optarg ? optarg : "-");
  printf("%d %s\n", optind, argv[optind] ? argv[optind] : "none");
  setenv("TZ", "UTC+3", 1); tzset(); printf("%ld %s\n", tz(), tzname[0]);
  printf("%d %d\n", *streams[1] == stdout, (char***)sym_table[0] == &environ);
  fprintf(stderr, "err %d\n", (int*)sym_table[2] == &optind);
  void (*h)(int) = signal(SIGUSR1, SIG_IGN); printf("%d\n", h == SIG_DFL);
  putc('x', stdout); putchar('\n'); fflush(stdout);
  return 7;
}
