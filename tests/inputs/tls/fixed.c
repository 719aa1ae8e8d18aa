/* A local-exec reference: makes the whole block static. */
extern __thread unsigned char filled[];

int fixed(void) { return filled[0]; }
