/* Data, calls into the C library, and a cycle with cxx.cpp, under the small static model. */
#include <stdio.h>
#include <stdlib.h>

extern int doubled(int value);
int table[4] = {1, 2, 3, 4};
int *const pointers[2] = {&table[1], &table[3]};

int step(int value) { return value > 100 ? value : doubled(value + *pointers[0]); }

int sum(void) {
  char text[32];
  snprintf(text, sizeof text, "%d", table[0] + *pointers[0] + table[2] + *pointers[1]);
  return atoi(text);
}
