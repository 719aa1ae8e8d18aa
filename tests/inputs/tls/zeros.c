/* Zero-initialized variables only. */
__thread unsigned char one[SIZE], two[SIZE], three[SIZE];

unsigned char *first(void) { return one + (two[1] | three[1]); }
