/* One access to a thread-local variable a call, in the model that the flags choose. ORDINARY
   makes it an ordinary variable. */
#ifdef ORDINARY
long counter = 1;
#elif defined(KEPT)
static __thread long counter = 1;
#else
__thread long counter = 1;
#endif

long touch(void) { return counter++; }

long touched(void) { return counter; }
