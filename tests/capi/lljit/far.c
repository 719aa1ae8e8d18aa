/* Far data and functions under the small static model, which low2g's own linker alone has. */
#include <stdio.h>

extern char **environ;

__attribute__((weak)) extern int nobody_defines_this(void);

int far_is_the_process_s(void *out, void *function, char **environment) {
  return stdout == out && (void *)puts == function && environ == environment && nobody_defines_this == 0;
}
