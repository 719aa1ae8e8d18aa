/* CHECK and the texts of errors, for the test programs. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "low2g.h"

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            fprintf(stderr, "%s:%d: %s (last error: %s)\n", __FILE__, __LINE__, \
                    #condition, low2g_last_error());                            \
            exit(1);                                                            \
        }                                                                       \
    } while (0)

/* Takes the text of an error, which must be there and hold `part`. */
static inline void expect_text(char **error, const char *part)
{
    if (*error == NULL || strstr(*error, part) == NULL) {
        fprintf(stderr, "the error is '%s', and not one with '%s'\n",
                *error == NULL ? "" : *error, part);
        exit(1);
    }
    if (strcmp(*error, low2g_last_error()) != 0) {
        fprintf(stderr, "'%s' is not the last error, '%s'\n", *error, low2g_last_error());
        exit(1);
    }
    free(*error);
    *error = NULL;
}

/* A call that must fail with a status and a text. */
#define FAILS(call, expected, part)        \
    do {                                   \
        CHECK((call) == (expected));       \
        CHECK(low2g_last_status() == (expected)); \
        expect_text(&error, part);         \
    } while (0)

#define LOW_END 0x80000000u

#endif
