/* Far data and functions under the small static model, and a cycle with cxx.cpp. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

__attribute__((weak)) extern int nobody_defines_this(void);
extern int doubled(int value);
int table[4] = {1, 2, 3, 4};
int *const pointers[2] = {&table[1], &table[3]};

int far_is_the_process_s(void *out, void *function, char **environment) {
  return stdout == out && (void *)puts == function && environ == environment && nobody_defines_this == 0;
}

int step(int value) { return value > 100 ? value : doubled(value + *pointers[0]); }

int sum(void) {
  char text[32];
  snprintf(text, sizeof text, "%d", table[0] + *pointers[0] + table[2] + *pointers[1]);
  return atoi(text);
}
