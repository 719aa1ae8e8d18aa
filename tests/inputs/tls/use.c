/* The same variables seen from another object, and the C library's errno. */
#include <errno.h>
#undef errno
extern __thread int errno;
extern __thread unsigned char filled[], zeroed[];

unsigned char *use_filled(void) { return filled; }
unsigned char *use_zeroed(void) { return zeroed; }
int *use_errno(void) { return &errno; }
